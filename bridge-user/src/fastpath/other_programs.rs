//! Programs at a device that are in the way of ours.

use std::io;

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use bridge_common::fastpath::program;

use crate::{
    error::{Context as _, Error, Result},
    kernel::{netlink::Link, requirements},
};

/// Refuses a device with a tcx program of ours that nothing at hand has attached.
pub(crate) fn refuse_strangers(link: &Link) -> Result<()> {
    let programs = SchedClassifier::query_tcx(&link.name, TcAttachType::Ingress);
    let is_secret = |error: &ProgramError| matches!(error, ProgramError::SyscallError(call) if call.io_error.kind() == io::ErrorKind::PermissionDenied);
    if programs.as_ref().is_err_and(is_secret) && !requirements::may_see_programs() {
        // That there are none everybody is told who may attach.
        return Err(Error::NotAPort {
            name: link.name.clone(),
            reason:
                "it has tcx programs, and without CAP_SYS_ADMIN they don't say whether one is tapbridge's"
                    .into(),
            next: format!("attach it once as root: 'tapbridge attach {}'", link.name),
        });
    }
    let (_, programs) = programs.at(&link.name, "list tcx programs")?;
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
