//! Stdout as the place of reports: a reader that has stopped reading cannot keep hotr from ending.
//!
//! In: a printer's bytes. Out: the same on file descriptor 1. A pipe is asked to take what it has room for
//! (`RWF_NOWAIT`; fs/pipe.c `pipe_write`): one system call, which does not wait. Where a kernel cannot do that, and
//! when there is no room, hotr waits for room and writes 4096 bytes (`PIPE_BUF`), which a pipe with room takes without
//! blocking (`pipe_poll`). So every wait is in a place where an end can be noticed. The descriptor is not made
//! non-blocking: it is shared with other processes.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, retry_on_intr};

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

/// How a descriptor is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It takes what it has room for: a pipe, a socket.
    Nowait,
    /// After waiting for room, [`PIPE_BUF`] at a time: a terminal, or a pipe on a kernel that cannot do better.
    Room,
    /// At once: storage has no reader to wait for.
    Storage,
}

impl Way {
    fn of(fd: impl AsFd) -> Self {
        match fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Fifo | FileType::Socket) => Self::Nowait,
            Ok(FileType::RegularFile) => Self::Storage,
            _ => Self::Room,
        }
    }
}

/// A descriptor that others may read slowly or not at all, without a buffer of its own.
#[derive(Debug)]
pub struct Stdout<F = io::Stdout> {
    fd: F,
    way: Way,
    ending: &'static AtomicBool,
    grace: Duration,
}

impl Stdout {
    /// The process's stdout.
    #[must_use]
    pub fn new() -> Self {
        Self::on(io::stdout(), &ENDING, GRACE)
    }
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: AsFd> Stdout<F> {
    fn on(fd: F, ending: &'static AtomicBool, grace: Duration) -> Self {
        Self { way: Way::of(&fd), fd, ending, grace }
    }

    /// Writes what there is room for now; `None` when there is none, or the kernel cannot tell.
    fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        // This position stands for none: a pipe has no other.
        let write = || pwritev2(&self.fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT);
        match retry_on_intr(write) {
            Ok(written) => Ok(Some(written)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.way = Way::Room;
                Ok(None)
            }
            Err(errno) => Err(errno.into()),
        }
    }

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
        if self.way == Way::Nowait
            && let Some(written) = self.write_now(bytes)?
        {
            return Ok(written);
        }
        let mut part = bytes;
        if self.way != Way::Storage {
            self.wait_for_room()?;
            part = &bytes[..bytes.len().min(PIPE_BUF)];
        }
        Ok(retry_on_intr(|| rustix::io::write(&self.fd, part))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    static GOING_ON: AtomicBool = AtomicBool::new(false);

    #[test]
    fn everything_arrives_at_a_reader() {
        for way in [Way::Nowait, Way::Room] {
            let (mut reader, writer) = io::pipe().unwrap();
            let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
            let sent = bytes.clone();
            let mut out = Stdout::on(writer, &GOING_ON, GRACE);
            assert_eq!(out.way, Way::Nowait);
            out.way = way;
            let thread = std::thread::spawn(move || out.write_all(&sent));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            thread.join().unwrap().unwrap();
            assert!(read == bytes);
        }
    }

    #[test]
    fn a_file_takes_everything_at_once() {
        let memory = rustix::fs::memfd_create("out", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut out = Stdout::on(memory, &GOING_ON, GRACE);
        assert_eq!(out.write(&[b'x'; 100_000]).unwrap(), 100_000);
    }

    #[test]
    fn a_reader_that_takes_nothing_cannot_keep_a_run_from_ending() {
        static ENDING_NOW: AtomicBool = AtomicBool::new(true);
        let (reader, writer) = io::pipe().unwrap();
        let mut out = Stdout::on(writer, &ENDING_NOW, Duration::ZERO);
        let error = out.write_all(&vec![0; 10_000_000]).unwrap_err();
        assert_eq!(error.to_string(), "the reader has stopped reading");
        drop(reader);
    }

    #[test]
    fn a_reader_that_has_gone_is_a_broken_pipe() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut out = Stdout::on(writer, &GOING_ON, GRACE);
        assert_eq!(out.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
