//! One consumer of what a session observes: which changes it wants, and in what form.
//!
//! In: changes with their verdicts, each with its root, and other reports. Out: reports in the order in which they are to be
//! passed on. Changes are filtered here, and repeats are merged; nothing before this knows what somebody wants to see.

use std::path::{Path, PathBuf};

use hotr_events::{Change, Report};

use crate::options::TraceOptions;
use crate::pipeline::filter::Filter;
use crate::pipeline::settle::Settler;

/// See the module.
pub(crate) struct Subscription {
    paths: Vec<PathBuf>,
    filter: Filter,
    settler: Settler,
    /// Each change by itself, without merging.
    at_once: bool,
    /// One change, or raw record, is all that is wanted.
    once: bool,
    has_one: bool,
    reports: Vec<Report>,
    changes: u64,
}

impl Subscription {
    /// What the user of a run wants.
    pub(crate) fn new(options: &TraceOptions) -> Self {
        Self {
            paths: options.paths.clone(),
            filter: Filter::new(options),
            settler: Settler::new(),
            at_once: options.at_once,
            once: options.once,
            has_one: false,
            reports: Vec::new(),
            changes: 0,
        }
    }

    /// The roots are these from now on.
    pub(crate) fn set_paths(&mut self, paths: Vec<PathBuf>) {
        self.paths = paths;
    }

    /// Takes a change below the root of this number.
    pub(crate) fn offer(&mut self, change: Change, root: usize, now_ns: u64) {
        if !self.wants(&change, root) {
            return;
        }
        if self.at_once {
            return self.report_change(change);
        }
        let mut out = Vec::new();
        self.settler.push(change, now_ns, &mut out);
        self.report_all(out);
    }

    /// Takes a change whose root must be found.
    pub(crate) fn offer_anywhere(&mut self, change: Change, now_ns: u64) {
        if let Some(root) = self.root_of(&change) {
            self.offer(change, root, now_ns);
        }
    }

    /// Takes a change that was found by looking: there are no repeats of it.
    pub(crate) fn offer_found(&mut self, change: Change) {
        if self.root_of(&change).is_some_and(|root| self.wants(&change, root)) {
            self.report_change(change);
        }
    }

    fn root_of(&self, change: &Change) -> Option<usize> {
        let of = |path: &Path| self.paths.iter().position(|root| path.starts_with(root));
        of(&change.path).or_else(|| of(change.old_path.as_deref()?))
    }

    fn wants(&self, change: &Change, root: usize) -> bool {
        self.paths.get(root).is_some_and(|root| self.filter.keep(change, root))
    }

    fn report_all(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.report_change(change);
        }
    }

    fn report_change(&mut self, change: Change) {
        if self.has_enough() {
            return;
        }
        self.has_one = true;
        self.changes += 1;
        self.reports.push(Report::Change(Box::new(change)));
    }

    /// Takes another report.
    pub(crate) fn report(&mut self, report: Report) {
        self.reports.push(report);
    }

    /// Takes a raw record, which counts as a change when it is one.
    pub(crate) fn report_raw(&mut self, raw: Report, is_change: bool) {
        if self.has_enough() {
            return;
        }
        self.has_one = true;
        self.changes += u64::from(is_change);
        self.reports.push(raw);
    }

    /// Whether what was wanted has been reported.
    pub(crate) const fn has_enough(&self) -> bool {
        self.once && self.has_one
    }

    /// Whether there are reports to be passed on.
    pub(crate) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Reports made since the last call.
    pub(crate) fn take(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Changes reported so far.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// When [`Self::due`] should be called next.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.settler.next_deadline()
    }

    /// Reports the repeats whose time has come.
    pub(crate) fn due(&mut self, now_ns: u64) {
        let mut due = Vec::new();
        self.settler.due(now_ns, &mut due);
        self.report_all(due);
    }

    /// Does the work on what was taken that can wait.
    pub(crate) fn put_away(&mut self) {
        self.settler.put_away();
    }

    /// Reports everything that is held.
    pub(crate) fn finish(&mut self) {
        let held = self.settler.finish();
        self.report_all(held);
    }
}
