//! Symbolic links on the way to what is watched: a link that leads elsewhere changes everything behind it at once.
//!
//! In: the paths as the user named them. Out: readiness when a directory that holds one of those links has changed,
//! and whether a path now resolves to another place. The links inside a watched tree are files like others.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::beneath::{Dir, NamedPath};

/// Links that change again and again while they are followed: so often it is tried. The channels look at the paths once
/// a second as well.
const MOST_ROUNDS: usize = 40;

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

    /// The named paths are these from now on. Returns those of them that were named before and lead elsewhere now.
    pub(super) fn set_named(&mut self, named: Vec<PathBuf>) -> Vec<PathBuf> {
        let former = |path: &PathBuf| self.named.iter().position(|other| other == path);
        self.resolved =
            named.iter().map(|path| self.resolved.get(former(path)?).cloned().flatten()).collect();
        self.named = named;
        self.resolve()
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
        self.listen();
        let before = std::mem::take(&mut self.resolved);
        let mut moved = Vec::new();
        for (i, path) in self.named.iter().enumerate() {
            let now = NamedPath::follow(path).real();
            let former = before.get(i).cloned().flatten();
            if now.is_some() && former.is_some() && now != former {
                moved.push(path.clone());
            }
            self.resolved.push(now.or(former));
        }
        moved
    }

    /// Watches the links on the way, before they are followed: what changes from then on is received. A link that changed
    /// meanwhile may lead by others, which are watched in a further round.
    fn listen(&mut self) {
        let mut dirs = self.holders();
        for _ in 0..MOST_ROUNDS {
            self.inotify = if dirs.is_empty() { None } else { watch(dirs.values()).ok() };
            let now = self.holders();
            let is_same = now.len() == dirs.len() && now.keys().all(|id| dirs.contains_key(id));
            if is_same {
                break;
            }
            dirs = now;
        }
    }

    /// Directories that hold a link on the way, by device and inode.
    fn holders(&self) -> HashMap<(u64, u64), Dir> {
        let links = self.named.iter().flat_map(|path| NamedPath::follow(path).links);
        links.filter_map(|link| Some((link.at.dir.id().ok()?, link.at.dir))).collect()
    }
}

fn watch<'a>(dirs: impl Iterator<Item = &'a Dir>) -> std::io::Result<AsyncFd<OwnedFd>> {
    let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
    for dir in dirs {
        // The very directory in which the link was found.
        let held = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        match add_watch(&fd, held, names | WatchFlags::ONLYDIR) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // SAFETY: the descriptor is moved into the `AsyncFd`, which keeps it open.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}
