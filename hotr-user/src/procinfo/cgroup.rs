//! Cgroup ids in, paths in the unified hierarchy out.
//!
//! The id that the kernel records is the inode number of the cgroup's directory on a 64-bit machine
//! (fs/kernfs/dir.c, `kernfs_ino`), and a directory listing already carries inode numbers: one walk without a stat
//! per entry knows them all. It works after the writing process has ended, while its cgroup lives.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mounts::MountTable;

/// Paths of cgroups by id, as of the last walk.
#[derive(Debug)]
pub struct CgroupPaths {
    mount: Option<PathBuf>,
    paths: HashMap<u64, Arc<str>>,
    walked: Option<Instant>,
}

impl Default for CgroupPaths {
    fn default() -> Self {
        Self::new()
    }
}

impl CgroupPaths {
    /// An unknown id starts a walk at most this often.
    const PAUSE: Duration = Duration::from_millis(500);

    /// Whether the unified hierarchy is mounted.
    #[must_use]
    pub const fn is_mounted(&self) -> bool {
        self.mount.is_some()
    }

    /// Finds where the unified hierarchy is mounted; without it every answer is `None`.
    #[must_use]
    pub fn new() -> Self {
        let mount = MountTable::read().ok().and_then(|table| {
            let mount = table.mounts().iter().find(|mount| mount.fs_type == "cgroup2")?;
            Some(mount.mount_point.clone())
        });
        Self::at(mount)
    }

    fn at(mount: Option<PathBuf>) -> Self {
        Self { mount, paths: HashMap::new(), walked: None }
    }

    /// The path of a cgroup, `/` for the root. Removed cgroups stay known: their ids are not used again.
    pub fn path(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        if id == 0 {
            return None;
        }
        if let Some(path) = self.paths.get(&id) {
            return Some(Arc::clone(path));
        }
        let mount = self.mount.clone()?;
        if self.walked.is_some_and(|walked| now.saturating_duration_since(walked) < Self::PAUSE) {
            return None;
        }
        self.walked = Some(now);
        self.walk(&mount);
        self.paths.get(&id).map(Arc::clone)
    }

    fn walk(&mut self, mount: &Path) {
        if let Ok(root) = fs::metadata(mount) {
            self.paths.insert(root.ino(), Arc::from("/"));
        }
        let mut open = vec![mount.to_path_buf()];
        while let Some(dir) = open.pop() {
            // A cgroup may vanish at any moment.
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let path = entry.path();
                if let Ok(below) = path.strip_prefix(mount) {
                    self.paths.insert(entry.ino(), Arc::from(format!("/{}", below.to_string_lossy())));
                }
                open.push(path);
            }
        }
    }
}

/// The names in the path of a cgroup, from the root on.
pub fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// Whether this is the cgroup of a systemd unit; `.service` may be left out of the unit's name.
#[must_use]
pub fn is_of_unit(name: &str, unit: &str) -> bool {
    name.strip_prefix(unit).is_some_and(|rest| rest.is_empty() || rest == ".service")
}

/// The id in the name that a container engine gives to a cgroup: `ID`, `docker-ID.scope`, `libpod-ID`, ….
#[must_use]
pub fn container_id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit(['-', ':']).next()?;
    (id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// The id of the container that the processes of a cgroup run in, the innermost: 64 hexadecimal digits in the name of a cgroup.
#[must_use]
pub fn container_of(path: &str) -> Option<&str> {
    names(path).rev().filter_map(container_id).find(|id| id.len() == 64)
}

/// The systemd unit of the processes of a cgroup, the innermost: the kinds of unit that have processes, but for slices.
#[must_use]
pub fn unit_of(path: &str) -> Option<&str> {
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    names(path).rev().find(|name| kinds.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind)))
}

/// Whether a cgroup is this one or below it. Without a slash at its begin, `wanted` may be anywhere in the path.
#[must_use]
pub fn is_in(path: &str, wanted: &str) -> bool {
    let wanted_names: Vec<&str> = names(wanted).collect();
    let path_names: Vec<&str> = names(path).collect();
    if wanted.starts_with('/') {
        return path_names.starts_with(&wanted_names);
    }
    !wanted_names.is_empty() && path_names.windows(wanted_names.len()).any(|part| part == wanted_names)
}

