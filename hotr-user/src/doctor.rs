//! What this machine lets hotr see, and whether the paths of a user can be covered with it.
//!
//! In: the kernel's own files, the attach plan, paths. Out: an [`Examination`], printed by [`crate::output::doctor`].

pub mod cover;
pub mod filesystem;
pub mod inotify;
pub mod kernel;

use std::path::PathBuf;

use cover::{Cover, Ebpf};

/// One hook of the attach plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// What the hook is for (`write`, `rename`, …).
    pub hook: String,
    /// `fentry`, `kprobe` or `tracepoint`; `None` when nothing can be attached.
    pub tier: Option<&'static str>,
    /// The kernel function or tracepoint; empty when nothing can be attached.
    pub attached_to: String,
    /// Why this tier and no better one.
    pub why: String,
    /// Changes are seen without it; it only adds what can be said about them.
    pub optional: bool,
}

/// Everything found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examination {
    /// The kernel and what it allows.
    pub kernel: kernel::Kernel,
    /// Capabilities of this process.
    pub capabilities: Vec<kernel::Capability>,
    /// The attach plan, or why there is none.
    pub plan: Result<Vec<PlanRow>, String>,
    /// inotify's limits and users.
    pub inotify: inotify::Inotify,
    /// One for each path, in their order.
    pub paths: Vec<Cover>,
}

impl Examination {
    /// Looks at the machine and at the paths. `paths` pairs each path as named with where it really is.
    pub fn new(paths: &[(PathBuf, PathBuf)], plan: impl FnOnce() -> Result<Vec<PlanRow>, String>) -> Self {
        let inotify = inotify::Inotify::read();
        let plan = plan();
        let ebpf = Ebpf::from_plan(&plan);
        let mounts = filesystem::Mounts::read();
        let paths = paths
            .iter()
            .map(|(named, real)| {
                let place = mounts.describe(real);
                let directories = (!ebpf.sees_every_kind())
                    .then(|| filesystem::count_directories(real, inotify.budget().saturating_add(1)));
                cover::judge(named, &place, &ebpf, directories, inotify.budget())
            })
            .collect();
        Self { kernel: kernel::Kernel::read(), capabilities: kernel::capabilities(), plan, inotify, paths }
    }

    /// Whether every path can be fully covered.
    #[must_use]
    pub fn covers_all(&self) -> bool {
        self.paths.iter().all(Cover::is_full)
    }
}

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// As it should be.
    Good,
    /// Works, with a limit that is worth knowing.
    Note,
    /// Something cannot work.
    Bad,
}

impl Mark {
    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }

    /// The sign shown to humans.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Note => "!",
            Self::Bad => "✗",
        }
    }
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How good it is.
    pub mark: Mark,
    /// What was found.
    pub value: String,
    /// What the user can do, when something can be done.
    pub next: Option<String>,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, mark: Mark, value: impl Into<String>) -> Self {
        Self { name: name.into(), mark, value: value.into(), next: None }
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}
