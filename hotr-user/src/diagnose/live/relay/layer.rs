//! In which layer of an overlay a file is.
//!
//! In: the file as the overlay shows it, opened as a place. Out: a [`FileLayer`]. No call says it. But an overlay gives the times,
//! the size and the blocks of the real file (kernel: fs/overlayfs/inode.c `ovl_getattr`), and no two files that were ever
//! changed separately have the same times of change and birth. So the file is compared with that of the same path in each layer. What
//! the overlay shows and no layer has (the layer was changed after the overlay had looked) is in none.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, ResolveFlags, Statx, StatxFlags, getxattr, statx};
use rustix::io::Errno;

use crate::beneath;
use crate::mounts::{LayerKind, Mount, overlay_layers};

/// In which layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileLayer {
    /// In the upper one, with all its content, under this inode number.
    Upper(u64),
    /// In a lower one, under this inode number; there is no file of the path in the upper one.
    Lower(u64),
    /// That cannot be told.
    Unknown,
}

/// What of a file is that of the real file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: (i64, u32),
    modified: (i64, u32),
    /// Where the filesystem keeps it.
    born: Option<(i64, u32)>,
    mode: u16,
    size: u64,
    blocks: u64,
}

impl Stamp {
    fn of(stat: &Statx) -> Self {
        let has_born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            born: has_born.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
            mode: stat.stx_mode,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
        }
    }
}

/// A file that is written meanwhile is compared again, so often.
const TRIES: usize = 16;

/// The layer of a file that an overlay shows at `fs_path` from its root. `open` opens a path as a place, in each mount namespace
/// in which it may have been meant.
pub(super) fn of(
    shown: impl AsFd,
    mount: &Mount,
    fs_path: &Path,
    open: &dyn Fn(&Path) -> Vec<OwnedFd>,
) -> FileLayer {
    let layers = overlay_layers(mount);
    let Some(rel) = fs_path.strip_prefix("/").ok().filter(|rel| !rel.as_os_str().is_empty()) else {
        return FileLayer::Unknown;
    };
    let files = |kind: LayerKind| -> Vec<Result<OwnedFd, Errno>> {
        let layers = layers.iter().filter(|layer| layer.kind == kind);
        let dirs = layers.flat_map(|layer| [Some(&layer.dir), layer.literal.as_ref()]).flatten();
        let dirs = dirs.filter(|dir| dir.is_absolute()).flat_map(|dir| open(dir));
        dirs.map(|dir| below(&dir, rel)).collect()
    };
    let (upper, lower) = (files(LayerKind::Upper), files(LayerKind::Lower));
    let compared = (0..TRIES).map(|_| compare(&shown, &upper, &lower));
    compared.into_iter().find(|layer| *layer != FileLayer::Unknown).unwrap_or(FileLayer::Unknown)
}

fn compare(
    shown: impl AsFd,
    upper: &[Result<OwnedFd, Errno>],
    lower: &[Result<OwnedFd, Errno>],
) -> FileLayer {
    let Ok(shown) = look(shown) else { return FileLayer::Unknown };
    let found = |files: &[Result<OwnedFd, Errno>]| files.iter().flatten().find_map(|file| same(&shown, file));
    let is_absent = !upper.is_empty() && upper.iter().all(|file| matches!(file, Err(Errno::NOENT)));
    match (found(upper), found(lower)) {
        (Some((ino, true)), None) => FileLayer::Upper(ino),
        (None, Some((ino, _))) if is_absent => FileLayer::Lower(ino),
        // Both are equal; or only the metadata is in the upper one, or the upper one has another file.
        _ => FileLayer::Unknown,
    }
}

/// Inode number of a file of a layer, when it is the shown one; and whether it has its own content.
fn same(shown: &Statx, file: &OwnedFd) -> Option<(u64, bool)> {
    let stat = look(file).ok()?;
    (Stamp::of(&stat) == Stamp::of(shown)).then(|| (stat.stx_ino, !is_without_content(file)))
}

/// Whether only the metadata of a file was copied up (kernel: fs/overlayfs/util.c `ovl_check_metacopy_xattr`); the content
/// follows when it is opened for writing. An error other than "there is no such attribute" counts as such.
fn is_without_content(file: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    ["trusted.overlay.metacopy", "user.overlay.metacopy"].into_iter().any(|name| {
        let mut value = [0_u8; 64];
        !matches!(getxattr(&path, name, &mut value[..]), Err(Errno::NODATA | Errno::NOTSUP))
    })
}

fn below(layer: &OwnedFd, rel: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    beneath::resolved(layer, rel, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, resolve)
}

fn look(place: impl AsFd) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(place, "", flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}
