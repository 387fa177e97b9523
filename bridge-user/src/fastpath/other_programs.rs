//! Programs at a device that are in the way of ours.

use aya::programs::{SchedClassifier, TcAttachType};
use bridge_common::fastpath::program;

use crate::{
    error::{Context as _, Error, Result},
    kernel::netlink::Link,
};

/// Refuses a device with a tcx program of ours that nothing at hand has attached.
pub(crate) fn refuse_strangers(link: &Link) -> Result<()> {
    let (_, programs) =
        SchedClassifier::query_tcx(&link.name, TcAttachType::Ingress).at(&link.name, "list tcx programs")?;
    // The kernel cuts names off (`BPF_OBJ_NAME_LEN`).
    let ours = [program::TCX, OLD_TCX].map(|name| &name[..name.len().min(PROGRAM_NAME)]);
    let is_ours = |name: &str| ours.contains(&name);
    if !programs
        .iter()
        .any(|info| info.name_as_str().is_some_and(is_ours))
    {
        return Ok(());
    }
    Err(Error::NotAPort {
        name: link.name.clone(),
        reason: "already attached in another state folder, or by another version".into(),
        next: "detach it there first; 'tapbridge show' and its option --state find it".into(),
    })
}

/// The program of versions that were a switch by themselves.
const OLD_TCX: &str = "tapbridge_tcx";

/// Bytes that the kernel keeps of a program's name.
const PROGRAM_NAME: usize = 15;

/// Refuses a device that has an XDP program already, which can only be somebody else's.
pub(crate) fn refuse_other_xdp(link: &Link) -> Result<()> {
    link.xdp_program
        .map_or(Ok(()), |id| Err(other_xdp(&link.name, id)))
}

/// What is known of the XDP program that is in the way.
fn other_xdp(interface: &str, id: u32) -> Error {
    let found = aya::programs::loaded_programs()
        .flatten()
        .find(|info| info.id() == id);
    let program = found
        .and_then(|info| info.name_as_str().map(str::to_owned))
        .unwrap_or_default();
    Error::OtherXdp {
        name: interface.to_owned(),
        id,
        program,
    }
}
