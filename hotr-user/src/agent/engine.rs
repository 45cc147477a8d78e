//! The kernel programs of an agent, and the directories they watch for its subscribers.
//!
//! In: directories by their descriptors, added and removed while the programs run; records. Out: changes, each for the
//! subscribers below whose directories it was made. Whether they may learn of it is not decided here.
//!
//! The kernel side gives the nearest watched directory of a file. A directory that lies above that one has the change as well,
//! whoever watches either: otherwise one subscriber could take another's changes by watching a part of its tree.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use hotr_common::config::MAX_ROOTS;
use hotr_common::hook::Hook;
use hotr_common::record::{COMM_LEN, FLAG_NAME_GONE, Record};
use hotr_events::{Change, Channel, FileType, Op, Written};

use super::accounts::Account;
use super::actors;
use super::admission::is_watchable;
use super::error::AgentError;
use super::literal::{Reach, plain};
use super::place::Place;
use super::seen::{Base, Delivery, Seen, SeenActor};
use crate::kernel::facts::{Facts, missing_for_ebpf};
use crate::mounts::{MountTable, MountWatch, join};
use crate::options::TierChoice;
use crate::pipeline::decode;
use crate::pipeline::syscall::{Named, NamedCall};
use crate::session::Requests;
use crate::source::Clock;
use crate::source::ebpf::{EbpfOptions, EbpfSource};

/// Each change is a record: nothing is counted in the kernel.
pub(super) const RING_BYTES: u32 = 32 << 20;
/// Bytes of a subscriber's mount table: some thousand mounts.
const LONGEST_TABLE: u64 = 1 << 20;
/// Records that are read before subscribers get them.
const BATCH: usize = 4096;

/// A watched directory, for all who watch it.
struct Root {
    superblock: u64,
    inode: u64,
    place: Place,
    /// Keeps the inode: its address is not given to another as long as it is watched, and as records of it may be unread.
    fd: Arc<OwnedFd>,
    uses: Vec<Use>,
}

/// One subscriber's use of it.
struct Use {
    subscriber: u64,
    number: u32,
    account: u32,
}

/// See the module.
pub(super) struct Engine {
    source: EbpfSource,
    requests: Requests,
    /// By their slots.
    roots: BTreeMap<u16, Root>,
    mounts: MountWatch,
    table: Rc<MountTable>,
    /// Something was renamed or mounted: the places are not known.
    places_are_old: bool,
    /// Some subscriber does not see all processes.
    pub(super) asks_namespaces: bool,
    /// The administrator hides processes.
    pub(super) hides_processes: bool,
    lost: [u64; 4],
    /// Records of directories that were forgotten.
    unplaced: u64,
    /// Bytes of the ring buffer that were read, or somewhat fewer: records are padded there.
    pub(super) read_bytes: u64,
    /// PID namespaces of processes, in this turn.
    namespaces: HashMap<Task, Option<(u64, u32)>>,
}

/// A process, a thread of it, and what that is called.
type Task = (u32, u32, [u8; COMM_LEN]);

/// A root that seems to hold the file of a change.
struct Holder<'a> {
    slot: u16,
    root: &'a Root,
    /// From that root.
    path: PathBuf,
    /// It lies above the root that the kernel gave.
    base: Option<Base>,
    /// It lies below that: a call may have named a file by a directory above the nearest root.
    is_below: bool,
}

/// Names of a change, by slots, and which of them were taken from the path of the root.
#[derive(Default)]
struct Ends {
    new: Option<(u16, PathBuf)>,
    old: Option<(u16, PathBuf)>,
    is_from_outside: bool,
}

