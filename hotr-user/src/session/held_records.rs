//! Records that are made before inotify is notified of their change: they wait until it is.
//!
//! At the tracepoint tier what the kernel itself writes in a task is seen where it makes a page dirty. A file is then as large
//! as it was before. That inotify was not notified is known only when the writer cannot be held up any more.

use std::collections::VecDeque;

use hotr_common::hook::Hook;
use hotr_common::record::{DIRTY_BY_KERNEL, Record};

use super::observation::Observation;
use crate::pipeline::correlate::HELD_UP_NS;
use hotr_events::Change;

/// How long those of unfinished writes wait: some thousand times what is left of such a write, which copies one page at most.
const HOLD_NS: u64 = 20_000_000;

/// Records that wait.
#[derive(Default)]
pub(super) struct HeldRecords {
    /// For the end of their write, the oldest first.
    unfinished: VecDeque<Observation>,
    /// For their events, until it is proven that they have none.
    unheard: Vec<Observation>,
}

impl HeldRecords {
    /// Takes what must wait out of `observed`, from this position on, and puts there what has waited for long enough.
    pub(super) fn exchange(&mut self, observed: &mut Vec<Observation>, from: usize, now_ns: u64) {
        let new: Vec<Observation> = observed.extract_if(from.., |one| is_unfinished(&one.record)).collect();
        while let Some(one) = self.unfinished.pop_front_if(|one| due(one) <= now_ns) {
            observed.push(one);
        }
        observed.append(&mut self.unheard);
        self.unfinished.extend(new.into_iter().map(|mut one| {
            one.change.size = None;
            one
        }));
    }

    /// When the next one has waited for long enough.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let unheard = self.unheard.iter().map(|one| one.record.time + HELD_UP_NS).min();
        [self.unfinished.front().map(due), unheard].into_iter().flatten().min()
    }

    /// The named paths are other ones: `root_of` gives the new index of a path, none where it is not watched any more.
    pub(super) fn set_roots(&mut self, root_of: impl Fn(usize) -> Option<usize>) {
        let moves = |one: &mut Observation| root_of(one.root).map(|root| one.root = root).is_some();
        self.unfinished.retain_mut(moves);
        self.unheard.retain_mut(moves);
    }

    /// What waits.
    pub(super) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.unfinished.iter().chain(&self.unheard).map(|one| &*one.change)
    }

    /// Takes a record back, because its event may still come.
    pub(super) fn wait(&mut self, observed: Observation) {
        self.unheard.push(observed);
    }
}

fn due(observed: &Observation) -> u64 {
    observed.record.time + HOLD_NS
}

/// Whether a record is made in the middle of a change that the kernel itself makes.
pub(super) fn is_unfinished(record: &Record) -> bool {
    record.hook == Hook::Dirty as u16 && record.way >> 8 == DIRTY_BY_KERNEL
}
