//! The eBPF half of a trace: programs, roots, storms; records in, changes out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hotr_common::hook::Hook;
use hotr_common::record::{FLAG_NAME_GONE, NO_ROOT, Record};

use super::announcement::is_announcement;
use super::calls::Calls;
use super::held_records::HeldRecords;
use super::observation::Observation;
use super::requests::Requests;
use super::roots::{Followed, OTHER_CHANNEL, Roots, channel_error, proc_error};
use super::storms::{Storms, Trailing};
use crate::error::Error;
use crate::kernel::facts::{Facts, missing_for_ebpf};
use crate::kernel::load::{LoadError, PlannedHook, Tier};
use crate::mounts::{LayerCache, MountWatch};
use crate::options::TraceOptions;
use crate::pipeline::decode;
use crate::pipeline::syscall::NamedCall;
use crate::procinfo::{ActorCache, Task};
use crate::source::Clock;
use crate::source::ebpf::{EbpfOptions, EbpfSource, Ended, StormId, StormTable};
use hotr_events::KernelTotals;
use hotr_events::LossReason;
use hotr_events::{Change, Op};

/// How long repeats of a change are only counted in the kernel.
pub(super) const WINDOW_NS: u64 = 100_000_000;
/// Size of the ring buffer. Mapped twice, so it counts double in the resident size.
const RING_BYTES: u32 = 4 << 20;
/// The same where every single change is a record.
const RAW_RING_BYTES: u32 = 32 << 20;
/// Records read in one turn, before the other channels are read. What they become should still be in the processor's
/// cache when it is printed.
const BATCH: usize = 512;
/// The same under a storm: a quarter of the ring buffer, or more.
const STORM_BATCH: usize = 4096;
/// Between two looks where the named paths lead.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

/// How often frequent losses are reported, and how often hotr looks for what they missed.
const OFTEN_LOST_EVERY: Duration = Duration::from_secs(10);

/// What was lost since the last question.
pub(super) struct Losses {
    /// By reason.
    pub(super) counts: [(LossReason, u64); 4],
    /// Every reason was checked: when nothing is counted, nothing was lost.
    pub(super) is_complete: bool,
}

/// The running channel.
pub(super) struct EbpfChannel {
    pub(super) source: EbpfSource,
    pub(super) roots: Roots,
    storms: Storms,
    mounts: MountWatch,
    layers: LayerCache,
    pub(super) actors: ActorCache,
    calls: Calls,
    requests: Requests,
    held: HeldRecords,
    lost: [u64; 4],
    often_lost: Option<Instant>,
    lacks_roots: bool,
    /// `CLOCK_MONOTONIC` nanoseconds.
    next_look_ns: u64,
    /// Slot of the heartbeat's directory.
    heartbeat: Option<u16>,
    beats: u64,
    /// Storms of heartbeats, to be ended.
    beaten: Vec<StormId>,
    /// Records read from the ring buffer.
    read: u64,
}

impl EbpfChannel {
    /// Loads and attaches; the roots are registered before anything is attached.
    pub(super) fn start(options: &TraceOptions) -> Result<Self, Error> {
        if let Some(missing) = missing_for_ebpf(&Facts::gather()) {
            return Err(Error::Channel { channel: "ebpf", cause: missing, next: OTHER_CHANNEL.to_owned() });
        }
        let is_each = options.raw || options.observed;
        let window_ns = if is_each { 0 } else { WINDOW_NS };
        let (mounts, table) = MountWatch::new().map_err(proc_error)?;
        let mut roots = Roots::new(&options.paths, table)?;
        let ring_bytes = if is_each { RAW_RING_BYTES } else { RING_BYTES };
        let ebpf = EbpfOptions { tier: options.tier, ring_bytes, window_ns, sizes: &[] };
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
        let mut actors = ActorCache::new();
        if options.origins {
            actors.ask_origins();
        }
        let side = Self {
            source,
            roots,
            storms: Storms::new(window_ns),
            mounts,
            layers: LayerCache::default(),
            actors,
            calls: Calls::default(),
            requests: Requests::default(),
            held: HeldRecords::default(),
            lost,
            often_lost: None,
            lacks_roots: false,
            next_look_ns: crate::source::mono_ns() + LOOK_EVERY_NS,
            heartbeat: None,
            beats: 0,
            beaten: Vec::new(),
            read: 0,
        };
        side.check_plan()?;
        Ok(side)
    }

    /// Lets the delivery hooks watch hotr's own inotify instance. Without them a merged event is not recognised.
    pub(super) fn listen_to(&mut self, inotify: &super::inotify_channel::InotifyChannel) {
        let Ok(registered) = self.source.register(&[inotify.source.as_fd()]) else { return };
        let _ = registered.first().map(|instance| self.source.set_inotify_group(instance));
    }

