//! From a record to a change: which operation, by which kernel-level way, of how many writes.
//!
//! In: a record and where its root is. Out: a [`Change`] without actor details or correlation.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hotr_common::hook::Hook;
use hotr_common::record::{DIRTY_BY_KERNEL, FLAG_KTHREAD, Record};
use hotr_common::rules::{SNAPSHOT, SNAPSHOT_V2};

use crate::kernel::{sysno, uring};
use hotr_events::{Change, Detail, FileId, FileType, Op};

/// Bits of `iattr.ia_valid` (include/linux/fs.h).
mod attr {
    pub(super) const UID: u64 = 1 << 1;
    pub(super) const GID: u64 = 1 << 2;
    pub(super) const MODE: u64 = 1;
    pub(super) const SIZE: u64 = 1 << 3;
    pub(super) const FILE: u64 = 1 << 13;
    pub(super) const OPEN: u64 = 1 << 15;
    /// Mode, owner, group, size, and the times that can be set.
    pub(super) const ALL: u64 = 0x3f;
}

/// Flags of `renameat2` (include/uapi/linux/fcntl.h).
const RENAME_NOREPLACE: u64 = 1;
/// `RENAME_EXCHANGE` of renameat2.
pub(crate) const RENAME_EXCHANGE: u64 = 2;
const RENAME_WHITEOUT: u64 = 4;

/// The operation a record is about, and the ways it was made.
#[must_use]
pub fn operation(record: &Record, hook: Hook) -> (Op, Vec<Detail>) {
    let one = |op, word: &'static str| (op, vec![Detail::Borrowed(word)]);
    match hook {
        Hook::Write | Hook::Writev | Hook::IterWrite => {
            if record.flags & FLAG_KTHREAD != 0 {
                return one(Op::Write, "kernel-write");
            }
            one(Op::Write, sysno::write_word(record.sysno))
        }
        Hook::UringTrace if record.way >> 8 != 0 => uring::by_opcode(record.way >> 8)
            .map_or_else(|| one(Op::Write, "io_uring"), |call| one(call.op, call.detail)),
        Hook::UringDone | Hook::UringComplete | Hook::UringIopoll | Hook::UringTrace => {
            one(Op::Write, "io_uring")
        }
        Hook::KernelWrite => one(Op::Write, "kernel-write"),
        Hook::Dirty if record.way >> 8 == DIRTY_BY_KERNEL => one(Op::Write, "kernel-write"),
        Hook::SubvolumeMade => one(Op::Create, subvolume_word(record.aux[0])),
        Hook::SubvolumeGone => one(Op::Remove, subvolume_word(record.aux[0])),
        Hook::AioComplete => one(Op::Write, "aio"),
        Hook::Sendfile => one(Op::Write, "sendfile"),
        Hook::Splice => one(Op::Write, "splice"),
        Hook::CopyFileRange => one(Op::Write, "copy_file_range"),
        Hook::Clone => one(Op::Write, "clone"),
        Hook::Fallocate => one(Op::Write, "fallocate"),
        Hook::Mmap | Hook::Dirty => one(Op::Write, "mmap"),
        Hook::NotifyChange => notify_change(record),
        Hook::Open => one(Op::Create, "open"),
        Hook::Create | Hook::Mknod => one(Op::Create, "mknod"),
        Hook::Mkdir => one(Op::Create, "mkdir"),
        Hook::Symlink => one(Op::Create, "symlink"),
        // Only the first name of a file leaves it with one link.
        Hook::Link if record.nlink == 1 => one(Op::Create, "tmpfile-link"),
        Hook::Link => one(Op::Create, "link"),
        Hook::Unlink => one(Op::Remove, "unlink"),
        Hook::Rmdir => one(Op::Remove, "rmdir"),
        Hook::Rename => (Op::Rename, rename_words(record.aux[0])),
        Hook::SetXattr | Hook::RemoveXattr | Hook::SetAcl | Hook::RemoveAcl => one(Op::Attrib, "xattr"),
        Hook::FileAttr => one(Op::Attrib, "chattr"),
        Hook::SysExit => sysno::operation(record),
    }
}

