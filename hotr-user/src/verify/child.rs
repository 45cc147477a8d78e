//! A measurement in a process of its own, which may enter namespaces: they end with it.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, waitpid};

use super::stop::{During, Stop};

/// Has a child process measure; its numbers. The calling process must have one thread.
pub(super) fn measured_in_child(measure: impl FnOnce() -> Result<Vec<u64>, Stop>) -> Result<Vec<u64>, Stop> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).during("make a pipe")?;
    // SAFETY: the laboratory's process has one thread, so the child has all that it needs. It never returns from here.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()).during("start a process"),
        0 => {
            drop(reader);
            let mut writer = File::from(writer);
            let ends_with_parent =
                set_parent_process_death_signal(Some(Signal::KILL)).during("ask to end with hotr");
            let line = match ends_with_parent.and_then(|()| measure()) {
                Ok(values) => values.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
                Err(Stop(why)) => format!("-{why}"),
            };
            let status = i32::from(writer.write_all(line.as_bytes()).is_err());
            // SAFETY: ends the process without what the parent wants to do at its end.
            unsafe { libc::_exit(status) }
        }
        pid => Pid::from_raw(pid),
    };
    drop(writer);
    let mut line = String::new();
    let read = File::from(reader).read_to_string(&mut line);
    while let Err(Errno::INTR) = waitpid(child, WaitOptions::empty()) {}
    read.during("read what the process measured")?;
    if let Some(why) = line.strip_prefix('-') {
        return Err(Stop(why.to_owned()));
    }
    Ok(line.split(' ').filter_map(|word| word.parse().ok()).collect())
}
