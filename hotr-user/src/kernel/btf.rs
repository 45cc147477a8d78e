//! Reads the kernel's own type information: where its fields are, and what its functions look like.
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux`, and the names that will be needed. Out: member offsets, prototypes and
//! ids, by name. One pass over the types and an index of those names: libraries that build every type take several
//! times as long, and `ready` waits for this.

mod bytes;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

/// BTF that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The kernel offers none.
    #[error(
        "read /sys/kernel/btf/vmlinux: {0}; hotr's eBPF programs need a kernel with CONFIG_DEBUG_INFO_BTF"
    )]
    Unavailable(std::io::Error),
    /// It is not what it says it is.
    #[error("parse /sys/kernel/btf/vmlinux: {0}; please report this kernel")]
    Malformed(&'static str),
}

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// How the names of the types begin that stand for tracepoints.
const TRACEPOINT: &str = "btf_trace_";

/// Nesting of anonymous members and modifiers that is followed.
const MAX_NESTING: u32 = 16;

/// A function's parameters and result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// For each parameter that points to a structure, the structure's name; otherwise `None`.
    pub parameters: Vec<Option<String>>,
    /// Whether the function returns a pointer.
    pub returns_pointer: bool,
    /// Whether it returns nothing: programs may not even look then.
    pub returns_nothing: bool,
}

impl Prototype {
    /// Index of the `nth` parameter that points to `structure`.
    #[must_use]
    pub fn pointer_to(&self, structure: &str, nth: usize) -> Option<u8> {
        let mut indices =
            (0u8..).zip(&self.parameters).filter(|(_, name)| name.as_deref() == Some(structure));
        indices.nth(nth).map(|(index, _)| index)
    }
}

/// Names that will be needed; the kernel has a hundred thousand others.
#[derive(Default)]
pub struct Wanted {
    /// Structures.
    pub structures: HashSet<&'static str>,
    /// Functions.
    pub functions: HashSet<&'static str>,
    /// Tracepoints.
    pub tracepoints: HashSet<&'static str>,
}

/// Type information, indexed.
pub struct Btf {
    data: Bytes,
    strings: usize,
    /// Position of each type, by id; id 0 is `void`.
    types: Vec<u32>,
    structures: HashMap<&'static str, u32>,
    functions: HashMap<&'static str, u32>,
    tracepoints: HashMap<&'static str, u32>,
}

impl Btf {
    /// Reads the running kernel's.
    ///
    /// # Errors
    /// When the kernel offers none, or it is malformed.
    pub fn from_kernel(wanted: &Wanted) -> Result<Self, BtfError> {
        Self::parse(Bytes::of_kernel().map_err(BtfError::Unavailable)?, wanted)
    }

    fn parse(data: Bytes, wanted: &Wanted) -> Result<Self, BtfError> {
        let malformed = BtfError::Malformed("header cut short");
        if data.len() < 24 || u16::from_le_bytes([data[0], data[1]]) != MAGIC {
            return Err(malformed);
        }
        let word = |at: usize| word(&data, at);
        let (Some(header), Some(type_off), Some(type_len), Some(str_off), Some(str_len)) =
            (word(4), word(8), word(12), word(16), word(20))
        else {
            return Err(malformed);
        };
        let start = (header + type_off) as usize;
        let end = start + type_len as usize;
        let strings = (header + str_off) as usize;
        if end > data.len() || strings + str_len as usize > data.len() {
            return Err(BtfError::Malformed("sections beyond the end"));
        }
        let mut btf = Self {
            data,
            strings,
            types: vec![0],
            structures: HashMap::new(),
            functions: HashMap::new(),
            tracepoints: HashMap::new(),
        };
        btf.index(start, end, wanted)?;
        Ok(btf)
    }

    fn index(&mut self, start: usize, end: usize, wanted: &Wanted) -> Result<(), BtfError> {
        let beginnings = Beginnings::of(wanted);
        let mut at = start;
        while at < end {
            let id = u32::try_from(self.types.len()).map_err(|_| BtfError::Malformed("too many types"))?;
            let position = u32::try_from(at).map_err(|_| BtfError::Malformed("too large"))?;
            self.types.push(position);
            let info = word(&self.data, at + 4).ok_or(BtfError::Malformed("type cut short"))?;
            let (kind, count) = (kind_of(info), (info & 0xffff) as usize);
            let extra = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                0..=19 => 0,
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            };
            let found = match kind {
                KIND_STRUCT | KIND_FUNC | KIND_TYPEDEF if !beginnings.have(self.bytes_at(at)) => None,
                KIND_STRUCT => wanted.structures.get(self.name_at(at)).zip(Some(&mut self.structures)),
                KIND_FUNC => wanted.functions.get(self.name_at(at)).zip(Some(&mut self.functions)),
                KIND_TYPEDEF => self
                    .name_at(at)
                    .strip_prefix(TRACEPOINT)
                    .and_then(|name| wanted.tracepoints.get(name))
                    .zip(Some(&mut self.tracepoints)),
                _ => None,
            };
            if let Some((name, ids)) = found {
                ids.insert(name, id);
            }
            at += 12 + extra;
        }
        Ok(())
    }

    /// What begins with a type's or member's name.
    fn bytes_at(&self, position: usize) -> &[u8] {
        let Some(offset) = word(&self.data, position) else { return &[] };
        self.data.get(self.strings + offset as usize..).unwrap_or_default()
    }

    fn name_at(&self, position: usize) -> &str {
        let bytes = self.bytes_at(position);
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(0);
        std::str::from_utf8(&bytes[..end]).unwrap_or("")
    }

    fn is_named(&self, position: usize, name: &str) -> bool {
        let rest = self.bytes_at(position);
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Position, kind, number of members, and the `size/type` word of a type.
    fn entry(&self, id: u32) -> Option<(usize, u32, usize, u32)> {
        let position = *self.types.get(id as usize).filter(|_| id != 0)? as usize;
        let info = word(&self.data, position + 4)?;
        Some((position, kind_of(info), (info & 0xffff) as usize, word(&self.data, position + 8)?))
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_NESTING {
            match self.entry(id)? {
                (_, KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG, _, next) => {
                    id = next
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// Byte offset of `path` (`f_path.dentry`) in a structure; members of anonymous structs and unions count as
    /// the structure's own.
    #[must_use]
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = *self.structures.get(structure)?;
        let mut offset = 0;
        for member in path.split('.') {
            let (bits, next) = self.member(id, member, 0)?;
            offset += bits / 8;
            id = next;
        }
        Some(offset)
    }

    /// Value of an enumeration's member, whatever the enumeration.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        (1..self.types.len()).find_map(|id| {
            let (position, kind, count, _) = self.entry(u32::try_from(id).ok()?)?;
            if kind != KIND_ENUM {
                return None;
            }
            (0..count).find_map(|index| {
                let at = position + 12 + 8 * index;
                if self.is_named(at, name) { word(&self.data, at + 4) } else { None }
            })
        })
    }

    /// Offset in bits and type of a member.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > MAX_NESTING {
            return None;
        }
        let (position, kind, count, _) = self.entry(self.plain(id)?)?;
        if kind != KIND_STRUCT && kind != KIND_UNION {
            return None;
        }
        let info = word(&self.data, position + 4)?;
        for index in 0..count {
            let at = position + 12 + 12 * index;
            let member_type = word(&self.data, at + 4)?;
            let mut bits = word(&self.data, at + 8)?;
            if info >> 31 == 1 {
                // With the kind flag the upper byte is a bit field's size.
                bits &= 0x00ff_ffff;
            }
            if self.is_named(at, name) {
                return Some((bits, member_type));
            }
            if self.is_named(at, "")
                && let Some((inner, found)) = self.member(member_type, name, depth + 1)
            {
                return Some((bits + inner, found));
            }
        }
        None
    }

    /// A function's id and prototype; `None` when the kernel has no such function (or inlined it away).
    #[must_use]
    pub fn function(&self, name: &str) -> Option<(u32, Prototype)> {
        let id = *self.functions.get(name)?;
        let (_, _, _, proto) = self.entry(id)?;
        Some((id, self.prototype(proto)?))
    }

    /// A tracepoint's id, and its arguments as programs see them.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<(u32, Prototype)> {
        let id = *self.tracepoints.get(name)?;
        let (_, _, _, pointer) = self.entry(id)?;
        let (_, _, _, proto) = self.entry(pointer)?;
        let mut prototype = self.prototype(proto)?;
        // The first parameter is the tracepoint's private data.
        prototype.parameters.drain(..1.min(prototype.parameters.len()));
        Some((id, prototype))
    }

    fn prototype(&self, id: u32) -> Option<Prototype> {
        let (position, kind, count, result) = self.entry(id)?;
        if kind != KIND_FUNC_PROTO {
            return None;
        }
        let mut parameters = Vec::with_capacity(count);
        for index in 0..count {
            let parameter = word(&self.data, position + 12 + 8 * index + 4)?;
            parameters.push(self.pointee(parameter).map(str::to_owned));
        }
        let returns_pointer =
            self.plain(result).and_then(|id| self.entry(id)).is_some_and(|(_, kind, _, _)| kind == KIND_PTR);
        Some(Prototype { parameters, returns_pointer, returns_nothing: result == 0 })
    }

    /// Name of the structure that a type points to.
    fn pointee(&self, id: u32) -> Option<&str> {
        let (_, kind, _, target) = self.entry(self.plain(id)?)?;
        if kind != KIND_PTR {
            return None;
        }
        let (position, kind, _, _) = self.entry(self.plain(target)?)?;
        // 7 is a forward declaration.
        matches!(kind, KIND_STRUCT | KIND_UNION | 7).then(|| self.name_at(position))
    }
}

/// The first two bytes of the wanted names: few others begin so, and need not be read to their end.
struct Beginnings(Box<[bool]>);

impl Beginnings {
    fn of(wanted: &Wanted) -> Self {
        let mut all = Self(vec![false; 1 << 16].into());
        let names = wanted.structures.iter().chain(&wanted.functions).copied();
        for name in names.chain([TRACEPOINT]) {
            if let Some(two) = name.as_bytes().first_chunk() {
                all.0[usize::from(u16::from_le_bytes(*two))] = true;
            }
        }
        all
    }

    fn have(&self, name: &[u8]) -> bool {
        name.first_chunk().is_some_and(|two| self.0[usize::from(u16::from_le_bytes(*two))])
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

const fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            structures: HashSet::from(["file", "dentry"]),
            functions: HashSet::from(["vfs_write"]),
            tracepoints: HashSet::from(["sys_exit"]),
        }
    }

    #[test]
    fn the_running_kernels_types_are_found() {
        let Ok(btf) = Btf::from_kernel(&wanted()) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        assert!(btf.offset_of("file", "f_path.dentry").is_some());
        assert!(btf.offset_of("dentry", "d_name.name").is_some());
        assert!(btf.offset_of("dentry", "d_name.len").is_some());
        let (_, write) = btf.function("vfs_write").expect("every kernel has vfs_write");
        assert_eq!(write.pointer_to("file", 0), Some(0));
        assert!(!write.returns_pointer);
        let (_, exit) = btf.tracepoint("sys_exit").expect("every kernel has sys_exit");
        assert_eq!(exit.pointer_to("pt_regs", 0), Some(0));
        assert_eq!(btf.offset_of("file", "no_such_member"), None);
        assert_eq!(btf.enumerator("PIDTYPE_TGID"), Some(1));
        assert_eq!(btf.enumerator("NO_SUCH_ENUMERATOR"), None);
    }

    #[test]
    fn bytes_that_are_no_btf_are_refused() {
        assert!(Btf::parse(Bytes::Read(Vec::new()), &wanted()).is_err());
        let beyond = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(Btf::parse(Bytes::Read(beyond.to_vec()), &wanted()).is_err());
    }
}