impl Engine {
    /// Loads and attaches the programs; nothing is watched yet.
    pub(super) fn start(tier: TierChoice) -> Result<Self, AgentError> {
        if let Some(missing) = missing_for_ebpf(&Facts::gather()) {
            return Err(AgentError::Kernel(missing));
        }
        let proc = |source| AgentError::Os { operation: "read /proc/self/mountinfo", source };
        let (mounts, table) = MountWatch::new().map_err(proc)?;
        let options = EbpfOptions { tier, ring_bytes: RING_BYTES, window_ns: 0, sizes: &[] };
        let (mut source, kernel) = EbpfSource::load(options)?;
        source.attach(kernel, tier)?;
        if source.plan().iter().all(|hook| hook.tier.is_none()) {
            let why = source.plan().first().map_or("", |hook| &hook.why).to_owned();
            return Err(AgentError::Kernel(format!("the kernel refused every program: {why}")));
        }
        let mut tiers = source.plan().iter().filter_map(|hook| hook.tier);
        if tiers.any(|tier| source.is_preemptible(tier)) && !crate::sched::kernel_is_never_preempted() {
            crate::sched::never_preempt();
        }
        crate::memory::give_back();
        let lost = [0, 0, source.skipped(), 0];
        let hides_processes = actors::are_hidden(&table);
        Ok(Self {
            source,
            requests: Requests::default(),
            roots: BTreeMap::new(),
            mounts,
            table: Rc::new(table),
            places_are_old: false,
            asks_namespaces: false,
            hides_processes,
            lost,
            unplaced: 0,
            read_bytes: 0,
            namespaces: HashMap::new(),
        })
    }

