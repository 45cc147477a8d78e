//! The mount id of a change in, the way it came out: the watched mount itself, a bind mount, or another mount of
//! the same file system.
//!
//! The kernel keeps no memory of `mount --bind`: it makes one more mount of a superblock, and mountinfo says only which
//! directory of it is shown. So a mount that shows less than the whole file system is a bind mount; one that shows the
//! whole of it is called another mount, except where the file system can have no second mount other than by binding
//! (every `mount -t tmpfs` makes a new superblock).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Mount, MountTable};
use hotr_events::Layer;

/// By which mount a change came, seen from a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Through {
    /// The mount that the watched path lies on.
    Same,
    /// Another one.
    Other(Layer),
    /// A mount that our namespace does not have: ask [`layer_of_foreign_mount`] with the table of the process.
    NotInTable,
}

fn kind(mount: &Mount) -> Layer {
    let bind_only = ["tmpfs", "ramfs", "overlay"].iter().any(|name| mount.fs_type == *name);
    if shows_whole(mount) && !bind_only { Layer::Mount } else { Layer::Bind }
}

/// The whole file system, or the whole of the btrfs subvolume that was mounted.
fn shows_whole(mount: &Mount) -> bool {
    if mount.root.as_os_str() == "/" {
        return true;
    }
    mount.fs_type == "btrfs"
        && mount.super_options.split(|&byte| byte == b',').any(|option| {
            option.strip_prefix(b"subvol=").is_some_and(|name| {
                super::parse::unescape_octal(name) == mount.root.as_os_str().as_encoded_bytes()
            })
        })
}

/// By which mount of our own namespace a change came. `root` is the mount of the watched root, or of the alias that
/// the change was found under ([`AliasRoot::mount_id`](super::AliasRoot::mount_id)).
#[must_use]
pub fn layer_of_mount(change: u64, root: u64, table: &MountTable) -> Through {
    if change == root {
        return Through::Same;
    }
    table.by_id(change).map_or(Through::NotInTable, |mount| Through::Other(kind(mount)))
}

/// By which mount a change came that was made in another mount namespace. A namespace starts as a copy of another one,
/// so a mount that shows the same directory at the same place is the watched mount's copy: nothing to report. `None`
/// also when the process's table does not have the mount.
#[must_use]
pub fn layer_of_foreign_mount(
    change: u64,
    theirs: &MountTable,
    root: u64,
    ours: &MountTable,
) -> Option<Layer> {
    let mount = theirs.by_id(change)?;
    let is_copy = ours.by_id(root).is_some_and(|root| {
        (root.dev, &root.root, &root.mount_point) == (mount.dev, &mount.root, &mount.mount_point)
    });
    (!is_copy).then(|| kind(mount))
}

/// Remembers answers for mounts of other namespaces, so that a change costs no system call.
#[derive(Debug, Default)]
pub struct LayerCache {
    known: HashMap<(u64, u64), (Option<Layer>, Instant)>,
}

impl LayerCache {
    /// Mount ids are reused after an unmount, and nothing reports unmounts in other namespaces.
    const TTL: Duration = Duration::from_secs(1);
    const MAX: usize = 1024;

    /// The layer of a change that process `pid` made through mount `change` while `root` is the watched mount.
    /// `None` when it is the watched mount or its copy, and when the process has ended and nothing can be known.
    pub fn layer(
        &mut self,
        change: u64,
        root: u64,
        pid: u32,
        ours: &MountTable,
        now: Instant,
    ) -> Option<Layer> {
        match layer_of_mount(change, root, ours) {
            Through::Same => return None,
            Through::Other(layer) => return Some(layer),
            Through::NotInTable => {}
        }
        if let Some((layer, since)) = self.known.get(&(change, root))
            && now.saturating_duration_since(*since) < Self::TTL
        {
            return *layer;
        }
        let theirs = MountTable::read_process(pid).ok();
        let layer = theirs.and_then(|theirs| layer_of_foreign_mount(change, &theirs, root, ours));
        if self.known.len() >= Self::MAX {
            self.known.clear();
        }
        self.known.insert((change, root), (layer, now));
        layer
    }

    /// Forgets everything; to be called when the mounts of our namespace changed.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
        2 1 8:1 /srv /mnt/b rw - ext4 /dev/a rw\n\
        3 1 8:1 / /mnt/whole rw - ext4 /dev/a rw\n\
        4 1 0:40 / /t rw - tmpfs t rw\n\
        5 1 0:40 / /t2 rw - tmpfs t rw\n\
        6 1 0:41 /@home /home rw - btrfs /dev/b rw,subvolid=257,subvol=/@home\n\
        7 1 0:41 /@home/u /u rw - btrfs /dev/b rw,subvolid=257,subvol=/@home\n";

    #[test]
    fn layers_of_our_own_mounts() {
        let table = MountTable::parse(OURS.as_bytes());
        for (change, root, expected) in [
            (1, 1, Through::Same),
            (2, 1, Through::Other(Layer::Bind)),
            (1, 2, Through::Other(Layer::Mount)),
            (3, 1, Through::Other(Layer::Mount)),
            (5, 4, Through::Other(Layer::Bind)),
            (6, 7, Through::Other(Layer::Mount)),
            (7, 6, Through::Other(Layer::Bind)),
            (99, 1, Through::NotInTable),
        ] {
            assert_eq!(layer_of_mount(change, root, &table), expected, "{change} seen from {root}");
        }
    }

    #[test]
    fn layers_of_another_namespaces_mounts() {
        let ours = MountTable::parse(OURS.as_bytes());
        let theirs = "11 10 8:1 / / rw - ext4 /dev/a rw\n12 11 8:1 /srv /data rw - ext4 /dev/a rw\n\
            13 11 8:1 / /host rw - ext4 /dev/a rw\n";
        let theirs = MountTable::parse(theirs.as_bytes());
        for (change, expected) in [(11, None), (12, Some(Layer::Bind)), (13, Some(Layer::Mount)), (14, None)]
        {
            assert_eq!(layer_of_foreign_mount(change, &theirs, 1, &ours), expected, "mount {change}");
        }
    }

    #[test]
    fn a_process_that_has_ended_leaves_no_layer() {
        let table = MountTable::parse(OURS.as_bytes());
        // No pid is that large (PID_MAX_LIMIT is 2^22).
        assert_eq!(LayerCache::default().layer(99, 1, u32::MAX, &table, Instant::now()), None);
    }
}
