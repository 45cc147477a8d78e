//! The io_uring requests that change files, as the tracepoint tier sees them: each does what a system call does, and is
//! reported by that call's word.
//!
//! Opcodes are the same on every architecture (include/uapi/linux/io_uring.h). Where a request has its arguments comes from
//! BTF; a request that this kernel does not have gets no rule.

use hotr_common::hook::Hook;
use hotr_common::rules::{Class, NO_REGISTER, RULE_ENABLED, RULE_REMOVES_DIRECTORY, Rule, WORKING_DIRECTORY};

use super::btf::Btf;
use super::syscalls::{self, SystemCall};

/// A field of a request: its structure and member, by kernel.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// There is none.
    No,
    /// The working directory, which the request takes without asking.
    Cwd,
    /// The first of these that the kernel has.
    In(&'static [(&'static str, &'static str)]),
}
use Field::{Cwd, In, No};

/// One kind of request.
#[derive(Clone, Copy, Debug)]
struct Request {
    opcode: u32,
    /// The system call that does the same.
    number: i64,
    class: Class,
    /// As the arguments of a system call: descriptor, path, old descriptor, old path, `aux[0]`, `aux[1]`.
    fields: [Field; 6],
}

/// Structures whose members are needed.
pub(super) const STRUCTURES: &[&str] = &[
    "filename",
    "io_open",
    "io_rename",
    "io_unlink",
    "io_mkdir",
    "io_symlink",
    "io_hardlink",
    "io_link",
    "io_xattr",
    "io_sync",
];

const fn open(opcode: u32, number: i64) -> Request {
    Request {
        opcode,
        number,
        class: Class::OpenHow,
        fields: [
            In(&[("io_open", "dfd")]),
            In(&[("io_open", "filename")]),
            No,
            No,
            In(&[("io_open", "how.flags")]),
            In(&[("io_open", "file_slot")]),
        ],
    }
}

const fn of_file(opcode: u32, number: i64, class: Class, aux0: Field) -> Request {
    Request { opcode, number, class, fields: [No, No, No, No, aux0, No] }
}

const fn of_names(
    opcode: u32,
    number: i64,
    [directory, path, old_directory, old_path, flags]: [Field; 5],
) -> Request {
    Request {
        opcode,
        number,
        class: Class::Path,
        fields: [directory, path, old_directory, old_path, flags, No],
    }
}

const REQUESTS: &[Request] = &[
    of_file(17, libc::SYS_fallocate, Class::File, In(&[("io_sync", "mode")])),
    open(18, libc::SYS_openat),
    open(28, libc::SYS_openat2),
    of_file(30, libc::SYS_splice, Class::Write, No),
    of_names(
        35,
        libc::SYS_renameat2,
        [
            In(&[("io_rename", "new_dfd")]),
            In(&[("io_rename", "newpath")]),
            In(&[("io_rename", "old_dfd")]),
            In(&[("io_rename", "oldpath")]),
            In(&[("io_rename", "flags")]),
        ],
    ),
    of_names(
        36,
        libc::SYS_unlinkat,
        [
            In(&[("io_unlink", "dfd")]),
            In(&[("io_unlink", "filename")]),
            No,
            No,
            In(&[("io_unlink", "flags")]),
        ],
    ),
    of_names(
        37,
        libc::SYS_mkdirat,
        [In(&[("io_mkdir", "dfd")]), In(&[("io_mkdir", "filename")]), No, No, No],
    ),
    of_names(
        38,
        libc::SYS_symlinkat,
        [
            In(&[("io_symlink", "new_dfd"), ("io_link", "new_dfd")]),
            In(&[("io_symlink", "newpath"), ("io_link", "newpath")]),
            No,
            No,
            No,
        ],
    ),
    of_names(
        39,
        libc::SYS_linkat,
        [
            In(&[("io_hardlink", "new_dfd"), ("io_link", "new_dfd")]),
            In(&[("io_hardlink", "newpath"), ("io_link", "newpath")]),
            No,
            In(&[("io_hardlink", "oldpath"), ("io_link", "oldpath")]),
            In(&[("io_hardlink", "flags"), ("io_link", "flags")]),
        ],
    ),
    of_file(41, libc::SYS_fsetxattr, Class::File, No),
    of_names(42, libc::SYS_setxattr, [Cwd, In(&[("io_xattr", "filename")]), No, No, No]),
    of_file(55, libc::SYS_ftruncate, Class::File, No),
];

/// The system call that does what a request of this opcode does.
#[must_use]
pub fn by_opcode(opcode: u32) -> Option<&'static SystemCall> {
    let request = REQUESTS.iter().find(|request| request.opcode == opcode)?;
    syscalls::by_number(i32::try_from(request.number).ok()?)
}

/// What the kernel side has to know of the requests that this kernel has: for each opcode the hooks it replaces and the
/// rule, not in force yet.
#[must_use]
pub fn rules(btf: &Btf) -> Vec<(u32, &'static [Hook], Rule)> {
    let offset = |field: Field| match field {
        No => Some(NO_REGISTER),
        Cwd => Some(WORKING_DIRECTORY),
        In(places) => places
            .iter()
            .find_map(|(structure, member)| btf.offset_of(structure, member))
            .and_then(|offset| u8::try_from(offset).ok())
            .filter(|offset| *offset < WORKING_DIRECTORY),
    };
    let rule = |request: &Request| {
        let call = by_opcode(request.opcode)?;
        let [descriptor, path, old_descriptor, old_path, aux0, aux1] = request.fields;
        let removes = call.hooks.contains(&Hook::Rmdir);
        let rule = Rule {
            class: request.class as u8,
            flags: if removes { RULE_REMOVES_DIRECTORY } else { 0 },
            descriptor: offset(descriptor)?,
            path: offset(path)?,
            old_descriptor: offset(old_descriptor)?,
            old_path: offset(old_path)?,
            aux0: offset(aux0)?,
            aux1: offset(aux1)?,
        };
        Some((request.opcode, call.hooks, rule))
    };
    REQUESTS.iter().filter_map(rule).collect()
}

/// The rule in force.
#[must_use]
pub const fn enabled(rule: Rule) -> Rule {
    Rule { flags: rule.flags | RULE_ENABLED, ..rule }
}

#[cfg(test)]
mod tests {
    use hotr_common::rules::URING_OPCODES;

    use super::*;

    #[test]
    fn each_request_does_what_a_known_system_call_does() {
        for (position, request) in REQUESTS.iter().enumerate() {
            assert!(request.opcode < URING_OPCODES);
            assert!(by_opcode(request.opcode).is_some(), "{}", request.opcode);
            assert!(
                REQUESTS[..position].iter().all(|other| other.opcode < request.opcode),
                "{}",
                request.opcode
            );
        }
        assert!(by_opcode(23).is_none(), "writes have programs of their own");
    }
}
