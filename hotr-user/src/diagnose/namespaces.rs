//! The mounts of each process, and a way into each filesystem.
//!
//! In: processes. Out: a [`Namespace`] for each mount namespace and root directory, and for a superblock an
//! [`Anchor`]: a directory from which its files are opened by handle.
//!
//! A watcher that asks for opens would receive those of hotr. So everything is opened with `O_PATH`, which sends no
//! notification, and an anchor is the working directory of this thread while handles are opened: `open_by_handle_at`
//! takes no `O_PATH` descriptor (kernel: fs/fhandle.c `get_path_from_fd`). No filesystem with a server or a daemon
//! behind it is ever queried: one that hangs must not hang hotr.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{AtFlags, OFlags, ResolveFlags, Statx, StatxFlags, readlinkat, statx};
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::process::ProcDir;
use crate::beneath;
use crate::doctor::cover::is_remote;
use crate::mounts::{DevId, Mount, MountTable};

/// Which mounts a process sees, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: u64,
    root_mount: u64,
    root_ino: u64,
}

/// A mount namespace, as seen from a root directory.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Its mounts.
    pub(super) table: MountTable,
    /// It is hotr's own.
    pub(super) ours: bool,
    root: OwnedFd,
    /// It has a filesystem that could hang.
    has_remote: bool,
}

/// What a path leads to, without waiting for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) ino: u64,
    pub(super) mount: u64,
    pub(super) nlink: u32,
    pub(super) kind: FileKind,
}

/// What a watched inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    File,
    Dir,
    Other,
}

impl Seen {
    /// Asks about an open place.
    pub(super) fn of(place: impl AsFd) -> rustix::io::Result<Self> {
        Self::from_statx(&statx(place, "", AtFlags::EMPTY_PATH | dont_sync(), wanted())?)
    }

    /// Asks about a name in an open directory; a link is itself.
    pub(super) fn name_in(dir: impl AsFd, name: &Path) -> rustix::io::Result<Self> {
        Self::from_statx(&statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | dont_sync(), wanted())?)
    }

    fn from_statx(stat: &Statx) -> rustix::io::Result<Self> {
        let kind = match u32::from(stat.stx_mode) & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Dir,
            _ => FileKind::Other,
        };
        Ok(Self { ino: stat.stx_ino, mount: stat.stx_mnt_id, nlink: stat.stx_nlink, kind })
    }
}

/// When an inode was made, where its filesystem keeps that, and when it was changed or renamed last; since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) born: Option<Duration>,
    pub(super) changed: Duration,
}

impl Times {
    /// Asks about an open place; `None` when its filesystem does not say.
    pub(super) fn of(place: impl AsFd) -> Option<Self> {
        let wanted = StatxFlags::CTIME | StatxFlags::BTIME;
        let stat = statx(place, "", AtFlags::EMPTY_PATH | dont_sync(), wanted).ok()?;
        let has = |flag: StatxFlags| stat.stx_mask & flag.bits() != 0;
        let since = |seconds: i64, nanos: u32| Some(Duration::new(u64::try_from(seconds).ok()?, nanos));
        let born = since(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        Some(Self {
            born: born.filter(|_| has(StatxFlags::BTIME)),
            changed: since(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec)
                .filter(|_| has(StatxFlags::CTIME))?,
        })
    }
}

fn dont_sync() -> AtFlags {
    AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT
}

fn wanted() -> StatxFlags {
    StatxFlags::TYPE | StatxFlags::INO | StatxFlags::NLINK | StatxFlags::MNT_ID
}

impl Namespace {
    fn new(dir: &ProcDir, ours: bool) -> rustix::io::Result<Self> {
        let table = MountTable::parse(&dir.read("mountinfo")?);
        let has_remote = table.mounts().iter().any(remote);
        Ok(Self { table, ours, root: dir.place("root")?, has_remote })
    }

