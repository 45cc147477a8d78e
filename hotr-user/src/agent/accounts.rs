//! Limits, so that no user takes what others need: for each user of subscribers, directories, filesystems and queued bytes.
//!
//! In: who wants something. Out: whether it may have it. The users of a user namespace count as the user who made that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::peer::Peer;

/// Connections at a time, of all users together, where the process may have descriptors for them.
const MOST_CONNECTIONS: usize = 512;
/// Descriptors of the watched directories, the kernel programs and the agent itself.
const OTHER_DESCRIPTORS: usize = 1024 + 512;
/// Bytes that wait for one subscriber.
pub(super) const MOST_WAITING: usize = 4 << 20;

/// What one user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) subscribers: usize,
    pub(super) roots: usize,
    pub(super) filesystems: usize,
    /// Bytes that wait for its subscribers.
    pub(super) waiting: usize,
}

impl Limits {
    const USER: Self = Self { subscribers: 16, roots: 64, filesystems: 4, waiting: 16 << 20 };
    const ROOT: Self = Self { subscribers: 256, roots: 512, filesystems: 12, waiting: 128 << 20 };

    pub(super) const fn of(account: u32) -> Self {
        if account == 0 { Self::ROOT } else { Self::USER }
    }
}

/// What one user has.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) limits: Limits,
    pub(super) number: u32,
    subscribers: AtomicUsize,
    waiting: AtomicUsize,
}

impl Account {
    /// Counts bytes that begin to wait; whether there is room for them.
    pub(super) fn wait(&self, bytes: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        before + bytes <= self.limits.waiting
    }

    /// Bytes wait no longer.
    pub(super) fn passed(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A subscriber's place in its account, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) account: Arc<Account>,
    all: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.account.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All users.
#[derive(Debug)]
pub(super) struct Accounts {
    /// Connections at a time.
    most: usize,
    accounts: HashMap<u32, Arc<Account>>,
    connections: Arc<AtomicUsize>,
}

impl Accounts {
    /// With room for those whose descriptors, at most so many of each, the process may have.
    pub(super) fn new(descriptors: usize, each: usize) -> Self {
        let most = (descriptors.saturating_sub(OTHER_DESCRIPTORS) / each.max(1)).clamp(1, MOST_CONNECTIONS);
        Self { most, accounts: HashMap::new(), connections: Arc::default() }
    }

    /// Gives a subscriber its seat, or says why there is none.
    pub(super) fn sit(&mut self, peer: &Peer) -> Result<Seat, String> {
        self.accounts.retain(|_, account| account.subscribers.load(Ordering::Relaxed) > 0);
        let most = self.most;
        if self.connections.load(Ordering::Relaxed) >= most {
            return Err(format!("{most} subscribers are connected already; wait until one has ended"));
        }
        let account = self.accounts.entry(peer.account).or_insert_with(|| {
            let (subscribers, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let limits = Limits::of(peer.account);
            Arc::new(Account { limits, number: peer.account, subscribers, waiting })
        });
        let most = account.limits.subscribers;
        if account.subscribers.load(Ordering::Relaxed) >= most {
            return Err(format!("user {} has {most} subscribers already; end one of them", peer.account));
        }
        // Only this thread adds.
        account.subscribers.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { account: Arc::clone(account), all: Arc::clone(&self.connections) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Sees;
    use super::*;

    fn peer(account: u32) -> Peer {
        Peer {
            uid: account,
            gid: 0,
            groups: Vec::new(),
            pid: 1,
            capabilities: 0,
            sees: Sees::Nobody,
            shares_users: false,
            account,
        }
    }

    #[test]
    fn one_user_takes_no_seat_of_another() {
        let mut accounts = Accounts::new(1 << 20, 1);
        let mut seats: Vec<Seat> =
            (0..Limits::USER.subscribers).map(|_| accounts.sit(&peer(1)).unwrap()).collect();
        assert!(accounts.sit(&peer(1)).is_err());
        assert!(accounts.sit(&peer(2)).is_ok());
        seats.pop();
        assert!(accounts.sit(&peer(1)).is_ok(), "a seat that was left is free");
    }

    #[test]
    fn no_more_are_taken_than_there_are_descriptors_for() {
        let mut accounts = Accounts::new(OTHER_DESCRIPTORS + 20, 10);
        let seats = [accounts.sit(&peer(1)), accounts.sit(&peer(2))];
        assert!(seats.iter().all(Result::is_ok));
        assert!(accounts.sit(&peer(3)).unwrap_err().starts_with("2 subscribers"));
    }

    #[test]
    fn bytes_that_wait_are_those_of_all_subscribers_of_a_user() {
        let mut accounts = Accounts::new(1 << 20, 1);
        let (one, other) = (accounts.sit(&peer(1)).unwrap(), accounts.sit(&peer(1)).unwrap());
        assert!(one.account.wait(Limits::USER.waiting));
        assert!(!other.account.wait(1));
        one.account.passed(Limits::USER.waiting);
        other.account.passed(1);
        assert!(other.account.wait(1));
    }
}
