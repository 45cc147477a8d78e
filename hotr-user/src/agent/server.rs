//! The reading thread of an agent: records in, subscribers served.
//!
//! It waits for records, for new subscribers and for what their threads ask of it, and for no subscriber.

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::accounts::{Account, Accounts};
use super::connection::{Command, Connection, DESCRIPTORS};
use super::engine::{Engine, RING_BYTES};
use super::error::AgentError;
use super::inbox::{Inbox, Item, Shared};
use super::listener::Listener;
use super::peer::{Peer, Sees};
use super::wire::{Event, put};
use crate::options::TierChoice;
use crate::source::mono_ns;

/// How often losses are looked for while nobody waits for it.
const LOSS_CHECK: Duration = Duration::from_secs(2);
/// Batches that are read before others have their turn.
const BATCHES: usize = 8;
/// Looks at the records until those of a directory that was given back must have been read.
const MOST_TURNS: usize = 16;
/// A thread needs little.
const STACK: usize = 256 * 1024;
/// How long subscribers get at the end to read that it is the end.
const FAREWELL: Duration = Duration::from_millis(300);

/// How an agent runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentOptions {
    /// Where it listens.
    pub socket: PathBuf,
    /// A listening stream socket to be used instead, as systemd passes one; its name is not the agent's to remove.
    pub inherited: Option<Arc<OwnedFd>>,
    /// Tier of the kernel programs.
    pub tier: TierChoice,
}

