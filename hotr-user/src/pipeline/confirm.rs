//! Whether a change changed anything: the state of a path against the last state that was confirmed.
//!
//! In: paths that some channel named. Out: [`Confirmed`] changes. A state is (mtime, size, digest) of a regular
//! file, the target of a symbolic link, or absence. A touch, a rewrite of the same bytes, or two files swapped and
//! swapped back leave the digest as it was, and are none.
//!
//! What the states were before the first change is the baseline's to say ([`baseline`]). A path without a known
//! state counts as changed: wrong only in the harmless direction.

pub mod baseline;
mod state;
mod store;
#[cfg(test)]
mod tests;
pub mod writers;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use state::HashKind;

use crate::beneath::Roots;
pub use crate::confirmed::{Confirmed, ConfirmedChange, Digest, Evidence, FileState, Kind, State};
use hotr_events::Channel;
use store::Store;

/// How content is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmOptions {
    /// The digest.
    pub hash: HashKind,
    /// Larger files, in bytes, are compared by size and modification time.
    pub hash_limit: u64,
    /// Paths whose state is remembered; the least recently used go first.
    pub entries: NonZeroUsize,
}

impl Default for ConfirmOptions {
    fn default() -> Self {
        let entries = NonZeroUsize::new(40_000).unwrap_or(NonZeroUsize::MIN);
        Self { hash: HashKind::Sha256, hash_limit: 64 << 20, entries }
    }
}

/// The last confirmed states.
#[derive(Debug)]
pub struct Confirmer {
    options: ConfirmOptions,
    roots: Roots,
    known: Store,
    /// The baseline holds every path of the trees: a path that is not known was not there.
    complete: bool,
}

impl Confirmer {
    /// Knows nothing yet, of paths below these.
    #[must_use]
    pub fn new(options: ConfirmOptions, roots: Roots) -> Self {
        Self { options, roots, known: Store::new(), complete: false }
    }

    /// What was named.
    #[must_use]
    pub const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The options.
    #[must_use]
    pub const fn options(&self) -> ConfirmOptions {
        self.options
    }

    /// Number of paths whose state is known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no state is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.len() == 0
    }

    /// The last confirmed state of a path.
    #[must_use]
    pub fn state(&self, path: &Path) -> Option<&State> {
        self.known.peek(path)
    }

    /// Takes a state from before the first change, and says whether it did: what was confirmed since counts more.
    pub fn learn(&mut self, path: &Path, state: State) -> bool {
        let is_news = self.known.peek(path).is_none() && self.known.len() < self.most();
        if is_news {
            self.known.put(path, state);
        }
        is_news
    }

    /// The paths below which files are, from now on.
    pub fn set_roots(&mut self, roots: Roots) {
        self.roots = roots;
    }

    /// What is known is not all any more: a path is added whose files are not known yet.
    pub fn baseline_incomplete(&mut self) {
        self.complete = false;
    }

    /// From now on a path that is not known was absent; holds until one is forgotten.
    pub fn baseline_complete(&mut self) {
        self.complete = true;
    }

    /// Whether a path that is not known was absent.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Forgets everything: the trees are other ones.
    pub fn clear(&mut self) {
        self.known.clear();
        self.complete = false;
    }

    /// Sets a state without judging: hotr itself put it there.
    pub fn put(&mut self, path: &Path, state: State) {
        if matches!(state, State::Unknown(_)) {
            return;
        }
        self.known.put(path, state);
        while self.known.len() > self.most() {
            self.complete = false;
            self.known.pop_oldest();
        }
    }

    fn most(&self) -> usize {
        self.options.entries.get().min(store::MOST)
    }

    /// Forgets a path: somebody else knows of it from now on. Returns what was known.
    pub fn forget(&mut self, path: &Path) -> Option<State> {
        self.known.pop(path)
    }

    /// Sets a path back to what was known of it before a decision that does not hold.
    pub fn take_back(&mut self, path: &Path, before: Option<State>) {
        match before {
            Some(state) => self.put(path, state),
            None => drop(self.known.pop(path)),
        }
    }

    /// Known paths below directories, none of which lies in another, and those directories as far as they are known.
    pub fn below(&self, dirs: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
        self.known.below(dirs)
    }

    /// Whether a path below this one is known: it was a directory.
    #[must_use]
    pub fn has_below(&self, path: &Path) -> bool {
        self.known.has_below(path)
    }

    /// All known states.
    pub fn states(&self) -> impl Iterator<Item = (PathBuf, &State)> {
        self.known.iter()
    }

    /// Looks at a path now, and decides at once. `None`: nothing has changed since it was last confirmed. `born`: a
    /// channel reported that the name appeared, so an unknown path was absent before.
    pub fn confirm(&mut self, path: &Path, born: bool, seen_by: &[Channel]) -> Option<Confirmed> {
        let now = self.look(path, false, None, &AtomicBool::new(false));
        self.decide(path, now, born, seen_by)
    }

    /// The state of a path now; for [`Self::decide`]. `named`: by the user, so a link is followed. `earlier` is what a
    /// look gave that was not decided about.
    pub fn look(&mut self, path: &Path, named: bool, earlier: Option<&State>, stop: &AtomicBool) -> State {
        let before = earlier.or_else(|| self.known.get(path));
        if named {
            return State::look_named(path, before, self.options, stop);
        }
        State::look(&self.roots, path, before, self.options, stop)
    }

    /// Takes a state as the present one, and says what that changed; arguments as for [`Self::confirm`].
    pub fn decide(&mut self, path: &Path, now: State, born: bool, seen_by: &[Channel]) -> Option<Confirmed> {
        if matches!(now, State::Unknown(_)) {
            // What was confirmed last stays what the next look is compared with.
            return None;
        }
        let verdict = match self.known.get(path) {
            Some(before) => before.differs(&now),
            None if (born || self.complete) && !now.is_file_or_link() => None,
            None if born || self.complete => Some((Kind::Created, Evidence::Name)),
            None => match now {
                State::Absent => Some((Kind::Removed, Evidence::Unknown)),
                State::Dir => None,
                _ => Some((Kind::Written, Evidence::Unknown)),
            },
        };
        if now == State::Absent && self.complete {
            // Absence needs no memory when all that is there is known.
            self.known.pop(path);
        } else {
            self.put(path, now.clone());
        }
        let (kind, by) = verdict?;
        Some(Confirmed::new(kind, path.to_owned(), by, seen_by.to_vec(), now))
    }
}
