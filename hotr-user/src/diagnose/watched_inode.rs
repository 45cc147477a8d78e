//! Where a watched inode lies, from its file handle.
//!
//! In: a watch. Out: a [`WatchedInode`]: what the inode is, its path from the root of its filesystem, and whether that name
//! still is its name. What the kernel cannot say is absent. No tree is searched.

use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, major, minor, openat2, readlinkat};
use rustix::io::Errno;
use rustix::process::fchdir;

use super::fdinfo::{Handle, MAX_HANDLE, Watch};
use super::namespaces::{Anchor, FileKind, Namespace, Namespaces, Seen, remote};
use crate::mounts::{DevId, LayerKind, Location, Mount, join, overlay_layers};

/// The form of overlay's handles (kernel: include/linux/exportfs.h `FILEID_...`, fs/overlayfs/overlayfs.h).
const OVERLAY_HANDLE: i32 = 0xf8;

/// A watched inode, as far as it could be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WatchedInode {
    /// Type of the filesystem, when it is mounted anywhere.
    pub(super) fs_type: Option<OsString>,
    /// A file, a directory, or something else.
    pub(super) kind: Option<FileKind>,
    /// Number of its names.
    pub(super) nlink: Option<u32>,
    /// Its name, or the last one it had.
    pub(super) location: Option<Location>,
    /// The name is not its own any more.
    pub(super) unlinked: bool,
    /// That name belongs to this inode now.
    pub(super) successor: Option<Seen>,
}

impl WatchedInode {
    /// Whether it is a directory.
    pub(super) fn is_dir(&self) -> bool {
        self.kind == Some(FileKind::Dir)
    }
}

/// Answers by inode and handle: many instances watch the same files.
#[derive(Debug, Default)]
pub(super) struct InodeFinder {
    known: HashMap<(DevId, u64, Option<Handle>), Rc<WatchedInode>>,
}

impl InodeFinder {
    /// Finds the place of a watch.
    pub(super) fn find(
        &mut self,
        space: &mut Namespaces,
        namespace: &Rc<Namespace>,
        watch: &Watch,
    ) -> Rc<WatchedInode> {
        let key = (watch.dev, watch.ino, watch.handle.clone());
        if let Some(place) = self.known.get(&key) {
            return Rc::clone(place);
        }
        let place = Rc::new(find(space, namespace, watch));
        // A superblock that this namespace does not have may be found by that of another process.
        if place.fs_type.is_some() {
            self.known.insert(key, Rc::clone(&place));
        }
        place
    }
}

fn find(space: &mut Namespaces, namespace: &Rc<Namespace>, watch: &Watch) -> WatchedInode {
    let mount = space.mount(watch.dev, namespace);
    let mut place = WatchedInode {
        fs_type: mount.as_ref().map(|mount| mount.fs_type.clone()),
        ..WatchedInode::default()
    };
    let (Some(mount), Some(handle)) = (mount, &watch.handle) else { return place };
    if let Some(anchor) = space.anchor(watch.dev, namespace) {
        if mount.is_overlay() && handle.kind != OVERLAY_HANDLE {
            // Older kernels make up a handle that opens nothing.
            return place;
        }
        if let Some((file, seen)) =
            open(&anchor, handle).filter(|(_, seen)| seen.ino == watch.ino || mount.is_overlay())
        {
            fill(&mut place, &anchor, &file, seen);
        } else if mount.is_overlay() {
            overlay(&mut place, space, namespace, &anchor, &mount, watch);
        }
    }
    place
}

