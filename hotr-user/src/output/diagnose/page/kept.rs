//! What a page shows of a run of any length, in bounded memory; and how much it leaves out.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::diagnose::finding::Finding;
use crate::diagnose::live::{State, Use, Verdict};
use hotr_events::Cause;
use hotr_events::Change;

/// Verdicts of each state and cause that are kept of what did not arrive.
const OF_A_CAUSE: usize = 20;
/// Of what arrived: the first, and the last.
const ARRIVED: usize = 40;
/// Changes that wait for their verdicts.
const CHANGES: usize = 4096;
/// Findings, notes.
const OTHERS: usize = 60;

/// What a page says of a change besides its verdicts.
#[derive(Clone, Debug)]
pub(super) struct ReportedChange {
    pub(super) comm: Vec<u8>,
    pub(super) pid: u32,
    pub(super) detail: String,
}

/// A verdict with what belongs to it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) verdict: Verdict,
    pub(super) made: Option<ReportedChange>,
    pub(super) used: Option<Use>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept {
    seq: u64,
    changes: VecDeque<(u64, Option<ReportedChange>)>,
    lost: Vec<Shown>,
    of_cause: HashMap<(State, Option<Cause>), usize>,
    first: Vec<Shown>,
    last: VecDeque<Shown>,
    pub(super) left_out: u64,
    pub(super) findings: Vec<Finding>,
    pub(super) findings_left_out: u64,
    pub(super) notes: Vec<String>,
    pub(super) notes_left_out: u64,
}

impl Kept {
    pub(super) fn change(&mut self, change: &Change) {
        self.seq += 1;
        if self.changes.len() >= CHANGES {
            self.changes.pop_front();
        }
        let made = change.actor.as_ref().map(|actor| ReportedChange {
            comm: actor.comm.clone(),
            pid: actor.pid,
            detail: change.detail.join(", "),
        });
        self.changes.push_back((self.seq, made));
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        let at = self.changes.binary_search_by_key(&verdict.change, |one| one.0).ok();
        let made = at.and_then(|at| self.changes[at].1.clone());
        let shown = Shown { verdict: verdict.clone(), made, used: None };
        if !matches!(verdict.state, State::Delivered | State::Merged) {
            let count = self.of_cause.entry((verdict.state, verdict.cause)).or_default();
            if *count < OF_A_CAUSE {
                *count += 1;
                self.lost.push(shown);
            } else {
                self.left_out += 1;
            }
        } else if self.first.len() < ARRIVED {
            self.first.push(shown);
        } else {
            self.last.push_back(shown);
            if self.last.len() > ARRIVED {
                self.last.pop_front();
                self.left_out += 1;
            }
        }
    }

    pub(super) fn used(&mut self, used: &Use) {
        let is_it = |one: &&mut Shown| {
            one.verdict.change == used.change
                && one.verdict.target.pid == Some(used.pid)
                && one.used.is_none()
        };
        let shown = self.first.iter_mut().chain(&mut self.last).filter(is_it);
        shown.for_each(|one| one.used = Some(used.clone()));
    }

    pub(super) fn finding(&mut self, finding: &Finding) {
        bounded(&mut self.findings, &mut self.findings_left_out, finding.clone());
    }

    pub(super) fn note(&mut self, note: String) {
        bounded(&mut self.notes, &mut self.notes_left_out, note);
    }

    /// The verdicts by change.
    pub(super) fn by_change(&self) -> BTreeMap<u64, Vec<&Shown>> {
        let mut changes: BTreeMap<u64, Vec<&Shown>> = BTreeMap::new();
        for shown in self.lost.iter().chain(&self.first).chain(&self.last) {
            changes.entry(shown.verdict.change).or_default().push(shown);
        }
        changes
    }
}

fn bounded<T>(all: &mut Vec<T>, left_out: &mut u64, one: T) {
    if all.len() < OTHERS { all.push(one) } else { *left_out += 1 }
}
