//! A program that runs beside the trials, and the lines that it prints.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Longest time for anything that a trial waits for.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A started program. It does not outlive this value.
pub(super) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    what: String,
}

impl Running {
    /// Starts the program with its standard output read here.
    pub(super) fn start(command: &mut Command, what: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
        let output = child.stdout.take().with_context(|| format!("{what}: no output"))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, seen: Vec::new(), what: what.to_owned() })
    }

    /// The next line that `is_it` accepts.
    pub(super) fn line(&mut self, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if is_it(&line) => return Ok(line),
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{}: the line did not come within {} s; it printed: {}",
                        self.what,
                        LIMIT.as_secs(),
                        self.seen.join("\n")
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "{}: it ended before the line came; it printed: {}",
                        self.what,
                        self.seen.join("\n")
                    )
                }
            }
        }
    }

    /// The next line of this type that has all of `parts`.
    pub(super) fn report(&mut self, kind: &str, parts: &[&str]) -> Result<String> {
        let begin = format!("{{\"type\":\"{kind}\",");
        self.line(|line| line.starts_with(&begin) && parts.iter().all(|part| line.contains(part)))
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an administrator would, and returns its status.
    pub(super) fn terminate(mut self) -> Result<ExitStatus> {
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &self.pid().to_string()]);
        crate::cmd::must_quietly(&mut kill, &self.what)?;
        self.child.wait().with_context(|| format!("{}: wait for its end", self.what))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the answer is there; a program that starts gives no sign but its answers.
pub(super) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{what}: it did not happen within {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
