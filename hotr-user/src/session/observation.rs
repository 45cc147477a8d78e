//! A change as it was observed, once for everybody: what the kernel programs recorded, and the change that it was decoded to.
//! Nothing is filtered here, and nothing is said of who received it but by the record.

use hotr_common::hook::Hook;
use hotr_common::record::Record;

use super::storms::Trailing;
use hotr_events::Change;

/// A change, with what the kernel said of it.
pub(super) struct Observation {
    pub(super) record: Record,
    pub(super) hook: Hook,
    pub(super) change: Box<Change>,
    /// Index of the watched root.
    pub(super) root: usize,
    /// Changes that the record reports and none before it reported.
    pub(super) count: u64,
    /// What was counted under the names that the change takes away: to be reported before it.
    pub(super) before: Vec<Trailing>,
    /// The file has lost the name, or the change is an announcement of a relay: it explains an event of inotify, and is not
    /// reported.
    pub(super) is_gone: bool,
}
