//! A whole run in numbers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::histogram::Histogram;
use super::verdict::State;
use hotr_events::Cause;

/// What a cause cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// What became of the changes.
    pub state: State,
    /// Why, when that is known.
    pub cause: Option<Cause>,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub example: PathBuf,
}

/// The whole run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Changes that concerned a target.
    pub changes: u64,
    /// Verdicts by state.
    pub counts: HashMap<State, u64>,
    /// Changes of a kind that the watch does not ask for and that is no change of content.
    pub unasked: u64,
    /// Without a verdict: the file was still open for writing at the end, or records were lost.
    pub undecided: u64,
    /// Not sent because a file was replaced, and read by the program once it had set its watch again.
    pub reread: u64,
    /// Records of deliveries that were lost, or may have been.
    pub records_lost: u64,
    /// Microseconds from the queue to the program.
    pub read_us: Histogram,
    /// What did not arrive, and why, the most frequent first.
    pub rows: Vec<Row>,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    pub(super) fn count(&mut self, state: State, cause: Option<Cause>, path: &Path) {
        match self.rows.iter_mut().find(|row| (row.state, row.cause) == (state, cause)) {
            Some(row) => row.count += 1,
            None => self.rows.push(Row { state, cause, count: 1, example: path.to_owned() }),
        }
    }

    /// Whether a change did not arrive.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        [State::Dropped, State::NeverSent].iter().any(|state| self.counts.contains_key(state))
    }
}
