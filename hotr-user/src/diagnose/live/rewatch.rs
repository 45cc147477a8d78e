//! Changes of a file that took the place of a watched one: whether the program sets a watch on the new file, and reads it
//! after that.
//!
//! In: verdicts that say `replaced-file`, and the watches as they are a second later. Out: what they say then. A watch
//! that is set too late loses what was done before it, unless the program reads the file once the watch is there.

use hotr_common::delivery::Usage;

use super::target::Targets;
use super::verdict::{State, Verdict};
use crate::diagnose::finding::Proof;
use hotr_events::Cause;
use hotr_events::FileId;

/// How long a program may take to set its watch again, and to read the file.
const PATIENCE_NS: u64 = 1_000_000_000;

/// A verdict that waits for it.
struct Held {
    slot: u32,
    /// The new file.
    file: FileId,
    verdict: Verdict,
}

/// What became of the verdicts.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) verdicts: Vec<Verdict>,
    /// Changes that the program read once its watch was there, by their numbers among those that were judged.
    pub(super) reread: Vec<u64>,
    /// The run ended before that could be known.
    pub(super) undecided: Vec<u64>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Rewatches {
    held: Vec<Held>,
}

impl Rewatches {
    /// Keeps a verdict that says `replaced-file`.
    pub(super) fn hold(&mut self, slot: u32, file: FileId, verdict: Verdict) {
        self.held.push(Held { slot, file, verdict });
    }

    /// Whether there is something to settle by now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.held.iter().any(|held| is_over(held, now))
    }

    /// Settles what has waited long enough; at the end, all. `usage` says when a file was used last by a followed process.
    pub(super) fn settle(
        &mut self,
        now: u64,
        is_end: bool,
        targets: &Targets,
        usage: impl Fn(FileId) -> Option<Usage>,
    ) -> Settled {
        let mut settled = Settled::default();
        for mut held in self.held.extract_if(.., |held| is_end || is_over(held, now)) {
            let Some(since) = watched_since(&held, targets) else {
                settled.verdicts.push(held.verdict);
                continue;
            };
            let used = usage(held.file).map(|usage| usage.opened.max(usage.read));
            if used.is_some_and(|used| used >= held.verdict.sent.made_ns) {
                settled.reread.push(held.verdict.sent.judged);
            } else if is_over(&held, now) {
                late(&mut held.verdict, since, used.is_some());
                settled.verdicts.push(held.verdict);
            } else {
                settled.undecided.push(held.verdict.sent.judged);
            }
        }
        settled
    }
}

fn is_over(held: &Held, now: u64) -> bool {
    held.verdict.sent.made_ns + PATIENCE_NS <= now
}

/// When a watch on the new file was first seen.
fn watched_since(held: &Held, targets: &Targets) -> Option<u64> {
    let instance = targets.of_slot(held.slot)?;
    let is_new = |ino: u64, since: u64| ino == held.file.ino && since > held.verdict.sent.made_ns;
    instance.watches.iter().find(|watch| is_new(watch.ino, watch.since)).map(|watch| watch.since)
}

fn late(verdict: &mut Verdict, since: u64, is_known: bool) {
    let window = since.saturating_sub(verdict.sent.made_ns) as f64 / 1e6;
    (verdict.state, verdict.cause) = (State::NeverSent, Some(Cause::RewatchRace));
    verdict.proof = if is_known { Proof::Proved } else { Proof::Inferred };
    verdict
        .evidence
        .push(format!("a watch on the new file was set after the change, at most {window:.1} ms later"));
    if is_known {
        verdict.evidence.push("no followed process opened or read the file after the change".into());
    }
}
