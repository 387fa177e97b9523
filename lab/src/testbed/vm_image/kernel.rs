//! The kernel proper out of the file that boot loaders start.
//!
//! QEMU starts an ELF file that has an entry for PVH without a boot loader's detour and without unpacking anything
//! in the guest: two seconds sooner, where the guest's code is translated.

use anyhow::{Context, Result, bail, ensure};
use object::{
    Endianness,
    elf::FileHeader64,
    read::elf::{FileHeader, ProgramHeader},
};

/// `XEN_ELFNOTE_PHYS32_ENTRY`: where PVH enters the kernel.
const PVH_ENTRY: u32 = 18;

const SECTOR: usize = 512;
/// The fields of the x86 boot protocol's header (the kernel's Documentation/arch/x86/boot.rst): how many sectors the
/// real-mode code has beside the first, the magic, the protocol's version, and the compressed kernel's place in what
/// follows that code.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first version with a payload's place.
const FIRST_VERSION: u16 = 0x208;

/// What starts the "legacy" form of LZ4, the only one the kernel knows.
const LZ4: u32 = 0x184c_2102;
/// What a block of that form unpacks to, at most.
const LZ4_BLOCK: usize = 8 << 20;

/// The kernel as an ELF file with an entry for PVH, from a `vmlinuz`.
pub fn vmlinux(vmlinuz: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(vmlinuz).context("no bzImage")?;
    // The length of the unpacked kernel follows every payload.
    let (compressed, length) = payload.split_last_chunk().context("no payload")?;
    let length = usize::try_from(u32::from_le_bytes(*length))?;
    ensure!(
        u32_at(compressed, 0) == Some(LZ4),
        "it is not compressed with LZ4"
    );
    let kernel = unpack_lz4(&compressed[4..], length).context("the LZ4 data is damaged")?;
    ensure!(has_pvh_entry(&kernel)?, "the kernel has no entry for PVH");
    Ok(kernel)
}

fn payload(vmlinuz: &[u8]) -> Option<&[u8]> {
    let version = u16::from_le_bytes(*vmlinuz.get(VERSION..)?.first_chunk()?);
    if vmlinuz.get(MAGIC..MAGIC + 4)? != b"HdrS" || version < FIRST_VERSION {
        return None;
    }
    // 0 stands for 4, for the sake of very old kernels.
    let setup = match *vmlinuz.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let field = |at| usize::try_from(u32_at(vmlinuz, at)?).ok();
    let start = ((setup + 1) * SECTOR).checked_add(field(PAYLOAD_OFFSET)?)?;
    vmlinuz.get(start..start.checked_add(field(PAYLOAD_LENGTH)?)?)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Blocks, each after its length.
fn unpack_lz4(mut blocks: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(length);
    while unpacked.len() < length {
        let (&block, rest) = blocks.split_first_chunk()?;
        let (block, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(block)).ok()?)?;
        unpack_lz4_block(block, &mut unpacked)?;
        blocks = rest;
    }
    (unpacked.len() == length).then_some(unpacked)
}

/// Sequences: literal bytes, then a copy of bytes that came before in the block. The last one has no copy.
fn unpack_lz4_block(mut block: &[u8], unpacked: &mut Vec<u8>) -> Option<()> {
    let start = unpacked.len();
    loop {
        let (&token, rest) = block.split_first()?;
        block = rest;
        let literals = lz4_length(token >> 4, &mut block)?;
        let (bytes, rest) = block.split_at_checked(literals)?;
        unpacked.extend_from_slice(bytes);
        block = rest;
        if block.is_empty() {
            return Some(());
        }
        let (&distance, rest) = block.split_first_chunk()?;
        block = rest;
        let distance = usize::from(u16::from_le_bytes(distance));
        let length = lz4_length(token & 0xf, &mut block)? + 4;
        let from = unpacked.len().checked_sub(distance)?;
        if distance == 0 || from < start || unpacked.len() - start + length > LZ4_BLOCK {
            return None;
        }
        // Where the copy overlaps its own source it repeats it.
        for at in from..from + length {
            unpacked.push(unpacked[at]);
        }
    }
}

/// Four bits, and while all is ones a byte more to add.
fn lz4_length(bits: u8, block: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(bits);
    let mut more = bits == 0xf;
    while more {
        let (&byte, rest) = block.split_first()?;
        *block = rest;
        length += usize::from(byte);
        more = byte == 0xff;
    }
    Some(length)
}

fn has_pvh_entry(kernel: &[u8]) -> Result<bool> {
    let header = FileHeader64::<Endianness>::parse(kernel).context("no 64-bit ELF file")?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, kernel)? {
        let Some(mut notes) = segment.notes(endian, kernel)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(endian) == PVH_ENTRY {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The kernel's release, from the name of its file: what follows `vmlinuz-`.
pub fn release(file_name: &str) -> Result<&str> {
    match file_name.strip_prefix("vmlinuz-") {
        Some(release) if !release.is_empty() => Ok(release),
        _ => bail!("{file_name} is not the name of a kernel"),
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
