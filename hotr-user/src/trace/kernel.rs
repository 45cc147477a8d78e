//! The eBPF half of a trace: programs, roots, storms; records in, changes out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hotr_common::hook::Hook;
use hotr_common::record::{NO_ROOT, Record};

use super::calls::Calls;
use super::clock::Clock;
use super::roots::{Gone, OTHER_CHANNEL, Place, Roots, channel_error, proc_error};
use super::storms::{Storms, Trailing};
use crate::error::Error;
use crate::event::{Change, Op};
use crate::kernel::facts::{Facts, missing_for_ebpf};
use crate::kernel::load::{LoadError, PlannedHook, Tier};
use crate::kernel::table::is_optional;
use crate::mounts::{LayerCache, MountWatch};
use crate::options::TraceOptions;
use crate::pipeline::decode;
use crate::pipeline::syscall::NamedCall;
use crate::procinfo::{ActorCache, Task};
use crate::report::KernelTotals;
use crate::source::ebpf::{EbpfOptions, EbpfSource, Ended, StormId};

/// How long repeats of a change are only counted in the kernel.
pub(super) const WINDOW_NS: u64 = 100_000_000;
/// Size of the ring buffer. Mapped twice, so it counts double in the resident size.
const RING_BYTES: u32 = 4 << 20;
/// The same where every single change is a record.
const RAW_RING_BYTES: u32 = 32 << 20;
/// Records read in one turn, before the other channels are looked at. What they become should still be in the
/// processor's cache when it is printed.
const BATCH: usize = 512;

/// How often losses that happen often are told, and what they missed looked for.
const OFTEN_LOST_EVERY: Duration = Duration::from_secs(10);

/// A record with its change.
pub(super) struct Traced {
    pub(super) record: Record,
    pub(super) hook: Hook,
    pub(super) change: Box<Change>,
    /// Index of the watched root.
    pub(super) root: usize,
}

