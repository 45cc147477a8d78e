//! One subscriber, on a thread of its own: its requests, what it may see, and what is sent to it.
//!
//! In: frames and descriptors of the subscriber, changes from the reading thread. Out: frames. All that may take time because of
//! the subscriber is done here and nowhere else: its descriptors are looked at and closed, its directories opened, its
//! socket written to. The thread has the subscriber's rights on files, and no others.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant, SystemTime};

use hotr_events::{Actor, Change, FileType, Op, Written};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};

use super::accounts::{MOST_WAITING, Seat};
use super::admission::{admit, is_deleted};
use super::inbox::{Inbox, Item, Shared};
use super::order::{Answer, Order};
use super::outgoing::Outgoing;
use super::peer::{Peer, Sees};
use super::seen::{Base, Delivery, Seen};
use super::view::{Hidden, View};
use super::wire::{Event, Frames, LONGEST_REQUEST, Request, VERSION, put};
use crate::pipeline::settle::Settler;
use crate::source::mono_ns;

/// How long a subscriber may take to say who it is, and to read its last frames.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a directory was deleted.
const LOOK: Duration = Duration::from_secs(1);
/// Descriptors that may come before the frames they belong to.
const MOST_DESCRIPTORS: usize = 4;
/// A file's times are as coarse as the slowest timer (100 Hz).
const TICK: Duration = Duration::from_millis(10);
/// Directories that are kept open while one batch is decided.
const MOST_OPEN: usize = 64;
/// Descriptors that one subscriber takes at most, without those of its directories: also its socket, its inbox, and what is opened
/// for a moment.
pub(super) const DESCRIPTORS: usize = MOST_OPEN + 2 * MOST_DESCRIPTORS + 8;

/// What the thread asks of the reading thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Watch a directory; the answer is why not.
    Add {
        subscriber: u64,
        root: u32,
        fd: Arc<OwnedFd>,
        mount_id: u64,
        answer: std::sync::mpsc::SyncSender<Result<(), String>>,
    },
    /// Watch it no longer.
    Remove { subscriber: u64, root: u32 },
    /// The subscriber has left.
    Left { subscriber: u64 },
}

/// All that a subscriber's thread has.
pub(super) struct Connection {
    pub(super) subscriber: u64,
    pub(super) socket: UnixStream,
    pub(super) peer: Peer,
    pub(super) seat: Seat,
    pub(super) inbox: Arc<Inbox>,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: tokio::sync::mpsc::UnboundedSender<Command>,
    pub(super) tier: &'static str,
}

/// Why a subscriber is done.
enum End {
    /// It has closed the socket.
    Left,
    /// It sent what is no request, or too much.
    Refused(String),
    /// It did not read.
    Slow,
    /// The agent ends.
    Over,
}

struct Root {
    fd: Arc<OwnedFd>,
    settler: Settler,
}

/// The state of a subscriber.
struct Subscriber {
    connection: Connection,
    view: View,
    roots: HashMap<u32, Root>,
    frames: Frames,
    descriptors: VecDeque<OwnedFd>,
    order: Order,
    has_said_hello: bool,
    /// The agent was too short of something to ask about a directory.
    is_short: Cell<bool>,
    /// Since when a frame has no end.
    half_since: Option<Instant>,
    has_said_uncovered: bool,
    changes: u64,
    out: Outgoing,
    next_look: Instant,
}

