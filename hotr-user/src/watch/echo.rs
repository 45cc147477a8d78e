//! A command that changes what it is run for, and so runs for ever: said once.
//!
//! In: begins and ends of reloads. Out: a sentence. Nothing is held back by it: the changes are real.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::order::Order;
use crate::report::Trigger;

/// So soon after the end of a reload no person has saved a file, many times in a row.
const SOON: Duration = Duration::from_secs(1);
/// Reloads of this kind in a row.
const MANY: u32 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Echo {
    last: Option<(Instant, PathBuf)>,
    count: u32,
}

impl Echo {
    /// A reload begins; what is to be said of it.
    pub(super) fn begins(&mut self, order: &Order, now: Instant) -> Option<String> {
        let first = order.changes.first().filter(|_| order.trigger == Trigger::Change)?;
        let is_echo = self.last.take().is_some_and(|(ended, path)| path == first.path && now - ended < SOON);
        self.count = if is_echo { self.count + 1 } else { 0 };
        (self.count == MANY).then(|| {
            format!(
                "{MANY} reloads in a row were for {}, changed during the one before or at once after it; if the command \
                 writes it, leave it out with --ignore",
                first.path.display()
            )
        })
    }

    /// It has ended.
    pub(super) fn ended(&mut self, order: &Order, now: Instant) {
        self.last = order.changes.first().map(|change| (now, change.path.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::confirm::{Confirmed, Evidence, Kind, State};

    fn order(path: &str) -> Order {
        let change = Confirmed {
            kind: Kind::Written,
            path: path.into(),
            by: Evidence::Digest,
            size: None,
            seen_by: Vec::new(),
            state: State::Absent,
        };
        Order { trigger: Trigger::Change, changes: vec![change] }
    }

    /// What is said at reloads for a path with pauses between them.
    fn said(path: impl Fn(u32) -> &'static str, pause: Duration) -> Vec<u32> {
        let (mut echo, mut now) = (Echo::default(), Instant::now());
        let mut said = Vec::new();
        for number in 0..30 {
            let order = order(path(number));
            if echo.begins(&order, now).is_some() {
                said.push(number);
            }
            // A long run is no pause.
            now += Duration::from_secs(5);
            echo.ended(&order, now);
            now += pause;
        }
        said
    }

    #[test]
    fn it_is_said_once_of_the_same_file_again_and_again() {
        let soon = Duration::from_millis(60);
        assert_eq!(said(|_| "/w/stamp", soon), [10]);
        assert_eq!(said(|_| "/w/stamp", Duration::from_secs(2)), [0_u32; 0]);
        assert_eq!(said(|number| if number % 2 == 0 { "/w/a" } else { "/w/b" }, soon), [0_u32; 0]);
        assert_eq!(said(|number| if number == 15 { "/w/a" } else { "/w/stamp" }, soon), [10, 26]);
    }
}