    /// Opens, as a place, what an absolute path leads to in this namespace. Links are followed with `follow`;
    /// without, one on the way is an error and the last name may be one. On a filesystem with a server, only what the kernel has in memory is found.
    pub(super) fn open(&self, path: &Path, follow: bool) -> rustix::io::Result<OwnedFd> {
        if !self.has_remote {
            return self.open_at_once(path, follow, ResolveFlags::empty());
        }
        let mut at = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            if self.table.mount_of(&next).is_some_and(remote) {
                let whole = rest.iter().fold(next, |path, name| path.join(name));
                return self.open_at_once(&whole, follow, ResolveFlags::CACHED);
            }
            let place = self.open_at_once(&next, false, ResolveFlags::empty())?;
            if !is_link(&place)? {
                at = next;
                continue;
            }
            if !follow && rest.is_empty() {
                return Ok(place);
            }
            links += 1;
            if !follow || links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(&place, "", Vec::new())?.into_bytes();
            let target = PathBuf::from(OsString::from_vec(target));
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(name);
            }
        }
        self.open_at_once(&at, false, ResolveFlags::empty())
    }

    /// One call for the whole path. Without `follow`, the last name may be a link, which is opened itself.
    fn open_at_once(&self, path: &Path, follow: bool, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            resolve |= ResolveFlags::NO_SYMLINKS;
            flags |= OFlags::NOFOLLOW;
        }
        beneath::resolved(&self.root, path, flags, resolve)
    }

    /// What an absolute path leads to in this namespace.
    pub(super) fn look(&self, path: &Path, follow: bool) -> rustix::io::Result<Seen> {
        Seen::of(self.open(path, follow)?)
    }

    /// Where `fs_path` of a superblock can be seen in this namespace.
    pub(super) fn sight(&self, dev: DevId, fs_path: &Path) -> Reachability {
        let mut covered = None;
        for mount in self.table.other_mounts_of(dev) {
            let Some(path) = mount.visible_path(fs_path) else { continue };
            match self.table.mount_of(&path) {
                Some(top) if top.id == mount.id => return Reachability::Visible(path),
                Some(top) => covered = covered.or(Some((path, top.id))),
                None => {}
            }
        }
        match covered {
            Some((path, by)) => Reachability::Covered { path, by },
            None if self.table.other_mounts_of(dev).next().is_some() => Reachability::Elsewhere,
            None => Reachability::NotMounted,
        }
    }
}

/// Links on one path (kernel: include/linux/namei.h `MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// The names of a path, with `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn is_link(place: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = statx(place, "", AtFlags::EMPTY_PATH | dont_sync(), StatxFlags::TYPE)?;
    Ok(u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK)
}

/// Whether a path of a namespace leads to a place of a superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// By this path.
    Visible(PathBuf),
    /// It was at this path, and this mount is on top of it.
    Covered { path: PathBuf, by: u64 },
    /// The superblock is mounted, and that part of it is not shown.
    Elsewhere,
    /// The superblock is not mounted.
    NotMounted,
}

/// A filesystem with a server or a daemon behind it.
pub(super) fn remote(mount: &Mount) -> bool {
    mount.fs_type.to_str().is_some_and(is_remote)
}

/// A directory of a superblock.
#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) dir: OwnedFd,
    pub(super) mount: Mount,
}

/// All namespaces and anchors met so far. To be used by one thread, whose working directory it changes.
#[derive(Debug)]
pub(super) struct Namespaces {
    namespaces: HashMap<Key, Rc<Namespace>>,
    anchors: HashMap<DevId, Rc<Anchor>>,
    without: HashSet<(DevId, usize)>,
    pub(super) ours: Rc<Namespace>,
    /// The working directory may be changed.
    own_directory: bool,
    /// Every process of the machine has been met.
    pub(super) complete: bool,
}

impl Namespaces {
    /// Makes the working directory of this thread its own, and reads hotr's mounts.
    pub(super) fn new() -> rustix::io::Result<Self> {
        // A container may forbid that; then no handle is opened, which it forbids as well.
        // SAFETY: CLONE_FS gives this thread its own working directory and root, and touches no memory.
        let own_directory = unsafe { unshare_unsafe(UnshareFlags::FS) }.is_ok();
        let me = ProcDir::open(std::process::id())?;
        let ours = Rc::new(Namespace::new(&me, true)?);
        let namespaces = HashMap::from([(key(&me)?, Rc::clone(&ours))]);
        Ok(Self {
            namespaces,
            anchors: HashMap::new(),
            without: HashSet::new(),
            ours,
            own_directory,
            complete: false,
        })
    }

    /// The namespace of a process.
    pub(super) fn of(&mut self, dir: &ProcDir) -> rustix::io::Result<Rc<Namespace>> {
        let key = key(dir)?;
        if let Some(known) = self.namespaces.get(&key) {
            return Ok(Rc::clone(known));
        }
        let namespace = Rc::new(Namespace::new(dir, false)?);
        self.namespaces.insert(key, Rc::clone(&namespace));
        Ok(namespace)
    }

    /// Whether any namespace met so far has this superblock.
    pub(super) fn is_mounted_anywhere(&self, dev: DevId) -> bool {
        self.namespaces.values().any(|namespace| namespace.table.other_mounts_of(dev).next().is_some())
    }

    /// A mount of a superblock, ours before the target's.
    pub(super) fn mount(&self, dev: DevId, namespace: &Namespace) -> Option<Mount> {
        let find = |table: &MountTable| table.other_mounts_of(dev).next().cloned();
        find(&namespace.table).or_else(|| find(&self.ours.table))
    }

