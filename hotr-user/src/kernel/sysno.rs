//! System call numbers as words: what `detail` says of a call.

use hotr_common::hook::Hook;
use hotr_common::record::Record;

use super::syscalls;
use hotr_events::{Detail, Op};

/// The word for a write by `vfs_write` or `vfs_writev`, from the number of the system call it was made in.
#[must_use]
pub const fn write_word(number: i32) -> &'static str {
    match i64_of(number) {
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_writev => "writev",
        libc::SYS_pwritev => "pwritev",
        libc::SYS_pwritev2 => "pwritev2",
        libc::SYS_sendfile => "sendfile",
        libc::SYS_splice => "splice",
        libc::SYS_copy_file_range => "copy_file_range",
        _ => "write",
    }
}

/// The word for a change of size.
#[must_use]
pub const fn truncate_word(number: i32) -> &'static str {
    match i64_of(number) {
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 | libc::SYS_creat => "o_trunc",
        _ => "truncate",
    }
}

/// Whether a system call changes no attribute but the size. On its way the filesystem may take the size out of the
/// attributes, as xfs does for an empty file.
#[must_use]
pub const fn only_truncates(number: i32) -> bool {
    matches!(
        i64_of(number),
        libc::SYS_truncate
            | libc::SYS_ftruncate
            | libc::SYS_open
            | libc::SYS_openat
            | libc::SYS_openat2
            | libc::SYS_creat
    )
}

/// Whether a system call sets owners: one that leaves both as they are only changes the time of the change.
#[must_use]
pub fn owns(number: i32) -> bool {
    syscalls::by_number(number).is_some_and(|call| call.detail == "chown")
}

/// Operation and word of a record made at the exit of a system call.
#[must_use]
pub fn operation(record: &Record) -> (Op, Vec<Detail>) {
    match syscalls::by_number(record.sysno) {
        Some(call) if call.number == libc::SYS_ioctl => ioctl(record.aux[0]),
        // What open does to a file that was there is to cut it.
        Some(call) if call.hooks.contains(&Hook::Open) => open(record),
        Some(call) => (call.op, vec![Detail::Borrowed(call.detail)]),
        None => (Op::Write, vec![Detail::Borrowed("write")]),
    }
}

/// `FICLONE`, `FICLONERANGE`; the other commands that are reported change inode flags.
fn ioctl(command: u64) -> (Op, Vec<Detail>) {
    const FICLONE: u64 = 0x4004_9409;
    const FICLONERANGE: u64 = 0x4020_940d;
    match command {
        FICLONE | FICLONERANGE => (Op::Write, vec![Detail::Borrowed("clone")]),
        _ => (Op::Attrib, vec![Detail::Borrowed("chattr")]),
    }
}

/// A record of a file that was there is counted, one of a new name is not.
fn open(record: &Record) -> (Op, Vec<Detail>) {
    if record.way == 0 {
        (Op::Create, vec![Detail::Borrowed("open")])
    } else {
        (Op::Write, vec![Detail::Borrowed("o_trunc")])
    }
}

const fn i64_of(number: i32) -> i64 {
    // `From` is not const.
    number as i64
}