/// Opens the very inode of a watch as a place: by its handle, or by a path that leads to it.
pub(super) fn reopen(
    space: &mut Namespaces,
    namespace: &Rc<Namespace>,
    watch: &Watch,
    path: Option<&Path>,
) -> Option<OwnedFd> {
    let mount = space.mount(watch.dev, namespace)?;
    let by_handle =
        watch.handle.as_ref().filter(|handle| !mount.is_overlay() || handle.kind == OVERLAY_HANDLE);
    if let Some(handle) = by_handle
        && let Some(anchor) = space.anchor(watch.dev, namespace)
        && let Some((file, seen)) = open(&anchor, handle)
        && (seen.ino == watch.ino || mount.is_overlay())
    {
        return Some(file);
    }
    if remote(&mount) {
        return None;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat2(CWD, path?, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).ok()?;
    let stat = fstat(&file).ok()?;
    let is_it = stat.st_ino == watch.ino
        && (major(stat.st_dev), minor(stat.st_dev)) == (watch.dev.major, watch.dev.minor);
    is_it.then_some(file)
}

/// Opens a handle as a place.
fn open(anchor: &Anchor, handle: &Handle) -> Option<(OwnedFd, Seen)> {
    #[repr(C)]
    struct FileHandle {
        len: u32,
        kind: i32,
        bytes: [u8; MAX_HANDLE],
    }
    let mut raw = FileHandle {
        len: u32::try_from(handle.bytes.len()).ok()?,
        kind: handle.kind,
        bytes: [0; MAX_HANDLE],
    };
    raw.bytes.get_mut(..handle.bytes.len())?.copy_from_slice(&handle.bytes);
    fchdir(&anchor.dir).ok()?;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `raw` is laid out as the kernel's `struct file_handle` with room for the largest handle.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, libc::AT_FDCWD, &raw const raw, flags) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the call returned a new descriptor that nobody else has.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let seen = Seen::of(&file).ok()?;
    Some((file, seen))
}

/// Path of an open place, as the kernel prints it.
fn printed(file: &OwnedFd) -> Option<Vec<u8>> {
    readlinkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new()).ok().map(CString::into_bytes)
}

fn fill(place: &mut WatchedInode, anchor: &Anchor, file: &OwnedFd, seen: Seen) {
    place.kind = Some(seen.kind);
    place.nlink = Some(seen.nlink);
    let Some(text) = printed(file) else { return };
    let Some((fs_path, unlinked, dir)) = name(anchor, &text, seen) else { return };
    place.unlinked = unlinked;
    if unlinked {
        place.successor = fs_path.file_name().and_then(|name| Seen::name_in(&dir?, Path::new(name)).ok());
    }
    place.location = Some(Location { dev: anchor.mount.dev, fs_path });
}

/// The path in the filesystem of what the kernel printed, whether that name is gone, and for a gone one the open
/// directory it was in.
fn name(anchor: &Anchor, text: &[u8], seen: Seen) -> Option<(PathBuf, bool, Option<OwnedFd>)> {
    const GONE: &[u8] = b" (deleted)";
    let mount = &anchor.mount;
    let to_path = |text: &[u8]| PathBuf::from(OsString::from_vec(text.to_vec()));
    // Printed of an inode without a name in memory, and of the root.
    if text == b"/" && mount.mount_point != Path::new("/") {
        return None;
    }
    let plain = to_path(text);
    if let Some(fs_path) = mount.fs_path(&plain)
        && is_there(anchor, &fs_path, seen)
    {
        return Some((fs_path, false, None));
    }
    // Below a part of the filesystem that is mounted, a path of another part is printed from its root.
    let whole = to_path(text.strip_suffix(GONE).unwrap_or(text));
    let fs_path = mount.fs_path(&whole)?;
    let parent = fs_path.parent()?;
    let dir = below(anchor, parent).ok()?;
    text.ends_with(GONE).then_some((fs_path, true, Some(dir)))
}