    /// Registers the directory of the heartbeat file.
    pub(super) fn listen_to_heartbeat(&mut self, dir: BorrowedFd<'_>) -> Result<(), LoadError> {
        let found = self.source.register(&[dir])?;
        if let Some(registered) = found.first() {
            self.heartbeat = Some(self.source.add_root(registered, 0)?);
        }
        Ok(())
    }

    /// Heartbeats received so far; nothing when none can be received.
    pub(super) fn beats(&self) -> Option<u64> {
        self.heartbeat.map(|_| self.beats)
    }

    /// A channel that no hook could be attached for does not run.
    fn check_plan(&self) -> Result<(), Error> {
        let plan = self.source.plan();
        if plan.iter().any(|hook| hook.tier.is_some()) {
            return Ok(());
        }
        let why = plan.first().map_or("", |hook| &hook.why);
        Err(Error::Channel {
            channel: "ebpf",
            cause: format!("the kernel refused every program: {why}"),
            next: "see `hotr doctor`, or choose another --tier".to_owned(),
        })
    }

    /// Hooks that could not be attached although changes are lost without them.
    pub(super) fn missing(&self) -> Vec<&PlannedHook> {
        self.source.missing().collect()
    }

    /// The tier of all hooks, or `mixed`.
    pub(super) fn tier(&self) -> &'static str {
        self.source.tier()
    }

    /// Descriptors to wait for, and whether one has news of the roots, not of changes.
    pub(super) fn descriptors(&self) -> Vec<(RawFd, bool)> {
        let mut fds = vec![(self.source.as_fd().as_raw_fd(), false), (self.mounts.as_fd().as_raw_fd(), true)];
        fds.extend(self.roots.pins().map(|fd| (fd.as_raw_fd(), true)));
        fds
    }

    /// Whether a root was not there at the last look: hotr looks for it at every occasion.
    pub(super) fn lacks_roots(&self) -> bool {
        self.lacks_roots
    }

    /// Reads records; true when there may be more. Where the other channel gave more events in the last turn than a batch, that
    /// many: read more slowly than events, they would be lost, and events wait for them.
    pub(super) fn read(&mut self, clock: &Clock, events: usize, out: &mut Vec<Observation>) -> bool {
        let limit = events.clamp(BATCH, STORM_BATCH);
        let Self { source, roots, storms, layers, actors, calls, requests, heartbeat, beats, beaten, .. } =
            self;
        let (now, before) = (Instant::now(), out.len());
        let mut lost = Vec::new();
        let mut reader = Reader { roots, storms, layers, actors, calls, clock, now };
        let (mut records, table) = source.records(limit);
        while let Some(raw) = records.take_next() {
            let Some((record, path, old)) = raw.parts() else { continue };
            if record.lost_roots() != [None; 2] {
                lost.push(record);
            }
            if *heartbeat == Some(record.root) {
                *beats += 1;
                beaten.extend(StormId::of(&record));
            } else if !requests.take(&record, path, old, |call, path, old| {
                out.extend(reader.observed(call, path, old, table));
            }) {
                out.extend(reader.observed(&record, path, old, table));
            }
        }
        let read = records.read();
        self.read += read as u64;
        self.held.exchange(out, before, clock.mono_ns());
        lost.iter().for_each(|record| roots.notice_record(record));
        // Each heartbeat is made by another process: its slot is of no use to the next.
        beaten.retain(|id| matches!(source.end_storm(*id), Ended::Busy));
        read == limit
    }

    /// What storms have not reported yet.
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

    /// What was counted until now and not reported.
    pub(super) fn trailing_now(&mut self, out: &mut Vec<Trailing>) {
        let Self { source, storms, .. } = self;
        storms.now(|id| source.storm(id), |more| out.push(more));
    }

    /// Changes whose records wait for their events.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Change> {
        self.held.changes()
    }

    /// Watches these paths from now on. `root_of` gives the new index of a former path, none where it is not watched any
    /// more.
    ///
    /// # Errors
    /// When a new path leads nowhere, or cannot be registered; then the former ones are watched.
    pub(super) fn set_paths(
        &mut self,
        paths: &[PathBuf],
        root_of: impl Fn(usize) -> Option<usize>,
    ) -> Result<(), Error> {
        self.roots.set_paths(paths, &mut self.source)?;
        self.held.set_roots(root_of);
        self.lacks_roots = !self.roots.complete();
        Ok(())
    }

    /// Takes a record back, because its event may still come.
    pub(super) fn wait(&mut self, observed: Observation) {
        self.held.wait(observed);
    }

    /// Does the work on reported changes that can wait.
    pub(super) fn put_away(&mut self) {
        self.storms.put_away();
    }

    /// Follows a root to its new name.
    pub(super) fn renamed(&mut self, change: &Change) {
        if let Some(old) = change.old_path.as_ref().filter(|old| self.roots.is_root(old)) {
            self.roots.moved(old, &change.path);
        }
    }

    /// When [`Self::trailing`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        [self.storms.next_deadline(), self.held.next_deadline(), Some(self.next_look_ns)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether records wait for the end of their change.
    pub(super) fn holds(&self) -> bool {
        self.held.next_deadline().is_some()
    }

    /// Whether it is time to look where the paths lead: nothing reports a change of a directory above a root, nor of a
    /// link.
    pub(super) fn must_look(&self, now_ns: u64) -> bool {
        self.next_look_ns <= now_ns
    }

    /// Looks at the next opportunity.
    pub(super) fn look_now(&mut self) {
        self.next_look_ns = 0;
    }

    /// Registered inodes that disappeared, and mounts that changed.
    pub(super) fn follow_roots(&mut self) -> Result<Followed, Error> {
        let read_ns = crate::source::mono_ns();
        let is_due = self.must_look(read_ns) || self.roots.has_news() || self.lacks_roots;
        let mut gone = self.roots.losses(&mut self.source).map_err(|error| channel_error(&error))?;
        let is_old = self.roots.take_table_is_old();
        let table = self.mounts.refresh(is_old).map_err(proc_error)?;
        let changed = table.is_some();
        if !is_due && !changed {
            // An epoll loop gives the news of the mount table once without any. To follow a path holds its filesystem for a
            // moment, in which it cannot be unmounted: not without a reason.
            return Ok(Followed::default());
        }
        self.next_look_ns = crate::source::mono_ns() + LOOK_EVERY_NS;
        if let Some(table) = table {
            (self.roots.table, self.roots.table_ns) = (table, read_ns);
            self.layers.clear();
        }
        if changed || !gone.is_empty() || !self.roots.complete() {
            self.roots.plan(&mut self.source).map_err(|error| channel_error(&error))?;
            gone.extend(self.roots.take_gone());
        }
        let mut followed =
            self.roots.follow_paths(&mut self.source).map_err(|error| channel_error(&error))?;
        // The mount table shows what is mounted over a path, and the path then leads elsewhere.
        followed.gone.retain(|followed| gone.iter().all(|told| told.path != followed.path));
        gone.append(&mut followed.gone);
        gone.extend(self.roots.take_gone());
        self.roots.once(&mut gone, self.next_look_ns);
        self.next_look_ns =
            followed.again_ns.map_or(self.next_look_ns, |again_ns| self.next_look_ns.min(again_ns));
        self.lacks_roots = !self.roots.complete();
        Ok(Followed { gone, remounted: self.roots.take_remounted(), ..followed })
    }

    /// Lost since the last call: no room in the ring buffer, path too long for a record, program not run, path of a
    /// system call that could not be followed. The last two are checked at most every [`OFTEN_LOST_EVERY`], because
    /// where they happen they happen often, and mostly for calls that concern no watched file; `all` asks in any case.
    pub(super) fn losses(&mut self, all: bool) -> Losses {
        let counters = self.source.counters();
        let mut now = [counters.ring_full, counters.oversize, self.lost[2], self.lost[3]];
        let is_complete = all || self.often_lost.is_none_or(|told| told.elapsed() >= OFTEN_LOST_EVERY);
        if is_complete {
            (now[2], now[3]) = (self.source.skipped(), self.calls.unresolved + self.requests.unknown);
            if now != self.lost {
                self.often_lost = Some(Instant::now());
            }
        }
        let before = std::mem::replace(&mut self.lost, now);
        let new = |kind: usize| now[kind].saturating_sub(before[kind]);
        let counts = [
            (LossReason::RingFull, new(0)),
            (LossReason::Oversize, new(1)),
            (LossReason::ProgramSkipped, new(2)),
            (LossReason::Unresolved, new(3)),
        ];
        Losses { counts, is_complete }
    }

    /// Records that are in the ring buffer.
    pub(super) fn unread(&self) -> u64 {
        self.totals().submitted.saturating_sub(self.read)
    }

    /// Totals for the summary.
    pub(super) fn totals(&self) -> KernelTotals {
        self.source.totals()
    }
}