impl AgentOptions {
    /// An agent at the usual socket, with the best programs that attach.
    #[must_use]
    pub fn new() -> Self {
        Self { socket: super::SOCKET.into(), inherited: None, tier: TierChoice::Auto }
    }
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// One subscriber, as the reading thread knows it.
struct Known {
    inbox: Arc<Inbox>,
    account: Arc<Account>,
    pid: u32,
    asks_namespaces: bool,
    has_news: bool,
}

/// Up to which moment all records were read. A buffer that was seen empty proves it; so does, when writers are faster than the
/// reading, that as much was read since that moment as the buffer holds. Times of records prove nothing: those of
/// several processors are not in order.
#[derive(Debug, Default)]
struct Reading {
    /// A moment, in nanoseconds of `CLOCK_MONOTONIC`, and the bytes read when all that was in the buffer then has been read.
    goal: Option<(u64, u64)>,
}

impl Reading {
    /// After a turn that began at a moment; `read` is all bytes ever read. The moment up to which all was read, if it is a later one.
    fn turned(&mut self, begun_ns: u64, read: u64, more: bool) -> Option<u64> {
        if !more {
            self.goal = None;
            return Some(begun_ns);
        }
        let (moment, goal) = *self.goal.get_or_insert((begun_ns, read + u64::from(RING_BYTES)));
        (read >= goal).then(|| {
            self.goal = None;
            moment
        })
    }
}

struct Server {
    engine: Engine,
    listener: Listener,
    accounts: Accounts,
    subscribers: HashMap<u64, Known>,
    next: u64,
    shared: Arc<Shared>,
    sender: UnboundedSender<Command>,
    next_loss_check: Instant,
    reading: Reading,
}

/// Runs an agent until `end` is ready. `ready` gets sentences: that it listens, and which hooks are missing.
///
/// # Errors
/// When it is not run by root, the kernel programs cannot run, or the socket cannot be used.
pub async fn serve(
    options: AgentOptions,
    ready: &mut dyn FnMut(&str),
    end: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    if !rustix::process::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    let listener = match &options.inherited {
        Some(fd) => Listener::adopt(
            fd.try_clone().map_err(|error| AgentError::Inherited { cause: error.to_string() })?,
        )?,
        None => Listener::bind(&options.socket)?,
    };
    let engine = Engine::start(options.tier)?;
    let (sender, commands) = unbounded_channel();
    let server = Server {
        engine,
        listener,
        accounts: Accounts::new(most_descriptors(), DESCRIPTORS),
        subscribers: HashMap::new(),
        next: 0,
        shared: Arc::new(Shared::default()),
        sender,
        next_loss_check: Instant::now() + LOSS_CHECK,
        reading: Reading::default(),
    };
    for hook in server.engine.missing() {
        ready(&format!("note: {hook} cannot be hooked here: its changes are not reported"));
    }
    let place = match &options.inherited {
        Some(_) => "the socket that was passed".to_owned(),
        None => options.socket.display().to_string(),
    };
    ready(&format!("listening on {place} with {} programs", server.engine.tier()));
    server.run(commands, end).await
}

/// Descriptors that this process may have, once it may have as many as it ever can.
fn most_descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, it stays what it is.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

impl Server {
    async fn run(
        mut self,
        mut commands: UnboundedReceiver<Command>,
        end: impl Future<Output = ()>,
    ) -> Result<(), AgentError> {
        let waits = |operation| move |source| AgentError::Os { operation, source };
        let socket = self.listener.socket.try_clone().map_err(waits("wait for subscribers"))?;
        socket.set_nonblocking(true).map_err(waits("wait for subscribers"))?;
        let socket = tokio::net::UnixListener::from_std(socket).map_err(waits("wait for subscribers"))?;
        let raw = Raw(self.engine.as_fd().as_raw_fd());
        // SAFETY: the engine keeps its descriptor open longer than this, which is dropped at the end of this function.
        let records = unsafe { AsyncFd::register_with_interest(raw, Interest::READABLE) }
            .map_err(|error| AgentError::Os { operation: "wait for records", source: error.into() })?;
        let shared = Arc::clone(&self.shared);
        let mut end = std::pin::pin!(end);
        let mut more = false;
        loop {
            let check = sleep_until(self.next_loss_check);
            tokio::select! {
                biased;
                () = &mut end => break,
                command = commands.recv() => if let Some(command) = command { self.obey(command)?; },
                accepted = socket.accept() => if let Ok((stream, _)) = accepted
                    && let Ok(stream) = stream.into_std()
                {
                    self.accept(stream);
                } else {
                    // Out of descriptors, perhaps: there is time until some are free.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                },
                ready = records.readable() => if let Ok(mut guard) = ready { guard.clear_ready(); },
                () = shared.look.notified() => {}
                () = check => {}
                () = std::future::ready(()), if more => tokio::task::yield_now().await,
            }
            more = self.turn();
        }
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.subscribers.values().for_each(|known| known.inbox.wake());
        let over = Instant::now() + FAREWELL;
        while !self.subscribers.is_empty() {
            match tokio::time::timeout_at(over, commands.recv()).await {
                Ok(Some(command)) => self.obey(command)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Reads records and hands them out; true when there are more.
    fn turn(&mut self) -> bool {
        let begun_ns = mono_ns();
        let Self { engine, subscribers, .. } = self;
        let mut more = true;
        for _ in 0..BATCHES {
            more = engine.turn(&mut |subscriber, delivery| {
                if let Some(known) = subscribers.get_mut(&subscriber) {
                    known.inbox.put(Item::Delivery(delivery));
                    known.has_news = true;
                }
            });
            if !more {
                break;
            }
        }
        // Before what was read is handed on: it may have been hidden for its sake.
        self.shared.hides_processes.store(self.engine.hides_processes, Ordering::Relaxed);
        let is_time = self.next_loss_check <= Instant::now();
        if is_time {
            self.next_loss_check = Instant::now() + LOSS_CHECK;
        }
        for reason in self.engine.losses(is_time) {
            for known in self.subscribers.values_mut() {
                known.inbox.put(Item::Loss(reason));
                known.has_news = true;
            }
        }
        let read_ns = self.reading.turned(begun_ns, self.engine.read_bytes, more);
        if let Some(read_ns) = read_ns {
            self.shared.read_ns.store(read_ns, Ordering::Release);
        }
        for known in self.subscribers.values_mut() {
            let asks = read_ns.is_some() && known.inbox.asks.swap(false, Ordering::Relaxed);
            if std::mem::take(&mut known.has_news) || asks {
                known.inbox.wake();
            }
        }
        more
    }

    fn accept(&mut self, socket: UnixStream) {
        if let Err(why) = self.try_accept(&socket) {
            let mut out = Vec::new();
            put(&Event::Error { why: why.into() }, &mut out);
            // Whoever is refused is not waited for.
            let _ = send(&socket, &out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    fn try_accept(&mut self, socket: &UnixStream) -> Result<(), String> {
        let fault = |error: std::io::Error| format!("the agent cannot serve you: {error}");
        let peer = Peer::of(socket.as_fd()).map_err(fault)?;
        let seat = self.accounts.sit(&peer)?;
        let inbox = Arc::new(Inbox::new(Arc::clone(&seat.account)).map_err(fault)?);
        let subscriber = self.next;
        self.next += 1;
        let known = Known {
            inbox: Arc::clone(&inbox),
            account: Arc::clone(&seat.account),
            pid: peer.pid,
            asks_namespaces: matches!(peer.sees, Sees::Namespace(_)),
            has_news: false,
        };
        let connection = Connection {
            subscriber,
            socket: socket.try_clone().map_err(fault)?,
            peer,
            seat,
            inbox,
            shared: Arc::clone(&self.shared),
            commands: self.sender.clone(),
            tier: self.engine.tier(),
        };
        let thread = std::thread::Builder::new().name("hotr-subscriber".to_owned()).stack_size(STACK);
        self.subscribers.insert(subscriber, known);
        if let Err(error) = thread.spawn(move || connection.serve()) {
            self.subscribers.remove(&subscriber);
            return Err(fault(error));
        }
        self.count_namespaces();
        Ok(())
    }

    fn count_namespaces(&mut self) {
        self.engine.asks_namespaces = self.subscribers.values().any(|known| known.asks_namespaces);
    }

    fn obey(&mut self, command: Command) -> Result<(), AgentError> {
        match command {
            Command::Add { subscriber, root, fd, mount_id, answer } => {
                let result = self.add(subscriber, root, &fd, mount_id);
                // The thread waits for it.
                let _ = answer.send(result);
            }
            Command::Remove { subscriber, root } => self.leave(subscriber, Some(root))?,
            Command::Left { subscriber } => {
                self.leave(subscriber, None)?;
                self.subscribers.remove(&subscriber);
                self.count_namespaces();
            }
        }
        Ok(())
    }

    /// Others get what was recorded of a directory before it was given back, before its slot is another's.
    fn leave(&mut self, subscriber: u64, root: Option<u32>) -> Result<(), AgentError> {
        let unused = self.engine.leave(subscriber, root)?;
        if !unused.is_empty() {
            let _ = (0..MOST_TURNS).find(|_| !self.turn());
            self.engine.forget(&unused);
        }
        Ok(())
    }

    fn add(&mut self, subscriber: u64, root: u32, fd: &Arc<OwnedFd>, mount_id: u64) -> Result<(), String> {
        let known = self.subscribers.get(&subscriber).ok_or("the subscriber has left; subscribe again")?;
        self.engine.add((subscriber, root), fd, mount_id, known.pid, &known.account)
    }
}

/// A descriptor that the engine owns and keeps open.
struct Raw(std::os::fd::RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_was_read_when_the_buffer_was_empty_or_once_over() {
        let full = u64::from(RING_BYTES);
        let mut reading = Reading::default();
        assert_eq!(reading.turned(10, 1_000, false), Some(10));
        // Bytes that were read in the turn itself prove nothing of its moment.
        assert_eq!(reading.turned(20, 5_000, true), None);
        assert_eq!(reading.turned(30, full + 4_999, true), None);
        assert_eq!(reading.turned(40, full + 5_000, true), Some(20));
        assert_eq!(reading.turned(50, 2 * full + 5_000, true), None);
        assert_eq!(reading.turned(60, 2 * full + 6_000, false), Some(60));
        assert_eq!(reading.turned(70, 4 * full, true), None, "what was read before it does not count");
    }
}