/// The word for an ioctl on a btrfs subvolume, by its command.
#[must_use]
pub fn subvolume_word(command: u64) -> &'static str {
    match u32::try_from(command) {
        Ok(SNAPSHOT | SNAPSHOT_V2) => "snapshot",
        _ => "subvolume",
    }
}

fn notify_change(record: &Record) -> (Op, Vec<Detail>) {
    let valid = record.aux[0];
    let (op, word) = if valid & attr::SIZE != 0 || sysno::only_truncates(record.sysno) {
        let word = if valid & attr::OPEN != 0 {
            "o_trunc"
        } else if valid & attr::FILE != 0 {
            "ftruncate"
        } else {
            sysno::truncate_word(record.sysno)
        };
        (Op::Write, word)
    } else if valid & (attr::UID | attr::GID) != 0 || (valid & attr::ALL == 0 && sysno::owns(record.sysno)) {
        (Op::Attrib, "chown")
    } else if valid & attr::MODE != 0 {
        (Op::Attrib, "chmod")
    } else {
        (Op::Attrib, "utimes")
    };
    (op, vec![Detail::Borrowed(word)])
}

/// `rename`, and the flags it was made with.
#[must_use]
pub fn rename_words(flags: u64) -> Vec<Detail> {
    let mut words = vec![Detail::Borrowed("rename")];
    let named =
        [(RENAME_NOREPLACE, "noreplace"), (RENAME_EXCHANGE, "exchange"), (RENAME_WHITEOUT, "whiteout")];
    words.extend(named.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, word)| Detail::Borrowed(*word)));
    words
}

/// Joins a record's names, which go from the leaf up, to the path of their root.
#[must_use]
pub fn join(root: &Path, names: &[u8]) -> PathBuf {
    let mut path = PathBuf::with_capacity(root.as_os_str().len() + names.len() + 1);
    path.push(root);
    let names = names.strip_suffix(&[0]).unwrap_or(names);
    if !names.is_empty() {
        for name in names.rsplit(|byte| *byte == 0) {
            path.push(OsStr::from_bytes(name));
        }
    }
    path
}

/// The command name of a record's task.
#[must_use]
pub fn comm(record: &Record) -> &[u8] {
    let end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(record.comm.len());
    &record.comm[..end]
}

/// The change of a record, as far as the record shows it.
#[must_use]
pub fn change(record: &Record, hook: Hook, time: std::time::SystemTime, path: PathBuf) -> Change {
    let (op, detail) = operation(record, hook);
    let file_type = FileType::from_mode(record.mode);
    let has_size = file_type == Some(FileType::File) && op != Op::Remove;
    Change {
        detail,
        file_type,
        id: (record.ino != 0).then_some(FileId {
            dev: u64::from(record.dev),
            ino: record.ino,
            gen_: record.generation,
        }),
        size: has_size.then_some(record.size),
        ..Change::new(op, path, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_from_the_root_down() {
        assert_eq!(join(Path::new("/srv"), b"leaf\0b\0a\0"), Path::new("/srv/a/b/leaf"));
        assert_eq!(join(Path::new("/srv"), b""), Path::new("/srv"));
        assert_eq!(join(Path::new("/"), b"a\0"), Path::new("/a"));
        assert_eq!(join(Path::new("/srv"), b"\xff\n\0").as_os_str().as_bytes(), b"/srv/\xff\n");
    }

    #[test]
    fn rename_flags_become_words() {
        assert_eq!(rename_words(0), ["rename"]);
        assert_eq!(rename_words(RENAME_EXCHANGE), ["rename", "exchange"]);
        assert_eq!(rename_words(RENAME_NOREPLACE | RENAME_WHITEOUT), ["rename", "noreplace", "whiteout"]);
    }
}