    /// The tier of all hooks, or `mixed`.
    pub(super) fn tier(&self) -> &'static str {
        self.source.tier()
    }

    /// Hooks that could not be attached although changes are lost without them.
    pub(super) fn missing(&self) -> Vec<String> {
        self.source.missing().map(|hook| hook.function.to_owned()).collect()
    }

    /// Watches a directory for a subscriber, who calls it by this number.
    pub(super) fn add(
        &mut self,
        (subscriber, number): (u64, u32),
        fd: &Arc<OwnedFd>,
        mount_id: u64,
        pid: u32,
        account: &Account,
    ) -> Result<(), String> {
        self.refresh();
        let place = Place::find(fd.as_fd(), mount_id, &self.table).or_else(|| {
            let theirs = Rc::new(mounts_of(pid)?);
            Place::find(fd.as_fd(), mount_id, &theirs)
        });
        let place = place.ok_or("it is mounted neither where the agent nor where the subscriber is, or deleted; open it by a path there is")?;
        is_watchable(place.mount())?;
        let refused = |error: &dyn std::fmt::Display| format!("the kernel programs cannot watch it: {error}");
        let found = self.source.register(&[fd.as_fd()]).map_err(|error| refused(&error))?;
        let registered = found.first().ok_or("the kernel programs did not see it; try again")?;
        self.check_limits(account, registered.superblock)?;
        let one = Use { subscriber, number, account: account.number };
        let known = self.roots.values_mut().find(|root| root.inode == registered.inode);
        if let Some(known) = known {
            known.uses.push(one);
            return Ok(());
        }
        let slot = self.source.add_root(registered, 0).map_err(|error| refused(&error))?;
        let (superblock, inode) = (registered.superblock, registered.inode);
        self.roots.insert(slot, Root { superblock, inode, place, fd: Arc::clone(fd), uses: vec![one] });
        Ok(())
    }

    fn check_limits(&self, account: &Account, superblock: u64) -> Result<(), String> {
        let (limits, number) = (account.limits, account.number);
        let uses = self.roots.values().flat_map(|root| root.uses.iter().map(move |one| (root, one)));
        let own: Vec<_> = uses.filter(|(_, one)| one.account == number).collect();
        if own.len() >= limits.roots {
            let most = limits.roots;
            return Err(format!("user {number} watches {most} directories already; remove one of them"));
        }
        let mut filesystems: Vec<u64> = own.iter().map(|(root, _)| root.superblock).collect();
        filesystems.sort_unstable();
        filesystems.dedup();
        if !filesystems.contains(&superblock) && filesystems.len() >= limits.filesystems {
            let most = limits.filesystems;
            return Err(format!("user {number} watches {most} filesystems already; remove those of one"));
        }
        Ok(())
    }

    /// Watches directories no longer for a subscriber: the one of this number, or all. Returns those that nobody watches now. Records
    /// of them may still be unread, and others may want them: they are to be read before [`Self::forget`].
    pub(super) fn leave(&mut self, subscriber: u64, number: Option<u32>) -> Result<Vec<u16>, AgentError> {
        let is_out =
            |one: &Use| one.subscriber == subscriber && number.is_none_or(|number| one.number == number);
        let is_unused = |root: &Root| root.uses.iter().all(is_out);
        let slots: Vec<u16> =
            self.roots.iter().filter(|(_, root)| is_unused(root)).map(|(slot, _)| *slot).collect();
        // As long as it is watched, something holds it.
        slots.iter().try_for_each(|slot| self.source.remove_root(*slot))?;
        self.roots.values_mut().for_each(|root| root.uses.retain(|one| !is_out(one)));
        Ok(slots)
    }

    /// Forgets what nobody watches: no record of it is unread.
    pub(super) fn forget(&mut self, slots: &[u16]) {
        self.roots.retain(|slot, _| !slots.contains(slot));
    }

    /// Reads records, and gives what they say to `deliver`; true when there may be more.
    pub(super) fn turn(&mut self, deliver: &mut impl FnMut(u64, Delivery)) -> bool {
        self.refresh();
        let mut found: Vec<(Record, Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut records, _) = self.source.records(BATCH);
        while let Some(raw) = records.take_next() {
            let Some((record, path, old)) = raw.parts() else { continue };
            self.read_bytes += (size_of::<Record>() + path.len() + old.len()) as u64;
            let is_request = self.requests.take(&record, path, old, |call, path, old| {
                found.push((*call, path.to_vec(), old.to_vec()));
            });
            if !is_request {
                found.push((record, path.to_vec(), old.to_vec()));
            }
        }
        let read = records.read();
        let clock = Clock::now();
        let mut reaches = HashMap::new();
        self.namespaces.clear();
        for (record, path, old) in &found {
            if let Some((seen, ends)) = self.seen(record, path, old, &clock) {
                // What becomes of its name is reported as such.
                let inode = if seen.change.op == Op::Attrib { record.inode } else { 0 };
                self.hand_out(Arc::new(seen), ends, inode, &mut reaches, deliver);
            }
        }
        read == BATCH
    }

    /// Reasons for which records were lost since the last call. The last of them is asked only when `all`.
    pub(super) fn losses(&mut self, all: bool) -> Vec<&'static str> {
        let counters = self.source.counters();
        let skipped = if all { self.source.skipped() } else { self.lost[2] };
        let now = [counters.ring_full, counters.oversize, skipped, self.unplaced];
        let before = std::mem::replace(&mut self.lost, now);
        let reasons = ["ring-full", "oversize", "program-skipped", "unplaced"];
        let new = reasons.into_iter().zip(now.into_iter().zip(before));
        new.filter(|(_, (now, before))| now > before).map(|(reason, _)| reason).collect()
    }

    /// Looks up where the roots are, if that may have changed.
    fn refresh(&mut self) {
        let table = self.mounts.refresh(self.places_are_old).ok().flatten().map(Rc::new);
        if !std::mem::take(&mut self.places_are_old) && table.is_none() {
            return;
        }
        for root in self.roots.values_mut() {
            let is_own = Rc::ptr_eq(&root.place.table, &self.table);
            root.place.refresh(root.fd.as_fd(), table.as_ref().filter(|_| is_own));
        }
        if let Some(table) = table {
            self.hides_processes = actors::are_hidden(&table);
            self.table = table;
        }
    }

    /// The change of a record, and its names.
    fn seen(&mut self, record: &Record, path: &[u8], old: &[u8], clock: &Clock) -> Option<(Seen, Ends)> {
        let hook = Hook::from_u16(record.hook)?;
        let time = clock.real(record.time);
        let call = NamedCall::decode(record, path, old);
        let (mut change, ends) = match &call {
            Some(call) => (called(call, record, time), self.ends_of_call(call)),
            None => {
                let mut change = decode::change(record, hook, time, PathBuf::new());
                if change.op == Op::Write {
                    change.written = Written { writes: 1, bytes: record.bytes };
                }
                (change, self.ends(record, hook, path, old))
            }
        };
        self.places_are_old |= change.op == Op::Rename;
        let is_forgotten = |slot: u16| usize::from(slot) < MAX_ROOTS && !self.roots.contains_key(&slot);
        if is_forgotten(record.root) || change.op == Op::Rename && is_forgotten(record.old_root) {
            self.unplaced += 1;
        }
        if ends.new.is_none() && ends.old.is_none() {
            return None;
        }
        change.seen_by = vec![Channel::Ebpf];
        let comm = decode::comm(record).to_vec();
        let namespace = if self.asks_namespaces { self.namespace(record, &comm) } else { None };
        let opened = call.as_ref().and_then(|call| call.opened);
        let seen = Seen {
            change,
            actor: SeenActor { pid: record.pid, tid: record.tid, uid: record.uid, comm, namespace },
            must_match: record.flags & FLAG_NAME_GONE != 0,
            is_of_call: call.is_some(),
            follows: call.as_ref().is_some_and(NamedCall::follows),
            opened,
            opened_at: opened.map(|opened| clock.real(opened.since)),
        };
        Some((seen, ends))
    }

    /// Asked once for all records of one turn.
    fn namespace(&mut self, record: &Record, comm: &[u8]) -> Option<(u64, u32)> {
        let known = self.namespaces.entry((record.pid, record.tid, record.comm));
        *known.or_insert_with(|| actors::namespace_of(record.pid, record.tid, comm))
    }

    /// The names of a record that has them from the kernel.
    fn ends(&self, record: &Record, hook: Hook, path: &[u8], old: &[u8]) -> Ends {
        let end = |slot: u16, names: &[u8]| {
            self.roots.contains_key(&slot).then(|| (slot, decode::join(Path::new(""), names)))
        };
        match hook {
            // What was taken of a name before the change is reported as an old one.
            Hook::SubvolumeMade | Hook::SubvolumeGone => {
                Ends { new: end(record.old_root, old), ..Ends::default() }
            }
            Hook::Rename => {
                Ends { new: end(record.root, path), old: end(record.old_root, old), is_from_outside: false }
            }
            _ => Ends { new: end(record.root, path), ..Ends::default() },
        }
    }

    /// The names that a call gave.
    fn ends_of_call(&self, call: &NamedCall<'_>) -> Ends {
        let end = |named: &Named<'_>| self.end_of_call(named);
        let (new, old) = (end(&call.path), call.old_path.as_ref().and_then(end));
        let is_from_outside = [&new, &old].into_iter().flatten().any(|(_, _, is_outside)| *is_outside);
        let place = |(slot, path, _)| (slot, path);
        Ends { new: new.map(place), old: old.map(place), is_from_outside }
    }

    fn end_of_call(&self, named: &Named<'_>) -> Option<(u16, PathBuf, bool)> {
        let string = plain(named.string)?;
        let (slot, mount_id, start) = named.start();
        if self.roots.contains_key(&slot) {
            return Some((slot, join(start, &string), false));
        }
        // The nearest: those above have it from that one.
        let found = self
            .roots
            .iter()
            .filter_map(|(slot, root)| Some((*slot, root.place.named(mount_id, start, &string)?, true)));
        found.min_by_key(|(_, path, _)| path.components().count())
    }

    /// Gives a change to all whose directories it was made below. `inode`: the
    /// kernel's address of what has other attributes, or 0.
    fn hand_out(
        &self,
        seen: Arc<Seen>,
        ends: Ends,
        inode: u64,
        reaches: &mut HashMap<u16, Arc<Reach>>,
        deliver: &mut impl FnMut(u64, Delivery),
    ) {
        let mut found: HashMap<(u64, u32), Delivery> = HashMap::new();
        let Ends { new, old, is_from_outside } = ends;
        let mut order = Vec::new();
        for (is_new, (slot, path)) in
            [(true, new), (false, old)].into_iter().filter_map(|(is_new, end)| Some((is_new, end?)))
        {
            for Holder { slot, root, path, base, is_below } in self.all_with(slot, &path, inode) {
                if is_below && !seen.is_of_call {
                    // The kernel would have given that one.
                    continue;
                }
                let reach = (is_from_outside || is_below).then(|| {
                    let known = reaches.entry(slot);
                    Arc::clone(known.or_insert_with(|| Arc::new(self.reach(root))))
                });
                for one in &root.uses {
                    let key = (one.subscriber, one.number);
                    let entry = found.entry(key).or_insert_with(|| {
                        order.push(key);
                        Delivery::of(&seen, one.number)
                    });
                    let (end, its_base) = match is_new {
                        true => (&mut entry.new, &mut entry.new_base),
                        false => (&mut entry.old, &mut entry.old_base),
                    };
                    (*end, *its_base) = (Some(path.clone()), base.clone());
                    entry.reach = reach.clone().or(entry.reach.take());
                }
            }
        }
        for key in order {
            if let Some(delivery) = found.remove(&key) {
                deliver(key.0, delivery);
            }
        }
    }

    fn reach(&self, root: &Root) -> Reach {
        let is_own = Rc::ptr_eq(&root.place.table, &self.table);
        if is_own { Reach::of(&root.place.path, &self.table) } else { Reach::unknown() }
    }

    /// A root and all others that a path below it seems to lie in, each with the path from there.
    fn all_with(&self, slot: u16, path: &Path, inode: u64) -> Vec<Holder<'_>> {
        let Some(nearest) = self.roots.get(&slot) else { return Vec::new() };
        let file = nearest.place.location_of(path);
        let others = self.roots.iter().filter_map(|(other, root)| {
            if *other == slot {
                let path = path.to_path_buf();
                return Some(Holder { slot, root, path, base: None, is_below: false });
            }
            if root.inode == inode {
                // The change is one of this very directory, which the kernel names by the one above.
                let path = PathBuf::new();
                return Some(Holder { slot: *other, root, path, base: None, is_below: false });
            }
            let whole = root.place.path_to(&file)?;
            let above = root.place.path_to(&nearest.place.location);
            let depth = above.map(|above| above.components().count());
            let base = depth.map(|depth| Base { depth, fd: Arc::clone(&nearest.fd) });
            Some(Holder { slot: *other, root, path: whole, is_below: base.is_none(), base })
        });
        others.collect()
    }
}

impl AsFd for Engine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// The mounts that a process sees; none where they are more than anybody needs: all others would wait.
fn mounts_of(pid: u32) -> Option<MountTable> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/mountinfo")).ok()?;
    file.take(LONGEST_TABLE + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= LONGEST_TABLE).then(|| MountTable::parse(&text))
}

/// What a call says of its change, without the file.
fn called(call: &NamedCall<'_>, record: &Record, time: std::time::SystemTime) -> Change {
    let writes = u64::from(call.op == Op::Write);
    let is_dir = call.detail.iter().any(|word| word == "rmdir" || word == "mkdir" || word == "subvolume");
    Change {
        detail: call.detail.clone(),
        file_type: if is_dir { Some(FileType::Dir) } else { FileType::from_mode(record.mode) },
        written: Written { writes, bytes: record.bytes },
        ..Change::new(call.op, PathBuf::new(), time)
    }
}
