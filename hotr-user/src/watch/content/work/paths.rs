//! Paths that are added and removed while the thread runs.
//!
//! In: the named paths from now on. Out: the states of an added one, known before it is said to be watched; nothing of a
//! removed one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::Work;
use crate::pipeline::confirm::baseline::Baseline;
use crate::watch::content::{Added, Answer};
use crate::watch::handle::covers;

/// Added paths whose states are not known yet.
#[derive(Debug, Default)]
pub(super) struct Adding {
    queue: VecDeque<Added>,
    /// The one whose states are read, and whether all of the other paths was known.
    now: Option<(Added, bool)>,
}

impl Adding {
    /// Whether the states that are read are those of an added path.
    pub(super) fn is_running(&self) -> bool {
        self.now.is_some()
    }
}

impl Work {
    /// Whether a path is a named one, or below one.
    pub(super) fn is_watched(&self, path: &Path) -> bool {
        let trace = &self.options.trace;
        covers(&trace.paths, trace.recursive, path)
    }

    /// The named paths are these from now on.
    pub(super) fn set_paths(&mut self, paths: Vec<PathBuf>, added: Option<Added>) {
        let is_known = added.as_ref().is_some_and(|added| self.knows(&added.path));
        let former = std::mem::replace(&mut self.options.trace.paths, paths);
        let (paths, recursive) = (&self.options.trace.paths, self.options.trace.recursive);
        self.filter.set_roots(paths);
        self.confirmer.set_roots(paths.clone().into());
        let removed: Vec<PathBuf> = former.into_iter().filter(|path| !paths.contains(path)).collect();
        if !removed.is_empty() {
            let is_kept = |path: &Path| covers(paths, recursive, path);
            let below = self.confirmer.below(&removed).filter(|path| !is_kept(path)).collect::<Vec<_>>();
            for path in below {
                drop(self.confirmer.forget(&path));
            }
            self.looked.retain(|path, _| is_kept(path));
            self.early.retain(|(path, _)| is_kept(path));
            self.blind.retain(|path| is_kept(path));
            self.behind.retain(is_kept);
            self.adding.queue.retain(|added| !removed.contains(&added.path));
            if let Some((_, was_complete)) =
                self.adding.now.take_if(|(added, _)| removed.contains(&added.path))
            {
                self.baseline = None;
                if was_complete {
                    self.confirmer.baseline_complete();
                }
            }
        }
        match added {
            Some(added) if is_known => self.answer(Answer::Remembered(added.number)),
            Some(added) => {
                // As a name in another path, it may have been a link that is followed from now on.
                drop(self.confirmer.forget(&added.path));
                self.adding.queue.push_back(added);
            }
            None => {}
        }
        self.remember_next();
    }

    /// Whether the states of all that is wanted of a path are known, because another path holds it.
    fn knows(&mut self, path: &Path) -> bool {
        self.options.trace.recursive
            && self.baseline.is_none()
            && self.is_watched(path)
            && !path.is_symlink()
            && self.filter.wants(path, path.is_dir())
            && self.confirmer.roots().spot(path).is_ok()
    }

    /// Begins to read the states of the next added path, if none are read.
    pub(super) fn remember_next(&mut self) {
        if self.baseline.is_some() {
            return;
        }
        let Some(added) = self.adding.queue.pop_front() else { return };
        let mut filter = self.filter.clone();
        let recursive = self.options.trace.recursive;
        let wanted = move |path: &Path, is_dir: bool| (recursive || !is_dir) && filter.wants(path, is_dir);
        match Baseline::start(vec![added.path.clone()], added.since_ns, self.options.confirm, wanted) {
            Ok(baseline) => self.baseline = Some(baseline),
            Err(error) => return self.answer(Answer::NoThread(error)),
        }
        let was_complete = self.confirmer.is_complete();
        // A name of the new path that is not known yet need not be a new one.
        self.confirmer.baseline_incomplete();
        self.adding.now = Some((added, was_complete));
    }

    /// The states of an added path were read.
    pub(super) fn remembered(&mut self, complete: bool, links: Vec<PathBuf>) {
        self.baseline = None;
        let Some((Added { number, since_ns, .. }, was_complete)) = self.adding.now.take() else { return };
        let links: Vec<PathBuf> = links.into_iter().filter(|link| self.is_watched(link)).collect();
        links.into_iter().for_each(|link| self.behind.add_link(link));
        let found = self.look_behind();
        let ways = self.behind.learn_more(found, since_ns);
        // Also what changed behind links while the states were read is compared once this is received.
        self.tell_ways(Some(ways));
        if complete && was_complete {
            self.confirmer.baseline_complete();
        }
        crate::memory::give_back();
        self.answer(Answer::Remembered(number));
        self.remember_next();
    }
}
