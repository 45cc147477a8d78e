//! A child in a process group of its own: started without a shell, waited for through a pidfd, ended with everything
//! it has started.
//!
//! The leader is not reaped before its group has been signalled: while it is a zombie the group's number cannot be
//! given to another (`kernel/pid.c`, `free_pid`).

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

use super::descendants::{Descendants, LOOK};
use super::spawn::{spawn, wait};
use super::{CommandSpec, StopSpec};

/// A running group.
#[derive(Debug)]
pub struct Group {
    stdin: Option<PipeWriter>,
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    reaped: bool,
}

/// What a command reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: its end.
    Empty,
    /// What is written to [`Group::take_stdin`].
    Piped,
}

impl Group {
    /// Starts a command, with the scheduling policy that hotr was started with; the child gets SIGTERM when hotr is
    /// killed.
    ///
    /// # Errors
    /// That of `execve`: the command is not found, not executable, …
    pub fn start(
        spec: &CommandSpec,
        stdin: Stdin,
        env: &[(std::ffi::OsString, std::ffi::OsString)],
    ) -> io::Result<Self> {
        let (pid, stdin) = match stdin {
            Stdin::Empty => (spawn(spec, env, File::open("/dev/null")?.as_fd())?, None),
            Stdin::Piped => {
                let (theirs, ours) = io::pipe()?;
                (spawn(spec, env, theirs.as_fd())?, Some(ours))
            }
        };
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is moved into the `AsyncFd`, which keeps it open.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
        Ok(Self { stdin, pid, pidfd, reaped: false })
    }

    /// The process id of the leader.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The child's stdin, once, when it is a pipe.
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// Waits for the end of the leader; may be dropped and called again.
    ///
    /// # Errors
    /// Those of `waitid`.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.leader_ended().await?;
        self.reap()
    }

    async fn leader_ended(&self) -> io::Result<()> {
        // A pidfd is readable once the process is a zombie (kernel/fork.c, `pidfd_poll`).
        let _ready = self.pidfd.readable().await?;
        Ok(())
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        if self.reaped {
            return Err(rustix::io::Errno::CHILD.into());
        }
        self.stdin = None;
        let status = wait(self.pid)?;
        self.reaped = true;
        Ok(ExitStatus::from_raw(status))
    }

    /// Sends a signal to every process of the group.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped {
            // It is no error if nobody is left to receive it.
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Ends the group: the stop signal, time to obey, SIGKILL. Then the same for what it had started in other groups and
    /// not let go; a server that stops such processes itself, in its order, can do so before. Returns whether SIGKILL
    /// was needed.
    pub async fn stop(mut self, stop: StopSpec) -> bool {
        // Before the signal: a process whose parent has exited cannot be told from a daemon.
        let mut others = Descendants::of(self.pid);
        self.signal(stop.signal);
        // A stopped process would not get the signal.
        self.signal(Signal::CONT);
        let over = crate::timer::later(stop.timeout);
        let in_time = tokio::time::timeout_at(over, self.leader_ended()).await.is_ok();
        let mut left = !in_time || has_living(self.pid);
        while left && in_time && Instant::now() < over {
            sleep(LOOK).await;
            left = has_living(self.pid);
        }
        if left {
            others.look(self.pid);
            self.signal(Signal::KILL);
        }
        let _ = self.leader_ended().await;
        let _ = self.reap();
        others.stop(stop.signal, over).await || left
    }
}

impl Drop for Group {
    /// Nothing a group has started outlives it, unless the leader had exited on its own.
    fn drop(&mut self) {
        if !self.reaped {
            let others = Descendants::of(self.pid);
            self.signal(Signal::KILL);
            others.signal(Signal::KILL);
            let _ = self.reap();
        }
    }
}

/// Whether a process of the group runs that is not a zombie.
fn has_living(group: Pid) -> bool {
    let Ok(processes) = procfs::process::all_processes() else { return false };
    processes
        .flatten()
        .filter_map(|process| process.stat().ok())
        .any(|stat| stat.pgrp == group.as_raw_nonzero().get() && !matches!(stat.state, 'Z' | 'X'))
}

/// The number a shell would show: the exit status, or 128 and the signal.
#[must_use]
pub fn number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// `exit status 3` or `ended by signal 9`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// Why a command could not be started: operation, object, cause, next step.
#[must_use]
pub fn explain(spec: &CommandSpec, error: &io::Error) -> String {
    let name = spec.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let next = match error.kind() {
        io::ErrorKind::NotFound => match &spec.dir {
            Some(dir) if !dir.is_dir() => "the working directory does not exist; correct --workdir",
            _ => "command or its interpreter not found; correct its name or PATH",
        },
        _ if spec.identity.is_some() && matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => {
            "hotr may not switch to that user or group here; correct --user and --group"
        }
        io::ErrorKind::PermissionDenied if spec.identity.is_some() => {
            "that user may not execute it, or not enter the working directory; see --user and --workdir"
        }
        io::ErrorKind::PermissionDenied => "not executable; chmod +x it, or name its interpreter",
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => {
            "neither a binary nor a script with #!; name its interpreter"
        }
        _ => "correct the command",
    };
    format!("run {name}: {error}; {next}")
}
