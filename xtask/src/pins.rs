//! The pinned versions: `[workspace.metadata.pins]` of the workspace's Cargo.toml, and rust-toolchain.toml.

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// What the workspace pins besides its crates.
#[derive(Debug, PartialEq, Eq)]
pub struct Pins {
    /// The compiler's release, for example `1.95.0`.
    pub rust: String,
    /// The version of bpf-linker on the crate registry.
    pub bpf_linker: String,
    /// Likewise of cargo-deb.
    pub cargo_deb: String,
    /// Likewise of cargo-deny.
    pub cargo_deny: String,
    /// Debian's package of the compiler's own sources.
    pub rust_src: DebianPackage,
    /// What virtual machines are made from.
    pub vm: VmPackages,
}

/// Debian packages of a virtual machine: of one release, newest versions.
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmPackages {
    /// The release.
    pub suite: String,
    /// The suite that has newer packages for the release.
    pub backports: String,
    /// What the guest runs.
    pub guest: Vec<String>,
    /// The metapackage of the guest's kernel.
    pub kernel: String,
    /// The metapackage of the kernel that the programs are tested on, from the backports.
    pub tested_kernel: String,
    /// QEMU, from the backports.
    pub qemu: String,
}

/// One exact package of a Debian suite.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct DebianPackage {
    /// Its name.
    pub package: String,
    /// The suite that has it, for example `trixie-backports`.
    pub suite: String,
    /// Its version, epoch and revision included.
    pub version: String,
    /// The SHA-256 of the package file, in hexadecimal.
    pub sha256: String,
}

impl Pins {
    /// Reads the pins that were in the tree when this crate was compiled.
    pub fn load() -> Result<Self> {
        Self::parse(
            include_str!("../../Cargo.toml"),
            include_str!("../../rust-toolchain.toml"),
        )
    }

    fn parse(workspace: &str, rust_toolchain: &str) -> Result<Self> {
        let workspace: WorkspaceFile =
            toml::from_str(workspace).context("Cargo.toml: workspace.metadata.pins")?;
        let rust_toolchain: ToolchainFile = toml::from_str(rust_toolchain).context("rust-toolchain.toml")?;
        let Metadata { pins } = workspace.workspace.metadata;
        Ok(Self {
            rust: rust_toolchain.toolchain.channel,
            bpf_linker: pins.bpf_linker,
            cargo_deb: pins.cargo_deb,
            cargo_deny: pins.cargo_deny,
            rust_src: pins.rust_src,
            vm: pins.vm,
        })
    }
}

#[derive(Deserialize)]
struct WorkspaceFile {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    pins: PinsTable,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PinsTable {
    bpf_linker: String,
    cargo_deb: String,
    cargo_deny: String,
    rust_src: DebianPackage,
    vm: VmPackages,
}

#[derive(Deserialize)]
struct ToolchainFile {
    toolchain: Channel,
}

#[derive(Deserialize)]
struct Channel {
    channel: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_from_both_files() {
        let cargo = r#"
            [workspace]
            members = ["a"]
            [workspace.metadata.pins]
            bpf-linker = "1.2.3"
            cargo-deb = "7.8.9"
            cargo-deny = "4.5.6"
            something-else = "9"
            [workspace.metadata.pins.rust-src]
            package = "p"
            suite = "s"
            version = "1.0+dfsg1"
            sha256 = "00ff"
            [workspace.metadata.pins.vm]
            suite = "s"
            backports = "b"
            guest = ["g"]
            kernel = "k"
            tested-kernel = "t"
            qemu = "q"
        "#;
        let pins = Pins::parse(cargo, "[toolchain]\nchannel = \"1.0.0\"\n").expect("the pins are complete");
        assert_eq!(pins.rust, "1.0.0");
        assert_eq!((&*pins.bpf_linker, &*pins.cargo_deny), ("1.2.3", "4.5.6"));
        assert_eq!(pins.cargo_deb, "7.8.9");
        assert_eq!(pins.rust_src.version, "1.0+dfsg1");
        assert_eq!(pins.vm.guest, ["g"]);
    }

    #[test]
    fn a_missing_pin_is_named() {
        let error = Pins::parse("[workspace.metadata.pins]\n", "[toolchain]\nchannel = \"1\"\n")
            .expect_err("no version of bpf-linker");
        assert!(format!("{error:#}").contains("bpf-linker"), "{error:#}");
    }

    #[test]
    fn debians_sources_are_those_of_the_pinned_compiler() {
        let pins = Pins::load().expect("the workspace's own pins are complete");
        assert!(
            pins.rust_src.version.starts_with(&format!("{}+", pins.rust)),
            "rust-src {} is not of Rust {}",
            pins.rust_src.version,
            pins.rust
        );
        assert_eq!(pins.rust_src.sha256.len(), 64);
    }
}
