//! A command that is run when something has changed: once at a time, and once more when something changed meanwhile.

use std::ffi::OsString;
use std::time::Duration;

use hotr_user::action::group::{Stdin, describe, explain};
use hotr_user::action::{CommandSpec, Group, StopSpec};
use hotr_user::watch::WatchOptions;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::cli::say;

/// How long a command gets to end.
const STOP: StopSpec = StopSpec { signal: Signal::TERM, timeout: Duration::from_secs(10) };

/// See the module.
pub(super) struct Runner {
    spec: CommandSpec,
    debounce: Duration,
    running: Option<Group>,
    /// Something changed: when it may be run.
    due: Option<Instant>,
}

impl Runner {
    pub(super) fn new(words: Vec<OsString>, stdout_to_stderr: bool) -> Self {
        let spec = CommandSpec { words, dir: None, env: Vec::new(), stdout_to_stderr, identity: None };
        let debounce = WatchOptions::new(Vec::new()).debounce;
        Self { spec, debounce, running: None, due: None }
    }

    /// Something changed. The first change of a burst decides when it is run: a stream without a pause cannot put it off.
    pub(super) fn request(&mut self) {
        self.due.get_or_insert(Instant::now() + self.debounce);
    }

    /// Waits until it has begun or ended. May be dropped and called again.
    pub(super) async fn next(&mut self) {
        if let Some(group) = &mut self.running {
            match group.ended().await {
                Ok(status) if status.success() => {}
                Ok(status) => say(&format!("the command failed: {}", describe(status))),
                Err(error) => say(&format!("wait for the command: {error}; run it by hand to see more")),
            }
            self.running = None;
            return;
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => return std::future::pending().await,
        }
        self.due = None;
        match Group::start(&self.spec, Stdin::Empty, &[]) {
            Ok(group) => self.running = Some(group),
            Err(error) => say(&explain(&self.spec, &error)),
        }
    }

    /// Ends what runs.
    pub(super) async fn stop(&mut self) {
        if let Some(group) = self.running.take() {
            group.stop(STOP).await;
        }
    }
}