/// What was lost since the last question.
pub(super) struct Losses {
    /// By reason.
    pub(super) counts: [(&'static str, u64); 4],
    /// Every reason was asked for: when nothing is counted, nothing was lost.
    pub(super) is_complete: bool,
}

/// The running channel.
pub(super) struct KernelSide {
    pub(super) source: EbpfSource,
    pub(super) roots: Roots,
    storms: Storms,
    mounts: MountWatch,
    layers: LayerCache,
    pub(super) actors: ActorCache,
    calls: Calls,
    lost: [u64; 4],
    often_lost: Option<Instant>,
    lacks_roots: bool,
    /// Slot of the heartbeat's directory.
    heart: Option<u16>,
    beats: u64,
    /// Storms of heartbeats, to be ended.
    beaten: Vec<StormId>,
}

impl KernelSide {
    /// Loads and attaches; the roots are registered before anything is attached.
    pub(super) fn start(options: &TraceOptions) -> Result<Self, Error> {
        if let Some(missing) = missing_for_ebpf(&Facts::gather()) {
            return Err(Error::Channel { channel: "ebpf", cause: missing, next: OTHER_CHANNEL.to_owned() });
        }
        let window_ns = if options.raw { 0 } else { WINDOW_NS };
        let (mounts, table) = MountWatch::new().map_err(proc_error)?;
        let mut roots = Roots::new(&options.paths, table)?;
        let ring_bytes = if options.raw { RAW_RING_BYTES } else { RING_BYTES };
        let ebpf = EbpfOptions { tier: options.tier, ring_bytes, window_ns };
        let start = |roots: &mut Roots| {
            let (mut source, kernel) = EbpfSource::load(ebpf)?;
            roots.plan(&mut source)?;
            source.attach(kernel, options.tier)?;
            Ok(source)
        };
        let mut source = start(&mut roots).map_err(|error| channel_error(&error))?;
        if ![Hook::Rename, Hook::Rmdir].iter().all(|hook| has_function(&source, *hook)) {
            roots.watch_pins(&mut source).map_err(|error| channel_error(&error))?;
        }
        let mut tiers = source.plan().iter().filter_map(|hook| hook.tier);
        if tiers.any(|tier| source.is_preemptible(tier)) && !crate::sched::kernel_is_never_preempted() {
            crate::sched::never_preempt();
        }
        // The kernel's types, the object.
        crate::memory::give_back();
        // What was skipped while the programs were attached one by one was made before `ready`.
        let lost = [0, 0, source.skipped(), 0];
        let side = Self {
            source,
            roots,
            storms: Storms::new(window_ns),
            mounts,
            layers: LayerCache::default(),
            actors: ActorCache::new(),
            calls: Calls::default(),
            lost,
            often_lost: None,
            lacks_roots: false,
            heart: None,
            beats: 0,
            beaten: Vec::new(),
        };
        side.check_plan()?;
        Ok(side)
    }

    /// Lets the delivery hooks watch hotr's own inotify instance. Without them a merged event is not told apart.
    pub(super) fn listen_to(&mut self, ear: &super::ear::Ear) {
        let registered = self.source.register(&[ear.source.as_fd()]);
        if let Some(instance) = registered.ok().and_then(|found| found.into_iter().next()) {
            let _ = self.source.set_inotify_group(&instance);
        }
    }

    /// Registers the directory of the heartbeat file.
    pub(super) fn listen_to_heart(&mut self, dir: BorrowedFd<'_>) -> Result<(), LoadError> {
        let found = self.source.register(&[dir])?;
        if let Some(registered) = found.first() {
            self.heart = Some(self.source.add_root(registered, false)?);
        }
        Ok(())
    }

    /// Heartbeats heard so far; nothing when none can be heard.
    pub(super) fn beats(&self) -> Option<u64> {
        self.heart.map(|_| self.beats)
    }

    /// A channel that no hook could be attached for does not run.
    fn check_plan(&self) -> Result<(), Error> {
        let plan = self.source.plan();
        if plan.iter().any(|hook| hook.tier.is_some()) {
            return Ok(());
        }
        let cause = plan.first().map_or_else(String::new, |hook| hook.why.clone());
        Err(Error::Channel {
            channel: "ebpf",
            cause: format!("the kernel refused every program: {cause}"),
            next: "see `hotr doctor`, or choose another --tier".to_owned(),
        })
    }

    /// Hooks that could not be attached although changes are lost without them.
    pub(super) fn missing(&self) -> Vec<&PlannedHook> {
        self.source.plan().iter().filter(|hook| hook.tier.is_none() && !is_optional(hook.hook)).collect()
    }

    /// The tier of all hooks, or `mixed`.
    pub(super) fn tier(&self) -> &'static str {
        let mut tiers: Vec<Tier> = self.source.plan().iter().filter_map(|hook| hook.tier).collect();
        tiers.sort();
        tiers.dedup();
        match tiers.as_slice() {
            [one] => one.as_str(),
            _ => "mixed",
        }
    }

    /// Descriptors to wait for, and whether what one tells is about the roots, not about changes.
    pub(super) fn descriptors(&self) -> Vec<(RawFd, bool)> {
        let mut fds = vec![(self.source.as_fd().as_raw_fd(), false), (self.mounts.as_fd().as_raw_fd(), true)];
        fds.extend(self.roots.pins().map(|fd| (fd.as_raw_fd(), true)));
        fds
    }

    /// Whether a root was not there when the roots were last looked at: it is looked for at every occasion.
    pub(super) fn lacks_roots(&self) -> bool {
        self.lacks_roots
    }

    /// Reads records; true when there may be more.
    pub(super) fn read(&mut self, clock: &Clock, out: &mut Vec<Traced>) -> bool {
        let Self { source, roots, storms, layers, actors, calls, heart, beats, beaten, .. } = self;
        let now = Instant::now();
        let mut lost = Vec::new();
        let mut reader = Reader { roots, storms, layers, actors, calls, clock, now };
        let read = source.drain(BATCH, |record, path, old| {
            if record.lost_roots() != [None; 2] {
                lost.push(*record);
            }
            if *heart == Some(record.root) {
                *beats += 1;
                beaten.extend(StormId::of(record));
            } else {
                out.extend(reader.traced(record, path, old));
            }
        });
        lost.iter().for_each(|record| roots.notice_record(record));
        // Each heartbeat is made by another process: its slot is of no use to the next.
        beaten.retain(|id| matches!(source.end_storm(*id), Ended::Busy));
        read == BATCH
    }

    /// What storms have not told yet.
    pub(super) fn trailing(&mut self, now_ns: u64, all: bool, out: &mut Vec<Trailing>) {
        let Self { source, storms, .. } = self;
        if all {
            storms.finish(|id| source.storm(id), |more| out.push(more));
        } else {
            storms.due(now_ns, |id| source.storm(id), |id| source.end_storm(id), |more| out.push(more));
        }
    }

    /// See [`Storms::judged`].
    pub(super) fn judged(&mut self, record: &Record, change: &Change) {
        self.storms.judged(record, change);
    }

    /// Does the work on what was told that can wait.
    pub(super) fn put_away(&mut self) {
        self.storms.put_away();
    }

    /// What was counted under a name that a change has just taken away.
    pub(super) fn renamed(&mut self, change: &Change, out: &mut Vec<Trailing>) {
        let Self { source, storms, roots, .. } = self;
        if let Some(old) = change.old_path.as_ref().filter(|old| roots.is_root(old)) {
            roots.moved(old, &change.path);
        }
        let (old, new) = match &change.old_path {
            Some(old) => (old, Some(change.path.as_path())),
            None => (&change.path, None),
        };
        storms.renamed(old, new, |id| source.storm(id), |more| out.push(more));
    }

    /// When [`Self::trailing`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.storms.next_deadline()
    }

