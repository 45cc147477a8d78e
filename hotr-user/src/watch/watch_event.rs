//! What a stream of [`super::Changes`] gives: batches of confirmed changes, and what became of the channels.
//!
//! In: what the feed gives. Out: [`WatchEvent`]s. Nothing that `hotr watch` prints about losses and channels is left out.

use std::ops::Deref;
use std::path::PathBuf;

use super::feed_output::FeedOutput;
use crate::pipeline::confirm::Confirmed;
use hotr_events::Channel;
use hotr_events::LossReason;
use hotr_events::{ChannelInfo, ChannelState, Report};

/// What was changed by one save: at least one path, each once.
///
/// It reads like a slice of [`Confirmed`], each of which says which channels reported it (`seen_by`) and, where that is
/// known, who made the change (`actors`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Confirmed>,
}

impl Batch {
    pub(super) fn new(changes: Vec<Confirmed>) -> Option<Self> {
        (!changes.is_empty()).then_some(Self { changes })
    }

    /// The changes; never empty.
    #[must_use]
    pub fn changes(&self) -> &[Confirmed] {
        &self.changes
    }

    /// The changes, to be kept.
    #[must_use]
    pub fn into_changes(self) -> Vec<Confirmed> {
        self.changes
    }
}

impl Deref for Batch {
    type Target = [Confirmed];

    fn deref(&self) -> &[Confirmed] {
        &self.changes
    }
}

impl IntoIterator for Batch {
    type Item = Confirmed;
    type IntoIter = std::vec::IntoIter<Confirmed>;

    fn into_iter(self) -> Self::IntoIter {
        self.changes.into_iter()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Confirmed;
    type IntoIter = std::slice::Iter<'a, Confirmed>;

    fn into_iter(self) -> Self::IntoIter {
        self.changes.iter()
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Files have another content than before.
    Batch(Batch),
    /// A channel lost something. hotr checks the files by itself: what changed arrives as a batch.
    #[non_exhaustive]
    Loss {
        /// Which channel.
        channel: Channel,
        /// Why.
        reason: LossReason,
        /// How many records, or 1 when the kernel only says "some".
        count: u64,
        /// The path concerned, when it is one.
        path: Option<PathBuf>,
    },
    /// A channel does not receive everything, or does not run: at the start, or from now on.
    #[non_exhaustive]
    Degraded {
        /// Which channel.
        channel: Channel,
        /// [`ChannelState::Degraded`] or [`ChannelState::Off`].
        state: ChannelState,
        /// One sentence for humans.
        why: String,
    },
    /// An event channel receives everything again.
    #[non_exhaustive]
    Recovered {
        /// Which channel.
        channel: Channel,
        /// One sentence for humans.
        why: String,
    },
    /// The poller checks all files now, or again and again ([`ChannelState::Active`]); or it waits for its next audit
    /// again ([`ChannelState::Idle`]).
    #[non_exhaustive]
    Poller {
        /// What it does.
        state: ChannelState,
        /// One sentence for humans.
        why: String,
    },
    /// A sentence for humans, about something that needs attention: a file that cannot be read, a file of rules that was
    /// not read.
    Notice(String),
}

impl WatchEvent {
    /// The changes, where that is what it is.
    #[must_use]
    pub fn into_batch(self) -> Option<Batch> {
        if let Self::Batch(batch) = self { Some(batch) } else { None }
    }

    /// What a program receives of what a feed gives. `polls`: the program wants audits.
    pub(super) fn of(output: FeedOutput, polls: bool) -> Vec<Self> {
        match output {
            FeedOutput::Batch(changes) | FeedOutput::Restored(changes) => {
                Batch::new(changes).map(Self::Batch).into_iter().collect()
            }
            FeedOutput::Say(text) => vec![Self::Notice(text)],
            FeedOutput::Report(Report::Ready { channels, .. }) => {
                let is_asked = |info: &&ChannelInfo| polls || info.channel != Channel::Poll;
                channels.iter().filter(is_asked).filter_map(impaired).collect()
            }
            FeedOutput::Report(Report::Loss { channel, reason, count, path }) => {
                vec![Self::Loss { channel, reason, count, path }]
            }
            FeedOutput::Report(Report::Channel { channel, state, why }) => vec![match (channel, state) {
                (_, ChannelState::Degraded | ChannelState::Off) => Self::Degraded { channel, state, why },
                (Channel::Poll, _) => Self::Poller { state, why },
                _ => Self::Recovered { channel, why },
            }],
            // Single changes and what came of nothing are for whoever wants every detail.
            FeedOutput::Report(_)
            | FeedOutput::Nothing(_)
            | FeedOutput::LeftOut(_)
            | FeedOutput::Known(_) => Vec::new(),
        }
    }
}

/// What a channel cannot do from the start.
fn impaired(info: &ChannelInfo) -> Option<WatchEvent> {
    let why = info.impairment()?;
    Some(WatchEvent::Degraded { channel: info.channel, state: info.state, why })
}
