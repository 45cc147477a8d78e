//! A watched directory in, every further directory inode that leads to its files out.
//!
//! The kernel side climbs `d_parent` from a changed file until it meets a registered inode. `d_parent` knows
//! superblocks, not mounts, so what needs registering besides the root's own inode is exactly what lies on another
//! dentry path:
//!
//! - **A mount below the root**: its root directory, whose `d_parent` chain ends at its own superblock or, for a
//!   bind mount, passes outside the watched directory. The prefix is where the user sees it.
//! - **The layers of an overlay**, when the root lies in one or one is mounted below: a direct change in a layer
//!   happens on that layer's superblock.
//! - **Not a bind mount of the root, or of anything above or below it**: it shows the same dentries, and the climb
//!   passes the root's inode as it does for the root's own mount. The same holds when the root itself is reached
//!   through a bind mount of a subdirectory, and for a mount below the root whose source is already inside the
//!   watched tree: registering that one would rename changes made under its first name.
//!
//! Overlay on overlay is followed one level: the layers of the watched overlay, not the layers of its layers.
//! `redirect_dir` xattrs are not followed: a lower directory under another name is not found. A layer path is
//! taken as it is in our namespace; that it names the same directory there as in the mounter's cannot be proven.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, lgetxattr, openat, openat2, statx,
};
use rustix::io::Errno;

use super::overlay::{LayerKind, OverlayLayer, overlay_layers};
use super::{DevId, Location, Mount, MountTable, join};
use hotr_events::Layer;

/// A further inode that stands for the watched root or for something below it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AliasRoot {
    /// A path to it in our namespace. Usually a directory; a file where a file is bind-mounted.
    pub dir: PathBuf,
    /// What it is, relative to the watched root; empty when it is the root itself.
    pub prefix: PathBuf,
    /// Which layer of an overlay it is; `None` for a mount.
    pub layer: Option<Layer>,
    /// The mount that `dir` lies on: a change through it came by the expected way.
    pub mount_id: u64,
    /// The same place for a `d_parent` walk.
    pub location: Location,
    /// What is mounted has been removed from there: the location is that of another file, if of any.
    pub is_removed: bool,
}

/// A layer directory that does not exist yet: overlay makes it when something below is first copied up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Where it will be. Nothing can change in it before a change inside the overlay has created it, so look again
    /// after the first change under `prefix`, and when the mounts change.
    pub dir: PathBuf,
    /// What it will stand for, relative to the watched root.
    pub prefix: PathBuf,
    /// The kind it will have.
    pub layer: Layer,
}

/// A layer that cannot be covered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreachable {
    /// Its directory as the mounter named it.
    pub dir: PathBuf,
    /// Where the overlay shows it, relative to the watched root.
    pub prefix: PathBuf,
    /// Which layer.
    pub layer: Layer,
    /// The reason, for humans.
    pub reason: String,
}

/// All other ways into a watched directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aliases {
    /// To be registered beside the root's own inode.
    pub roots: Vec<AliasRoot>,
    /// Would be aliases, but a climb from them meets the root (or an earlier alias) anyway, so a change in them is
    /// reported under that path. Matters for overlay layers inside the watched tree: every write to the overlay
    /// shows up in them as well.
    pub covered: Vec<AliasRoot>,
    /// To be looked for later.
    pub pending: Vec<Pending>,
    /// Not coverable from here.
    pub unreachable: Vec<Unreachable>,
}

/// Finds the aliases of `root`: an absolute path without symbolic links. Only overlay layers are read on disk; a dead
/// network mount below the root is named, not touched. Empty when `root` is not in the table.
#[must_use]
pub fn aliases(root: &Path, table: &MountTable) -> Aliases {
    let mut found = Aliases::default();
    let Some(home) = table.mount_of(root) else { return found };
    let Some(home_path) = home.fs_path(root) else { return found };
    let mut candidates = Vec::new();
    for mount in table.visible_below(root).filter(|mount| !mount.is_pseudo()) {
        let Ok(prefix) = mount.mount_point.strip_prefix(root) else { continue };
        candidates.push(AliasRoot {
            dir: mount.mount_point.clone(),
            prefix: prefix.to_path_buf(),
            layer: None,
            mount_id: mount.id,
            location: Location { dev: mount.dev, fs_path: mount.root.clone() },
            is_removed: mount.deleted,
        });
        Layers { mount, inside: &mount.root, prefix, table }.collect(&mut candidates, &mut found);
    }
    Layers { mount: home, inside: &home_path, prefix: Path::new(""), table }
        .collect(&mut candidates, &mut found);
    let home = Location { dev: home.dev, fs_path: home_path };
    split_covered(&home, candidates, &mut found);
    found
}

