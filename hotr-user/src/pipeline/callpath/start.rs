//! A call's base and string in, an absolute path and the root directory to resolve it in out; and opening it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::view::View;
use super::{Answer, Base, CallPath, CallResolver};
use crate::mounts::join;

const ENDED: &str = "the caller was of another mount namespace and has ended";
const UNREADABLE: &str = "the directory cannot be opened";

/// An absolute path, and whose root directory it starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Start {
    /// A process with another root directory than ours.
    pub(super) rooted_at: Option<u32>,
    pub(super) path: PathBuf,
}

impl Start {
    /// Where `string`, a part of the call's string, leads.
    pub(super) fn of(
        call: &CallPath<'_>,
        string: &[u8],
        resolver: &mut CallResolver,
        now: Instant,
    ) -> Answer<Self> {
        let tail = Path::new(OsStr::from_bytes(string));
        if call.string.starts_with(b"/") {
            let rooted_at = rooted_at(call, resolver, now)?;
            return Ok(Self { rooted_at, path: of_caller(tail, call.pid) });
        }
        match call.base {
            Base::Root { root, rel } => {
                let place = resolver.place(root).ok_or("the base is no longer watched")?;
                Ok(Self { rooted_at: None, path: join(&join(&place.dir, rel), tail) })
            }
            Base::Mount { mount_id, fs_path } => {
                let (rooted_at, dir) = match resolver.table.by_id(mount_id) {
                    Some(mount) => (None, mount.visible_path(fs_path)),
                    None => {
                        let witness = resolver.views.witness(call.pid, call.mount_ns, now);
                        let mount = resolver.views.mount(mount_id, witness, now).ok_or(ENDED)?;
                        (Some(witness), mount.visible_path(fs_path))
                    }
                };
                let dir = dir.ok_or("the base lies outside its mount")?;
                Ok(Self { rooted_at, path: join(&dir, tail) })
            }
            Base::Fd(fd) => {
                let rooted_at = rooted_at(call, resolver, now)?;
                let dir = descriptor(call.pid, fd).ok_or("the caller has ended and its base is not known")?;
                let dir = match rooted_at {
                    Some(pid) => inside_root(pid, &dir).ok_or("the base lies outside the caller's root")?,
                    None => dir,
                };
                Ok(Self { rooted_at, path: join(&dir, tail) })
            }
            Base::Unknown => Err("the base of a relative path is not known"),
        }
    }

    /// A name in this directory.
    pub(super) fn join(&self, name: &[u8]) -> Self {
        Self { rooted_at: self.rooted_at, path: self.path.join(OsStr::from_bytes(name)) }
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let Some(pid) = self.rooted_at else {
            return openat(CWD, &self.path, flags, Mode::empty());
        };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, format!("/proc/{pid}/root"), directory, Mode::empty())?;
        // Absolute symbolic links and `..` stay inside the caller's root, as they did for the caller.
        openat2(root, &self.path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// Opens the directory; where it is gone, the nearest ancestor that still exists, and what is left of the path.
    pub(super) fn open_nearest(&self) -> Answer<(OwnedFd, PathBuf)> {
        let mut at = self.clone();
        let mut rest: Vec<OsString> = Vec::new();
        let mut back = 0_usize;
        loop {
            match at.open(OFlags::DIRECTORY) {
                Ok(_) if back > 0 => {
                    // More `..` than what is gone: they lead up from here.
                    at.path.extend(std::iter::repeat_n("..", back));
                    let fd = at.open(OFlags::DIRECTORY).map_err(|_errno| UNREADABLE)?;
                    return Ok((fd, rest.iter().rev().collect()));
                }
                Ok(fd) => return Ok((fd, rest.iter().rev().collect())),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(_other) => return Err(UNREADABLE),
            }
            match at.path.components().next_back() {
                Some(Component::Normal(_)) if back > 0 => back -= 1,
                Some(Component::Normal(name)) => rest.push(name.to_owned()),
                // Below something that is gone only the text can say where this led.
                Some(Component::ParentDir) => back += 1,
                Some(Component::CurDir) => {}
                Some(Component::RootDir | Component::Prefix(_)) | None => {
                    return Err(if at.rooted_at.is_some() { ENDED } else { UNREADABLE });
                }
            }
            at.path.pop();
        }
    }

    /// Opens what a symbolic link leads to; `None` when this is no symbolic link, or is gone.
    pub(super) fn follow(&self) -> Answer<Option<OwnedFd>> {
        if self.rooted_at.is_none() && fs::read_link(&self.path).is_err() {
            return Ok(None);
        }
        match self.open(OFlags::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) if self.rooted_at.is_some() => Ok(None),
            Err(Errno::NOENT) => Err("the target of the symbolic link is gone"),
            Err(_other) => Err("the target of the symbolic link cannot be opened"),
        }
    }
}

/// The process whose root directory an absolute path starts from, unless it is the same as ours.
fn rooted_at(call: &CallPath<'_>, resolver: &mut CallResolver, now: Instant) -> Answer<Option<u32>> {
    match resolver.views.of(call.pid, call.mount_ns, now) {
        View::Ours => Ok(None),
        View::Of(pid) => Ok(Some(pid)),
        View::Ended => Err(ENDED),
    }
}

/// `/proc/self` in the caller's string is the caller, not us: linkat of an unnamed file and some chmod
/// implementations go through `/proc/self/fd/<n>`.
fn of_caller(path: &Path, pid: u32) -> PathBuf {
    for (prefix, stands_for) in [("/proc/self", ""), ("/proc/thread-self", ""), ("/dev/fd", "fd")] {
        if let Ok(rest) = path.strip_prefix(prefix) {
            return PathBuf::from(format!("/proc/{pid}")).join(stands_for).join(rest);
        }
    }
    path.to_path_buf()
}

/// What a descriptor of a process leads to, as a path from the caller's root; negative is `AT_FDCWD`.
fn descriptor(pid: u32, fd: i32) -> Option<PathBuf> {
    let link = if fd < 0 { format!("/proc/{pid}/cwd") } else { format!("/proc/{pid}/fd/{fd}") };
    let path = fs::read_link(&link).ok()?;
    let removed = fs::metadata(&link).is_ok_and(|metadata| metadata.nlink() == 0);
    Some(if removed { without_deleted(path) } else { path }).filter(|path| path.is_absolute())
}

/// From the root of the caller's whole namespace, as `/proc/<pid>/fd` and `cwd` tell it, to the caller's own root.
pub(super) fn inside_root(pid: u32, path: &Path) -> Option<PathBuf> {
    let root = fs::read_link(format!("/proc/{pid}/root")).ok()?;
    path.strip_prefix(root).ok().map(|inside| Path::new("/").join(inside))
}

/// Takes off what the kernel writes behind the path of a removed file.
pub(super) fn without_deleted(path: PathBuf) -> PathBuf {
    let mut bytes = path.into_os_string().into_vec();
    if bytes.ends_with(b" (deleted)") {
        bytes.truncate(bytes.len() - b" (deleted)".len());
    }
    PathBuf::from(OsString::from_vec(bytes))
}
