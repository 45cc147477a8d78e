//! After an audit: whether what is on disk is what was confirmed.
//!
//! In: what the audit found that the channels had reported, and which paths were decided about. Out: [`Unconfirmed`].
//! An audit compares with its own last look, and a report by a channel does not prove that the change was confirmed. So
//! each path that differs from that look, or was decided about since, is compared with its confirmed state: a `statx`
//! each, content only when that differs. What was decided about before the last look but one has been compared after
//! it.

use std::collections::HashSet;
use std::mem::{replace, take};
use std::path::{Path, PathBuf};

use super::Work;
use crate::pipeline::confirm::State;
use crate::watch::affected_names::{MOST_COMPARED, ReportedNames};
use crate::watch::content::Answer;
use crate::watch::pending::Pending;

/// Compared between two looks at the jobs.
const CHUNK: usize = 64;

/// Paths that are not what was confirmed.
#[derive(Debug, Default)]
pub(in crate::watch) struct Unconfirmed {
    pub(in crate::watch) paths: Vec<PathBuf>,
    /// Symbolic links among them.
    pub(in crate::watch) links: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct Page {
    paths: HashSet<PathBuf>,
    is_full: bool,
}

/// What must be compared, and what will be.
#[derive(Debug)]
pub(super) struct Verify {
    is_on: bool,
    /// Decided about since the last audit, and between that and the one before.
    pages: [Page; 2],
    queue: Vec<PathBuf>,
    /// What the comparison that runs has found.
    found: Option<Unconfirmed>,
}

impl Verify {
    /// `is_on`: there are audits.
    pub(super) fn new(is_on: bool) -> Self {
        // What was read before the poller's first look may have changed by then: the first time all is compared.
        let first = Page { is_full: true, ..Page::default() };
        Self { is_on, pages: [Page::default(), first], queue: Vec::new(), found: None }
    }

    /// Forgets all: the states are other ones.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.is_on);
    }

    /// A path was decided about.
    pub(super) fn decided(&mut self, path: &Path) {
        let page = &mut self.pages[0];
        if !self.is_on || page.is_full || page.paths.contains(path) {
            return;
        }
        page.paths.insert(path.to_owned());
        if page.paths.len() > MOST_COMPARED {
            // Every known one is compared: these as well.
            *page = Page { is_full: true, ..Page::default() };
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.found.is_some()
    }

    /// An audit ended. Whether all must be compared.
    fn turn_page(&mut self, all: &mut HashSet<PathBuf>) -> bool {
        let newer = take(&mut self.pages[0]);
        let older = replace(&mut self.pages[1], newer);
        let is_full = older.is_full || self.pages[1].is_full;
        all.extend(older.paths);
        all.extend(self.pages[1].paths.iter().cloned());
        is_full
    }
}

impl Work {
    /// Notes what must be compared after an audit.
    pub(super) fn audited(&mut self, heard: ReportedNames) {
        let mut all: HashSet<PathBuf> = heard.files.into_iter().collect();
        let mut moved = Pending { dirs: heard.dirs, ..Pending::default() };
        if self.verify.turn_page(&mut all) || heard.is_cut {
            // The rest of the states is yet to come.
            self.verify.pages[1].is_full |= self.baseline.is_some();
            all.extend(self.confirmer.states().map(|(path, _)| path));
            if self.confirmer.is_complete() {
                moved.dirs.extend(self.options.trace.paths.iter().cloned());
            }
        }
        self.expand_dirs(&mut moved, usize::MAX);
        all.extend(moved.touched.into_keys());
        all.extend(take(&mut self.verify.queue));
        self.verify.queue = all.into_iter().collect();
        self.verify.found.get_or_insert_default();
    }

    /// Compares some of it; answers when that was the last.
    pub(super) fn verify_some(&mut self) {
        let Some(mut found) = self.verify.found.take() else { return };
        let rest = self.verify.queue.len().saturating_sub(CHUNK);
        for path in self.verify.queue.split_off(rest) {
            if !self.filter.wants(&path, false) {
                continue;
            }
            let Some(now) = self.unconfirmed(&path) else { continue };
            if matches!(now, State::Link(_)) {
                found.links.push(path.clone());
            }
            found.paths.push(path);
        }
        if self.verify.queue.is_empty() {
            self.verify.queue = Vec::new();
            self.answer(Answer::Unconfirmed(found));
        } else {
            self.verify.found = Some(found);
        }
    }

    /// The state of a path, if that is not the confirmed one.
    fn unconfirmed(&mut self, path: &Path) -> Option<State> {
        let named = self.options.trace.paths.iter().any(|root| root == path);
        let before = self.confirmer.state(path).cloned();
        if before.is_none() && !self.confirmer.is_complete() {
            return None;
        }
        let now = self.confirmer.look(path, named, None, &self.stop);
        let is_other = match &before {
            _ if now.is_torn() => true,
            Some(_) if matches!(now, State::Unknown(_)) => true,
            Some(before) => before.differs(&now).is_some(),
            None => now.is_file_or_link(),
        };
        if is_other {
            return Some(now);
        }
        if before.is_some() {
            // With its times of now it need not be read the next time.
            self.confirmer.put(path, now);
        }
        None
    }
}
