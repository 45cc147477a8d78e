//! Stdout as the place of reports: a reader that has stopped reading cannot keep hotr from ending.
//!
//! In: a printer's bytes. Out: the same on file descriptor 1. A pipe is asked to take what it has room for
//! (`RWF_NOWAIT`; fs/pipe.c `pipe_write`): one system call, which does not wait. Where a kernel cannot do that, and
//! when there is no room, hotr waits for room and writes 4096 bytes (`PIPE_BUF`), which a pipe with room takes without
//! blocking (`pipe_poll`). So every wait is in a place where an end can be noticed. The descriptor is not made
//! non-blocking: it is shared with other processes.
//!
//! A run that ends while its reader is slow leaves whole lines: then no line is begun that may not fit, and one that was begun
//! before has a little more time. Only a reader that takes nothing at all is left with a part of a line.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, retry_on_intr};

use crate::ending;

/// What a pipe with any room takes at once.
const PIPE_BUF: usize = 4096;
/// How often a blocked writer looks whether it should end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What the end of a line is looked for in.
const LINE: usize = 1 << 16;
/// How much longer than the grace the rest of a line may take.
const REST_OF_LINE: Duration = Duration::from_millis(100);

/// What is wrong when the run is to end and the reader keeps it waiting.
const STOPPED: &str = "the reader has stopped reading";

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
    /// When hotr first waited for room after the end was requested.
    ending_since: Option<Instant>,
    /// The last byte that was written is not the end of a line.
    is_within_line: bool,
}

impl Stdout {
    /// The process's stdout.
    #[must_use]
    pub fn new() -> Self {
        Self::on(io::stdout(), &ending::ASKED, ending::GRACE)
    }
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a line to stderr, which may be read as slowly. What cannot be written is left.
pub fn say(line: &str) {
    say_bytes(line.as_bytes());
}

/// As [`say`].
pub fn say_bytes(line: &[u8]) {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    if STOPPED.load(Ordering::Relaxed) {
        return;
    }
    // Held so that lines of several threads do not mix.
    let stderr = io::stderr().lock();
    let result = Stdout::on(&stderr, &ending::ASKED, ending::GRACE).write_all(line);
    let is_over = result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
    STOPPED.fetch_or(is_over, Ordering::Relaxed);
}

impl<F: AsFd> Stdout<F> {
    fn on(fd: F, ending: &'static AtomicBool, grace: Duration) -> Self {
        Self { way: Way::of(&fd), fd, ending, grace, ending_since: None, is_within_line: false }
    }

    /// Writes what there is room for now; `None` when there is none, or the kernel does not know.
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

    fn write_with_room(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut part = bytes;
        if self.way != Way::Storage {
            self.wait_for_room()?;
            part = self.portion(&bytes[..bytes.len().min(PIPE_BUF)]);
        }
        Ok(retry_on_intr(|| rustix::io::write(&self.fd, part))?)
    }

    /// What to write next of these: when the run ends, the rest of a line, or lines that a pipe takes whole or not at all.
    fn portion<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.way == Way::Storage || !self.ending.load(Ordering::Relaxed) {
            return bytes;
        }
        let end = if self.is_within_line {
            bytes.iter().take(LINE).position(|byte| *byte == b'\n')
        } else {
            bytes.iter().take(PIPE_BUF).rposition(|byte| *byte == b'\n')
        };
        end.map_or(bytes, |end| &bytes[..=end])
    }

    /// Waits for the reader; once the run is to end, not longer than the grace in all, however slowly it reads.
    fn wait_for_room(&mut self) -> io::Result<()> {
        let grace = if self.is_within_line { self.grace + REST_OF_LINE } else { self.grace };
        loop {
            let is_over = self.ending.load(Ordering::Relaxed)
                && self.ending_since.get_or_insert_with(Instant::now).elapsed() >= grace;
            if is_over {
                return Err(io::Error::new(io::ErrorKind::TimedOut, STOPPED));
            }
            let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
            match poll(&mut fds, Some(&LOOK)) {
                // An error or a hang-up is reported by the write that follows.
                Ok(1..) => return Ok(()),
                Ok(0) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl<F: AsFd> Write for Stdout<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = self.portion(bytes);
        let written = match self.way {
            Way::Nowait => self.write_now(bytes)?,
            Way::Room | Way::Storage => None,
        };
        let written = match written {
            Some(written) => written,
            None => self.write_with_room(bytes)?,
        };
        if let Some(last) = written.checked_sub(1).and_then(|last| bytes.get(last)) {
            self.is_within_line = *last != b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);
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
    fn a_reader_that_takes_a_little_at_a_time_cannot_either() {
        static ENDING_NOW: AtomicBool = AtomicBool::new(true);
        let (mut reader, writer) = io::pipe().unwrap();
        let mut out = Stdout::on(writer, &ENDING_NOW, Duration::from_millis(50));
        let slow = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while reader.read(&mut part).unwrap() > 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        // It would take six seconds to read all.
        let error = out.write_all(&vec![0; 5_000_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(out);
        slow.join().unwrap();
    }

    #[test]
    fn a_slow_reader_is_left_with_whole_lines() {
        static ENDS: AtomicBool = AtomicBool::new(false);
        for way in [Way::Nowait, Way::Room] {
            ENDS.store(false, Ordering::Relaxed);
            let (mut reader, writer) = io::pipe().unwrap();
            let mut out = Stdout::on(writer, &ENDS, Duration::from_millis(50));
            out.way = way;
            let slow = std::thread::spawn(move || {
                let mut read = Vec::new();
                let mut part = [0; 4096];
                loop {
                    let count = reader.read(&mut part).unwrap();
                    if count == 0 {
                        return read;
                    }
                    read.extend_from_slice(&part[..count]);
                    if read.len() > 100_000 {
                        ENDS.store(true, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
            // Of many lengths, so that a part of one is in the pipe whenever that is full.
            let lines: Vec<u8> =
                (0..60_000).flat_map(|n| [vec![b'x'; n % 199], vec![b'\n']].concat()).collect();
            assert_eq!(out.write_all(&lines).unwrap_err().kind(), io::ErrorKind::TimedOut);
            drop(out);
            let read = slow.join().unwrap();
            assert!(lines.starts_with(&read) && read.ends_with(b"\n"), "{way:?}, {} bytes", read.len());
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_a_broken_pipe() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut out = Stdout::on(writer, &GOING_ON, GRACE);
        assert_eq!(out.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
