//! The messages of the kernel programs, in a hotr that was built with them (`cargo xtask build --log-ebpf`).
//!
//! In: aya-log's ring buffer, which the programs of `hotr-ebpf/src/messages.rs` write. Out: records of the `log` crate with the
//! target [`TARGET`], for the logger that the process has set; no more of them than its `max_level` asks for. Without a
//! logger the programs are loaded with all messages switched off.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};

use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use hotr_common::hook::Hook;
use hotr_common::record::{MAY_HOLD_ROOT, NO_ROOT, TOO_DEEP};
use log::{Log, Metadata, Record};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, write};

use super::error::LoadError;

/// Whether the kernel programs in this hotr have messages.
pub const HAS_MESSAGES: bool = cfg!(hotr_log_ebpf);

/// Target of the log records.
pub const TARGET: &str = "hotr-ebpf";

/// Switches on the messages that the process's logger wants. The programs have no others: the verifier removes them.
pub(super) fn set_level<'a>(loader: &mut EbpfLoader<'a>, level: &'a u8) {
    if HAS_MESSAGES {
        loader.override_global(aya_log::LEVEL, level, true);
    }
}

/// The level of the process's logger, as aya-log counts: 0 for no messages, 5 for all.
pub(super) fn level() -> u8 {
    log::max_level() as u8
}

/// Hands messages to the process's logger until it is dropped.
pub struct Messages {
    end: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Messages {
    /// Starts to read them on a thread of their own; `None` when there are none to be read.
    ///
    /// # Errors
    /// When the object has no buffer for them, or there is no thread to be had.
    pub fn read(ebpf: &mut Ebpf) -> Result<Option<Self>, LoadError> {
        if !HAS_MESSAGES || level() == 0 {
            return Ok(None);
        }
        let register = |source| LoadError::Register { object: "a reader of messages".to_owned(), source };
        let mut logger =
            EbpfLogger::init_with_logger(ebpf, Naming).map_err(|_| LoadError::Map("AYA_LOGS"))?;
        let end =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| register(e.into()))?;
        let ended = end.try_clone().map_err(register)?;
        let read = move || {
            let mut is_over = false;
            while !is_over {
                is_over = wait(&logger, &ended);
                logger.flush();
            }
        };
        let thread = Builder::new().name("hotr-log-ebpf".to_owned()).spawn(read).map_err(register)?;
        Ok(Some(Self { end, thread: Some(thread) }))
    }
}

/// Waits for a message; true when there will be no more.
fn wait(logger: &impl AsFd, ended: &OwnedFd) -> bool {
    let mut both = [PollFd::new(logger, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    match poll(&mut both, None) {
        Ok(_) => !both[1].revents().is_empty(),
        Err(error) => error != Errno::INTR,
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let _ = write(&self.end, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The process's logger, given names for the numbers in a message.
struct Naming;

impl Log for Naming {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let text = named(&record.args().to_string());
        log::logger().log(
            &Record::builder()
                .args(format_args!("{text}"))
                .level(record.level())
                .target(record.target())
                .build(),
        );
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

/// `hook=0` as `hook=Write`, `root=65535` as `root=none`.
fn named(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for (at, word) in message.split(' ').enumerate() {
        if at > 0 {
            text.push(' ');
        }
        let end = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let (word, rest) = word.split_at(end.len());
        match word.split_once('=').and_then(|(key, number)| Some((key, number.parse::<u16>().ok()?))) {
            Some(("hook", number)) if let Some(hook) = Hook::from_u16(number) => {
                let _ = write!(text, "hook={hook:?}");
            }
            Some(("root", NO_ROOT)) => text.push_str("root=none"),
            Some(("root", MAY_HOLD_ROOT)) => text.push_str("root=none (files in it may be roots)"),
            Some(("root", TOO_DEEP)) => text.push_str("root=unknown (too deep)"),
            _ => text.push_str(word),
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_messages_get_their_names() {
        assert_eq!(named("hook=0: inode 7 sent, root=3"), "hook=Write: inode 7 sent, root=3");
        assert_eq!(named("directory 2: remembered, root=65535"), "directory 2: remembered, root=none");
        assert_eq!(named("hook=999: inode 9"), "hook=999: inode 9");
        assert_eq!(named(""), "");
    }

    #[test]
    fn no_logger_means_no_messages() {
        assert_eq!(level(), 0);
    }
}