/// Keeps what a climb would not meet. A layer inside another layer is kept: the climb stops at the nearest.
fn split_covered(home: &Location, candidates: Vec<AliasRoot>, found: &mut Aliases) {
    let covers = |(other_index, other): (usize, &AliasRoot), (index, this): (usize, &AliasRoot)| {
        if other_index == index || other.is_removed || !this.location.is_within(&other.location) {
            return false;
        }
        match (other.layer, this.layer) {
            // One inode stands for one path: the first.
            _ if other.location == this.location => {
                (other.layer.is_some(), other_index) < (this.layer.is_some(), index)
            }
            (None, _) => true,
            (Some(_), _) => false,
        }
    };
    // A machine with thousands of mounts has few of one superblock.
    let mut by_dev: HashMap<DevId, Vec<usize>> = HashMap::new();
    for (index, alias) in candidates.iter().enumerate() {
        by_dev.entry(alias.location.dev).or_default().push(index);
    }
    let covered: Vec<bool> = candidates
        .iter()
        .enumerate()
        .map(|this| {
            if this.1.is_removed {
                return false;
            }
            this.1.location.is_within(home)
                || by_dev[&this.1.location.dev].iter().any(|&other| covers((other, &candidates[other]), this))
        })
        .collect();
    for (alias, covered) in candidates.into_iter().zip(covered) {
        if covered { found.covered.push(alias) } else { found.roots.push(alias) }
    }
}

/// The layers of one overlay mount, seen from one directory in it.
struct Layers<'a> {
    mount: &'a Mount,
    /// The directory, from the overlay's own root.
    inside: &'a Path,
    /// The same, relative to the watched root.
    prefix: &'a Path,
    table: &'a MountTable,
}

/// What a layer has at the place of the watched directory.
enum Probe {
    /// A directory to register.
    Here,
    /// Nothing.
    Missing,
    /// Something that hides all layers below and is no directory itself: a whiteout or a file.
    Hides,
}

impl Layers<'_> {
    fn collect(&self, candidates: &mut Vec<AliasRoot>, found: &mut Aliases) {
        for layer in overlay_layers(self.mount) {
            let kind = match layer.kind {
                LayerKind::Upper => Layer::Upper,
                LayerKind::Lower => Layer::Lower,
                LayerKind::Work | LayerKind::Data => continue,
            };
            let (base, fd) = match open_layer(&layer) {
                Ok(opened) => opened,
                Err(reason) => {
                    let prefix = self.prefix.to_path_buf();
                    found.unreachable.push(Unreachable { dir: layer.dir, prefix, layer: kind, reason });
                    continue;
                }
            };
            match probe(&base, &fd, self.inside) {
                Ok((probe, opaque)) => {
                    self.add(probe, &base, kind, candidates, found);
                    if opaque {
                        return;
                    }
                }
                Err(errno) => {
                    let prefix = self.prefix.to_path_buf();
                    let reason = reason(errno);
                    found.unreachable.push(Unreachable { dir: layer.dir, prefix, layer: kind, reason });
                }
            }
        }
    }

    fn add(
        &self,
        probe: Probe,
        base: &Path,
        layer: Layer,
        candidates: &mut Vec<AliasRoot>,
        found: &mut Aliases,
    ) {
        let dir = join(base, &relative(self.inside));
        match probe {
            Probe::Here => {
                if let Some(mount) = self.table.mount_of(&dir)
                    && let Some(fs_path) = mount.fs_path(&dir)
                {
                    let location = Location { dev: mount.dev, fs_path };
                    let prefix = self.prefix.to_path_buf();
                    candidates.push(AliasRoot {
                        dir,
                        prefix,
                        layer: Some(layer),
                        mount_id: mount.id,
                        location,
                        is_removed: false,
                    });
                }
            }
            Probe::Missing if layer == Layer::Upper => {
                found.pending.push(Pending { dir, prefix: self.prefix.to_path_buf(), layer });
            }
            // A lower layer is not to be changed while mounted: what is not there will not come.
            Probe::Missing | Probe::Hides => {}
        }
    }
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_path_buf()
}

/// Opens a layer's directory; the path that was found has its symbolic links resolved.
fn open_layer(layer: &OverlayLayer) -> Result<(PathBuf, OwnedFd), String> {
    let mut last = None;
    for dir in layer.candidates() {
        match openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                let real = std::fs::canonicalize(dir).map_err(|error| error.to_string())?;
                return Ok((real, fd));
            }
            Err(errno) => last = Some(errno),
        }
    }
    Err(last.map_or_else(|| "relative to the working directory of whoever mounted it".to_owned(), reason))
}

fn reason(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "not in this mount namespace, or removed".to_owned(),
        Errno::XDEV => "another file system is mounted over it in this mount namespace".to_owned(),
        other => other.to_string(),
    }
}

