//! Changes that wait until it is known what became of them in the instances of a process.
//!
//! In: changes in the order in which they were read, and outcomes in any order. Out: the changes in their order, each with its
//! marks. No more than so many wait: of more, the oldest go on without a verdict, and are counted.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::verdict::{Decided, Judged, Outcome, ReportedChange, State, Verdict};
use crate::session;
use hotr_events::{Cause, Change, Channel, Missed, Watcher, WatcherId, WatcherState};

/// Most that wait. One takes about a kilobyte.
const MOST: usize = 16_384;

/// What is known of a change by one instance.
struct Known {
    state: WatcherState,
    verdict: Option<Box<Verdict>>,
}

impl Known {
    fn of(outcome: Outcome) -> Self {
        let state = match &outcome {
            Outcome::Verdict(verdict) => state(verdict.state),
            Outcome::Undecided => WatcherState::Unknown,
            Outcome::Unasked => WatcherState::Unasked,
            Outcome::Reread => WatcherState::Reread,
        };
        Self { state, verdict: if let Outcome::Verdict(verdict) = outcome { Some(verdict) } else { None } }
    }

    /// Lower is what came further.
    fn rank(&self) -> usize {
        WatcherState::ALL.iter().position(|one| *one == self.state).unwrap_or(usize::MAX)
    }
}

const fn state(state: State) -> WatcherState {
    match state {
        State::Delivered => WatcherState::Delivered,
        State::Merged => WatcherState::Merged,
        State::Dropped => WatcherState::Dropped,
        State::NeverSent => WatcherState::NeverSent,
        State::Unread => WatcherState::Unread,
    }
}

/// A change that waits.
struct Held {
    change: Box<Change>,
    made_ns: u64,
    /// Its number among those that were judged; of another one, that of the judged one before it.
    number: u64,
    /// Outcomes that are still to come.
    awaited: usize,
    /// What came furthest.
    best: Option<Known>,
    way: Way,
}

/// How a change came here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By its record.
    Record,
    /// Found by looking, after a loss.
    Found,
}

/// See the module.
pub(super) struct HeldChanges {
    watcher: WatcherId,
    queue: VecDeque<Held>,
    /// The last that was judged.
    number: u64,
    most: usize,
    given_up: u64,
    /// When the last one was made that was given up.
    given_up_ns: u64,
}

impl HeldChanges {
    pub(super) fn new(watcher: WatcherId) -> Self {
        Self { watcher, queue: VecDeque::new(), number: 0, most: MOST, given_up: 0, given_up_ns: 0 }
    }

    /// Takes a change that was judged. `every`: also one that no instance has to do with.
    pub(super) fn push(&mut self, made: ReportedChange, judged: Judged, every: bool) {
        self.number = judged.number;
        if judged.outcomes == 0 && !every {
            return;
        }
        // No watch of it has to do with the change, and it is none of content.
        let is_unasked = judged.outcomes == 0 && judged.is_followed;
        self.queue.push_back(Held {
            change: made.change,
            made_ns: made.made_ns,
            number: judged.number,
            awaited: judged.outcomes,
            best: is_unasked.then(|| Known::of(Outcome::Unasked)),
            way: Way::Record,
        });
    }

    /// Takes a change that was found by looking: it is not known when it was made, nor what became of it.
    pub(super) fn push_found(&mut self, change: Box<Change>) {
        let (made_ns, number) = (0, self.number);
        self.queue.push_back(Held { change, made_ns, number, awaited: 0, best: None, way: Way::Found });
    }

    /// Takes what is known of one; of one that went on, it is late.
    pub(super) fn decide(&mut self, decided: Decided) {
        let at = self.queue.partition_point(|held| held.number < decided.judged);
        let Some(held) = self.queue.get_mut(at).filter(|held| held.number == decided.judged) else { return };
        held.awaited = held.awaited.saturating_sub(1);
        let known = Known::of(decided.outcome);
        if held.best.as_ref().is_none_or(|best| known.rank() < best.rank()) {
            held.best = Some(known);
        }
    }

    /// Hands on those of which enough is known, as long as none before them waits, and those for which there is no room.
    pub(super) fn release(&mut self, mut each: impl FnMut(Change, Way)) {
        while let Some(first) = self.queue.front() {
            let is_received = first.best.as_ref().is_some_and(|best| best.state == WatcherState::Delivered);
            let is_waiting = first.awaited > 0 && !is_received;
            if is_waiting && self.queue.len() <= self.most {
                return;
            }
            if is_waiting {
                self.given_up += 1;
                self.given_up_ns = self.given_up_ns.max(first.made_ns);
            }
            self.release_first(&mut each);
        }
    }

    /// Hands on all.
    pub(super) fn release_all(&mut self, mut each: impl FnMut(Change, Way)) {
        while !self.queue.is_empty() {
            self.release_first(&mut each);
        }
    }

    fn release_first(&mut self, each: &mut impl FnMut(Change, Way)) {
        let Some(held) = self.queue.pop_front() else { return };
        let mut change = held.change;
        // As long as one instance may have received it, nothing is said of the others.
        let best = held.best.filter(|best| held.awaited == 0 || best.state == WatcherState::Delivered);
        let (verdict, watcher) = self.verdict(best);
        verdict.mark(session::Watcher::Foreign(Box::new(watcher)), &mut change);
        each(*change, held.way);
    }