    /// A directory of a superblock, from hotr's mounts or from those of the target.
    pub(super) fn anchor(&mut self, dev: DevId, namespace: &Rc<Namespace>) -> Option<Rc<Anchor>> {
        if let Some(anchor) = self.anchors.get(&dev) {
            return Some(Rc::clone(anchor));
        }
        let tried = (dev, Rc::as_ptr(namespace) as usize);
        if !self.own_directory || self.without.contains(&tried) {
            return None;
        }
        let ours = Rc::clone(&self.ours);
        match find_anchor(dev, &ours).or_else(|| find_anchor(dev, namespace)) {
            Some(anchor) => {
                let anchor = Rc::new(anchor);
                self.anchors.insert(dev, Rc::clone(&anchor));
                Some(anchor)
            }
            None => {
                self.without.insert(tried);
                None
            }
        }
    }
}

fn key(dir: &ProcDir) -> rustix::io::Result<Key> {
    let root = Seen::of(dir.place("root")?)?;
    let link = dir.link("ns/mnt")?;
    let digits: String = String::from_utf8_lossy(&link).chars().filter(char::is_ascii_digit).collect();
    let namespace = digits.parse().map_err(|_| Errno::INVAL)?;
    Ok(Key { namespace, root_mount: root.mount, root_ino: root.ino })
}

/// The whole filesystem before a part of it: below a part, a path could be of outside or inside.
fn find_anchor(dev: DevId, namespace: &Namespace) -> Option<Anchor> {
    let mut mounts: Vec<&Mount> =
        namespace.table.other_mounts_of(dev).filter(|mount| !remote(mount) && !mount.deleted).collect();
    mounts.sort_by_key(|mount| mount.root.as_os_str().len());
    mounts.into_iter().find_map(|mount| {
        let place = namespace.open(&mount.mount_point, false).ok()?;
        let seen = Seen::of(&place).ok()?;
        (seen.mount == mount.id && seen.kind == FileKind::Dir)
            .then(|| Anchor { dir: place, mount: mount.clone() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(mounts: &str) -> Namespace {
        let table = MountTable::parse(mounts.as_bytes());
        let root = ProcDir::open(std::process::id()).unwrap().place("root").unwrap();
        Namespace { has_remote: table.mounts().iter().any(remote), table, ours: true, root }
    }

    #[test]
    fn a_place_is_visible_covered_elsewhere_or_not_mounted() {
        let space = namespace(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /mnt rw - tmpfs t rw\n3 1 8:2 /part /p rw - ext4 /dev/b rw\n",
        );
        let (a, b) = (DevId { major: 8, minor: 1 }, DevId { major: 8, minor: 2 });
        for (dev, path, want) in [
            (a, "/srv/x", Reachability::Visible("/srv/x".into())),
            (a, "/mnt", Reachability::Covered { path: "/mnt".into(), by: 2 }),
            (a, "/mnt/x", Reachability::Covered { path: "/mnt/x".into(), by: 2 }),
            (b, "/part/y", Reachability::Visible("/p/y".into())),
            (b, "/other", Reachability::Elsewhere),
            (DevId { major: 8, minor: 3 }, "/", Reachability::NotMounted),
        ] {
            assert_eq!(space.sight(dev, Path::new(path)), want, "{path}");
        }
    }

    #[test]
    fn links_are_followed_by_hand_where_a_server_could_be_asked() {
        let root = std::env::temp_dir().join(format!("hotr-links-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let root = root.canonicalize().unwrap();
        std::fs::write(root.join("a/f"), "").unwrap();
        for (link, target) in
            [("up", "a/b/../f"), ("abs", root.join("up").to_str().unwrap()), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let plain = namespace("1 0 8:1 / / rw - ext4 /dev/a rw\n");
        let careful = namespace("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /nowhere rw - fuse.sshfs s rw\n");
        assert!(careful.has_remote && !plain.has_remote);
        for (path, follow, want) in [
            ("a/f", false, Ok(())),
            ("a/f", true, Ok(())),
            ("up", true, Ok(())),
            ("abs", true, Ok(())),
            ("up", false, Ok(())),
            ("up/x", false, Err(Errno::LOOP)),
            ("loop", true, Err(Errno::LOOP)),
            ("absent", true, Err(Errno::NOENT)),
            ("a/f/x", true, Err(Errno::NOTDIR)),
        ] {
            let path = root.join(path);
            let (one, other) = (plain.look(&path, follow), careful.look(&path, follow));
            assert_eq!(one.map(|_| ()), want, "{}", path.display());
            assert_eq!(one, other, "{}", path.display());
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_server_is_not_asked() {
        let dir = std::env::temp_dir().join(format!("hotr-cached-{}", std::process::id()));
        let space = namespace(&format!(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / {} rw - nfs s rw\n",
            dir.display()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let dir = dir.canonicalize().unwrap();
        assert!(space.look(&dir, true).is_ok(), "it is in memory");
        // A name that nobody has looked up yet is not searched.
        let absent = space.look(&dir.join("never-looked-up"), true);
        std::fs::remove_dir_all(&dir).unwrap();
        // Kernels before 5.12 know no such request.
        assert!(matches!(absent, Err(Errno::AGAIN | Errno::INVAL)), "{absent:?}");
    }
}