/// The unified-hierarchy line of `/proc/<pid>/cgroup`.
pub(super) fn of_process(dir: &Path) -> Option<Arc<str>> {
    let text = fs::read(dir.join("cgroup")).ok()?;
    unified(&String::from_utf8_lossy(&text))
}

fn unified(text: &str) -> Option<Arc<str>> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Arc::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_line_is_the_one_numbered_zero() {
        for (text, expected) in [
            ("0::/system.slice/ssh.service\n", Some("/system.slice/ssh.service")),
            ("10:0::x:/no\n1:name=systemd:/a\n0::/b:c\n", Some("/b:c")),
            ("0::/gone (deleted)\n", Some("/gone")),
            ("1:cpu:/x\n", None),
        ] {
            assert_eq!(unified(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_unit_is_named_with_or_without_its_suffix() {
        for (name, unit, want) in [
            ("nginx.service", "nginx", true),
            ("nginx.service", "nginx.service", true),
            ("nginx.service", "ngin", false),
            ("nginx.socket", "nginx", false),
            ("session-3.scope", "session-3.scope", true),
            ("nginx", "nginx.service", false),
        ] {
            assert_eq!(is_of_unit(name, unit), want, "{name} {unit}");
        }
    }

    #[test]
    fn units_and_containers_are_on_the_way() {
        let id = "0123456789abcdef".repeat(4);
        let (docker, pod) = (format!("docker-{id}.scope"), format!("cri-containerd-{id}.scope"));
        for (path, unit, container) in [
            ("/system.slice/ssh.service".to_owned(), Some("ssh.service"), None),
            ("/system.slice/app.service/workers/1".to_owned(), Some("app.service"), None),
            (
                "/user.slice/user-1.slice/user@1.service/app.slice/x.service".to_owned(),
                Some("x.service"),
                None,
            ),
            ("/user.slice/user-1.slice".to_owned(), None, None),
            ("/".to_owned(), None, None),
            ("/.service".to_owned(), None, None),
            (format!("/system.slice/{docker}"), Some(docker.as_str()), Some(id.as_str())),
            (format!("/kubepods.slice/pod1/{pod}"), Some(pod.as_str()), Some(id.as_str())),
            (format!("/docker/{id}"), None, Some(id.as_str())),
            ("/user.slice/deadbeefdead".to_owned(), None, None),
        ] {
            assert_eq!((unit_of(&path), container_of(&path)), (unit, container), "{path}");
        }
    }

    #[test]
    fn a_cgroup_is_a_path_or_names_on_one() {
        for (path, wanted, want) in [
            ("/a/b/c", "/a/b", true),
            ("/a/b/c", "/a/b/", true),
            ("/a/b/c", "/b", false),
            ("/a/bc", "/a/b", false),
            ("/a/b/c", "b", true),
            ("/a/b/c", "b/c", true),
            ("/a/b/c", "a/c", false),
            ("/a", "/", true),
            ("/a", "", false),
            ("/", "/", true),
            ("/", "a", false),
        ] {
            assert_eq!(is_in(path, wanted), want, "{path} {wanted}");
        }
    }

    #[test]
    fn an_id_is_the_inode_of_the_directory() {
        let mount = std::env::temp_dir().join(format!("hotr-cgroup-{}", std::process::id()));
        fs::create_dir_all(mount.join("a/b")).unwrap();
        let ino = |path: &str| fs::metadata(mount.join(path)).unwrap().ino();
        let mut paths = CgroupPaths::at(Some(mount.clone()));
        let now = Instant::now();
        assert_eq!(paths.path(ino("a/b"), now).as_deref(), Some("/a/b"));
        assert_eq!(paths.path(ino(""), now).as_deref(), Some("/"));
        fs::create_dir(mount.join("later")).unwrap();
        assert_eq!(paths.path(ino("later"), now), None, "no second walk at once");
        assert_eq!(paths.path(ino("later"), now + CgroupPaths::PAUSE).as_deref(), Some("/later"));
        assert_eq!(paths.path(0, now), None);
        fs::remove_dir_all(&mount).unwrap();
    }
}
