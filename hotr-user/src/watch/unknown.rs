//! Paths whose state could not be read: they are neither changed nor removed, and are checked again later.
//!
//! In: paths of a batch that the thread that reads files could not look at. Out: the moment of the next try.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::pending::Pending;
use super::touched::Touched;
use crate::timer;

/// Pause before the first try; it doubles with each that fails, up to the last.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Unknown {
    paths: BTreeMap<PathBuf, Touched>,
    at: Option<Instant>,
    pause: Duration,
}

impl Unknown {
    /// All states could be read so far.
    pub(super) const fn new() -> Self {
        Self { paths: BTreeMap::new(), at: None, pause: FIRST }
    }

    /// These could not.
    pub(super) fn add(&mut self, paths: BTreeMap<PathBuf, Touched>) {
        self.paths.extend(paths);
        self.at.get_or_insert_with(|| timer::later(self.pause));
    }

    /// A batch was decided about.
    pub(super) fn judged(&mut self) {
        if self.paths.is_empty() {
            self.pause = FIRST;
        }
    }

    /// Waits for the next try, for ever when there is none; may be dropped and called again.
    pub(super) async fn wait(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// What must be checked again now.
    pub(super) fn take(&mut self) -> Pending {
        self.at = None;
        self.pause = (self.pause * 2).min(LAST);
        Pending { touched: std::mem::take(&mut self.paths), ..Pending::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_and_start_over() {
        let mut unknown = Unknown::new();
        let path = PathBuf::from("/a");
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pauses.push(unknown.pause.as_secs());
            unknown.add([(path.clone(), Touched::default())].into());
            unknown.judged();
            assert!(unknown.at.is_some());
            assert_eq!(unknown.take().touched.keys().collect::<Vec<_>>(), [&path]);
            assert!(unknown.at.is_none());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        unknown.judged();
        assert_eq!(unknown.pause, FIRST);
    }
}