    /// Registered inodes that went away, and mounts that changed.
    pub(super) fn follow_roots(&mut self) -> Result<Vec<Gone>, Error> {
        let mut gone = self.roots.losses(&mut self.source).map_err(|error| channel_error(&error))?;
        let table = self.mounts.refresh().map_err(proc_error)?;
        let changed = table.is_some();
        if let Some(table) = table {
            self.roots.table = table;
            self.layers.clear();
        }
        if changed || !gone.is_empty() || !self.roots.complete() {
            self.roots.plan(&mut self.source).map_err(|error| channel_error(&error))?;
            gone.extend(self.roots.take_gone());
        }
        self.lacks_roots = !self.roots.complete();
        Ok(gone)
    }

    /// Lost since the last call: no room in the ring buffer, path too long for a record, program not run, path of a
    /// system call that led nowhere known. The last two are asked for at most every [`OFTEN_LOST_EVERY`], for where
    /// they happen they happen often, and mostly for calls that concern no watched file; `all` asks in any case.
    pub(super) fn losses(&mut self, all: bool) -> Losses {
        let counters = self.source.counters();
        let mut now = [counters.ring_full, counters.oversize, self.lost[2], self.lost[3]];
        let is_complete = all || self.often_lost.is_none_or(|told| told.elapsed() >= OFTEN_LOST_EVERY);
        if is_complete {
            (now[2], now[3]) = (self.source.skipped(), self.calls.unresolved);
            if now != self.lost {
                self.often_lost = Some(Instant::now());
            }
        }
        let before = std::mem::replace(&mut self.lost, now);
        let new = |kind: usize| now[kind].saturating_sub(before[kind]);
        let counts = [
            ("ring-full", new(0)),
            ("oversize", new(1)),
            ("program-skipped", new(2)),
            ("unresolved", new(3)),
        ];
        Losses { counts, is_complete }
    }

    /// Totals for the summary.
    pub(super) fn totals(&self) -> KernelTotals {
        self.source.totals()
    }
}

