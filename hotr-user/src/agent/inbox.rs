//! What waits for one subscriber's thread: changes and losses, of a bounded number of bytes.
//!
//! In: what the reading thread has. Out: what the subscriber's thread takes. Whoever gives never waits: when there is no more
//! room, the subscriber has been too slow, and gets nothing further.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

use super::accounts::{Account, MOST_WAITING};
use super::seen::Delivery;

/// What all threads know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// All records up to this time, in nanoseconds of `CLOCK_MONOTONIC`, were read and are in the inboxes.
    pub(super) read_ns: AtomicU64,
    /// The administrator hides processes of others.
    pub(super) hides_processes: AtomicBool,
    /// Asks for another look at the records.
    pub(super) look: Notify,
    /// The agent ends.
    pub(super) is_over: AtomicBool,
}

/// One thing that waits.
#[derive(Debug)]
pub(super) enum Item {
    Delivery(Delivery),
    /// Records were lost, by this reason.
    Loss(&'static str),
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: OwnedFd,
    account: Arc<Account>,
    /// There was no room: nothing more is taken.
    is_full: AtomicBool,
    /// Its thread wants to know when all records have been read.
    pub(super) asks: AtomicBool,
}

impl Inbox {
    pub(super) fn new(account: Arc<Account>) -> std::io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            account,
            is_full: AtomicBool::new(false),
            asks: AtomicBool::new(false),
        })
    }

    /// Puts something in, if there is room.
    pub(super) fn put(&self, item: Item) {
        let bytes = match &item {
            Item::Delivery(delivery) => delivery.weight(),
            Item::Loss(_) => size_of::<Item>(),
        };
        if self.is_full.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = self.account.wait(bytes);
        if !has_room || waiting.bytes + bytes > MOST_WAITING {
            self.account.passed(bytes);
            self.is_full.store(true, Ordering::Relaxed);
            return;
        }
        waiting.bytes += bytes;
        waiting.items.push_back(item);
    }

    /// Takes all out.
    pub(super) fn take(&self) -> VecDeque<Item> {
        let mut signal = [0; 8];
        // Nothing to read is nothing to forget.
        let _ = rustix::io::read(&self.wake, &mut signal);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { items, bytes } = std::mem::take(&mut *waiting);
        self.account.passed(bytes);
        items
    }

    /// Whether something had no room.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        // Refused only when it is to wake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let bytes = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner).bytes;
        self.account.passed(bytes);
    }
}
