//! Where a path leads, link by link.
//!
//! In: a path. Out: the links on the way with their owners, and what is at the end.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

/// As the kernel: more links on one way are a loop.
const MOST_LINKS: usize = 40;

/// What is at the end of a way; with its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Missing,
    File(u32),
    Dir(u32),
    Other(u32),
}

/// A way.
#[derive(Debug)]
pub(super) struct Route {
    /// Links, where they are, and their owners.
    pub(super) links: Vec<(PathBuf, u32)>,
    /// The end, without links; need not exist.
    pub(super) path: PathBuf,
    pub(super) end: End,
}

impl Route {
    /// Follows an absolute path.
    pub(super) fn of(path: &Path) -> Self {
        let mut todo = backwards(path);
        let mut route = Self { links: Vec::new(), path: PathBuf::from("/"), end: End::Missing };
        while let Some(part) = todo.pop() {
            match Path::new(&part).components().next() {
                Some(Component::Normal(_)) => {}
                Some(Component::ParentDir) => {
                    route.path.pop();
                    continue;
                }
                Some(Component::RootDir) => {
                    route.path = PathBuf::from("/");
                    continue;
                }
                _ => continue,
            }
            let next = route.path.join(&part);
            let Ok(data) = next.symlink_metadata() else {
                route.path = todo.into_iter().rev().fold(next, |path, part| path.join(part));
                route.end = End::Missing;
                return route;
            };
            let owner = data.uid();
            if data.is_symlink() {
                let target = next.read_link().unwrap_or_default();
                route.links.push((next, owner));
                if route.links.len() > MOST_LINKS {
                    route.end = End::Missing;
                    return route;
                }
                todo.extend(backwards(&target));
                continue;
            }
            route.end = match data.file_type() {
                kind if kind.is_dir() => End::Dir(owner),
                kind if kind.is_file() => End::File(owner),
                _ => End::Other(owner),
            };
            route.path = next;
        }
        if let Ok(data) = route.path.symlink_metadata()
            && data.is_dir()
        {
            route.end = End::Dir(data.uid());
        }
        route
    }

    /// Who made a link of the way and owns neither its end nor this process: he may not be able to read what it leads to,
    /// and would learn about it.
    pub(super) fn stranger(&self, owner: u32) -> Option<u32> {
        let may_lead = |uid: &u32| *uid == 0 || *uid == owner || *uid == geteuid().as_raw();
        self.links.iter().map(|(_, uid)| *uid).find(|uid| !may_lead(uid))
    }
}

fn backwards(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
}

/// Change time of a name itself.
pub(super) fn changed_ns(path: &Path) -> Option<i64> {
    let stat = path.symlink_metadata().ok()?;
    Some(stat.ctime().saturating_mul(1_000_000_000).saturating_add(stat.ctime_nsec()))
}
