//! A reader for the kernel's BTF that answers three questions: where a member lies in a structure, which id a
//! structure or a function has, and which number an enumerator is.
//!
//! aya reads BTF too, but keeps members to itself; btf-rs is under the LGPL, which a static binary would have to heed. The
//! format is described in the kernel's Documentation/bpf/btf.rst.

use std::collections::HashMap;

/// Why a question to the BTF has no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The data is not BTF, or is cut off.
    #[error("not valid BTF data")]
    Malformed,
    /// No structure of this name.
    #[error("the kernel has no struct {0}")]
    NoStruct(String),
    /// No function of this name.
    #[error("the kernel has no function {0}")]
    NoFunction(String),
    /// No member of this name.
    #[error("the kernel's struct {0} has no member {1}")]
    NoMember(String, String),
    /// No enumerator of this name.
    #[error("the kernel has no enumerator {0}")]
    NoEnumerator(String),
    /// Two members do not lie side by side.
    #[error("in the kernel's struct {0}, {2} does not follow {1}")]
    NotNeighbours(String, String, String),
    /// No structure begins with an array of integers.
    #[error("no struct of the kernel begins with an array of integers")]
    NoArray,
}

const MAGIC: u32 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Types of a kernel, as far as they are structures or unions.
pub struct Btf<'a> {
    /// The kernel's own, of which a module's is the continuation.
    base: Option<&'a Btf<'a>>,
    strings: &'a [u8],
    /// Types, those of the base included.
    types: u32,
    /// By type id, which counts from 1.
    composites: HashMap<u32, Composite<'a>>,
    /// Structures by name.
    names: HashMap<&'a [u8], u32>,
    /// Functions by name.
    functions: HashMap<&'a [u8], u32>,
    /// Enumerators by name.
    enumerators: HashMap<&'a [u8], u32>,
    /// Bytes of integers, by type id.
    integers: HashMap<u32, u32>,
    /// Types and numbers of arrays' elements.
    arrays: HashMap<u32, (u32, u32)>,
    /// What stands for another type, but for its name or a qualifier.
    aliases: HashMap<u32, u32>,
}

/// A structure that begins with an array of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// The structure's id.
    pub id: u32,
    /// Bytes of the array.
    pub length: u64,
}

struct Composite<'a> {
    size: u32,
    /// Whether the offsets' upper 8 bits are the widths of bit fields.
    bit_fields: bool,
    /// 12 bytes a member: name, type, offset in bits.
    members: &'a [u8],
}

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let bytes = data.get(at..at + 4).ok_or(BtfError::Malformed)?;
    Ok(u32::from_le_bytes(
        bytes.try_into().map_err(|_| BtfError::Malformed)?,
    ))
}