    /// The verdict for the marks, and for the field.
    fn verdict(&self, best: Option<Known>) -> (session::Verdict, Watcher) {
        let state = best.as_ref().map_or(WatcherState::Unknown, |best| best.state);
        let mut watcher = Watcher { id: self.watcher.clone(), state, fd: None, wd: None, proof: None };
        let Some(verdict) = best.and_then(|best| best.verdict) else {
            return (session::Verdict::Unknown, watcher);
        };
        (watcher.fd, watcher.wd) = (verdict.target.fd, verdict.target.wd);
        watcher.proof = Some(verdict.proof);
        let said = match verdict.state {
            State::Delivered | State::Merged => session::Verdict::Delivered,
            State::Unread => session::Verdict::Unknown,
            // Without a cause of its own, the one that says only that the kernel made no call for it.
            State::Dropped | State::NeverSent => session::Verdict::Missed(Missed {
                channel: Channel::Inotify,
                cause: verdict.cause.unwrap_or(Cause::KernelWriter),
                why: Cow::Owned(verdict.evidence.join("; ")),
            }),
        };
        (said, watcher)
    }

    /// How many were given up since the last call, and when the last of them was made.
    pub(super) fn take_given_up(&mut self) -> Option<(u64, u64)> {
        let count = std::mem::take(&mut self.given_up);
        (count > 0).then_some((count, self.given_up_ns))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::diagnose::finding::Target;
    use hotr_events::Op;

    fn held() -> HeldChanges {
        HeldChanges::new(WatcherId { pid: 7, comm: b"app".to_vec() })
    }

    fn judged(number: u64, outcomes: usize) -> Judged {
        Judged { number, is_concerning: true, is_followed: true, outcomes }
    }

    fn made(name: &str, made_ns: u64) -> ReportedChange {
        let change = Change::new(Op::Write, PathBuf::from(name), SystemTime::UNIX_EPOCH);
        ReportedChange { made_ns, change: Box::new(change) }
    }

    fn verdict(judged: u64, fd: i32, state: State, cause: Option<Cause>) -> Decided {
        let target = Target { fd: Some(fd), ..Target::default() };
        let mut verdict =
            Verdict::new(1, SystemTime::UNIX_EPOCH, Op::Write, PathBuf::from("/a"), target, state);
        verdict.cause = cause;
        Decided { judged, outcome: Outcome::Verdict(Box::new(verdict)) }
    }

    fn released(held: &mut HeldChanges) -> Vec<(String, WatcherState, Option<i32>, usize)> {
        let mut out = Vec::new();
        held.release(|change, _| {
            let watcher = change.watcher.expect("it is marked");
            let name = change.path.display().to_string();
            out.push((name, watcher.state, watcher.fd, change.missed_by.len()));
        });
        out
    }

    #[test]
    fn they_go_on_in_their_order_and_none_before_it_is_decided() {
        let mut held = held();
        held.push(made("/a", 1), judged(1, 1), true);
        held.push(made("/b", 2), judged(2, 1), true);
        held.decide(verdict(2, 3, State::Delivered, None));
        assert_eq!(released(&mut held), []);
        held.decide(verdict(1, 3, State::NeverSent, Some(Cause::ReplacedFile)));
        let want = [
            ("/a".to_owned(), WatcherState::NeverSent, Some(3), 1),
            ("/b".to_owned(), WatcherState::Delivered, Some(3), 0),
        ];
        assert_eq!(released(&mut held), want);
    }

    #[test]
    fn one_instance_that_received_it_is_enough_and_one_that_may_have_hides_a_miss() {
        let mut held = held();
        held.push(made("/a", 1), judged(1, 2), true);
        held.push(made("/b", 2), judged(2, 2), true);
        held.decide(verdict(1, 3, State::NeverSent, Some(Cause::MaskMismatch)));
        assert_eq!(released(&mut held), []);
        held.decide(verdict(1, 4, State::Delivered, None));
        held.decide(verdict(2, 3, State::NeverSent, Some(Cause::MaskMismatch)));
        held.decide(Decided { judged: 2, outcome: Outcome::Undecided });
        let want = [
            ("/a".to_owned(), WatcherState::Delivered, Some(4), 0),
            ("/b".to_owned(), WatcherState::Unknown, None, 0),
        ];
        assert_eq!(released(&mut held), want);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_those_are_counted() {
        let mut held = HeldChanges { most: 2, ..held() };
        for n in 1..=4 {
            held.push(made("/a", n), judged(n, 1), true);
        }
        let unknown = ("/a".to_owned(), WatcherState::Unknown, None, 0);
        assert_eq!(released(&mut held), [unknown.clone(), unknown]);
        assert_eq!((held.take_given_up(), held.take_given_up()), (Some((2, 2)), None));
        // Too late.
        held.decide(verdict(1, 3, State::Delivered, None));
        assert_eq!(held.queue.len(), 2);
    }

    #[test]
    fn what_no_instance_has_to_do_with_waits_for_nothing() {
        let mut held = held();
        held.push(made("/a", 1), judged(1, 0), true);
        held.push(made("/b", 2), judged(2, 0), false);
        held.push_found(made("/c", 0).change);
        held.push(made("/d", 3), Judged { is_followed: false, ..judged(3, 0) }, true);
        let names: Vec<_> = released(&mut held).into_iter().map(|(name, state, ..)| (name, state)).collect();
        let want = [
            ("/a".to_owned(), WatcherState::Unasked),
            ("/c".to_owned(), WatcherState::Unknown),
            ("/d".to_owned(), WatcherState::Unknown),
        ];
        assert_eq!(names, want);
    }
}
