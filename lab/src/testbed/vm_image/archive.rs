//! An archive in cpio's "newc" form, which the kernel unpacks as its first root file system.

use std::io::Write as _;

use cpio::newc::{Builder, trailer};

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

const IN_MEMORY: &str = "memory takes what is written";

/// An archive in memory. Everything in it belongs to root. Folders come before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A file that everybody may read and execute.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, REGULAR | 0o755, (0, 0), content);
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// The finished archive.
    pub fn finish(self) -> Vec<u8> {
        trailer(self.bytes).expect(IN_MEMORY)
    }

    /// The same archive every time: no entry has a time.
    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        // Entries of one inode would be hard links.
        self.entries += 1;
        let length = u32::try_from(content.len()).expect("a file of the archive has less than 4 GiB");
        let entry = Builder::new(path)
            .ino(self.entries)
            .mode(mode)
            .rdev_major(major)
            .rdev_minor(minor);
        let mut entry = entry.write(&mut self.bytes, length);
        let written = entry.write_all(content).and_then(|()| entry.finish().map(drop));
        written.expect(IN_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_in_hexadecimal_then_name_then_content() {
        let mut archive = Archive::default();
        archive.file("bin/a", b"hello");
        let bytes = archive.finish();
        let header = "070701\
            00000001000081ed00000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000600000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..116], b"bin/a\0");
        // 110 and 6 are a multiple of four already.
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
    }

    #[test]
    fn every_part_starts_at_a_multiple_of_four() {
        for length in 0..9 {
            let mut archive = Archive::default();
            archive.folder(&"d".repeat(length + 1));
            archive.file("f", &vec![b'x'; length]);
            let bytes = archive.finish();
            let starts = bytes
                .windows(6)
                .enumerate()
                .filter(|(_, window)| *window == b"070701");
            let starts: Vec<_> = starts.map(|(at, _)| at).collect();
            assert_eq!(starts.len(), 3, "two entries and the trailer");
            assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
            assert_eq!(bytes.len() % 4, 0);
        }
    }

    #[test]
    fn a_device_carries_its_numbers_and_a_link_its_target() {
        let mut archive = Archive::default();
        archive.character_device("dev/console", 5, 1);
        archive.symlink("l", "/target");
        let text = String::from_utf8(archive.finish()).unwrap();
        assert_eq!(&text[14..22], "00002180");
        assert_eq!(&text[78..94], "0000000500000001");
        assert!(text.contains("l\0/target\0"), "{text:?}");
    }
}