impl Connection {
    /// Serves the subscriber until it leaves or is made to.
    pub(super) fn serve(self) {
        let (commands, subscriber) = (self.commands.clone(), self.subscriber);
        match View::take_on(&self.peer) {
            Ok(view) => Subscriber::new(self, view).serve(),
            Err(_) => {
                let mut out = Vec::new();
                let why = "the agent cannot take on your rights; it must run as root with CAP_SETUID and CAP_SETGID";
                put(&Event::Error { why: why.into() }, &mut out);
                let _ = send(&self.socket, &out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
        }
        let _ = commands.send(Command::Left { subscriber });
    }
}

impl Subscriber {
    fn new(connection: Connection, view: View) -> Self {
        let reads_all = connection.peer.capabilities != 0;
        let out = Outgoing::new(Arc::clone(&connection.seat.account));
        Self {
            connection,
            view,
            roots: HashMap::new(),
            frames: Frames::new(LONGEST_REQUEST),
            descriptors: VecDeque::new(),
            order: Order::new(reads_all),
            has_said_hello: false,
            is_short: Cell::new(false),
            half_since: None,
            has_said_uncovered: false,
            changes: 0,
            out,
            next_look: Instant::now() + LOOK,
        }
    }

    fn serve(mut self) {
        let begun = Instant::now();
        let end = loop {
            if let Err(end) = self.turn(begun) {
                break end;
            }
        };
        self.say_end(&end);
        // What is left is for one who reads it.
        let over = Instant::now() + PATIENCE;
        while self.flush().is_ok() && self.out.len() > 0 && !matches!(end, End::Left) && Instant::now() < over
        {
            if self.wait(Duration::from_millis(100), false).is_err() {
                break;
            }
        }
    }

    fn say_end(&mut self, end: &End) {
        let event = match end {
            End::Left => return,
            End::Refused(why) => Event::Error { why: why.clone().into() },
            End::Over => {
                Event::Error { why: "the agent ends; subscribe when there is one again, and compare".into() }
            }
            End::Slow => {
                let why = "the subscriber did not read what was sent, and gets nothing more; subscribe again, and compare";
                let event = Event::Loss { reason: "slow-subscriber".into(), why: why.into() };
                return self.out.last_word(&event, &self.connection.socket);
            }
        };
        self.say(&event);
    }

    /// One round: waits, reads requests, decides changes, writes.
    fn turn(&mut self, begun: Instant) -> Result<(), End> {
        let shared = Arc::clone(&self.connection.shared);
        let until_hello = PATIENCE.saturating_sub(begun.elapsed());
        if !self.has_said_hello && until_hello.is_zero() {
            return Err(End::Refused("no hello came; send it as the first frame".to_owned()));
        }
        let mut wait = if self.has_said_hello { Duration::from_secs(3600) } else { until_hello };
        if let Some(since) = self.half_since {
            let until_end = PATIENCE.saturating_sub(since.elapsed());
            if until_end.is_zero() {
                return Err(End::Refused("the last frame has no end; send each at once".to_owned()));
            }
            wait = wait.min(until_end);
        }
        if !self.roots.is_empty() {
            wait = wait.min(self.next_look.saturating_duration_since(Instant::now()));
        }
        let due = self.roots.values().filter_map(|root| root.settler.next_deadline()).min();
        if let Some(due) = due {
            wait = wait.min(Duration::from_nanos(due.saturating_sub(mono_ns())));
        }
        if self.order.waits() {
            // Until then nothing is decided unless records are read.
            wait = wait.min(Duration::from_millis(2));
            self.connection.inbox.asks.store(true, Ordering::Relaxed);
            shared.look.notify_one();
        }
        self.wait(wait, true).map_err(|_errno| End::Left)?;
        if shared.is_over.load(Ordering::Relaxed) {
            return Err(End::Over);
        }
        self.read()?;
        self.requests()?;
        self.check_rest()?;
        self.decide();
        self.look();
        self.flush().map_err(|_error| End::Left)?;
        if self.connection.inbox.is_full() || self.out.len() > MOST_WAITING {
            return Err(End::Slow);
        }
        Ok(())
    }

    fn wait(&self, time: Duration, reads: bool) -> Result<(), Errno> {
        let mut wanted = if reads { PollFlags::IN } else { PollFlags::empty() };
        if self.out.len() > 0 {
            wanted |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(&self.connection.socket, wanted)];
        if reads {
            fds.push(PollFd::from_borrowed_fd(self.connection.inbox.as_fd(), PollFlags::IN));
        }
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Reads what the subscriber has sent.
    fn read(&mut self) -> Result<(), End> {
        let mut bytes = [0; LONGEST_REQUEST];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        let read = match recvmsg(&self.connection.socket, &mut parts, &mut ancillary, flags) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(End::Left),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if read.flags.contains(ReturnFlags::CTRUNC) || self.descriptors.len() > MOST_DESCRIPTORS {
            return Err(End::Refused(format!(
                "more than {MOST_DESCRIPTORS} descriptors wait for their frames; send one with each"
            )));
        }
        if read.bytes == 0 {
            return match self.frames.has_part() {
                true => Err(End::Refused("the last frame has no end".to_owned())),
                false => Err(End::Left),
            };
        }
        self.frames.push(&bytes[..read.bytes]);
        Ok(())
    }

    fn requests(&mut self) -> Result<(), End> {
        let next = "see docs/agent.md";
        loop {
            let request = self.frames.next().map_err(|garbage| End::Refused(format!("{garbage}; {next}")))?;
            if request.is_some() {
                self.half_since = None;
            }
            match request {
                None => return Ok(()),
                Some(Request::Hello { version }) if version == VERSION && !self.has_said_hello => {
                    self.has_said_hello = true;
                    let tier = self.connection.tier.into();
                    let hotr = env!("CARGO_PKG_VERSION").into();
                    self.say(&Event::Hello { version: VERSION, hotr, tier });
                }
                Some(Request::Hello { version }) if !self.has_said_hello => {
                    return Err(End::Refused(format!(
                        "this agent knows version {VERSION} of the protocol, and not {version}; use the same hotr on both sides"
                    )));
                }
                Some(_) if !self.has_said_hello => {
                    return Err(End::Refused(format!("the first frame is no hello; {next}")));
                }
                Some(Request::Hello { .. }) => {
                    return Err(End::Refused(format!("a second hello; {next}")));
                }
                Some(Request::Add { root }) => self.add(root),
                Some(Request::Remove { root }) => {
                    if self.drop_root(root) {
                        self.say(&Event::Removed { root });
                    }
                }
            }
        }
    }

    /// Half a frame may wait for its end, and with it its descriptor, but not for ever. A descriptor without a frame may be the other
    /// end of this very connection, which would then never end.
    fn check_rest(&mut self) -> Result<(), End> {
        let has_half = self.frames.has_part();
        if !has_half && !self.descriptors.is_empty() {
            return Err(End::Refused("a descriptor came without its frame; send both at once".to_owned()));
        }
        self.half_since = has_half.then(|| self.half_since.unwrap_or_else(Instant::now));
        Ok(())
    }

    fn add(&mut self, root: u32) {
        match self.try_add(root) {
            Ok(()) => {
                self.say(&Event::Added { root });
                self.say_hidden(root, None);
            }
            Err(why) => self.say(&Event::Refused { root, why: why.into() }),
        }
    }

    fn try_add(&mut self, root: u32) -> Result<(), String> {
        let fd =
            self.descriptors.pop_front().ok_or("no descriptor came with the frame; pass the directory's")?;
        let admitted = admit(fd.as_fd())?;
        if self.roots.contains_key(&root) {
            return Err(format!("the number {root} is that of another directory; use another one"));
        }
        let fd = Arc::new(fd);
        let (answer, answered) = sync_channel(1);
        let (subscriber, mount_id) = (self.connection.subscriber, admitted.mount_id);
        let command = Command::Add { subscriber, root, fd: Arc::clone(&fd), mount_id, answer };
        let gone = "the agent ends; subscribe again";
        self.connection.commands.send(command).map_err(|_gone| gone)?;
        answered.recv().map_err(|_gone| gone)??;
        self.roots.insert(root, Root { fd, settler: Settler::new() });
        Ok(())
    }

    /// Forgets a directory; false when there is none of this number.
    fn drop_root(&mut self, root: u32) -> bool {
        let is_known = self.roots.remove(&root).is_some();
        if is_known {
            self.order.forget(root);
            let subscriber = self.connection.subscriber;
            let _ = self.connection.commands.send(Command::Remove { subscriber, root });
        }
        is_known
    }

    /// Says once that a part of a directory is hidden from the subscriber, which could find that out by itself. It is not said
    /// when a hidden change is left out: that would tell when there was one.
    fn say_hidden(&mut self, root: u32, below: Option<&Path>) {
        if self.has_said_uncovered {
            return;
        }
        let Some(fd) = self.roots.get(&root).map(|root| Arc::clone(&root.fd)) else { return };
        let hidden = match below {
            Some(below) => self.view.is_hidden(fd.as_fd(), below),
            None => self.view.hidden(fd.as_fd()),
        };
        let why = match hidden {
            None => return,
            Some(Hidden::Unreadable) => "directories that you may not read are not reported",
            Some(Hidden::Mounted) => {
                "what is mounted below the directory is not reported; pass its own descriptor"
            }
            Some(Hidden::Unknown) => "it has too many directories to tell whether you may read all of them",
        };
        self.has_said_uncovered = true;
        self.say(&Event::Uncovered { root, why: why.into() });
    }

    /// Takes what waits, asks for each change whether the subscriber may see it, and sends what is decided.
    fn decide(&mut self) {
        // In this order: what was read by that time is in the inbox by now.
        let read_ns = self.connection.shared.read_ns.load(Ordering::Acquire);
        let items = self.connection.inbox.take();
        let mut open = Open::default();
        for item in items {
            match item {
                Item::Delivery(delivery) => {
                    let Some(root) = self.roots.get(&delivery.root) else { continue };
                    let fd = Arc::clone(&root.fd);
                    let mut delivery = delivery;
                    let (new, shows_new) = self.answer(&fd, &delivery, true, &mut open);
                    let (old, shows_old) = self.answer(&fd, &delivery, false, &mut open);
                    delivery.only_names = !(shows_new || new == Answer::No && shows_old);
                    self.order.take(delivery, new, old, mono_ns());
                }
                Item::Loss(reason) => {
                    self.order.lost();
                    let why =
                        "records of changes were lost; compare the directories with what you know of them";
                    self.say(&Event::Loss { reason: reason.into(), why: why.into() });
                }
            }
        }
        drop(open);
        if self.is_short.take() {
            let why = "the agent had no descriptor or memory left to ask about directories; compare them with what you know of them";
            self.say(&Event::Loss { reason: "agent-short".into(), why: why.into() });
        }
        for delivery in self.order.decided(read_ns) {
            self.report(&delivery);
        }
        self.pass_on();
    }

    /// Whether the subscriber may learn of a name, and of the file that has it.
    fn answer(
        &self,
        root: &Arc<OwnedFd>,
        delivery: &Delivery,
        is_new: bool,
        open: &mut Open,
    ) -> (Answer, bool) {
        let (path, base) = match is_new {
            true => (&delivery.new, &delivery.new_base),
            false => (&delivery.old, &delivery.old_base),
        };
        let no = (Answer::No, false);
        let (Some(path), seen) = (path.as_deref(), &*delivery.seen) else { return no };
        let peer = &self.connection.peer;
        if delivery.reach.as_ref().is_some_and(|reach| reach.is_of(peer)) && seen.actor.uid != peer.uid {
            return no;
        }
        let Some(name) = path.file_name() else {
            // The directory itself: its attributes are those of the subscriber's own descriptor.
            return if seen.change.op == Op::Attrib && base.is_none() { (Answer::Other, true) } else { no };
        };
        // The name may be that of the base itself.
        let is_base = |base: &&Base| base.depth == path.components().count();
        if let Some(base) = base.as_ref().filter(is_base)
            && self.view.base(root.as_fd(), path, base.fd.as_fd()).is_err()
        {
            return no;
        }
        let below = path.parent().unwrap_or(Path::new(""));
        let base = base.as_ref().filter(|base| !is_base(base));
        let dir = match open.get(&self.view, delivery.root, root, below, base) {
            Ok(dir) => dir,
            Err(errno) => {
                self.is_short.set(self.is_short.get() || is_shortage(errno));
                return no;
            }
        };
        let found = self.view.name(dir.as_fd(), name);
        if is_new && !is_what_was_meant(seen, found.as_ref()) {
            return no;
        }
        let shows_file = found.is_some() || self.view.may_search(dir.as_fd());
        let is_same = found.is_some_and(|found| {
            is_new && !seen.is_of_call && seen.change.id.is_some_and(|id| id.ino == found.ino)
        });
        let answer = match is_same {
            true => Answer::Same,
            false if seen.must_match => Answer::No,
            false => Answer::Other,
        };
        (answer, shows_file)
    }

    /// Sends what remains of a change without the names that the subscriber may not see.
    fn report(&mut self, delivery: &Delivery) {
        let Some(change) = self.change(delivery) else { return };
        let is_dir = change.file_type.is_none_or(|it| it == FileType::Dir);
        let is_new_way = matches!(change.op, Op::Create | Op::Attrib | Op::Rename) && is_dir;
        let (root, path) = (delivery.root, change.path.clone());
        let Some(one) = self.roots.get_mut(&root) else { return };
        let mut out = Vec::new();
        one.settler.push(change, mono_ns(), &mut out);
        self.send(root, out);
        if is_new_way {
            self.say_hidden(root, Some(&path));
        }
    }

    /// The change as the subscriber sees it.
    fn change(&self, delivery: &Delivery) -> Option<Change> {
        let seen = &*delivery.seen;
        let mut change = seen.change.clone();
        if let Some(opened) = seen.opened
            && !self.has_made(delivery)
        {
            if !opened.cuts {
                return None;
            }
            change.op = Op::Write;
            change.written.writes = 1;
            change.detail = vec!["o_trunc".into()];
        }
        change.actor = self.actor(seen);
        if delivery.only_names {
            (change.id, change.size, change.written) = (None, None, Written::default());
        }
        match (delivery.new.clone(), delivery.old.clone()) {
            (Some(new), old) if change.op != Op::Rename || old.is_some() => {
                (change.path, change.old_path) = (new, old);
            }
            // Only one of two names is shown: nothing leads to the other.
            (Some(new), None) => {
                (change.op, change.path) = (Op::Create, new);
                change.detail.push("moved-in".into());
            }
            (None, Some(old)) => {
                (change.op, change.path) = (Op::Remove, old);
                (change.id, change.size) = (None, None);
                change.detail.push("moved-out".into());
            }
            _ => return None,
        }
        Some(change)
    }

    /// Whether an open made its file; by the time of the file's birth. A file that is not there any more was there.
    fn has_made(&self, delivery: &Delivery) -> bool {
        let (Some(root), Some(path)) = (self.roots.get(&delivery.root), &delivery.new) else { return true };
        let below = path.parent().unwrap_or(Path::new(""));
        let (Some(name), Ok(dir)) = (path.file_name(), self.view.directory(root.fd.as_fd(), below)) else {
            return true;
        };
        let Some(found) = self.view.name(dir.as_fd(), name) else { return true };
        let (Some(born), Some(at)) = (found.born, delivery.seen.opened_at) else { return false };
        SystemTime::UNIX_EPOCH + born + TICK >= at
    }

    /// Who made it, as far as the subscriber can see that process.
    fn actor(&self, seen: &Seen) -> Option<Actor> {
        let (peer, actor) = (&self.connection.peer, &seen.actor);
        let (pid, tid) = match peer.sees {
            Sees::All
                if peer
                    .may_know(actor.uid, self.connection.shared.hides_processes.load(Ordering::Relaxed)) =>
            {
                (actor.pid, actor.tid)
            }
            // The thread's number is not known there.
            Sees::Namespace(theirs) if peer.shares_users => {
                let (_, pid) = actor.namespace.filter(|(its, _)| *its == theirs)?;
                (pid, pid)
            }
            _ => return None,
        };
        Some(Actor {
            pid,
            tid,
            uid: actor.uid,
            comm: actor.comm.clone(),
            exe: None,
            cgroup: None,
            origin: None,
        })
    }

    /// Sends repeats whose time has come.
    fn pass_on(&mut self) {
        let now_ns = mono_ns();
        let mut all = Vec::new();
        for (number, root) in &mut self.roots {
            let mut out = Vec::new();
            root.settler.due(now_ns, &mut out);
            root.settler.put_away();
            all.push((*number, out));
        }
        all.into_iter().for_each(|(number, out)| self.send(number, out));
    }

    fn send(&mut self, root: u32, changes: Vec<Change>) {
        for change in changes {
            self.changes += 1;
            let outside = change.actor.is_none();
            self.say(&Event::Change { seq: self.changes, root, change: Box::new(change), outside });
        }
    }

    /// Looks whether a directory was deleted.
    fn look(&mut self) {
        if self.next_look > Instant::now() {
            return;
        }
        self.next_look = Instant::now() + LOOK;
        // What was changed before is reported before.
        let gone: Vec<u32> = match self.order.waits() {
            true => Vec::new(),
            false => {
                let gone = self.roots.iter().filter(|(_, root)| is_deleted(&*root.fd));
                gone.map(|(number, _)| *number).collect()
            }
        };
        for root in gone {
            let held = self.roots.get_mut(&root).map(|root| root.settler.finish()).unwrap_or_default();
            self.send(root, held);
            self.drop_root(root);
            self.say(&Event::Gone { root });
        }
    }

    fn say(&mut self, event: &Event) {
        self.out.put(event);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush(&self.connection.socket)
    }
}

/// Whether what has a name can be what a call named: a call that follows links changed what a link leads to, which is not known.
fn is_what_was_meant(seen: &Seen, found: Option<&super::view::Name>) -> bool {
    !(seen.is_of_call && seen.follows && found.is_some_and(|found| found.is_link))
}

/// Whether an answer says nothing of the subscriber's rights.
const fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO)
}

/// Directories that were opened in the subscriber's name for one batch: all of its changes were made before.
#[derive(Default)]
struct Open(HashMap<Way, Result<OwnedFd, Errno>>);

/// A directory below a root; by which base, with the number of names that lead to that.
type Way = (u32, PathBuf, Option<(usize, usize)>);

impl Open {
    fn get(
        &mut self,
        view: &View,
        number: u32,
        root: &OwnedFd,
        below: &Path,
        base: Option<&Base>,
    ) -> Result<&OwnedFd, Errno> {
        let by = base.map(|base| (base.depth, Arc::as_ptr(&base.fd).addr()));
        let way = (number, below.to_path_buf(), by);
        if self.0.len() >= MOST_OPEN && !self.0.contains_key(&way) {
            self.0.clear();
        }
        let dir = self.0.entry(way);
        dir.or_insert_with(|| opened(view, root, below, base)).as_ref().map_err(|errno| *errno)
    }
}

/// Opens a directory below a root by the base that the kernel gave, which the subscriber's path must lead to.
fn opened(view: &View, root: &OwnedFd, below: &Path, base: Option<&Base>) -> Result<OwnedFd, Errno> {
    let Some(base) = base else { return view.directory(root.as_fd(), below) };
    let mut names = below.components();
    let first: PathBuf = names.by_ref().take(base.depth).collect();
    let held = view.base(root.as_fd(), &first, base.fd.as_fd())?;
    view.directory(held.as_fd(), names.as_path())
}