struct Reader<'a> {
    roots: &'a mut Roots,
    storms: &'a mut Storms,
    layers: &'a mut LayerCache,
    actors: &'a mut ActorCache,
    calls: &'a mut Calls,
    clock: &'a Clock,
    now: Instant,
}

impl Reader<'_> {
    fn observed(
        &mut self,
        record: &Record,
        path: &[u8],
        old: &[u8],
        table: &StormTable,
    ) -> Option<Observation> {
        let hook = Hook::from_u16(record.hook)?;
        let (mut change, bases) = match NamedCall::decode(record, path, old) {
            Some(call) => {
                let made = self.calls.change(&call, record, self.roots, self.clock, self.now);
                if self.calls.take_moved() {
                    self.roots.mounts_have_moved();
                }
                let (change, base) = made?;
                self.roots.notice_removal(&change);
                (change, [Some(base), None])
            }
            None => self.change(record, hook, path, old)?,
        };
        if change.op == Op::Rename {
            self.roots.carry(&change, record.time);
        }
        let is_gone = record.flags & FLAG_NAME_GONE != 0 && !self.roots.has_name(&change.path, record.ino);
        let root = bases
            .into_iter()
            .flatten()
            .find_map(|base| self.roots.bases.get(base)?.claim(&mut change))
            .or_else(|| self.roots.claim_mounted(record, &mut change))?;
        let task = Task {
            pid: record.pid,
            tid: record.tid,
            comm: decode::comm(record),
            cgroup_id: record.cgroup,
            uid: record.uid,
            made_ns: record.time,
        };
        let info = self.actors.lookup(&task, self.now);
        change.actor = Some(hotr_events::Actor {
            pid: record.pid,
            tid: record.tid,
            uid: record.uid,
            comm: task.comm.to_vec(),
            exe: info.exe,
            cgroup: info.cgroup,
            origin: info.origin,
        });
        let is_announced = is_announcement(&change);
        if is_announced {
            // What it queues is `IN_MODIFY`.
            change.op = Op::Write;
        }
        let is_gone = is_gone || is_announced;
        let (writes, bytes) = self.storms.record(record, &change, is_gone)?;
        if change.op == Op::Write {
            (change.written.writes, change.written.bytes) = (writes, bytes);
        }
        let mut before = Vec::new();
        if matches!(change.op, Op::Rename | Op::Remove) {
            self.storms.renamed(
                &change,
                record.time,
                |id| table.read(id),
                |id| table.end(id),
                |more| before.push(more),
            );
        }
        Some(Observation {
            record: *record,
            hook,
            change: Box::new(change),
            root,
            count: writes,
            before,
            is_gone,
        })
    }

    /// The change of a record that names the file, and the bases it, or its former name, was found below.
    fn change(
        &mut self,
        record: &Record,
        hook: Hook,
        path: &[u8],
        old: &[u8],
    ) -> Option<(Change, [Option<usize>; 2])> {
        let roots = &*self.roots;
        // A rename has a root on either side; a slot that is not known any more was of a root that has gone.
        let inside = |slot| roots.place(slot).filter(|place| !place.is_outside);
        let place = inside(record.root).or_else(|| inside(record.old_root))?;
        // What was taken of a name before the change is reported as an old one.
        let (slot, path) = match hook {
            Hook::SubvolumeMade | Hook::SubvolumeGone => (record.old_root, old),
            _ => (record.root, path),
        };
        let full = self.full_path(record, slot, path)?;
        let mut change = decode::change(record, hook, self.clock.real(record.time), full);
        if change.op == Op::Rename {
            change.old_path = self.full_path(record, record.old_root, old);
            if record.root == NO_ROOT {
                change.detail.push("moved-out".into());
            } else if record.old_root == NO_ROOT {
                change.detail.push("moved-in".into());
            }
        }
        let (layer, mount_id) = (place.layer, place.mount_id);
        change.layer = layer.or_else(|| self.layer(record, mount_id));
        if change.op == Op::Write {
            (change.written.writes, change.written.bytes) = (1, record.bytes);
        }
        let of = |slot: u16| self.roots.place(slot).map(|place| place.base);
        Some((change, [of(record.root), of(record.old_root)]))
    }

    /// The path to report: below a root, or from the root of its filesystem where we see that mounted.
    fn full_path(&self, record: &Record, slot: u16, names: &[u8]) -> Option<PathBuf> {
        if let Some(place) = self.roots.place(slot).filter(|place| !place.is_outside) {
            return Some(decode::join(&place.visible, names));
        }
        let from_root = decode::join("/".as_ref(), names);
        let dev = crate::mounts::DevId::from_kernel(record.dev);
        self.roots.table.other_mounts_of(dev).find_map(|mount| mount.visible_path(&from_root))
    }

    fn layer(&mut self, record: &Record, mount_id: u64) -> Option<hotr_events::Layer> {
        if record.mnt_id == 0 {
            return None;
        }
        let through = u64::from(record.mnt_id);
        self.layers.layer(through, mount_id, record.pid, &self.roots.table, self.now)
    }
}

/// Whether a hook is a program at a function, which sees what the function is called with.
fn has_function(source: &EbpfSource, hook: Hook) -> bool {
    let at_function = |tier| matches!(tier, Some(Tier::Fentry | Tier::Kprobe));
    source.plan().iter().any(|planned| planned.hook == hook && at_function(planned.tier))
}
