//! What the listeners received, and what was measured: all that a verdict may rest upon.

use std::fmt;
use std::time::Duration;

use crate::text::push_visible;

/// The fact that an experiment records once it has checked, by its own means, that the operation was made.
pub(super) const DONE: &str = "done";

/// The fact that the watch of a claim about silence received a later change, which it had to.
pub(super) const CONTROL: &str = "control";

/// The fact that fanotify received such a change.
pub(super) const CONTROL_FANOTIFY: &str = "control_fanotify";

/// The fact that eBPF received such a change.
pub(super) const CONTROL_EBPF: &str = "control_ebpf";

/// A kind of watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Listener {
    /// An inotify instance.
    Inotify,
    /// A fanotify group that reports directories and names.
    Fanotify,
    /// hotr's eBPF channel.
    Ebpf,
    /// A comparison of file attributes before and after.
    Poll,
}

impl Listener {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Inotify, Self::Fanotify, Self::Ebpf, Self::Poll];

    /// The word in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inotify => "inotify",
            Self::Fanotify => "fanotify",
            Self::Ebpf => "ebpf",
            Self::Poll => "poll",
        }
    }
}

/// One thing that a listener received, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The watch it came through, by the experiment's name for it; empty where the listener has one watch.
    pub at: &'static str,
    /// What happened, in the listener's own words: `MODIFY`, `write`, `size`.
    pub what: Vec<String>,
    /// The file's name, as the listener gave it.
    pub name: Option<Vec<u8>>,
    /// What connects the two events of a rename; 0 for none.
    pub cookie: u32,
    /// How many equal ones were received.
    pub count: u64,
}

impl Event {
    /// One of the words.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.what.iter().any(|what| what == word)
    }

    /// Its file has this name.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name.as_bytes())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        if !self.at.is_empty() {
            line.extend_from_slice(format!("{}: ", self.at).as_bytes());
        }
        line.extend_from_slice(self.what.join("|").as_bytes());
        if let Some(name) = &self.name {
            line.push(b' ');
            push_visible(&mut line, name);
        }
        if self.count > 1 {
            line.extend_from_slice(format!(" ×{}", self.count).as_bytes());
        }
        f.write_str(&String::from_utf8_lossy(&line))
    }
}

/// Whether a listener worked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It received the barrier that was made after the operation, so what it did not receive was not sent.
    Listening,
    /// It received not even the barrier.
    Silent,
    /// It could not be started; the reason.
    Off(String),
}

/// What one listener has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Which one.
    pub listener: Listener,
    /// Whether it worked.
    pub state: State,
    /// What it received, in order; equal events are counted where the first one stands.
    pub events: Vec<Event>,
}

impl Account {
    /// Nothing received.
    pub(crate) const fn new(listener: Listener, state: State) -> Self {
        Self { listener, state, events: Vec::new() }
    }

    /// Its queue was full, so events are missing.
    pub(crate) fn has_overflown(&self) -> bool {
        self.events.iter().any(|event| event.is("Q_OVERFLOW"))
    }

    /// How many events.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.events.iter().map(|event| event.count).sum()
    }
}

/// Everything that is known after an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// One account a listener.
    pub accounts: Vec<Account>,
    /// Numbers that were measured, by name.
    pub facts: Vec<(&'static str, u64)>,
    /// What the kernel really called, in order, and the fields that decided it: a sentence a step, with names made visible.
    pub kernel_path: Vec<String>,
    /// Types of the filesystems that it was made on.
    pub filesystems: Vec<&'static str>,
    /// How long listeners took to receive the file that is made as a barrier before the operation: from before the call that makes it
    /// until hotr has read the event. They are read in this order, so the time of one includes reading those before it.
    pub delays: Vec<(Listener, Duration)>,
    /// With strace: the listener's system calls on inotify instances from the operation to the barrier after it, a line each.
    pub system_calls: Vec<String>,
}

impl Evidence {
    /// A listener's account.
    pub(crate) fn account(&self, listener: Listener) -> Option<&Account> {
        self.accounts.iter().find(|account| account.listener == listener)
    }

    /// A measured number; 0 when it was not measured.
    pub(crate) fn fact(&self, name: &str) -> u64 {
        self.facts.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
    }

    /// Events of inotify through one watch.
    pub(crate) fn at(&self, at: &'static str) -> impl Iterator<Item = &Event> {
        let events = self.account(Listener::Inotify).map_or(&[][..], |account| &account.events);
        events.iter().filter(move |event| event.at == at)
    }

    /// How many events inotify gave with this word, through one watch.
    pub(crate) fn heard(&self, at: &'static str, word: &str) -> u64 {
        self.at(at).filter(|event| event.is(word)).map(|event| event.count).sum()
    }

    /// How many events inotify gave through one watch.
    pub(crate) fn heard_any(&self, at: &'static str) -> u64 {
        self.at(at).map(|event| event.count).sum()
    }

    /// What the comparison found different about a file.
    pub(crate) fn differs(&self, at: &str, what: &str) -> bool {
        let polled = self.account(Listener::Poll).map_or(&[][..], |account| &account.events);
        polled.iter().any(|event| event.at == at && (what.is_empty() || event.is(what)))
    }

    /// How many events a listener gave with this word, whatever the watch.
    pub(crate) fn total(&self, listener: Listener, word: &str) -> u64 {
        let events = self.account(listener).map_or(&[][..], |account| &account.events);
        events.iter().filter(|event| event.is(word)).map(|event| event.count).sum()
    }
}
