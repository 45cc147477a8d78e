//! Where a path lies: filesystem, overlay layers, and other filesystems below it.
//!
//! In: /proc/self/mountinfo and the path's mount id. Out: a [`PathFilesystem`].

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// A layer of an overlay mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerDir {
    /// `upper` or `lower`.
    pub layer: &'static str,
    /// As the mount names it.
    pub path: PathBuf,
    /// It can be reached by this path from here; in a container it often cannot.
    pub reachable: bool,
}

/// Where a path lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathFilesystem {
    /// Filesystem type, as in mountinfo.
    pub fs: String,
    /// Where that filesystem is mounted.
    pub mount_point: PathBuf,
    /// Layers, when it is an overlay.
    pub layers: Vec<LayerDir>,
    /// Mounts below the path: where, and of which type.
    pub below: Vec<(PathBuf, String)>,
}

/// The mounts of this process's namespace.
#[derive(Debug)]
pub struct Mounts(Vec<MountInfo>);

impl Mounts {
    /// Reads them; none when /proc is not there.
    #[must_use]
    pub fn read() -> Self {
        Self(Process::myself().and_then(|me| me.mountinfo()).map_or_else(|_| Vec::new(), |mounts| mounts.0))
    }

    /// Where `real` (absolute, without symbolic links) lies.
    #[must_use]
    pub fn describe(&self, real: &Path) -> PathFilesystem {
        let id = statx(CWD, real, AtFlags::empty(), StatxFlags::MNT_ID).ok().map(|stat| stat.stx_mnt_id);
        let mount = self
            .0
            .iter()
            .find(|mount| u64::try_from(mount.mnt_id).ok() == id)
            // Later mounts lie on top of earlier ones.
            .or_else(|| {
                let above = |mount: &&MountInfo| real.starts_with(point(mount));
                self.0.iter().filter(above).max_by_key(|mount| point(mount).as_os_str().len())
            });
        let below = self
            .0
            .iter()
            .map(|mount| (point(mount), mount.fs_type.clone()))
            .filter(|(at, _)| at != real && at.starts_with(real))
            .collect();
        match mount {
            Some(mount) => PathFilesystem {
                fs: mount.fs_type.clone(),
                mount_point: point(mount),
                layers: if mount.fs_type == "overlay" { layers(mount) } else { Vec::new() },
                below,
            },
            None => PathFilesystem {
                fs: "unknown".to_owned(),
                mount_point: PathBuf::from("/"),
                layers: Vec::new(),
                below,
            },
        }
    }
}

fn point(mount: &MountInfo) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape_octal(mount.mount_point.as_os_str().as_encoded_bytes())))
}

fn layers(mount: &MountInfo) -> Vec<LayerDir> {
    let option = |name: &str| mount.super_options.get(name).and_then(Option::as_deref).unwrap_or_default();
    let dir = |layer, bytes: Vec<u8>| {
        let path = PathBuf::from(OsString::from_vec(bytes));
        LayerDir { layer, reachable: path.is_absolute() && path.is_dir(), path }
    };
    let upper = option("upperdir");
    let uppers = (!upper.is_empty()).then(|| dir("upper", unescape_octal(upper.as_bytes())));
    let lowers = split_layers(&unescape_octal(option("lowerdir").as_bytes()));
    uppers.into_iter().chain(lowers.into_iter().map(|path| dir("lower", path))).collect()
}

/// The directories of a `lowerdir` option: separated by colons, a colon in a name has a backslash before it.
fn split_layers(option: &[u8]) -> Vec<Vec<u8>> {
    let mut dirs = vec![Vec::new()];
    let mut bytes = option.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, dirs.last_mut()) {
            (b':', _) => dirs.push(Vec::new()),
            (b'\\', Some(dir)) => dir.extend(bytes.next()),
            (_, Some(dir)) => dir.push(byte),
            (_, None) => {}
        }
    }
    // Two colons in a row begin the data-only layers.
    dirs.retain(|dir| !dir.is_empty());
    dirs
}

/// The kernel writes space, tab, newline, backslash, comma and colon in mountinfo as `\ooo`.
fn unescape_octal(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', later @ ..] if byte == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = later;
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

/// Directories in a tree, itself included, counted up to `limit`; those that cannot be read count, without what
/// is in them.
#[must_use]
pub fn count_directories(root: &Path, limit: u64) -> u64 {
    let mut count = 0;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        count += 1;
        if count >= limit {
            break;
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        open.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_are_bytes() {
        for (text, want) in [
            (&b"/plain"[..], &b"/plain"[..]),
            (b"/a\\040b\\134c", b"/a b\\c"),
            (b"/\\377", b"/\xff"),
            (b"/\\9\\04", b"/\\9\\04"),
        ] {
            assert_eq!(unescape_octal(text), want);
        }
    }

    #[test]
    fn lower_layers_are_split_at_colons() {
        for (option, want) in [
            (&b""[..], &[][..]),
            (b"/a", &["/a"]),
            (b"/a:/b", &["/a", "/b"]),
            (b"/a\\:b:/c", &["/a:b", "/c"]),
            (b"/a::/data", &["/a", "/data"]),
        ] {
            let dirs: Vec<_> =
                split_layers(option).into_iter().map(|d| String::from_utf8(d).unwrap()).collect();
            assert_eq!(dirs, want);
        }
    }

    #[test]
    fn proc_is_found_by_its_mount() {
        let place = Mounts::read().describe(Path::new("/proc/sys"));
        assert_eq!((place.fs.as_str(), place.mount_point), ("proc", PathBuf::from("/proc")));
    }

    #[test]
    fn directories_are_counted_up_to_the_limit() {
        let root = std::env::temp_dir().join(format!("hotr-count-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("c")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let counts = (count_directories(&root, 100), count_directories(&root, 2));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(counts, (4, 2));
    }
}
