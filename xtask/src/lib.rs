//! What the set-up and `bridge-user`'s build script share: which tools and sources are pinned, where they lie once
//! they are set up, and how the eBPF crate is built with them.
//!
//! Nothing here installs or downloads a tool; the `xtask` binary does that (`cargo xtask setup`).

pub mod cache;
pub mod command;
pub mod ebpf;
pub mod pins;
pub mod toolchain;

use std::path::{Path, PathBuf};

/// The folder of the workspace that is being built.
///
/// Cargo names the folder of the package whose binary or build script it runs; the path that was true at compile
/// time would be wrong after the checkout is moved.
pub fn workspace() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .map_or_else(|| package.clone(), Path::to_path_buf)
}
