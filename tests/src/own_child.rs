//! A program that a test starts: its lines, and an end in any case.

use std::io::{BufRead, BufReader, Read};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// A child that does not outlive its value.
pub struct OwnChild(Child);

impl OwnChild {
    /// Starts a program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_owned();
        command.spawn().map(Self).with_context(|| format!("start {}", name.display()))
    }

    /// Sends a signal to it.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("the process id")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?}"))
    }
}

impl Deref for OwnChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for OwnChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        // Already ended in the good case, which `try_wait` knows.
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// The lines of an output, as they come. The channel ends with the output.
pub fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    let _reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}
