//! The Debian packages that virtual machines are made from, as the set-up has unpacked them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Busybox's place in a root.
pub const BUSYBOX: &str = "bin/busybox";

/// The folders of the packages for a machine: one for the guest, one for QEMU if the set-up has fetched it.
#[derive(Debug, Clone)]
pub struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// What `cargo xtask lab --guest qemu` has put into a folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let packages = Self {
            folder: folder.into(),
        };
        if !packages.guest().join(BUSYBOX).exists() {
            bail!(
                "{} has no packages for virtual machines; `cargo xtask lab --guest qemu` fetches them",
                folder.display()
            );
        }
        Ok(packages)
    }

    /// The folder that has them all.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The root that the guest's packages were unpacked into.
    pub fn guest(&self) -> PathBuf {
        self.folder.join("guest")
    }

    /// The root that the kernel for tests was unpacked into.
    pub fn tested(&self) -> PathBuf {
        self.folder.join("tested")
    }

    /// A kernel's module; where it is compressed, unpacked.
    pub fn module(&self, path: &Path) -> Result<Vec<u8>> {
        let compressed = path.with_added_extension("xz");
        if !compressed.exists() {
            return fs::read(path).with_context(|| format!("reading {}", path.display()));
        }
        let unpacked = Command::new(self.busybox())
            .args(["unxz", "-c"])
            .arg(&compressed)
            .output()
            .with_context(|| format!("starting {}", self.busybox().display()))?;
        ensure!(
            unpacked.status.success(),
            "unpacking {}: {}",
            compressed.display(),
            String::from_utf8_lossy(&unpacked.stderr).trim()
        );
        Ok(unpacked.stdout)
    }

    /// The root that QEMU's packages were unpacked into, if they were.
    pub fn qemu(&self) -> Option<PathBuf> {
        Some(self.folder.join("qemu")).filter(|root| root.is_dir())
    }

    /// Busybox, statically linked: it runs on the host as well.
    pub fn busybox(&self) -> PathBuf {
        self.guest().join(BUSYBOX)
    }

    /// The version of one of the packages.
    pub fn version(&self, package: &str) -> Result<String> {
        let listed = self.list()?;
        let mut lines = listed.lines().filter_map(|line| line.split_once(' '));
        let (_, version) = lines
            .find(|(name, _)| *name == package)
            .with_context(|| format!("{package} is not among the packages"))?;
        Ok(version.into())
    }

    /// A line for each package: name and version.
    pub fn list(&self) -> Result<String> {
        let path = self.folder.join("packages");
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}
