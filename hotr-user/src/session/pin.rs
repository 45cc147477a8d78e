//! Keeps the inode of a registered root in memory, so that its address is not given to another file, without hindering
//! an unmount as an open descriptor would.
//!
//! In: an open directory. Out: something to drop when the root is forgotten.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use landlock::{
    AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What keeps an inode.
#[derive(Clone, Debug)]
pub(super) enum InodePin {
    /// Something else does.
    Nothing,
    /// A rule of a Landlock ruleset, which is enforced on nobody (security/landlock/fs.c `get_inode_object`).
    Rule { _ruleset: Arc<RulesetCreated> },
    /// An inotify watch, which reports when the inode is renamed or deleted. On kernels since 6.10, one watch anywhere
    /// on a filesystem lets every write to it take the path of the notifications (fs/notify/fsnotify.c).
    Watch(i32),
    /// A descriptor, where no watch could be had.
    Open { _fd: Arc<OwnedFd> },
}

/// Makes pins.
pub(super) struct InodePins {
    watches: Option<OwnedFd>,
    /// Whether something else reports what becomes of a root.
    told: bool,
}

impl InodePins {
    /// As long as `told`, pins need not report what becomes of their inodes.
    pub(super) fn new() -> Self {
        Self { watches: None, told: true }
    }

    /// Pins a directory.
    pub(super) fn pin(&mut self, dir: OwnedFd) -> InodePin {
        let rule = self
            .told
            .then(|| rule(&dir, AccessFs::ReadDir).or_else(|| rule(&dir, AccessFs::ReadFile)))
            .flatten();
        if let Some(ruleset) = rule {
            return InodePin::Rule { _ruleset: Arc::new(ruleset) };
        }
        self.watch(&dir).map_or_else(|| InodePin::Open { _fd: Arc::new(dir) }, InodePin::Watch)
    }

    fn watch(&mut self, dir: &OwnedFd) -> Option<i32> {
        if self.watches.is_none() {
            self.watches = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        }
        let flags = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        // By its descriptor: the path may lead elsewhere by now.
        let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
        inotify::add_watch(self.watches.as_ref()?, link, flags).ok()
    }

    /// From now on pins must report what becomes of their inodes: nothing else does.
    pub(super) fn must_tell(&mut self) {
        self.told = false;
    }

    /// Gives a pin back.
    pub(super) fn release(&self, pin: &InodePin) {
        if let (Some(watches), InodePin::Watch(watch)) = (&self.watches, pin) {
            // Gone already when the inode is.
            let _ = inotify::remove_watch(watches, *watch);
        }
    }

    /// The descriptor that is readable when a watch has something to report.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watches.as_ref().map(AsFd::as_fd)
    }

    /// What the watches report.
    pub(super) fn read(&self) -> Vec<(i32, ReadFlags)> {
        let Some(watches) = &self.watches else { return Vec::new() };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(watches, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push((event.wd(), event.events())),
                Err(Errno::INTR) => {}
                Err(_) => return events,
            }
        }
    }
}

/// A ruleset with a rule for this directory, or file where the access is one to files; nothing where the kernel has no Landlock, or it is off.
fn rule(inode: &OwnedFd, access: AccessFs) -> Option<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(access)
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rule(PathBeneath::new(inode, access)))
        .ok()
}