impl<'a> Btf<'a> {
    /// Reads little-endian BTF, as in /sys/kernel/btf/vmlinux.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        Self::read(data, None)
    }

    /// Reads a module's, as in /sys/kernel/btf/bridge: it continues the kernel's. Questions are answered by both.
    pub fn parse_module(data: &'a [u8], base: &'a Btf<'a>) -> Result<Self, BtfError> {
        Self::read(data, Some(base))
    }

    fn read(data: &'a [u8], base: Option<&'a Btf<'a>>) -> Result<Self, BtfError> {
        if word(data, 0)? & 0xffff != MAGIC {
            return Err(BtfError::Malformed);
        }
        let header = word(data, 4)? as usize;
        let section = |at: usize| -> Result<&'a [u8], BtfError> {
            let start = header
                .checked_add(word(data, at)? as usize)
                .ok_or(BtfError::Malformed)?;
            let end = start
                .checked_add(word(data, at + 4)? as usize)
                .ok_or(BtfError::Malformed)?;
            data.get(start..end).ok_or(BtfError::Malformed)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut btf = Self {
            base,
            strings,
            types: 0,
            composites: HashMap::new(),
            names: HashMap::new(),
            functions: HashMap::new(),
            enumerators: HashMap::new(),
            integers: HashMap::new(),
            arrays: HashMap::new(),
            aliases: HashMap::new(),
        };
        let (mut at, mut id) = (0, base.map_or(0, |base| base.types));
        while at < types.len() {
            id += 1;
            let (name, info, size) = (word(types, at)?, word(types, at + 4)?, word(types, at + 8)?);
            at += 12;
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let trailer = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                _ => 0,
            };
            let members = types.get(at..at + trailer).ok_or(BtfError::Malformed)?;
            at += trailer;
            if kind == KIND_ENUM {
                for enumerator in members.chunks_exact(8) {
                    let name = btf.string(word(enumerator, 0)?)?;
                    btf.enumerators.entry(name).or_insert(word(enumerator, 4)?);
                }
            }
            match kind {
                KIND_INT => drop(btf.integers.insert(id, size)),
                KIND_ARRAY => drop(btf.arrays.insert(id, (word(members, 0)?, word(members, 8)?))),
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST => drop(btf.aliases.insert(id, size)),
                _ => {}
            }
            if kind == KIND_FUNC {
                btf.functions.entry(btf.string(name)?).or_insert(id);
            }
            if matches!(kind, KIND_STRUCT | KIND_UNION) {
                btf.composites.insert(
                    id,
                    Composite {
                        size,
                        bit_fields: info >> 31 == 1,
                        members,
                    },
                );
                if kind == KIND_STRUCT {
                    btf.names.entry(btf.string(name)?).or_insert(id);
                }
            }
        }
        btf.types = id;
        Ok(btf)
    }

    fn string(&self, at: u32) -> Result<&'a [u8], BtfError> {
        // A module's strings go on where the kernel's end.
        let before = self.base.map_or(0, |base| base.strings.len());
        let Some(at) = (at as usize).checked_sub(before) else {
            return self.base.ok_or(BtfError::Malformed)?.string(at);
        };
        let rest = self.strings.get(at..).ok_or(BtfError::Malformed)?;
        rest.split(|&byte| byte == 0).next().ok_or(BtfError::Malformed)
    }

    fn id(&self, structure: &str) -> Result<u32, BtfError> {
        match (self.names.get(structure.as_bytes()), self.base) {
            (Some(id), _) => Ok(*id),
            (None, Some(base)) => base.id(structure),
            (None, None) => Err(BtfError::NoStruct(structure.to_owned())),
        }
    }

    fn composite(&self, name: &str) -> Result<&Composite<'a>, BtfError> {
        self.composite_at(self.id(name)?).ok_or(BtfError::Malformed)
    }

    fn composite_at(&self, id: u32) -> Option<&Composite<'a>> {
        self.composites
            .get(&id)
            .or_else(|| self.base.and_then(|base| base.composite_at(id)))
    }

    /// The number of an enumerator.
    pub fn enumerator(&self, name: &str) -> Result<u32, BtfError> {
        match (self.enumerators.get(name.as_bytes()), self.base) {
            (Some(number), _) => Ok(*number),
            (None, Some(base)) => base.enumerator(name),
            (None, None) => Err(BtfError::NoEnumerator(name.to_owned())),
        }
    }

    /// The id of a structure.
    pub fn structure(&self, name: &str) -> Result<u64, BtfError> {
        self.id(name).map(u64::from)
    }

    /// The id of a function.
    pub fn function(&self, name: &str) -> Result<u64, BtfError> {
        let id = self.functions.get(name.as_bytes());
        id.map(|&id| u64::from(id))
            .ok_or_else(|| BtfError::NoFunction(name.to_owned()))
    }

    /// The structure of this kernel, modules apart, that begins with the longest array of integers.
    pub fn longest_array(&self) -> Result<Array, BtfError> {
        let structures = self.names.values().filter_map(|&id| {
            let members = self.composites.get(&id)?.members;
            let first = (word(members, 8).ok()? == 0).then(|| word(members, 4).ok())??;
            let &(element, count) = self.arrays.get(&self.unqualified(first))?;
            let bytes = self.integers.get(&self.unqualified(element))?;
            let length = u64::from(*bytes) * u64::from(count);
            Some(Array { id, length })
        });
        structures
            .max_by_key(|array| (array.length, array.id))
            .ok_or(BtfError::NoArray)
    }

    fn unqualified(&self, id: u32) -> u32 {
        // The limit is for a malformed type graph.
        let aliases = std::iter::successors(Some(id), |id| self.aliases.get(id).copied());
        aliases.take(16).last().unwrap_or(id)
    }

    /// The offset of a member of four bytes that another one follows at once, so that they are read together.
    pub fn neighbours(&self, structure: &str, [first, second]: [&str; 2]) -> Result<u64, BtfError> {
        let offset = self.offset(structure, first)?;
        if self.offset(structure, second)? != offset + 4 {
            return Err(BtfError::NotNeighbours(
                structure.to_owned(),
                first.to_owned(),
                second.to_owned(),
            ));
        }
        Ok(offset)
    }

    /// The size of a structure in bytes.
    pub fn size(&self, structure: &str) -> Result<u64, BtfError> {
        Ok(u64::from(self.composite(structure)?.size))
    }

    /// Where a member begins in a structure, in bytes. Members of anonymous structures and unions inside it count as
    /// its own, as in C.
    pub fn offset(&self, structure: &str, member: &str) -> Result<u64, BtfError> {
        self.find(self.composite(structure)?, member.as_bytes(), 0)?
            .map(|bits| u64::from(bits / 8))
            .ok_or_else(|| BtfError::NoMember(structure.to_owned(), member.to_owned()))
    }

    /// The member's offset in bits. `depth` bounds what a malformed type graph could make of this.
    fn find(&self, composite: &Composite<'a>, wanted: &[u8], depth: u32) -> Result<Option<u32>, BtfError> {
        if depth > 16 {
            return Err(BtfError::Malformed);
        }
        for at in (0..composite.members.len()).step_by(12) {
            let name = self.string(word(composite.members, at)?)?;
            let offset = word(composite.members, at + 8)?;
            let offset = if composite.bit_fields {
                offset & 0x00ff_ffff
            } else {
                offset
            };
            if name == wanted {
                return Ok(Some(offset));
            }
            if name.is_empty()
                && let Some(inner) = self.composite_at(word(composite.members, at + 4)?)
                && let Some(inside) = self.find(inner, wanted, depth + 1)?
            {
                return Ok(Some(offset + inside));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `struct outer { int a; union { int b; struct { int c; int d; }; }; }`, 12 bytes.
    pub fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0d\0";
        let types = words(&[
            0,
            KIND_INT << 24,
            4,
            32, // 1
            0,
            (KIND_STRUCT << 24) | 2,
            8,
            11,
            1,
            0,
            13,
            1,
            32, // 2: c, d
            0,
            (KIND_UNION << 24) | 2,
            8,
            9,
            1,
            0,
            0,
            2,
            0, // 3: b, 2
            1,
            (KIND_STRUCT << 24) | 2,
            12,
            7,
            1,
            0,
            0,
            3,
            32, // 4: a, 3
            1,
            KIND_FUNC << 24,
            1, // 5: a function of the name of a struct
        ]);
        described(&types, strings)
    }

    /// A kernel's description of these types.
    fn described(types: &[u8], strings: &[u8]) -> Vec<u8> {
        let [types_length, strings_length] =
            [types.len(), strings.len()].map(|length| u32::try_from(length).unwrap());
        let mut data = words(&[
            MAGIC | (1 << 16),
            24,
            0,
            types_length,
            types_length,
            strings_length,
        ]);
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn members_of_anonymous_members_are_found() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.size("outer"), Ok(12));
        assert_eq!(
            ["a", "b", "c", "d"].map(|member| btf.offset("outer", member).unwrap()),
            [0, 4, 4, 8]
        );
        assert_eq!(
            btf.offset("outer", "e"),
            Err(BtfError::NoMember("outer".into(), "e".into()))
        );
        assert_eq!(btf.neighbours("outer", ["c", "d"]), Ok(4));
        assert!(matches!(
            btf.neighbours("outer", ["a", "d"]),
            Err(BtfError::NotNeighbours(..))
        ));
        assert_eq!(btf.offset("inner", "a"), Err(BtfError::NoStruct("inner".into())));
    }

    #[test]
    fn structures_and_functions_have_ids_of_their_own() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.structure("outer"), Ok(4));
        assert_eq!(btf.function("outer"), Ok(5));
        assert_eq!(btf.structure("a"), Err(BtfError::NoStruct("a".into())));
        assert_eq!(btf.function("a"), Err(BtfError::NoFunction("a".into())));
    }

    #[test]
    fn the_longest_array_that_a_structure_begins_with_is_found() {
        let strings = b"\0short\0long\0later\0pointers\0m\0";
        let [short, long, later, pointers, member] = [1, 7, 12, 18, 27];
        let array = |element, count| [0, KIND_ARRAY << 24, 0, element, 1, count];
        let structure = |name, bytes, ty, bits| [name, (KIND_STRUCT << 24) | 1, bytes, member, ty, bits];
        let types = words(
            &[
                &[0, KIND_INT << 24, 4, 32][..],  // 1
                &[0, KIND_CONST << 24, 1],        // 2: const int
                &array(2, 8),                     // 3: const int[8]
                &[member, KIND_TYPEDEF << 24, 3], // 4: another name of it
                &array(1, 4),                     // 5: int[4]
                &[0, 2 << 24, 1],                 // 6: pointer to int
                &array(6, 100),                   // 7: of pointers
                &array(1, 100),                   // 8: int[100]
                &structure(short, 16, 5, 0),      // 9
                &structure(long, 32, 4, 0),       // 10
                &structure(later, 404, 8, 32),    // 11: not at its beginning
                &structure(pointers, 800, 7, 0),  // 12
            ]
            .concat(),
        );
        let data = described(&types, strings);
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.longest_array(), Ok(Array { id: 10, length: 32 }));
        let sample = sample();
        assert_eq!(
            Btf::parse(&sample).unwrap().longest_array(),
            Err(BtfError::NoArray)
        );
    }

    #[test]
    fn data_that_is_cut_off_is_refused_and_never_read_past() {
        let data = sample();
        for length in 0..data.len() {
            assert!(
                Btf::parse(&data[..length]).is_err(),
                "{length} of {} bytes",
                data.len()
            );
        }
    }
}