/// Walks `inside` component by component, as overlay's lookup does: it does not cross mounts inside a layer, a
/// whiteout or file hides what is below, an opaque directory ends the merge with itself.
fn probe(base: &Path, layer: &OwnedFd, inside: &Path) -> Result<(Probe, bool), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut path = base.to_path_buf();
    let mut opened: Option<OwnedFd> = None;
    let mut opaque = false;
    for component in inside.components() {
        let Component::Normal(name) = component else { continue };
        let dir = opened.as_ref().unwrap_or(layer);
        let next = match openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok((Probe::Missing, opaque)),
            Err(other) => return Err(other),
        };
        let stat = statx(&next, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::Directory {
            return Ok((Probe::Hides, true));
        }
        path.push(name);
        opaque |= is_opaque(&path);
        opened = Some(next);
    }
    Ok((Probe::Here, opaque))
}

/// `trusted.` is where overlay keeps it, `user.` where it was mounted with `userxattr`.
fn is_opaque(dir: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0_u8; 1];
        lgetxattr(dir, OsStr::new(name), &mut value).is_ok_and(|length| length == 1 && value == *b"y")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: &str, mounts: &str) -> (Vec<(String, String)>, Vec<String>) {
        let found = aliases(Path::new(root), &MountTable::parse(mounts.as_bytes()));
        let text = |path: &Path| path.to_str().expect("tests are UTF-8").to_owned();
        let roots =
            found.roots.iter().map(|alias| (text(&alias.prefix), text(&alias.location.fs_path))).collect();
        (roots, found.covered.iter().map(|alias| text(&alias.prefix)).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    const BASE: &str = "1 0 8:1 / / rw - ext4 /dev/a rw\n";

    #[test]
    fn mounts_below_are_aliases_and_pseudo_ones_are_not() {
        let mounts = format!(
            "{BASE}2 1 8:2 / /srv/data rw - xfs /dev/b rw\n3 1 0:4 / /srv/proc rw - proc proc rw\n\
             4 2 0:5 / /srv/data/t rw - tmpfs t rw\n5 1 0:6 / /srvx rw - tmpfs t rw\n"
        );
        assert_eq!(of("/srv", &mounts), (pairs(&[("data", "/"), ("data/t", "/")]), vec![]));
        assert_eq!(of("/srv/data", &mounts), (pairs(&[("t", "/")]), vec![]));
        assert_eq!(of("/srv/data/t", &mounts), (vec![], vec![]));
    }

    #[test]
    fn a_bind_mount_from_elsewhere_is_an_alias_one_from_inside_is_covered() {
        let mounts = format!(
            "{BASE}2 1 8:1 /var/data /srv/d rw - ext4 /dev/a rw\n3 1 8:1 /srv/a /srv/b rw - ext4 /dev/a rw\n\
             4 1 8:1 /srv /mnt rw - ext4 /dev/a rw\n5 1 8:1 /var/data/x /srv/x rw - ext4 /dev/a rw\n\
             6 1 8:1 /var/data /srv/again rw - ext4 /dev/a rw\n"
        );
        let (roots, covered) = of("/srv", &mounts);
        assert_eq!(roots, pairs(&[("d", "/var/data")]));
        assert_eq!(covered, ["b", "x", "again"]);
        // The root reached by its own bind mount: the same dentries.
        assert_eq!(of("/mnt", &mounts), (vec![], vec![]));
    }

    #[test]
    fn a_bind_mount_of_something_above_the_root_is_an_alias_for_the_rest() {
        let mounts = format!("{BASE}2 1 8:1 / /srv/host rw - ext4 /dev/a rw\n");
        assert_eq!(of("/srv", &mounts), (pairs(&[("host", "/")]), vec![]));
    }

    #[test]
    fn what_was_removed_where_it_is_mounted_from_is_an_alias_and_covers_nothing() {
        let mounts = format!(
            "{BASE}2 1 8:1 /srv/a//deleted /srv/b rw - ext4 /dev/a rw\n\
             3 1 8:1 /srv/a//deleted /srv/c rw - ext4 /dev/a rw\n\
             4 1 8:1 /var/x//deleted /srv/x rw - ext4 /dev/a rw\n5 1 8:1 /var/x /srv/y rw - ext4 /dev/a rw\n"
        );
        let (roots, covered) = of("/srv", &mounts);
        assert_eq!(roots, pairs(&[("b", "/srv/a"), ("c", "/srv/a"), ("x", "/var/x"), ("y", "/var/x")]));
        assert_eq!(covered, [""; 0]);
    }

    #[test]
    fn only_the_top_of_a_stack_counts_and_nothing_under_it() {
        let mounts = format!(
            "{BASE}2 1 8:2 / /srv/s rw - xfs /dev/b rw\n3 2 8:3 / /srv/s/in rw - xfs /dev/c rw\n\
             4 2 0:9 / /srv/s rw - tmpfs top rw\n"
        );
        let found = aliases(Path::new("/srv"), &MountTable::parse(mounts.as_bytes()));
        assert_eq!(found.roots.iter().map(|alias| alias.mount_id).collect::<Vec<_>>(), [4]);
    }
}
