//! New starts of a channel that hears nothing, at growing distances.
//!
//! In: which channel needs one. Out: the new start, and a sentence when it fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::Channel;
use crate::trace::Session;

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

/// When each channel is started anew.
#[derive(Debug, Default)]
pub(super) struct Revival {
    attempts: Vec<(Channel, Attempt)>,
}

impl Revival {
    /// Starts a channel anew when it needs it and the time has come; whether it did.
    ///
    /// # Errors
    /// A sentence, once, when it cannot be started.
    pub(super) fn attend(
        &mut self,
        session: &mut Session,
        channel: Channel,
        needs: bool,
    ) -> Result<bool, String> {
        let now = Instant::now();
        let known = self.attempts.iter().position(|(one, _)| *one == channel);
        if !needs {
            // It has to prove itself for as long as the last pause before the next pause is a short one again.
            let is_over = |at: usize| now >= self.attempts[at].1.at;
            if let Some(at) = known.filter(|at| is_over(*at)) {
                self.attempts.swap_remove(at);
            }
            return Ok(false);
        }
        let Some(at) = known else {
            self.attempts.push((channel, Attempt { at: now + FIRST, pause: FIRST, said: false }));
            return Ok(false);
        };
        let attempt = &mut self.attempts[at].1;
        if now < attempt.at {
            return Ok(false);
        }
        let answer = session.revive(channel);
        attempt.pause = (attempt.pause * 2).min(LAST);
        attempt.at = Instant::now() + attempt.pause;
        match answer {
            Err(error) if !attempt.said => {
                attempt.said = true;
                Err(format!("{} could not be started anew: {error}", channel.as_str()))
            }
            answer => Ok(answer.is_ok()),
        }
    }
}
