//! A call's base and string in, an absolute path and the root directory to resolve it in out; and opening it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use rustix::io::Errno;

use super::proc_path::{RootDir, inside_root, without_deleted};
use super::view::View;
use super::{Answer, Base, CallPath, CallResolver};
use crate::beneath;
use crate::mounts::join;

const ENDED: &str = "the caller was of another mount namespace and has ended";
const UNREADABLE: &str = "the directory cannot be opened";

/// An absolute path, and which root directory it starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Start {
    /// Another root directory than ours.
    pub(super) rooted_at: Option<RootDir>,
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
            let rooted_at = root_at_the_call(call, resolver, now)?;
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
                        (Some(RootDir::Of(witness)), mount.visible_path(fs_path))
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
                Ok(Self { rooted_at: rooted_at.map(RootDir::Of), path: join(&dir, tail) })
            }
            Base::Unknown => Err("the base of a relative path is not known"),
        }
    }

    /// A name in this directory.
    pub(super) fn join(&self, name: &[u8]) -> Self {
        Self { rooted_at: self.rooted_at.clone(), path: self.path.join(OsStr::from_bytes(name)) }
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let root = match &self.rooted_at {
            None => return openat(CWD, &self.path, flags, Mode::empty()),
            Some(RootDir::Of(pid)) => PathBuf::from(format!("/proc/{pid}/root")),
            Some(RootDir::At(dir)) => dir.clone(),
        };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, directory, Mode::empty())?;
        // Absolute symbolic links and `..` stay inside the caller's root, as they did for the caller.
        beneath::resolved(root, &self.path, flags, ResolveFlags::IN_ROOT)
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

/// The root directory that an absolute path started from, as the kernel side found it in the call: the caller may have
/// another one by now. Without that, what the caller has now.
fn root_at_the_call(
    call: &CallPath<'_>,
    resolver: &mut CallResolver,
    now: Instant,
) -> Answer<Option<RootDir>> {
    let dir = match call.base {
        Base::Root { root, rel } => {
            resolver.place(root).map(|place| join(&place.dir, rel)).ok_or("the root is no longer watched")?
        }
        Base::Mount { mount_id, fs_path } => match resolver.table.by_id(mount_id) {
            Some(mount) => mount.visible_path(fs_path).ok_or("the caller's root lies outside its mount")?,
            None => {
                let witness = resolver.views.witness(call.pid, call.mount_ns, now);
                let mount = resolver.views.mount(mount_id, witness, now).ok_or(ENDED)?;
                let dir = mount.visible_path(fs_path).ok_or("the caller's root lies outside its mount")?;
                // From the root of that namespace or, when it is the caller's own, it is the root itself.
                return match dir == Path::new("/") {
                    true => Ok(Some(RootDir::Of(witness))),
                    false => Err("the caller had another root directory in its own mount namespace"),
                };
            }
        },
        Base::Fd(_) | Base::Unknown => return Ok(rooted_at(call, resolver, now)?.map(RootDir::Of)),
    };
    Ok((dir != Path::new("/")).then_some(RootDir::At(dir)))
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
