//! Debian's strace on hotr's own listening thread: its system calls on inotify instances, beside the events.
//!
//! In: nothing. Out: lines of strace. It writes to memory of its own and not to a pipe: hotr is stopped while strace writes, and could
//! not empty one.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// A strace that has not attached by then never will.
const PATIENCE: Duration = Duration::from_secs(10);
/// The calls that an inotify listener makes.
const CALLS: &str = "trace=inotify_init1,inotify_add_watch,inotify_rm_watch,read,poll,ppoll";

/// The running strace; ends with this.
pub(super) struct Strace {
    child: Child,
    log: File,
    seen: u64,
}

impl Strace {
    /// Attaches to the calling process.
    ///
    /// # Errors
    /// strace is not installed, or may not trace.
    pub(super) fn attach() -> io::Result<Self> {
        let log = File::from(memfd_create("hotr-strace", MemfdFlags::CLOEXEC)?);
        let mut command = Command::new("strace");
        command.args(["-q", "-y", "-s", "32", "-e", CALLS, "-e", "signal=none", "-p"]);
        command.arg(std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?);
        // SAFETY: between fork and exec only one system call is made.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                io::Error::other("strace is not installed; install Debian's package strace")
            }
            _ => error,
        })?;
        let mut strace = Self { child, log, seen: 0 };
        let over = Instant::now() + PATIENCE;
        while !is_traced()? {
            if strace.child.try_wait()?.is_some() || Instant::now() >= over {
                let said = String::from_utf8_lossy(&strace.unread()?).into_owned();
                let said = said.lines().next().unwrap_or("it did not attach").to_owned();
                return Err(io::Error::other(said));
            }
            std::thread::yield_now();
        }
        Ok(strace)
    }

    fn unread(&mut self) -> io::Result<Vec<u8>> {
        let length = self.log.metadata()?.len();
        let mut bytes = vec![0; usize::try_from(length - self.seen).unwrap_or(0)];
        self.log.read_exact_at(&mut bytes, self.seen)?;
        self.seen = length;
        Ok(bytes)
    }

    /// Forgets the calls so far.
    pub(super) fn forget(&mut self) {
        let _ = self.unread();
    }

    /// The calls on inotify instances since.
    pub(super) fn calls(&mut self) -> Vec<String> {
        let bytes = self.unread().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| line.contains("inotify")).map(str::to_owned).collect()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It detaches; a killed one would leave that to the kernel.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

/// Whether a process traces this thread.
fn is_traced() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(tracer.is_some_and(|pid| pid.trim() != "0"))
}
