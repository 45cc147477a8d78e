//! Stdout as the place of reports: a reader that has stopped reading cannot keep hotr from ending.
//!
//! In: a printer's bytes. Out: the same on file descriptor 1. A pipe with room takes 4096 bytes (`PIPE_BUF`)
//! without blocking (kernel: fs/pipe.c `pipe_poll`, `pipe_write`), so waiting for room and writing that much
//! leaves every wait in a place where an end can be noticed. The descriptor is not made non-blocking: it is
//! shared with other processes.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What a pipe with any room takes at once.
const PIPE_BUF: usize = 4096;
/// How often a blocked writer looks whether it should end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long a reader may still take its time once the run is to end.
const GRACE: Duration = Duration::from_secs(1);

static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on a reader that takes nothing for a second counts as gone. May be called in a signal handler.
pub fn end_soon() {
    ENDING.store(true, Ordering::Relaxed);
}

/// A descriptor that others may read slowly or not at all, without a buffer of its own.
#[derive(Debug)]
pub struct Stdout<F = io::Stdout> {
    fd: F,
    ending: &'static AtomicBool,
    grace: Duration,
}

impl Stdout {
    /// The process's stdout.
    #[must_use]
    pub fn new() -> Self {
        Self { fd: io::stdout(), ending: &ENDING, grace: GRACE }
    }
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: AsFd> Stdout<F> {
    fn wait_for_room(&self) -> io::Result<()> {
        let mut ending_since = None;
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
            match poll(&mut fds, Some(&LOOK)) {
                // An error or a hang-up is told by the write that follows.
                Ok(1..) => return Ok(()),
                Ok(0) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if self.ending.load(Ordering::Relaxed)
                && ending_since.get_or_insert_with(Instant::now).elapsed() >= self.grace
            {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader has stopped reading"));
            }
        }
    }
}

impl<F: AsFd> Write for Stdout<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait_for_room()?;
        let part = &bytes[..bytes.len().min(PIPE_BUF)];
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, part))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn everything_arrives_at_a_reader() {
        static GOING_ON: AtomicBool = AtomicBool::new(false);
        let (mut reader, writer) = io::pipe().unwrap();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let sent = bytes.clone();
        let thread = std::thread::spawn(move || {
            Stdout { fd: writer, ending: &GOING_ON, grace: GRACE }.write_all(&sent)
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        thread.join().unwrap().unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn a_reader_that_takes_nothing_cannot_keep_a_run_from_ending() {
        static ENDING_NOW: AtomicBool = AtomicBool::new(true);
        let (reader, writer) = io::pipe().unwrap();
        let mut out = Stdout { fd: writer, ending: &ENDING_NOW, grace: Duration::ZERO };
        let error = out.write_all(&vec![0; 10_000_000]).unwrap_err();
        assert_eq!(error.to_string(), "the reader has stopped reading");
        drop(reader);
    }

    #[test]
    fn a_reader_that_has_gone_is_a_broken_pipe() {
        static GOING_ON: AtomicBool = AtomicBool::new(false);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut out = Stdout { fd: writer, ending: &GOING_ON, grace: GRACE };
        assert_eq!(out.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
