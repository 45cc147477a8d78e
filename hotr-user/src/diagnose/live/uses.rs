//! When a file was used after an event of it was read.
//!
//! In: delivered changes of content, and when followed processes used the files last. Out: a [`Use`] for each change after
//! which the file was used. Only the last use is known, so one that comes soon after another hides it; and what is not
//! used within ten seconds is not waited for.

use std::collections::{HashMap, VecDeque};

use hotr_common::delivery::Usage;

use super::verdict::{State, Verdict};
use hotr_events::Op;

/// A followed process used a file after a change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Use {
    /// Number of the change.
    pub change: u64,
    /// The process that had read the event.
    pub pid: u32,
    /// Microseconds from the change until the file was opened for reading, by this or another followed process.
    pub opened_us: Option<u64>,
    /// The same until it was read.
    pub file_read_us: Option<u64>,
}

/// Changes that are waited for; of more, the oldest are given up.
const MOST: usize = 4096;
/// How long.
const PATIENCE_NS: u64 = 10_000_000_000;

struct Waiting {
    change: u64,
    pid: u32,
    made_ns: u64,
    file: (u32, u64),
}

/// See the module.
#[derive(Default)]
pub(super) struct Uses(VecDeque<Waiting>);

impl Uses {
    /// Waits for the use of what a delivered event was about.
    pub(super) fn add(&mut self, verdict: &Verdict) {
        let (Some(file), Some(pid)) = (verdict.sent.file, verdict.target.pid) else { return };
        let is_content = matches!(verdict.op, Op::Create | Op::Write | Op::Rename);
        if verdict.state != State::Delivered || !is_content || verdict.sent.by == Some(pid) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Waiting { change: verdict.change, pid, made_ns: verdict.sent.made_ns, file });
    }

    /// The uses since the last call.
    pub(super) fn seen(&mut self, now: u64, usage: impl Fn(u32, u64) -> Option<Usage>) -> Vec<Use> {
        let mut known: HashMap<(u32, u64), Option<Usage>> = HashMap::new();
        let mut seen = Vec::new();
        self.0.retain(|one| {
            let (dev, ino) = one.file;
            let Some(usage) = *known.entry(one.file).or_insert_with(|| usage(dev, ino)) else { return false };
            let after = |time: u64| time.checked_sub(one.made_ns).map(|waited| waited / 1000);
            let (opened_us, file_read_us) = (after(usage.opened), after(usage.read));
            if opened_us.is_none() && file_read_us.is_none() {
                return one.made_ns + PATIENCE_NS > now;
            }
            seen.push(Use { change: one.change, pid: one.pid, opened_us, file_read_us });
            false
        });
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(change: u64, made_ns: u64) -> Waiting {
        Waiting { change, pid: 4, made_ns, file: (1, 2) }
    }

    #[test]
    fn only_a_use_after_the_change_counts_and_only_once() {
        let mut uses = Uses(VecDeque::from([waiting(1, 5_000), waiting(2, 9_000_000)]));
        let usage = |_, _| Some(Usage { opened: 8_000, read: 4_000 });
        let want = Use { change: 1, pid: 4, opened_us: Some(3), file_read_us: None };
        assert_eq!(uses.seen(10_000, usage), [want]);
        assert_eq!((uses.seen(10_000, usage), uses.0.len()), (vec![], 1));
        assert!(uses.seen(9_000_000 + PATIENCE_NS, usage).is_empty());
        assert!(uses.0.is_empty(), "it is waited for no longer");
    }

    #[test]
    fn what_is_not_known_is_not_waited_for() {
        let mut uses = Uses(VecDeque::from([waiting(1, 5_000)]));
        assert!(uses.seen(10_000, |_, _| None).is_empty() && uses.0.is_empty());
    }
}
