//! Processes of the laboratory's own, without another program: one that measures may enter namespaces, which end with it.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};

use super::stop::{During, Stop};

/// Which of two processes this is.
pub(super) enum Side {
    /// The new one. It calls [`end`], and never returns to who made it.
    Child,
    /// The other, with the id of the new one.
    Parent(Pid),
}

/// Makes a process that does what this one would do. The calling process must have one thread.
///
/// # Errors
/// There can be no process.
pub(super) fn fork() -> io::Result<Side> {
    // SAFETY: as required there is one thread, so the child has all that it needs, and no lock is held by a thread that it lacks.
    match unsafe { libc::fork() } {
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Side::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Ends the process without what its parent wants to do at its end.
pub(super) fn end(status: i32) -> ! {
    // SAFETY: nothing of this process is used any more.
    unsafe { libc::_exit(status) }
}

/// Waits for the end of a child.
pub(super) fn reap(pid: Pid) {
    while let Err(Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

/// A child that is killed with this.
pub(super) struct KilledAtEnd(pub(super) Pid);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        reap(self.0);
    }
}

/// Has a child process measure; its numbers. The calling process must have one thread.
pub(super) fn measured_in_child(measure: impl FnOnce() -> Result<Vec<u64>, Stop>) -> Result<Vec<u64>, Stop> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).during("make a pipe")?;
    let child = match fork().during("start a process")? {
        Side::Child => {
            drop(reader);
            let ends_with_parent =
                set_parent_process_death_signal(Some(Signal::KILL)).during("ask to end with hotr");
            let line = match ends_with_parent.and_then(|()| measure()) {
                Ok(values) => values.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
                Err(Stop(why)) => format!("-{why}"),
            };
            end(i32::from(File::from(writer).write_all(line.as_bytes()).is_err()))
        }
        Side::Parent(pid) => pid,
    };
    drop(writer);
    let mut line = String::new();
    let read = File::from(reader).read_to_string(&mut line);
    reap(child);
    read.during("read what the process measured")?;
    if let Some(why) = line.strip_prefix('-') {
        return Err(Stop(why.to_owned()));
    }
    Ok(line.split(' ').filter_map(|word| word.parse().ok()).collect())
}
