//! A record of a system call that takes paths in; the operation, and what the caller named, out.
//!
//! The kernel side copies what the caller wrote and where that starts ([`FLAG_CALL`]). Which file it was is for
//! [`CallResolver`] to find out.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hotr_common::hook::Hook;
use hotr_common::record::{ENDED_BORN, ENDED_FOUND, FLAG_CALL, NO_ROOT, Record};
use hotr_common::rules::{SUBVOLUME_DESTROY, SUBVOLUME_DESTROY_V2};
use hotr_common::uapi::file::AT_REMOVEDIR;

use super::callpath::{Base, CallPath, CallResolver, Resolved, RootRef};
use super::decode::{join, rename_words, subvolume_word};
use crate::kernel::syscalls::{self, Follow};
use hotr_events::{Detail, Op};

/// `AT_SYMLINK_NOFOLLOW`.
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;

const O_CREAT: u64 = libc::O_CREAT as u64;
const O_EXCL: u64 = libc::O_EXCL as u64;
const O_TRUNC: u64 = libc::O_TRUNC as u64;
const O_NOFOLLOW: u64 = libc::O_NOFOLLOW as u64;

/// A path as the caller gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The caller's string.
    pub string: &'a [u8],
    /// Slot of the watched root that the start lies below, or [`NO_ROOT`].
    slot: u16,
    /// The mount that the start was reached through; 0 when it is not known.
    mount_id: u32,
    /// The start: from the root of the slot, or else from the root of its filesystem.
    start: PathBuf,
}

impl<'a> Named<'a> {
    /// From the bytes of one path in a record: the string, then the names of its start from the leaf up.
    fn parse(bytes: &'a [u8], slot: u16, mount_id: u32) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let top = if slot == NO_ROOT { Path::new("/") } else { Path::new("") };
        Some(Self { string: &bytes[..end], slot, mount_id, start: join(top, &bytes[end + 1..]) })
    }

    /// The caller's string as a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.string))
    }

    /// The start in the filesystem of the mount with this number, when it is in no watched tree.
    #[must_use]
    pub fn outside(&self) -> Option<(u64, &Path)> {
        (self.slot == NO_ROOT && self.mount_id != 0).then_some((u64::from(self.mount_id), &*self.start))
    }

    /// Where it starts: a slot, or else [`NO_ROOT`] and the mount, if it is known; and the path from there.
    pub(crate) fn start(&self) -> (u16, u64, &Path) {
        (self.slot, u64::from(self.mount_id), &self.start)
    }

    fn base(&self, root_of: &impl Fn(u16) -> Option<RootRef>) -> Base<'_> {
        match (root_of(self.slot), self.outside()) {
            (Some(root), _) => Base::Root { root, rel: &self.start },
            (None, Some((mount_id, fs_path))) => Base::Mount { mount_id, fs_path },
            (None, None) => Base::Unknown,
        }
    }
}

/// What a system call did, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCall<'a> {
    /// The operation.
    pub op: Op,
    /// By which ways. A link that is made from a descriptor says `tmpfile-link` where the file has no other name,
    /// which [`Self::from_descriptor`] leaves to be asked.
    pub detail: Vec<Detail>,
    /// The path, for a rename the new one.
    pub path: Named<'a>,
    /// The old path of a rename.
    pub old_path: Option<Named<'a>>,
    /// A link whose source is an open file.
    pub from_descriptor: bool,
    /// An open that may have created its file, or found and truncated it; the file shows which.
    pub opened: Option<Opened>,
    follow: bool,
    pid: u32,
    mount_ns: Option<u64>,
}

/// What is known of an open that may have made its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// `CLOCK_MONOTONIC` nanoseconds of its beginning.
    pub since: u64,
    /// A file that was there has been cut.
    pub cuts: bool,
}

impl<'a> NamedCall<'a> {
    /// From a record and its two paths; `None` when it is no such record, or of an unknown call.
    #[must_use]
    pub fn decode(record: &Record, path: &'a [u8], old: &'a [u8]) -> Option<Self> {
        if record.flags & FLAG_CALL == 0 {
            return None;
        }
        let call = syscalls::by_number(record.sysno)?;
        let flags = record.aux[0];
        let path = Named::parse(path, record.root, record.mnt_id)?;
        let old = if old.is_empty() { None } else { Named::parse(old, record.old_root, record.old_mnt_id()) };
        let opened = match call.hooks.contains(&Hook::Open) {
            true => Some(Open::of(record)?),
            false => None,
        };
        let follow = match call.follow {
            _ if opened.is_some() => flags & (O_NOFOLLOW | O_EXCL) == 0,
            Follow::Never => false,
            Follow::Always => true,
            Follow::UnlessNofollow => flags & AT_SYMLINK_NOFOLLOW == 0,
        };
        let mut op = call.op;
        let detail = match call.op {
            _ if opened == Some(Open::Cut) => {
                op = Op::Write;
                vec![Cow::Borrowed("o_trunc")]
            }
            _ if call.number == libc::SYS_ioctl => {
                op = if is_destroyed(flags) { Op::Remove } else { Op::Create };
                vec![Cow::Borrowed(subvolume_word(flags))]
            }
            Op::Rename => rename_words(flags),
            Op::Remove if flags & AT_REMOVEDIR != 0 => vec![Cow::Borrowed("rmdir")],
            _ => vec![Cow::Borrowed(call.detail)],
        };
        let is_rename = call.op == Op::Rename;
        let opened = match opened {
            Some(Open::Unknown { cuts }) => Some(Opened { since: record.size, cuts }),
            _ => None,
        };
        Some(Self {
            op,
            opened,
            detail,
            path,
            from_descriptor: !is_rename && old.as_ref().is_some_and(|source| is_descriptor(source.string)),
            old_path: old.filter(|_| is_rename),
            follow,
            pid: record.pid,
            mount_ns: record.mount_namespace().map(u64::from),
        })
    }

