//! Restarts of a channel that receives nothing, at growing intervals.
//!
//! In: which channel needs one. Out: the new start, which may take its time beside the loop, and a sentence when it fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::session::Session;
use hotr_events::Channel;

/// Before the first new start.
const FIRST: Duration = Duration::from_secs(1);
/// Between two, at most.
const LAST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Attempt {
    at: Instant,
    pause: Duration,
    said: bool,
}

/// When each channel is restarted.
#[derive(Debug, Default)]
pub(super) struct ChannelRestarts {
    attempts: Vec<(Channel, Attempt)>,
    runs: bool,
}

impl ChannelRestarts {
    /// Whether a restart is under way.
    pub(super) const fn runs(&self) -> bool {
        self.runs
    }

    /// Begins to restart a channel when it needs it and the time has come.
    pub(super) fn attend(&mut self, session: &mut Session, channel: Channel, needs: bool) {
        let now = Instant::now();
        let known = self.attempts.iter().position(|(one, _)| *one == channel);
        match known {
            // It must prove itself for as long as the last pause before the next pause is a short one again.
            Some(at) if !needs && !self.runs && now >= self.attempts[at].1.at => {
                self.attempts.swap_remove(at);
            }
            Some(at) if needs && !self.runs && now >= self.attempts[at].1.at => {
                session.revive(channel);
                self.runs = true;
            }
            None if needs => {
                self.attempts.push((channel, Attempt { at: now + FIRST, pause: FIRST, said: false }));
            }
            _ => {}
        }
    }

    /// A channel whose new start has ended; a sentence, once, when it could not be started.
    pub(super) fn ended(&mut self, session: &mut Session) -> Option<(Channel, Result<(), Option<String>>)> {
        let (channel, answer) = session.revived()?;
        self.runs = false;
        let (_, attempt) = self.attempts.iter_mut().find(|(one, _)| *one == channel)?;
        attempt.pause = (attempt.pause * 2).min(LAST);
        attempt.at = Instant::now() + attempt.pause;
        let answer = answer.map_err(|error| {
            let is_news = !std::mem::replace(&mut attempt.said, true);
            is_news.then(|| format!("{} could not be restarted: {error}", channel.as_str()))
        });
        Some((channel, answer))
    }
}
