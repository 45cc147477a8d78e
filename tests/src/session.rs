//! One run of `hotr trace`: start, barriers, end.
//!
//! Nothing here sleeps: each wait is for a line of hotr's output, and has a generous deadline that is an error.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::observed::Observed;
use crate::own_child::{OwnChild, lines_of};

/// How long hotr may take for something before it counts as an error.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Start until the `ready` line.
    pub ready: Duration,
    /// A change until its line; the end until the exit.
    pub line: Duration,
}

/// A running hotr.
pub struct Session {
    child: OwnChild,
    lines: Receiver<String>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    deadlines: Deadlines,
    root: PathBuf,
    phase: usize,
    verbose: bool,
    /// Every change so far, barriers left out.
    pub seen: Vec<Observed>,
    /// Number of all change lines, barriers included.
    pub changes: u64,
    /// Lines that no tool could read.
    pub broken: Vec<String>,
    /// Lines that are no changes: `loss`, `channel`, …
    pub others: Vec<Value>,
}

/// How a run ended.
pub struct End {
    /// Exit status.
    pub status: ExitStatus,
    /// The `summary` line.
    pub summary: Option<Value>,
}

impl Session {
    /// Starts hotr on directories and waits until it is ready; returns the `ready` line too. Barriers are made in the
    /// first.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready before the deadline.
    pub fn start(
        hotr: &Path,
        channels: &str,
        tier: &str,
        roots: &[&Path],
        deadlines: Deadlines,
        verbose: bool,
    ) -> Result<(Self, Value)> {
        let mut command = Command::new(hotr);
        command.args(["trace", "--json", "--channels", channels, "--tier", tier]).args(roots);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = OwnChild::start(&mut command)?;
        let stdout = child.stdout.take().context("take hotr's output")?;
        let errors = child.stderr.take().context("take hotr's messages")?;
        let lines = lines_of(stdout);
        let mut session = Self {
            child,
            lines,
            stderr: keep_last_lines(errors),
            deadlines,
            root: roots.first().copied().context("start hotr on no directory")?.to_owned(),
            phase: 0,
            verbose,
            seen: Vec::new(),
            changes: 0,
            broken: Vec::new(),
            others: Vec::new(),
        };
        let ready = session.wait_for_type("ready", deadlines.ready)?;
        Ok((session, ready))
    }

    /// Number of barriers so far; a line carries the number that was current when it came.
    pub fn phase(&self) -> usize {
        self.phase
    }

    /// Makes a file under the root and reads until its line comes.
    ///
    /// # Errors
    /// The line does not come before the deadline, or hotr has ended.
    pub fn barrier(&mut self) -> Result<()> {
        let path = self.root.join(format!(".barrier-{}", self.phase));
        drop(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .with_context(|| format!("make barrier {}", path.display()))?,
        );
        let deadline = Instant::now() + self.deadlines.line;
        self.phase += 1;
        // Lines before the barrier's own still belong to the interval that it ends.
        loop {
            let text = self.next_line(deadline).with_context(|| format!("wait for {}", path.display()))?;
            if self.take(&text, self.phase - 1, Some(&path)).is_some() {
                return Ok(());
            }
        }
    }

    /// Reads on until `done` says so about what was reported so far.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn read_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + self.deadlines.line;
        while !done(self) {
            let text = self.next_line(deadline)?;
            self.take(&text, self.phase, None);
        }
        Ok(())
    }

    /// Reads on for at most so long; returns whether `done` became true.
    ///
    /// # Errors
    /// hotr has ended.
    pub fn read_for(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => drop(self.take(&text, self.phase, None)),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => bail!("hotr has ended: {}", self.messages()),
            }
        }
        Ok(true)
    }

    /// Ends hotr with SIGINT and reads what it still has to say.
    ///
    /// # Errors
    /// It does not end before the deadline.
    pub fn finish(&mut self) -> Result<End> {
        self.child.signal(rustix::process::Signal::INT)?;
        let deadline = Instant::now() + self.deadlines.line;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => drop(self.take(&text, self.phase, None)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("hotr did not end after SIGINT"),
            }
        }
        let status = self.child.wait().context("wait for hotr")?;
        let summary = self.others.iter().rev().find(|line| line["type"] == "summary").cloned();
        Ok(End { status, summary })
    }

    /// The last messages of hotr.
    pub fn messages(&self) -> String {
        let lines = self.stderr.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn wait_for_type(&mut self, word: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        let text = self
            .next_line(deadline)
            .with_context(|| format!("wait for the {word} line"))
            .inspect_err(|_| drop(self.child.kill()))
            .with_context(|| format!("hotr's messages: {}", self.messages()))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("parse {text}"))?;
        ensure!(value["type"] == word, "the first line is {text}");
        Ok(value)
    }

    fn next_line(&mut self, deadline: Instant) -> Result<String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => Ok(text),
            Err(RecvTimeoutError::Timeout) => bail!("no line came before the deadline"),
            Err(RecvTimeoutError::Disconnected) => bail!("hotr has ended"),
        }
    }

    fn is_barrier(&self, change: &Observed) -> bool {
        let name = change.path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        change.op == "create" && name.is_some_and(|name| name.starts_with(".barrier-"))
    }

    /// Files a line; returns whether it was the awaited barrier.
    fn take(&mut self, text: &str, phase: usize, barrier: Option<&Path>) -> Option<()> {
        if self.verbose {
            eprintln!("  {phase}: {text}");
        }
        match Observed::parse(text, phase) {
            Ok(Some(change)) => {
                self.changes += 1;
                if barrier == Some(change.path.as_path()) && change.op == "create" {
                    return Some(());
                }
                // The line of a former barrier that came after its deadline has been judged by then.
                if !self.is_barrier(&change) {
                    self.seen.push(change);
                }
            }
            Ok(None) => self.others.extend(serde_json::from_str::<Value>(text)),
            Err(_) => self.broken.push(text.to_owned()),
        }
        None
    }
}

fn keep_last_lines(from: impl Read + Send + 'static) -> Arc<Mutex<VecDeque<String>>> {
    const KEPT: usize = 20;
    let kept = Arc::new(Mutex::new(VecDeque::new()));
    let target = Arc::clone(&kept);
    let _reader = std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut lines = target.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    });
    kept
}
