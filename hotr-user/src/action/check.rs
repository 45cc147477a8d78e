//! Commands that judge: `--validate` before a reload, `--health` after it.
//!
//! In: a command and a time limit. Out: good, or why not. A command that hangs is killed with everything it started.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::group::{self, Group, Stdin};
use super::{CommandSpec, StopSpec};
use crate::timer;
use rustix::process::Signal;

/// The first pause between two asks of a health command; each further one is twice as long, up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A command that judges.
#[derive(Clone, Debug)]
pub struct Check {
    /// The command.
    pub command: CommandSpec,
    /// How long it may take.
    pub timeout: Duration,
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Its exit status, when it exited on its own.
    pub status: Option<i32>,
    /// For humans.
    pub why: String,
}

impl Check {
    /// Runs the command once; its output is hotr's.
    ///
    /// # Errors
    /// It could not be run, ended with a status that is not 0, or took too long.
    pub async fn once(&self, env: &[(std::ffi::OsString, std::ffi::OsString)]) -> Result<(), Failure> {
        self.until(env, timer::later(self.timeout)).await
    }

    /// Runs the command until it succeeds, or the time is over.
    ///
    /// # Errors
    /// The last answer, when there was no good one in time.
    pub async fn repeatedly(&self, env: &[(std::ffi::OsString, std::ffi::OsString)]) -> Result<(), Failure> {
        let over = timer::later(self.timeout);
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(failure) = self.until(env, over).await else { return Ok(()) };
            if Instant::now() + pause >= over {
                return Err(failure);
            }
            sleep_until(Instant::now() + pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn until(
        &self,
        env: &[(std::ffi::OsString, std::ffi::OsString)],
        over: Instant,
    ) -> Result<(), Failure> {
        let mut group = Group::start(&self.command, Stdin::Empty, env)
            .map_err(|error| Failure { status: None, why: group::explain(&self.command, &error) })?;
        match timeout_at(over, group.ended()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                let name = self.command.words.first().map(|word| word.to_string_lossy().into_owned());
                let why = format!("{}: {}", name.unwrap_or_default(), group::describe(status));
                Err(Failure { status: Some(group::number(status)), why })
            }
            Ok(Err(error)) => Err(Failure { status: None, why: error.to_string() }),
            Err(_) => {
                group.stop(StopSpec { signal: Signal::KILL, timeout: Duration::ZERO }).await;
                let limit = humantime::format_duration(self.timeout);
                Err(Failure { status: None, why: format!("no answer within {limit}: killed") })
            }
        }
    }
}
