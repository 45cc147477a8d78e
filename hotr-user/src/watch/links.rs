//! Symbolic links on the way to what is watched: a link that leads elsewhere changes everything behind it at once.
//!
//! In: the paths as the user named them. Out: readiness when a directory that holds one of those links has changed,
//! and whether a path now resolves to another place. The links inside a watched tree are files like others.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As the kernel: more links on one way are a loop.
const MOST_LINKS: usize = 40;

/// See the module.
#[derive(Debug)]
pub(super) struct Links {
    named: Vec<PathBuf>,
    resolved: Vec<Option<PathBuf>>,
    inotify: Option<AsyncFd<OwnedFd>>,
}

impl Links {
    /// Watches the links of these paths; nothing when there is none.
    pub(super) fn new(named: Vec<PathBuf>) -> Self {
        let mut links = Self { named, resolved: Vec::new(), inotify: None };
        links.resolve();
        links
    }

    /// Ready when a link may have changed; may be dropped and called again.
    pub(super) async fn changed(&self) {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        if let Ok(mut guard) = inotify.readable().await {
            let mut buffer = [0; 4096];
            while rustix::io::read(inotify.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
            guard.clear_ready();
        }
    }

    /// Follows the links again. Returns the named paths that lead elsewhere now; a path that leads nowhere for the
    /// moment is not one of them, and is compared with its former place when it leads somewhere again.
    pub(super) fn resolve(&mut self) -> Vec<PathBuf> {
        let before = std::mem::take(&mut self.resolved);
        let mut dirs = Vec::new();
        let mut moved = Vec::new();
        self.inotify = None;
        for (i, path) in self.named.iter().enumerate() {
            holders(path, &mut dirs);
            let now = path.canonicalize().ok();
            let former = before.get(i).cloned().flatten();
            if now.is_some() && former.is_some() && now != former {
                moved.push(path.clone());
            }
            self.resolved.push(now.or(former));
        }
        if !dirs.is_empty() {
            self.inotify = watch(&dirs).ok();
        }
        moved
    }
}

fn watch(dirs: &[PathBuf]) -> std::io::Result<AsyncFd<OwnedFd>> {
    let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
    for dir in dirs {
        match add_watch(&fd, dir, names | WatchFlags::ONLYDIR) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // SAFETY: the descriptor is moved into the `AsyncFd`, which keeps it open.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}

/// Directories that hold a link on the way along a path.
fn holders(path: &Path, dirs: &mut Vec<PathBuf>) {
    let mut todo: Vec<std::ffi::OsString> =
        path.components().rev().map(|c| c.as_os_str().to_owned()).collect();
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::CurDir) | None => continue,
            _ => {}
        }
        let next = at.join(&part);
        match next.read_link() {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                if !dirs.contains(&at) {
                    dirs.push(at.clone());
                }
                todo.extend(target.components().rev().map(|c| c.as_os_str().to_owned()));
            }
            _ => at = next,
        }
    }
}
