//! Reads the kernel's own type information: where its fields are, and what its functions look like.
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux`. Out: member offsets and prototypes, by name. One pass over the
//! types and an index of the few names that are asked for: libraries that build every type take several times
//! as long, and `ready` waits for this.

use std::collections::HashMap;

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

/// Type information, indexed.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Position of each type, by id; id 0 is `void`.
    types: Vec<u32>,
    structures: HashMap<Box<str>, u32>,
    functions: HashMap<Box<str>, u32>,
    tracepoints: HashMap<Box<str>, u32>,
}

impl Btf {
    /// Reads the running kernel's.
    ///
    /// # Errors
    /// When the kernel offers none, or it is malformed.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::parse(std::fs::read("/sys/kernel/btf/vmlinux").map_err(BtfError::Unavailable)?)
    }

    /// Indexes raw BTF.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
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
        btf.index(start, end)?;
        Ok(btf)
    }

    fn index(&mut self, start: usize, end: usize) -> Result<(), BtfError> {
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
            let name = self.name_at(at);
            match kind {
                KIND_STRUCT if is_wanted_structure(name) => {
                    let name = name.into();
                    self.structures.insert(name, id);
                }
                KIND_FUNC => {
                    let name = name.into();
                    self.functions.insert(name, id);
                }
                KIND_TYPEDEF => {
                    if let Some(name) = name.strip_prefix("btf_trace_") {
                        let name = name.into();
                        self.tracepoints.insert(name, id);
                    }
                }
                _ => {}
            }
            at += 12 + extra;
        }
        Ok(())
    }

    fn name_at(&self, position: usize) -> &str {
        let Some(offset) = word(&self.data, position) else { return "" };
        let bytes = self.data.get(self.strings + offset as usize..).unwrap_or_default();
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(0);
        std::str::from_utf8(&bytes[..end]).unwrap_or("")
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

    /// Whether the kernel has this structure.
    #[must_use]
    pub fn has_structure(&self, name: &str) -> bool {
        self.structures.contains_key(name)
    }

    /// Size of a structure in bytes.
    #[must_use]
    pub fn size_of(&self, structure: &str) -> Option<u32> {
        self.entry(*self.structures.get(structure)?).map(|(_, _, _, size)| size)
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
                if self.name_at(at) == name { word(&self.data, at + 4) } else { None }
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
            let member_name = self.name_at(at);
            if member_name == name {
                return Some((bits, member_type));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth + 1)
            {
                return Some((bits + inner, found));
            }
        }
        None
    }

    /// A function's prototype; `None` when the kernel has no such function (or inlined it away).
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Prototype> {
        let (_, _, _, proto) = self.entry(*self.functions.get(name)?)?;
        self.prototype(proto)
    }

    /// Whether the kernel has a tracepoint of this name.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoints.contains_key(name)
    }

    /// Arguments of a tracepoint, as programs see them.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let (_, _, _, pointer) = self.entry(*self.tracepoints.get(name)?)?;
        let (_, _, _, proto) = self.entry(pointer)?;
        let mut prototype = self.prototype(proto)?;
        // The first parameter is the tracepoint's private data.
        prototype.parameters.remove(0);
        Some(prototype)
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

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

const fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Structures whose members are asked for; the kernel has ten thousand others.
fn is_wanted_structure(name: &str) -> bool {
    matches!(
        name,
        "file"
            | "inode"
            | "dentry"
            | "super_block"
            | "mount"
            | "task_struct"
            | "cred"
            | "files_struct"
            | "fdtable"
            | "fs_struct"
            | "iattr"
            | "renamedata"
            | "kiocb"
            | "io_kiocb"
            | "io_uring_task"
            | "io_ring_ctx"
            | "io_uring_cqe"
            | "vm_fault"
            | "vm_area_struct"
            | "backing_file"
            | "fsnotify_mark"
            | "nsproxy"
            | "mnt_namespace"
            | "pt_regs"
            | "trace_event_raw_sys_exit"
            | "trace_event_raw_io_uring_complete"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernels_types_are_found() {
        let Ok(btf) = Btf::from_kernel() else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        assert!(btf.offset_of("file", "f_path.dentry").is_some());
        assert!(btf.offset_of("dentry", "d_name.name").is_some());
        assert!(btf.offset_of("dentry", "d_name.len").is_some());
        let write = btf.function("vfs_write").expect("every kernel has vfs_write");
        assert_eq!(write.pointer_to("file", 0), Some(0));
        assert!(!write.returns_pointer);
        assert!(btf.has_tracepoint("sys_exit"));
        assert_eq!(btf.offset_of("file", "no_such_member"), None);
        assert_eq!(btf.enumerator("PIDTYPE_TGID"), Some(1));
        assert_eq!(btf.enumerator("NO_SUCH_ENUMERATOR"), None);
    }

    #[test]
    fn bytes_that_are_no_btf_are_refused() {
        assert!(Btf::parse(Vec::new()).is_err());
        assert!(
            Btf::parse(vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                .is_err()
        );
    }
}
