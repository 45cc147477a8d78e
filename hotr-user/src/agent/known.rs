//! What an agent has reported, so that it is not found once more when the directories are compared.
//!
//! In: reported changes, differences. Out: whether a difference is one of the changes. A file's time may be up to a tick before that of
//! its change, so the last change of a file before the agent ended and one just after it look alike. Of those the difference counts:
//! something may be said twice, and nothing is left out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hotr_events::{Change, Op};

use crate::source::difference::{Difference, Kind};

/// Names that are remembered; of what changed further, some is said again.
const MOST: usize = 65_536;
/// Changes that were made less than this before the agent ended are said again: repeats that it held, and ticks.
const CLOSE: Duration = Duration::from_secs(2);

/// The last report of a name.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// When the change was made.
    at: SystemTime,
    /// The name disappeared.
    is_gone: bool,
    /// In which connection.
    connection: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reported {
    names: HashMap<(u32, PathBuf), Last>,
    connection: u64,
    /// The longest time that a report came after its change.
    lag: Duration,
    /// Only changes before are certainly reported.
    until: Option<SystemTime>,
}

impl Reported {
    /// Takes a change that was reported at `now`.
    pub(super) fn take(&mut self, root: u32, change: &Change, now: SystemTime) {
        self.lag = self.lag.max(now.duration_since(change.time).unwrap_or_default());
        let is_gone = change.op == Op::Remove;
        self.note(root, change.path.clone(), change.time, is_gone);
        if let Some(old) = &change.old_path {
            self.note(root, old.clone(), change.time, true);
        }
    }

    fn note(&mut self, root: u32, path: PathBuf, at: SystemTime, is_gone: bool) {
        let name = (root, path);
        if self.names.len() < MOST || self.names.contains_key(&name) {
            self.names.insert(name, Last { at, is_gone, connection: self.connection });
        }
    }

    /// The agent has ended at `now`, or before.
    pub(super) fn ended(&mut self, now: SystemTime) {
        let until = now.checked_sub(CLOSE + self.lag).unwrap_or(SystemTime::UNIX_EPOCH);
        // It may end again before anything is compared.
        self.until = Some(self.until.map_or(until, |first| first.min(until)));
        self.connection += 1;
        self.lag = Duration::ZERO;
    }

    /// The directories were compared: what was reported before does not matter any more.
    pub(super) fn compared(&mut self) {
        self.until = None;
        let connection = self.connection;
        self.names.retain(|_, last| last.connection == connection);
    }

    /// Whether a difference was reported.
    pub(super) fn explains(&self, root: u32, difference: &Difference) -> bool {
        let Some(last) = self.names.get(&(root, difference.path.clone())) else { return false };
        let is_removal = difference.kind == Kind::Removed;
        let made = u64::try_from(difference.ctime_ns).map(Duration::from_nanos).unwrap_or_default();
        let is_before = is_removal || SystemTime::UNIX_EPOCH + made <= last.at;
        let is_certain = self.until.is_some_and(|until| last.at <= until);
        last.is_gone == is_removal && is_before && is_certain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn difference(kind: Kind, path: &str, seconds: i64) -> Difference {
        Difference {
            kind,
            path: path.into(),
            dev: 1,
            ino: 1,
            gen_: 0,
            file_type: None,
            size: 0,
            ctime_ns: seconds * 1_000_000_000,
        }
    }

    #[test]
    fn only_what_was_certainly_reported_is_not_found_again() {
        let mut reported = Reported::default();
        reported.take(0, &Change::new(Op::Write, "early".into(), at(10)), at(10));
        reported.take(0, &Change::new(Op::Remove, "removed".into(), at(11)), at(11));
        reported.take(0, &Change::new(Op::Write, "late".into(), at(99)), at(99));
        reported.ended(at(100));
        let says = |kind, path, seconds| reported.explains(0, &difference(kind, path, seconds));
        assert!(says(Kind::Content, "early", 10));
        assert!(!says(Kind::Content, "early", 11), "it changed once more");
        assert!(!says(Kind::Removed, "early", 10), "it was removed after it was written");
        assert!(says(Kind::Removed, "removed", 5));
        assert!(!says(Kind::Created, "removed", 11), "it is there again");
        assert!(!says(Kind::Content, "late", 99), "another change may have the same time");
        assert!(!says(Kind::Content, "other", 1));
        assert!(!reported.explains(1, &difference(Kind::Content, "early", 10)));
    }

    #[test]
    fn a_slow_agent_proves_less_and_a_comparison_forgets() {
        let mut reported = Reported::default();
        reported.take(0, &Change::new(Op::Write, "f".into(), at(10)), at(50));
        reported.ended(at(20));
        let content = difference(Kind::Content, "f", 10);
        assert!(!reported.explains(0, &content), "others of that time may not have come");
        reported.take(0, &Change::new(Op::Write, "g".into(), at(60)), at(60));
        reported.compared();
        assert_eq!(reported.names.len(), 1, "what the new agent has reported is not compared yet");
        reported.ended(at(100));
        assert!(reported.explains(0, &difference(Kind::Content, "g", 60)));
    }
}