struct Reader<'a> {
    roots: &'a Roots,
    storms: &'a mut Storms,
    layers: &'a mut LayerCache,
    actors: &'a mut ActorCache,
    calls: &'a mut Calls,
    clock: &'a Clock,
    now: Instant,
}

impl Reader<'_> {
    fn traced(&mut self, record: &Record, path: &[u8], old: &[u8]) -> Option<Traced> {
        let hook = Hook::from_u16(record.hook)?;
        let (mut change, root) = match NamedCall::decode(record, path, old) {
            Some(call) => {
                let time = self.clock.real(record.time);
                self.calls.change(&call, record, self.roots, time, self.now)?
            }
            None => self.change(record, hook, path, old)?,
        };
        let watched = &self.roots.watched[root];
        if watched.only.is_some()
            && change.path != watched.path
            && change.old_path.as_ref() != Some(&watched.path)
        {
            return None;
        }
        let task = Task { pid: record.pid, tid: record.tid, comm: comm(record), cgroup_id: record.cgroup };
        let info = self.actors.lookup(&task, self.now);
        change.actor = Some(crate::event::Actor {
            pid: record.pid,
            tid: record.tid,
            uid: record.uid,
            comm: task.comm.to_vec(),
            exe: info.exe,
            cgroup: info.cgroup,
        });
        let (writes, bytes) = self.storms.record(record, &change)?;
        if change.op == Op::Write {
            (change.writes, change.bytes) = (writes, bytes);
        }
        Some(Traced { record: *record, hook, change: Box::new(change), root })
    }

    /// The change of a record that names the file, and the index of the watched root.
    fn change(&mut self, record: &Record, hook: Hook, path: &[u8], old: &[u8]) -> Option<(Change, usize)> {
        let roots = self.roots;
        // A rename has a root on either side; a slot that is not known any more was of a root that has gone.
        let place = roots.place(record.root).or_else(|| roots.place(record.old_root))?;
        let full = self.full_path(record, record.root, path)?;
        let mut change = decode::change(record, hook, self.clock.real(record.time), full);
        if change.op == Op::Rename {
            change.old_path = self.full_path(record, record.old_root, old);
            if record.root == NO_ROOT {
                change.detail.push("moved-out".into());
            } else if record.old_root == NO_ROOT {
                change.detail.push("moved-in".into());
            }
        }
        change.layer = place.layer.or_else(|| self.layer(record, place));
        if change.op == Op::Write {
            (change.writes, change.bytes) = (1, record.bytes);
        }
        Some((change, place.root))
    }

    /// The path to report: below a root, or from the root of its filesystem where we see that mounted.
    fn full_path(&self, record: &Record, slot: u16, names: &[u8]) -> Option<PathBuf> {
        if let Some(place) = self.roots.place(slot) {
            return Some(decode::join(&place.visible, names));
        }
        let from_root = decode::join("/".as_ref(), names);
        let dev = crate::mounts::DevId { major: record.dev >> 20, minor: record.dev & 0xf_ffff };
        self.roots.table.other_mounts_of(dev).find_map(|mount| mount.visible_path(&from_root))
    }

    fn layer(&mut self, record: &Record, place: &Place) -> Option<crate::event::Layer> {
        if record.mnt_id == 0 {
            return None;
        }
        let through = u64::from(record.mnt_id);
        self.layers.layer(through, place.mount_id, record.pid, &self.roots.table, self.now)
    }
}

/// Whether a hook is a program at a function, which sees what the function is called with.
fn has_function(source: &EbpfSource, hook: Hook) -> bool {
    let at_function = |tier| matches!(tier, Some(Tier::Fentry | Tier::Kprobe));
    source.plan().iter().any(|planned| planned.hook == hook && at_function(planned.tier))
}

fn comm(record: &Record) -> &[u8] {
    let end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(record.comm.len());
    &record.comm[..end]
}
