//! Groups of cases beside the matrix, each made on one run of hotr in each tier; for guests only.
//!
//! In: the cases of one subject, with what starts and what ends a run. Out: one [`Outcome`] a case, and `end` for the end
//! of the run, or `ready` when it could not be started, as for the cells of the matrix, with the subject in the place of
//! the filesystem.

use std::path::Path;

use anyhow::Result;

use crate::run::Outcome;
use crate::session::Deadlines;
use crate::verdict::Verdict;

/// What the cases are made with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The program under test.
    pub hotr: &'a Path,
    /// Label of the kernel.
    pub kernel: &'a str,
    /// Tier of the eBPF programs.
    pub tier: &'a str,
    /// How long hotr may take.
    pub deadlines: Deadlines,
}

/// The cases of one subject.
pub struct Group {
    /// What takes the place of the filesystem.
    pub place: &'static str,
    /// Names of all its cases.
    pub names: fn() -> Vec<&'static str>,
    /// Makes those that are chosen.
    pub make: fn(&mut Report<'_>),
}

impl Group {
    /// Names of the cases that contain this.
    #[must_use]
    pub fn chosen(&self, filter: Option<&str>) -> Vec<&'static str> {
        let mut names = (self.names)();
        names.retain(|name| filter.is_none_or(|part| name.contains(part)));
        names
    }

    /// Makes the cases whose names contain this.
    #[must_use]
    pub fn run(&self, setting: Setting<'_>, filter: Option<&str>) -> Vec<Outcome> {
        let mut report =
            Report { setting, place: self.place, chosen: self.chosen(filter), outcomes: Vec::new() };
        if !report.chosen.is_empty() {
            (self.make)(&mut report);
        }
        report.outcomes
    }
}

/// What came of the cases of a group.
pub struct Report<'a> {
    /// What they are made with.
    pub setting: Setting<'a>,
    place: &'static str,
    chosen: Vec<&'static str>,
    outcomes: Vec<Outcome>,
}

impl Report<'_> {
    /// Makes the chosen ones of these cases one after the other on what was started, and ends it.
    pub fn cases<C, S>(
        &mut self,
        cases: impl IntoIterator<Item = (&'static str, C)>,
        started: Result<S>,
        case: impl Fn(&mut S, C) -> Result<()>,
        end: impl FnOnce(S) -> Result<()>,
    ) {
        let mut state = match started {
            Ok(state) => state,
            Err(error) => return self.add("ready", Err(error)),
        };
        for (name, what) in cases {
            if self.chosen.contains(&name) {
                let result = case(&mut state, what);
                self.add(name, result);
            }
        }
        self.add("end", end(state));
    }

    /// Makes a case that starts what it needs by itself, if it is chosen.
    pub fn case(&mut self, name: &'static str, case: impl FnOnce() -> Result<()>) {
        if self.chosen.contains(&name) {
            self.add(name, case());
        }
    }

    /// None of the cases can be made here, and why.
    pub fn excuse(&mut self, why: &str) {
        let Setting { kernel, tier, .. } = self.setting;
        let excused = |name| Outcome {
            result: Verdict::Exception,
            why: why.to_owned(),
            ..Outcome::of(kernel, self.place, tier, name, Ok(()))
        };
        self.outcomes.extend(self.chosen.iter().copied().map(excused));
    }

    fn add(&mut self, name: &str, result: Result<()>) {
        let Setting { kernel, tier, .. } = self.setting;
        self.outcomes.push(Outcome::of(kernel, self.place, tier, name, result));
    }
}