    /// Whether a symbolic link in the last component is followed.
    pub(crate) const fn follows(&self) -> bool {
        self.follow
    }

    /// Which watched path was meant; for a rename, also by the old path. `root_of` knows the slots.
    pub fn resolve(
        &self,
        resolver: &mut CallResolver,
        root_of: impl Fn(u16) -> Option<RootRef>,
        now: Instant,
    ) -> (Resolved, Option<Resolved>) {
        let mut resolve = |named: &Named<'_>| {
            let call = CallPath {
                pid: self.pid,
                mount_ns: self.mount_ns,
                base: named.base(&root_of),
                string: named.string,
                follow: self.follow,
                of_name: self.opened.is_none() && matches!(self.op, Op::Create | Op::Remove | Op::Rename),
            };
            resolver.resolve(&call, now)
        };
        let old = self.old_path.as_ref().map(&mut resolve);
        (resolve(&self.path), old)
    }
}

/// What an open did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Made,
    Cut,
    Unknown { cuts: bool },
}

impl Open {
    /// `None` when it changed nothing.
    fn of(record: &Record) -> Option<Self> {
        let [flags, end] = record.aux;
        let cuts = flags & O_TRUNC != 0;
        match end {
            ENDED_BORN => Some(Self::Made),
            ENDED_FOUND => cuts.then_some(Self::Cut),
            _ if flags & O_CREAT == 0 => cuts.then_some(Self::Cut),
            _ if flags & O_EXCL != 0 => Some(Self::Made),
            _ => Some(Self::Unknown { cuts }),
        }
    }
}

/// Whether an ioctl on a btrfs subvolume destroys it.
fn is_destroyed(command: u64) -> bool {
    [SUBVOLUME_DESTROY, SUBVOLUME_DESTROY_V2].map(u64::from).contains(&command)
}

/// Whether the source of a link is an open file: an empty string, or a name of `/proc/<pid>/fd`.
fn is_descriptor(string: &[u8]) -> bool {
    string.is_empty() || (string.starts_with(b"/proc/") && string.windows(4).any(|part| part == b"/fd/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: i64, aux: u64) -> Record {
        // SAFETY: a record is integers and arrays of them, for which zero is a value.
        let mut record: Record = unsafe { std::mem::zeroed() };
        record.flags = FLAG_CALL;
        record.sysno = i32::try_from(number).expect("a small number");
        record.aux = [aux, 0];
        record.root = 3;
        record.old_root = NO_ROOT;
        record
    }

    fn words<'a>(call: &'a NamedCall<'_>) -> Vec<&'a str> {
        call.detail.iter().map(|word| &**word).collect()
    }

    #[test]
    fn a_path_is_the_string_and_where_it_starts() {
        let rename = record(libc::SYS_renameat2, 2);
        let call = NamedCall::decode(&rename, b"../new\0leaf\0top\0", b"/old\0").expect("a rename");
        assert_eq!(call.op, Op::Rename);
        assert_eq!(words(&call), ["rename", "exchange"]);
        assert_eq!(call.path.string, b"../new");
        assert_eq!(call.path.start, Path::new("top/leaf"));
        assert_eq!(call.path.outside(), None);
        assert_eq!(call.old_path.expect("its old path").as_path(), Path::new("/old"));
    }

    #[test]
    fn a_start_outside_is_told_by_its_mount() {
        let mut mkdir = record(libc::SYS_mkdirat, 0);
        mkdir.root = NO_ROOT;
        mkdir.mnt_id = 7;
        let call = NamedCall::decode(&mkdir, b"d\0b\0a\0", b"").expect("a mkdir");
        assert_eq!(call.path.outside(), Some((7, Path::new("/a/b"))));
        assert_eq!(call.old_path, None);
    }

    #[test]
    fn flags_choose_the_word_and_the_link() {
        let call = |number, flags, old: &'static [u8]| {
            NamedCall::decode(&record(number, flags), b"x\0", old).expect("a call")
        };
        assert_eq!(words(&call(libc::SYS_unlinkat, AT_REMOVEDIR, b"")), ["rmdir"]);
        assert_eq!(words(&call(libc::SYS_unlinkat, 0, b"")), ["unlink"]);
        assert!(call(libc::SYS_fchownat, 0, b"").follow);
        assert!(!call(libc::SYS_fchownat, AT_SYMLINK_NOFOLLOW, b"").follow);
        assert!(!call(libc::SYS_lsetxattr, 0, b"").follow);
        assert!(call(libc::SYS_linkat, 0x1000, b"\0").from_descriptor);
        assert!(call(libc::SYS_linkat, 0x400, b"/proc/self/fd/5\0").from_descriptor);
        assert!(!call(libc::SYS_linkat, 0, b"a/fd/b\0").from_descriptor);
    }

    #[test]
    fn other_records_are_no_calls() {
        let mut write = record(libc::SYS_write, 0);
        write.flags = 0;
        assert_eq!(NamedCall::decode(&write, b"f\0", b""), None);
        assert_eq!(NamedCall::decode(&record(511, 0), b"f\0", b""), None);
    }
}
