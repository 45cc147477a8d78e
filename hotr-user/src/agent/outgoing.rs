//! Frames on their way to a subscriber.
//!
//! In: events. Out: bytes, as many as the socket takes. A subscriber that is given up for not reading still gets its last word: what
//! has not been begun is left out, and the socket is given more room.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};

use super::accounts::Account;
use super::wire::{Event, put};

/// Asked for as room; the kernel gives what it allows (`net.core.wmem_max`).
const ROOM: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// What is left of each frame.
    frames: VecDeque<usize>,
    /// Some of the first frame was sent.
    has_begun: bool,
    account: Arc<Account>,
}

impl Outgoing {
    pub(super) const fn new(account: Arc<Account>) -> Self {
        Self { bytes: Vec::new(), frames: VecDeque::new(), has_begun: false, account }
    }

    /// Bytes that wait.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an event.
    pub(super) fn put(&mut self, event: &Event) {
        let before = self.bytes.len();
        put(event, &mut self.bytes);
        let length = self.bytes.len() - before;
        self.account.wait(length);
        self.frames.push_back(length);
    }

    /// Sends as much as the socket takes.
    pub(super) fn flush(&mut self, socket: impl AsFd) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match send(socket.as_fd(), &self.bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => self.forget(sent),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn forget(&mut self, sent: usize) {
        self.bytes.drain(..sent);
        self.account.passed(sent);
        let mut rest = sent;
        while let Some(first) = self.frames.front_mut() {
            if *first > rest {
                *first -= rest;
                self.has_begun |= rest > 0;
                return;
            }
            rest -= *first;
            self.frames.pop_front();
            self.has_begun = false;
        }
    }

    /// Leaves out all frames but one that was begun, says one thing more, and makes room for it in the socket.
    pub(super) fn last_word(&mut self, event: &Event, socket: impl AsFd) {
        let kept = self.frames.front().copied().filter(|_| self.has_begun).unwrap_or(0);
        self.account.passed(self.bytes.len() - kept);
        self.bytes.truncate(kept);
        self.frames.truncate(usize::from(kept > 0));
        self.put(event);
        // Refused, it waits for the subscriber.
        let _ = sockopt::set_socket_send_buffer_size(socket.as_fd(), ROOM);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.account.passed(self.bytes.len());
    }
}
