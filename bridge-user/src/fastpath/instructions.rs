//! What the programs' instructions say only once the running kernel is known: the number of the function that they cast
//! addresses with, the type that it makes of them, and where structures have their members.

use bridge_common::{
    fastpath::{ANYTHING, MEMBERS, Offsets},
    layout::{ABSENT, RDONLY_CAST},
};
use object::{Object as _, ObjectSection as _, SectionKind};

use crate::error::{Context as _, Error, Result};

// Parts of an instruction (include/uapi/linux/bpf.h).
const BPF_LDX: u8 = 0x01;
const BPF_ALU: u8 = 0x04;
const BPF_JMP: u8 = 0x05;
const BPF_ALU64: u8 = 0x07;
const BPF_X: u8 = 0x08;
const BPF_MEM: u8 = 0x60;
const BPF_CALL: u8 = 0x80;
const BPF_MOV: u8 = 0xb0;
const BPF_PSEUDO_KFUNC_CALL: u8 = 2;

/// Bytes of an instruction (`struct bpf_insn`).
const INSTRUCTION: usize = 8;
/// Bytes of the widest load.
const WORD: u64 = 8;

/// The object with everything in its place.
///
/// # Errors
///
/// The kernel has a member further from its structure's beginning than a load reaches.
pub(super) fn placed(object: &[u8], offsets: &Offsets) -> Result<Vec<u8>> {
    let values = offsets.values();
    let reach = offsets.anything_length.min(i16::MAX as u64);
    let mut placed = object.to_vec();
    for code in code(object).at("fast path", "find its code")? {
        for instruction in placed[code].as_chunks_mut::<INSTRUCTION>().0 {
            place(instruction, offsets, &values, reach)?;
        }
    }
    Ok(placed)
}

/// Where the instructions lie.
fn code(object: &[u8]) -> object::Result<Vec<std::ops::Range<usize>>> {
    let object = object::File::parse(object)?;
    let sections = object
        .sections()
        .filter(|section| section.kind() == SectionKind::Text);
    let ranges = sections.filter_map(|section| {
        let (start, length) = section.file_range()?;
        let [start, length] = [start, length].map(|number| usize::try_from(number).ok());
        Some(start?..start?.checked_add(length?)?)
    });
    Ok(ranges.collect())
}

fn place(instruction: &mut [u8; INSTRUCTION], offsets: &Offsets, values: &[u64], reach: u64) -> Result<()> {
    let [code, registers, low, high, a, b, c, d] = *instruction;
    let immediate = u32::from_le_bytes([a, b, c, d]);
    let id = |id: u64| u32::try_from(id).expect("BTF's ids have 32 bits").to_le_bytes();
    // The offset that a number stands for. What the kernel does not have is not asked for, but stands there.
    let member = |number: u32| {
        let place = usize::try_from(number.checked_sub(u32::from(MEMBERS))?).ok()?;
        let offset = *values.get(place / size_of::<u64>())?;
        Some(if offset == ABSENT { 0 } else { offset })
    };
    let refused = |cause: String| {
        Err(Error::System {
            object: "fast path".into(),
            action: "read the kernel's structures",
            cause,
        })
    };
    let is_alu = [BPF_ALU, BPF_ALU64].contains(&(code & 0x07)) && code & BPF_X == 0;
    if code == BPF_JMP | BPF_CALL && registers == 0 && immediate == RDONLY_CAST {
        instruction[1] = BPF_PSEUDO_KFUNC_CALL << 4;
        instruction[4..].copy_from_slice(&id(offsets.rdonly_cast));
    } else if is_alu && code & 0xf0 == BPF_MOV && immediate == ANYTHING {
        instruction[4..].copy_from_slice(&id(offsets.anything));
    } else if is_alu && member(immediate).is_some() {
        // The compiler may do so, but has not done it yet.
        return refused("the programs were compiled to calculate where a member lies".into());
    } else if code & 0x07 == BPF_LDX
        && code & 0xe0 == BPF_MEM
        && let Some(offset) = member(u32::from(u16::from_le_bytes([low, high])))
    {
        match u16::try_from(offset) {
            Ok(place) if offset + WORD <= reach => instruction[2..4].copy_from_slice(&place.to_le_bytes()),
            _ => {
                return refused(format!(
                    "a member lies {offset} bytes from its structure's beginning, of which {reach} can be read"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const OFFSETS: Offsets = Offsets {
        rdonly_cast: 77_001,
        anything: 4_711,
        anything_length: 4096,
        dev_mtu: 0x134,
        dev_vlan_info: ABSENT,
        hz: 4090,
        ..Offsets::UNKNOWN
    };

    fn instruction(code: u8, registers: u8, offset: u16, immediate: u32) -> [u8; INSTRUCTION] {
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_le_bytes());
        bytes[4..].copy_from_slice(&immediate.to_le_bytes());
        bytes
    }

    fn placed(mut instruction: [u8; INSTRUCTION]) -> std::result::Result<[u8; INSTRUCTION], String> {
        let placed = place(
            &mut instruction,
            &OFFSETS,
            &OFFSETS.values(),
            OFFSETS.anything_length,
        );
        placed.map_err(|error| error.to_string())?;
        Ok(instruction)
    }

    fn member(position: usize) -> u16 {
        MEMBERS + u16::try_from(position).unwrap()
    }

    #[test]
    fn loads_of_members_get_the_kernels_offsets() {
        for size in [0x00, 0x08, 0x10, 0x18] {
            let load = |offset| instruction(BPF_LDX | BPF_MEM | size, 0x21, offset, 0);
            assert_eq!(
                placed(load(member(offset_of!(Offsets, dev_mtu)))),
                Ok(load(0x134))
            );
            assert_eq!(
                placed(load(member(offset_of!(Offsets, dev_vlan_info)))),
                Ok(load(0))
            );
            // What the programs load of their own.
            for other in [0, 8, 0x4ff8, member(size_of::<Offsets>())] {
                assert_eq!(placed(load(other)), Ok(load(other)));
            }
        }
        let store = instruction(0x63, 0x21, member(offset_of!(Offsets, dev_mtu)), 0);
        assert_eq!(placed(store), Ok(store));
    }

    #[test]
    fn calls_of_the_cast_get_its_number_and_the_types() {
        let call = |registers, number| instruction(BPF_JMP | BPF_CALL, registers, 0, number);
        assert_eq!(placed(call(0, RDONLY_CAST)), Ok(call(0x20, 77_001)));
        assert_eq!(placed(call(0, 23)), Ok(call(0, 23)));
        // Of a function of the program's own.
        assert_eq!(placed(call(0x10, RDONLY_CAST)), Ok(call(0x10, RDONLY_CAST)));
        for class in [BPF_ALU, BPF_ALU64] {
            let number = |number| instruction(class | BPF_MOV, 2, 0, number);
            assert_eq!(placed(number(ANYTHING)), Ok(number(4_711)));
            assert_eq!(placed(number(5)), Ok(number(5)));
        }
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        let hz = member(offset_of!(Offsets, hz));
        let error = placed(instruction(BPF_LDX | BPF_MEM, 0x21, hz, 0)).unwrap_err();
        assert!(error.contains("4090 bytes") && error.contains("4096"), "{error}");
        for code in [BPF_ALU64, BPF_ALU64 | BPF_MOV] {
            let error = placed(instruction(code, 2, 0, u32::from(hz))).unwrap_err();
            assert!(error.contains("calculate"), "{error}");
        }
    }
}
