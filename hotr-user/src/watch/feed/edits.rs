//! Paths that are added and removed while the feed runs.
//!
//! In: a path. Out: a session, a content thread and an audit that follow; nothing of a removed path is left in a batch.

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use super::Feed;
use crate::beneath::NamedPath;
use crate::source::inode_clock_ns;
use crate::watch::content::{Added, Job};
use crate::watch::feed_output::FeedOutput;
use crate::watch::handle::{Answer, PathError, covers};
use crate::watch::pending::Pending;
use hotr_events::Report;

/// A path of which not everything is known yet.
#[derive(Debug)]
pub(super) struct Adding {
    path: PathBuf,
    number: u64,
    done: oneshot::Sender<Answer>,
    /// Its files' states are known.
    is_remembered: bool,
    /// Only audits report changes: they must know it as well.
    by_audits: bool,
}

impl Feed {
    /// Watches one more path; `done` receives the answer when its present state is known.
    pub(in crate::watch) fn add_path(&mut self, path: PathBuf, done: oneshot::Sender<Answer>) {
        self.additions += 1;
        match self.try_add(&path) {
            Ok(()) => {
                let (number, by_audits) = (self.additions, self.guard.is_alone());
                self.adding.push(Adding { path, number, done, is_remembered: false, by_audits });
            }
            // Who asked may have gone.
            Err(error) => drop(done.send(Err(error))),
        }
    }

    fn try_add(&mut self, path: &Path) -> Result<(), PathError> {
        let former = self.options.trace.paths.clone();
        if former.iter().any(|other| other == path) {
            return Err(PathError::AlreadyWatched { path: path.to_owned() });
        }
        if NamedPath::follow(path).real().is_none() {
            return Err(PathError::Missing { path: path.to_owned() });
        }
        let paths: Vec<PathBuf> = former.iter().cloned().chain([path.to_owned()]).collect();
        let (rebuilt, reports) = self.set_session_paths(path, &paths)?;
        // Not before: from now on every change of it is reported.
        let since_ns = inode_clock_ns();
        self.absorb(reports);
        self.follow_paths(paths, since_ns, Some(path.to_owned()));
        if rebuilt {
            // inotify received nothing for a moment.
            self.pending.dirs.extend(former);
            self.pending.behind = true;
            self.wait(self.options.debounce);
        }
        Ok(())
    }

    /// Watches a path no longer. Returns the paths that are left.
    pub(in crate::watch) fn remove_path(&mut self, path: &Path) -> Result<Vec<PathBuf>, PathError> {
        let mut paths = self.options.trace.paths.clone();
        paths.retain(|other| other != path);
        if paths.len() == self.options.trace.paths.len() {
            return Err(PathError::NotWatched { path: path.to_owned() });
        }
        let (_, reports) = self.set_session_paths(path, &paths)?;
        self.follow_paths(paths.clone(), inode_clock_ns(), None);
        self.absorb(reports);
        self.is_reduced = true;
        let mut pending = std::mem::take(&mut self.pending);
        self.reduce(&mut pending);
        self.pending = pending;
        if !self.pending.has_any() {
            (self.due, self.pending) = (None, Pending::default());
        }
        // What was found early may be of the path.
        self.early.more();
        self.reduce_output();
        for adding in self.adding.extract_if(.., |adding| adding.path == path) {
            let _ = adding.done.send(Err(PathError::NotWatched { path: adding.path }));
        }
        Ok(paths)
    }

    fn set_session_paths(
        &mut self,
        path: &Path,
        paths: &[PathBuf],
    ) -> Result<(bool, Vec<Report>), PathError> {
        self.session.set_paths(paths.to_vec()).map_err(|error| {
            // What was read before is reported nevertheless.
            let reports = self.session.pending();
            self.absorb(reports);
            PathError::NotCovered { path: path.to_owned(), cause: error.to_string() }
        })
    }

    fn follow_paths(&mut self, paths: Vec<PathBuf>, since_ns: i64, added: Option<PathBuf>) {
        let trace = &mut self.options.trace;
        trace.paths.clone_from(&paths);
        self.guard.set_paths(trace, since_ns);
        self.filter.set_roots(&paths);
        let added = added.map(|path| Added { path, number: self.additions, since_ns });
        self.content.order(Job::Paths { paths: paths.clone(), added });
        let moved = self.links.set_named(paths);
        self.relink(moved);
    }

    /// Takes what is not watched any more out of a batch.
    pub(super) fn reduce(&self, pending: &mut Pending) {
        if self.is_reduced {
            let trace = &self.options.trace;
            pending.retain(|path| covers(&trace.paths, trace.recursive, path));
        }
    }

    fn reduce_output(&mut self) {
        let trace = &self.options.trace;
        self.out.retain_mut(|output| match output {
            FeedOutput::Batch(changes) | FeedOutput::Restored(changes) => {
                changes.retain(|change| covers(&trace.paths, trace.recursive, &change.path));
                !changes.is_empty()
            }
            _ => true,
        });
    }

    /// Whether the present state of a path is being read.
    pub(in crate::watch) fn is_adding(&self) -> bool {
        !self.adding.is_empty()
    }

    /// The states of an added path's files are known.
    pub(super) fn remembered(&mut self, number: u64) {
        self.adding.iter_mut().filter(|it| it.number == number).for_each(|it| it.is_remembered = true);
        self.answer_added();
    }

    /// Answers whoever added a path of which all is known.
    pub(super) fn answer_added(&mut self) {
        let audits_know = self.guard.knows_paths();
        let is_done = |it: &mut Adding| it.is_remembered && (audits_know || !it.by_audits);
        for Adding { done, .. } in self.adding.extract_if(.., is_done) {
            let _ = done.send(Ok(()));
        }
    }
}