/// Opens a path of the filesystem below the anchor; `XDEV` when another mount is on the way.
fn below(anchor: &Anchor, fs_path: &Path) -> rustix::io::Result<OwnedFd> {
    let rel = fs_path.strip_prefix(&anchor.mount.root).map_err(|_| Errno::XDEV)?;
    let rel = if rel.as_os_str().is_empty() { Path::new(".") } else { rel };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(&anchor.dir, rel, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// Whether a path of the filesystem leads to an inode. What is below another mount is taken as printed: nobody can
/// look below it.
fn is_there(anchor: &Anchor, fs_path: &Path, seen: Seen) -> bool {
    match below(anchor, fs_path).and_then(Seen::of) {
        Ok(found) => found.ino == seen.ino,
        Err(errno) => errno == Errno::XDEV && fs_path.starts_with(&anchor.mount.root),
    }
}

/// An overlay's handle has that of the file in a layer: opened there, it gives the path in that layer.
fn overlay(
    place: &mut WatchedInode,
    space: &mut Namespaces,
    namespace: &Rc<Namespace>,
    merged: &Anchor,
    mount: &Mount,
    watch: &Watch,
) {
    let Some((upper, inner)) = watch.handle.as_ref().and_then(layer_handle) else { return };
    let space_ours = Rc::clone(&space.ours);
    for layer in overlay_layers(mount) {
        if matches!(layer.kind, LayerKind::Work) || (layer.kind == LayerKind::Upper) != upper {
            continue;
        }
        let Some(root) = space_ours.table.locate(&layer.dir) else { continue };
        let Some(anchor) = space.anchor(root.dev, namespace) else { continue };
        let Some((file, seen)) = open(&anchor, &inner) else { continue };
        let mut real = WatchedInode::default();
        fill(&mut real, &anchor, &file, seen);
        let Some(at) = real.location.filter(|at| at.is_within(&root)) else { continue };
        let Ok(rel) = at.fs_path.strip_prefix(&root.fs_path) else { continue };
        let fs_path = join(Path::new("/"), rel);
        let now = below(merged, &fs_path).and_then(Seen::of).ok();
        place.kind = Some(seen.kind);
        place.nlink = Some(seen.nlink);
        // The name may have moved in the upper layer; then it is not known.
        let same = now.is_some_and(|now| now.ino == watch.ino || now.ino == seen.ino);
        if real.unlinked || same {
            place.unlinked = real.unlinked;
            place.successor = now.filter(|_| real.unlinked);
            place.location = Some(Location { dev: mount.dev, fs_path });
        }
        return;
    }
}

/// The handle inside an overlay's handle, and whether it is of the upper layer (kernel: fs/overlayfs/overlayfs.h
/// `struct ovl_fh`: 3 bytes of padding, version, magic, length, flags, type, 16 bytes of uuid, the handle).
fn layer_handle(handle: &Handle) -> Option<(bool, Handle)> {
    const MAGIC: u8 = 0xfb;
    const UPPER: u8 = 1 << 2;
    let [_, _, _, _version, MAGIC, len, flags, kind, rest @ ..] = &handle.bytes[..] else { return None };
    // The length counts from the version on.
    let bytes = rest.get(16..usize::from(*len).checked_sub(5)?)?;
    (!bytes.is_empty()).then(|| (flags & UPPER != 0, Handle { kind: i32::from(*kind), bytes: bytes.into() }))
}

/// The bytes of a path's last name.
pub(super) fn last_name(path: &Path) -> &[u8] {
    path.file_name().map(OsStrExt::as_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_handle_carries_that_of_its_layer() {
        let mut bytes = vec![0, 0, 0, 0, 0xfb, 29, 4, 1];
        bytes.extend([7; 16]);
        bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        let handle = |bytes: &[u8]| Handle { kind: OVERLAY_HANDLE, bytes: bytes.into() };
        let inner = Handle { kind: 1, bytes: [1, 2, 3, 4, 5, 6, 7, 8].into() };
        assert_eq!(layer_handle(&handle(&bytes)), Some((true, inner.clone())));
        bytes[6] = 0;
        assert_eq!(layer_handle(&handle(&bytes)), Some((false, inner)));
        bytes[4] = 0;
        assert_eq!(layer_handle(&handle(&bytes)), None);
        bytes[4] = 0xfb;
        for len in [0, 5, 21, 255] {
            bytes[5] = len;
            assert_eq!(layer_handle(&handle(&bytes)), None, "length {len}");
        }
        assert_eq!(layer_handle(&handle(&[0; 4])), None);
    }
}
