use super::*;

/// A block that was taken apart by hand: "abcd", then eight bytes from four back, then "!".
const BLOCK: [u8; 9] = [0x44, b'a', b'b', b'c', b'd', 4, 0, 0x10, b'!'];
const UNPACKED: &[u8] = b"abcdabcdabcd!";

fn block(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    unpack_lz4_block(bytes, &mut unpacked)?;
    Some(unpacked)
}

/// An ELF file of nothing but a header, a program header and a note of the given type.
fn elf(note: u32) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2_u16.to_le_bytes()); // executable
    file.extend(62_u16.to_le_bytes()); // x86-64
    file.extend(1_u32.to_le_bytes());
    for field in [0_u64, 64, 0] {
        file.extend(field.to_le_bytes()); // entry, program headers, section headers
    }
    file.extend(0_u32.to_le_bytes());
    for field in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend(4_u32.to_le_bytes()); // PT_NOTE
    file.extend(4_u32.to_le_bytes());
    for field in [120_u64, 0, 0, 20, 20, 4] {
        file.extend(field.to_le_bytes()); // offset, addresses, lengths, alignment
    }
    for field in [4_u32, 4, note] {
        file.extend(field.to_le_bytes());
    }
    file.extend(b"Xen\0\x10\0\0\0");
    file
}

/// A bzImage with one setup sector, whose payload is a file in one LZ4 block of literals.
fn vmlinuz(kernel: &[u8]) -> Vec<u8> {
    let mut block = vec![0xf0];
    let mut rest = kernel.len() - 15;
    while rest >= 255 {
        block.push(255);
        rest -= 255;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend(kernel);
    let mut payload = LZ4.to_le_bytes().to_vec();
    payload.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
    payload.extend(block);
    payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());

    let mut image = vec![0; 2 * SECTOR + 16];
    image[SETUP_SECTORS] = 1;
    image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
    image[VERSION..VERSION + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
    let length = u32::try_from(payload.len()).unwrap();
    image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    image.extend(payload);
    image
}

#[test]
fn a_copy_may_overlap_its_own_source() {
    assert_eq!(block(&BLOCK).as_deref(), Some(UNPACKED));
}

#[test]
fn a_long_length_goes_on_in_bytes_of_ones() {
    let mut long = vec![0xf0, 0xff, 3];
    long.extend([b'x'; 15 + 255 + 3]);
    assert_eq!(block(&long), Some(vec![b'x'; 273]));
}

#[test]
fn damaged_blocks_are_refused() {
    for end in 0..BLOCK.len() - 1 {
        // Cut after the literals it is a whole block.
        if end != 5 {
            assert_eq!(block(&BLOCK[..end]), None, "cut to {end} bytes");
        }
    }
    // A copy from before the start, and one from no distance.
    assert_eq!(block(&[0x14, b'a', 2, 0, 0x10, b'!']), None);
    assert_eq!(block(&[0x14, b'a', 0, 0, 0x10, b'!']), None);
}

#[test]
fn blocks_are_put_one_after_the_other() {
    let length = u32::try_from(BLOCK.len()).unwrap().to_le_bytes();
    let two = [&length[..], &BLOCK, &length, &BLOCK].concat();
    assert_eq!(
        unpack_lz4(&two, 26).as_deref(),
        Some(UNPACKED.repeat(2).as_slice())
    );
    assert_eq!(unpack_lz4(&two, 27), None);
}

#[test]
fn the_kernel_is_found_in_its_boot_image() {
    let kernel = elf(PVH_ENTRY);
    assert_eq!(vmlinux(&vmlinuz(&kernel)).unwrap(), kernel);
}

#[test]
fn what_pvh_cant_start_is_an_error_that_says_why() {
    let error = |image: &[u8]| vmlinux(image).unwrap_err().to_string();
    assert_eq!(error(&vmlinuz(&elf(7))), "the kernel has no entry for PVH");
    assert_eq!(error(b"MZ"), "no bzImage");
    let mut other = vmlinuz(&elf(PVH_ENTRY));
    other[2 * SECTOR + 16] = 0x1f;
    assert_eq!(error(&other), "it is not compressed with LZ4");
}

#[test]
fn the_release_is_in_the_files_name() {
    assert_eq!(
        release("vmlinuz-6.1.0-50-cloud-amd64").unwrap(),
        "6.1.0-50-cloud-amd64"
    );
    assert!(release("vmlinuz").is_err());
}
