//! Commands that change what they are run for: each run would cause the next, without end. Such reloads are made further
//! and further apart, and the loop is said once.
//!
//! In: starts and ends of reloads. Out: how long the next one must wait. Nothing is dropped, because the changes are
//! real: they wait, and a change elsewhere ends the wait ([`LoopDetector::is_same`]).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::order::Order;
use hotr_events::Trigger;

/// So soon after the end of a reload no person saves a file, several times in a row.
const SOON: Duration = Duration::from_secs(1);
/// Reloads of this kind in a row that are let pass.
const FREE: u32 = 3;
/// Shortest time from the start of one reload to the next when more follow; doubled each time.
const FIRST: Duration = Duration::from_millis(200);
/// No reload is held longer: the loop may be a user who saves while a command runs.
const LONGEST: Duration = Duration::from_secs(10);
/// Paths of a reload that are remembered.
const MOST: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LoopDetector {
    /// When the last reload began and ended, and what it was for.
    last: Option<(Instant, Instant, HashSet<PathBuf>)>,
    begun: Option<Instant>,
    in_a_row: u32,
}

/// A reload that must wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// For this long.
    pub(super) time: Duration,
    /// The message about it.
    pub(super) text: Option<String>,
}

impl LoopDetector {
    /// An order has come; none when it need not wait.
    pub(super) fn arrives(&mut self, order: &Order, now: Instant) -> Option<Pause> {
        if order.trigger != Trigger::Change {
            return None;
        }
        let begun = match &self.last {
            Some((begun, ended, _))
                if now.saturating_duration_since(*ended) < SOON && self.is_same(order) =>
            {
                *begun
            }
            _ => {
                self.in_a_row = 0;
                return None;
            }
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        let more = self.in_a_row.checked_sub(FREE)?;
        let period = FIRST.saturating_mul(2_u32.saturating_pow(more)).min(LONGEST);
        let time = period.saturating_sub(now.saturating_duration_since(begun));
        let text = (more == 0).then(|| {
            let first = order.changes.first().map(|change| change.path.display().to_string());
            format!(
                "{FREE} reloads in a row were for {}, changed during the one before or right after it; the next ones wait \
                 up to {} s; if the command writes it, leave it out with --ignore",
                first.unwrap_or_default(),
                LONGEST.as_secs()
            )
        });
        Some(Pause { time, text })
    }

    /// Whether all that an order is for is what the last reload was for, or lies beside it.
    pub(super) fn is_same(&self, order: &Order) -> bool {
        let Some((.., paths)) = &self.last else { return false };
        let is_beside =
            |path: &Path| paths.contains(path) || path.parent().is_some_and(|dir| paths.contains(dir));
        !order.changes.is_empty() && order.changes.iter().all(|change| is_beside(&change.path))
    }

    /// A reload begins.
    pub(super) fn begins(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    /// It has ended.
    pub(super) fn ended(&mut self, order: &Order, now: Instant) {
        let begun = self.begun.take().unwrap_or(now);
        let both = order.changes.iter().take(MOST).flat_map(|change| {
            let path = change.path.as_path();
            [Some(path), path.parent()].into_iter().flatten().map(Path::to_owned)
        });
        self.last = (!order.changes.is_empty()).then(|| (begun, now, both.collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::confirm::{Confirmed, Evidence, Kind, State};

    fn order(path: &str) -> Order {
        let change = Confirmed::new(Kind::Written, path.into(), Evidence::Digest, Vec::new(), State::Absent);
        Order { trigger: Trigger::Change, changes: vec![change] }
    }

    /// Pauses before reloads, each of which takes `run`; the next change comes `after` its end. The second value: when
    /// hotr printed something.
    fn pauses(path: impl Fn(u32) -> String, run: Duration, after: Duration) -> (Vec<u64>, Vec<u32>) {
        let (mut detector, mut now) = (LoopDetector::default(), Instant::now());
        let (mut pauses, mut said) = (Vec::new(), Vec::new());
        for number in 0..14 {
            let order = order(&path(number));
            let pause = detector.arrives(&order, now);
            said.extend(pause.as_ref().filter(|pause| pause.text.is_some()).map(|_| number));
            let pause = pause.map_or(Duration::ZERO, |pause| pause.time);
            pauses.push(u64::try_from(pause.as_millis()).unwrap());
            now += pause;
            detector.begins(now);
            now += run;
            detector.ended(&order, now);
            now += after;
        }
        (pauses, said)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_loop_is_slowed_down_and_said_once() {
        let want = [0, 0, 0, 140, 340, 740, 1540, 3140, 6340, 9940, 9940, 9940, 9940, 9940];
        assert_eq!(pauses(|_| "/w/stamp".to_owned(), 10 * MS, 50 * MS), (want.to_vec(), vec![3]));
        // New names each time, in one directory.
        assert_eq!(pauses(|n| format!("/w/out.{n}"), 10 * MS, 50 * MS), (want.to_vec(), vec![3]));
    }

    #[test]
    fn a_command_that_takes_long_is_no_fast_loop() {
        let (pauses, said) = pauses(|_| "/w/src".to_owned(), 12_000 * MS, Duration::ZERO);
        assert_eq!(pauses, [0; 14]);
        assert_eq!(said, [3]);
    }

    #[test]
    fn changes_apart_in_time_or_place_are_no_loop() {
        assert_eq!(pauses(|_| "/w/stamp".to_owned(), 10 * MS, 1000 * MS), (vec![0; 14], vec![]));
        let apart = |n: u32| format!("/w/{}/a", n % 2);
        assert_eq!(pauses(apart, 10 * MS, 50 * MS), (vec![0; 14], vec![]));
    }

    #[test]
    fn who_asks_does_not_wait() {
        let (mut detector, now) = (LoopDetector::default(), Instant::now());
        for _ in 0..9 {
            detector.arrives(&order("/w/a"), now);
            detector.begins(now);
            detector.ended(&order("/w/a"), now);
        }
        assert!(detector.arrives(&order("/w/a"), now).is_some());
        let asked = Order { trigger: Trigger::Request, ..order("/w/a") };
        assert_eq!(detector.arrives(&asked, now), None);
        assert!(!detector.is_same(&order("/elsewhere/a")));
        let mut both = order("/w/a");
        both.merge(order("/elsewhere/a"));
        assert_eq!(detector.arrives(&both, now), None, "a real edit in the same moment");
    }
}
