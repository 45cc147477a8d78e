//! What the feed gives to whoever runs it: reports, batches, and sentences for stderr.

use std::path::PathBuf;

use crate::pipeline::confirm::Confirmed;
use hotr_events::Report;

/// What a feed gives.
#[derive(Debug)]
pub(super) enum FeedOutput {
    /// A report of the channels.
    Report(Report),
    /// Confirmed changes, at least one.
    Batch(Vec<Confirmed>),
    /// These changes were checked and changed nothing.
    Nothing(Vec<PathBuf>),
    /// These changed, but by none of the kinds that were wanted.
    LeftOut(Vec<PathBuf>),
    /// Good content was restored at these paths, at least one.
    Restored(Vec<Confirmed>),
    /// The state before the first change is known of this many files, and of all that will be.
    Known(usize),
    /// A sentence for stderr.
    Say(String),
}
