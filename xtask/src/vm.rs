//! What virtual machines are made from, those of the lab and the one that tests run in: Debian packages, unpacked into the cache. The system's own packages,
//! kernel and /boot are not touched.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use xtask::{
    cache::{self, Cache},
    command,
    pins::{Pins, VmPackages},
    toolchain::find_program,
};

use crate::apt::PrivateApt;

/// QEMU's program; from a version 8 on the user's own will do.
const QEMU: &str = "qemu-system-x86_64";
const OLDEST_QEMU: u32 = 8;

/// The folder with the packages, if the set-up has made it: `guest`, `tested` and perhaps `qemu` are roots that packages
/// were unpacked into, and `packages` lists those of the first two, a line each with name and version.
pub fn folder(cache: &Cache, pins: &Pins) -> PathBuf {
    cache.entry(&entry_name(&pins.vm))
}

/// Another one for every other list of packages. A compiler that hashes differently only has them fetched anew.
fn entry_name(packages: &VmPackages) -> String {
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    format!("vm-{}-{:016x}", packages.suite, hasher.finish())
}

/// Fetches the packages and unpacks them.
pub fn install(cache: &Cache, pins: &Pins) -> Result<()> {
    let entry = folder(cache, pins);
    let name = entry
        .file_name()
        .context("the entry has a name")?
        .to_string_lossy()
        .into_owned();
    cache.fill(&name, |folder| {
        let scratch = folder.join("apt");
        fs::create_dir(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        let apt = PrivateApt::new(&scratch)?;
        let VmPackages {
            suite,
            backports,
            guest,
            kernel,
            tested_kernel,
            qemu,
        } = &pins.vm;
        apt.use_suites(&[suite, backports])?;
        let kernel = apt.dependency(suite, kernel)?;
        let tested_kernel = apt.dependency(backports, tested_kernel)?;
        let root = folder.join("guest");
        let mut packages = apt.unpack_with_dependencies(suite, guest, &root)?;
        packages.push(apt.unpack_alone(&kernel, &root)?);
        packages.push(apt.unpack_alone(&tested_kernel, &folder.join("tested"))?);
        fs::write(folder.join("packages"), packages.concat())?;
        if !has_own_qemu() {
            apt.unpack_with_dependencies(backports, std::slice::from_ref(qemu), &folder.join("qemu"))?;
        }
        cache::remove(&scratch)
    })?;
    Ok(())
}

/// Whether the user has a QEMU that will do.
fn has_own_qemu() -> bool {
    let version = |program: PathBuf| command::output(Command::new(program).arg("--version")).ok();
    find_program(QEMU)
        .and_then(version)
        .and_then(|text| major(&text))
        .is_some_and(|major| major >= OLDEST_QEMU)
}

/// The major version in "QEMU emulator version 10.0.2 (…)".
fn major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_packages_have_another_entry() {
        let [one, same, mut other] = [(); 3].map(|()| Pins::load().expect("the pins are complete").vm);
        assert_eq!(entry_name(&one), entry_name(&same));
        assert!(entry_name(&one).starts_with(&format!("vm-{}-", one.suite)));
        other.guest.push("another".into());
        assert_ne!(entry_name(&one), entry_name(&other));
    }

    #[test]
    fn the_major_version_is_read_from_what_qemu_says() {
        assert_eq!(
            major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright …"),
            Some(10)
        );
        assert_eq!(major("QEMU emulator version 7.2.17"), Some(7));
        assert_eq!(major("not QEMU"), None);
    }
}
