//! Whose calls are counted.

use std::fs;

use bridge_common::syscalls::NAME;

/// Whose calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Processes, by id.
    Processes(Vec<u32>),
    /// Processes of these names, whenever they start. The kernel keeps 15 bytes of a name; of longer ones only those
    /// count.
    Names(Vec<String>),
}

/// Whether a process of one of these names runs now.
pub fn is_any_running(names: &[String]) -> bool {
    let names: Vec<_> = names.iter().map(|name| kept(name)).collect();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            fs::read(entry.path().join("comm")).is_ok_and(|name| {
                let name = name.strip_suffix(b"\n").unwrap_or(&name);
                names
                    .iter()
                    .any(|wanted| wanted.starts_with(name) && wanted[name.len()] == 0)
            })
        })
}

/// As much of a name as the kernel keeps.
pub(super) fn kept(name: &str) -> [u8; NAME] {
    let mut kept = [0; NAME];
    for (kept, byte) in kept[..NAME - 1].iter_mut().zip(name.bytes()) {
        *kept = byte;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_kernel_keeps_them() {
        assert_eq!(&kept("qemu-system-x86_64"), b"qemu-system-x86\0");
        assert_eq!(kept("qemu-system-x86_64"), kept("qemu-system-x86"));
        assert_ne!(kept("qemu"), kept("qemu-system-x86"));
    }
}
