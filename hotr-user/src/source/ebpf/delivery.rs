//! What the inotify instances of other processes are offered, and take: the programs of a diagnosis, in an object of
//! their own, so that a trace beside it is as it always is.
//!
//! In: descriptors of instances. Out: [`Offer`]s.

use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{Array, HashMap, MapData};
use hotr_common::config::Registered;
use hotr_common::delivery::{
    Chunk, FIRST_GROUPS, FirstGroups, MAX_GROUPS, NOTES, OFFERED, Offer, UNSEEN, Usage, Used, calls,
};
use hotr_common::offsets::ABSENT;

use super::{EbpfOptions, EbpfSource, RECORDS, Skipped, take};
use crate::kernel::load::{self, LoadError, Tier};
use crate::kernel::tracepoints::{self, Manner};
use crate::kernel::types::KernelTypes;
use crate::options::TierChoice;

/// Room for some 12,000 records.
const RING_BYTES: u32 = 4 << 20;
/// Instances; threads that make changes; processes; files that they use.
const SIZES: &[(&str, u32)] =
    &[("FOLLOWED", MAX_GROUPS), ("NOTES", NOTES), ("USERS", MAX_USERS), ("USAGES", USED_FILES)];
/// Name of the section with the first instances, as aya names its map.
const FIRST_MAP: &str = ".bss.followed";
/// Processes that can be followed at a time.
const MAX_USERS: u32 = 1024;
/// Files whose last use is known.
const USED_FILES: u32 = 1 << 14;

/// The running programs.
pub struct DeliverySource {
    source: EbpfSource,
    groups: Groups,
    tier: Tier,
    /// What the followed processes use; or why that cannot be seen.
    usage: Result<Usages, String>,
}

/// The instances that the programs follow.
pub(super) struct Groups {
    first: Array<MapData, FirstPod>,
    others: HashMap<MapData, u64, u32>,
}

impl Groups {
    /// Follows one, or (without a slot) follows it no longer: where no program can do it (`hotr_ebpf::hooks::delivery::follow`).
    pub(super) fn set(&mut self, group: u64, slot: Option<u32>) -> Result<(), LoadError> {
        let failed = |_| LoadError::Map(FIRST_MAP);
        let FirstPod(mut first) = self.first.get(&0, 0).map_err(failed)?;
        let n = usize::try_from(first.used).unwrap_or(FIRST_GROUPS);
        match slot {
            Some(slot) if n < FIRST_GROUPS => {
                // Whoever finds the group must find its slot.
                first.slots[n] = slot;
                self.first.set(0, FirstPod(first), 0).map_err(failed)?;
                (first.groups[n], first.used) = (group, first.used + 1);
            }
            Some(slot) => {
                self.others.insert(group, slot, 0).map_err(|_| LoadError::Map("FOLLOWED"))?;
                first.has_more = 1;
            }
            None => match first.groups.iter_mut().find(|word| **word == group) {
                Some(word) => *word = 0,
                None => {
                    let _ = self.others.remove(&group);
                    return Ok(());
                }
            },
        }
        self.first.set(0, FirstPod(first), 0).map_err(failed)
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct FirstPod(FirstGroups);
// SAFETY: `repr(C)` of integers without padding.
unsafe impl aya::Pod for FirstPod {}

struct Usages {
    users: HashMap<MapData, u32, u32>,
    files: HashMap<MapData, UsedPod, UsagePod>,
    /// Files that were used.
    count: Array<MapData, u64>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct UsedPod(Used);
// SAFETY: `repr(C)` of integers without padding.
unsafe impl aya::Pod for UsedPod {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct UsagePod(Usage);
// SAFETY: `repr(C)` of integers without padding.
unsafe impl aya::Pod for UsagePod {}

/// A record of the kernel programs.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "looked at where it is made, and never kept")]
pub enum Seen<'a> {
    /// An event was offered, with its name; or it was taken or refused, a watch was set, an instance closed.
    Offer(Offer, &'a [u8]),
    /// Where only system calls are seen: a part of what was read from an instance.
    Chunk(Chunk),
}

/// What is looked at where only system calls are seen.
const CALLS: &[(i64, u32)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, calls::OPENS),
    (libc::SYS_openat, calls::OPENS),
    (libc::SYS_openat2, calls::OPENS),
    (libc::SYS_open_by_handle_at, calls::OPENS),
    (libc::SYS_read, calls::READS),
    (libc::SYS_readv, calls::USES),
    (libc::SYS_pread64, calls::USES),
    (libc::SYS_preadv, calls::USES),
    (libc::SYS_preadv2, calls::USES),
    (libc::SYS_copy_file_range, calls::USES),
    (libc::SYS_splice, calls::USES),
    (libc::SYS_sendfile, calls::SENDS),
    (libc::SYS_inotify_add_watch, calls::WATCHES),
];

/// Sees the calls of followed processes. The programs hold the map from when they are loaded.
fn follow_calls(
    source: &mut EbpfSource,
    kernel: &KernelTypes,
    manner: Manner,
) -> Result<load::Attached, String> {
    let EbpfSource { registry, ebpf, .. } = source;
    // Where the registers are, among others.
    registry.publish(ebpf).map_err(|error| error.to_string())?;
    let events = tracepoints::attach_follow(ebpf, kernel, manner)?;
    let mut map: Array<MapData, u32> = take(ebpf, CALLS_MAP).map_err(|error| error.to_string())?;
    for &(number, what) in CALLS {
        let number = u32::try_from(number).map_err(|error| error.to_string())?;
        map.set(number, what, 0).map_err(|error| error.to_string())?;
    }
    let mut attached = load::Attached::default();
    attached.events.extend(events);
    Ok(attached)
}

/// Name of the map with [`CALLS`].
const CALLS_MAP: &str = "FOLLOWED_CALLS";

fn join(one: &str, other: &str) -> String {
    if one.is_empty() { other.to_owned() } else { format!("{one}; tracepoint: {other}") }
}

impl DeliverySource {
    /// Attaches the programs; nothing is followed yet.
    ///
    /// # Errors
    /// A sentence: why this kernel does not tell what other instances are offered.
    pub fn start(choice: TierChoice) -> Result<Self, String> {
        let options = EbpfOptions { tier: choice, ring_bytes: RING_BYTES, window_ns: 0, sizes: SIZES };
        let (mut source, kernel) = EbpfSource::load(options).map_err(|error| error.to_string())?;
        let offsets = &kernel.offsets;
        let needed = [
            offsets.inotify_event,
            offsets.group_q_len,
            offsets.group_max_events,
            offsets.group_shutdown,
            offsets.group_unread,
        ];
        if needed.contains(&ABSENT) {
            return Err("its BTF does not have the fields of an inotify event".to_owned());
        }
        // A program on a function may be preempted where tasks of the kernel may be, and is then skipped for others;
        // probes are not.
        let manner = source.manner();
        let auto = if crate::sched::kernel_preempts() || manner.preemptible {
            [Tier::Kprobe, Tier::Fentry]
        } else {
            [Tier::Fentry, Tier::Kprobe]
        };
        let tiers: &[Tier] = match choice {
            TierChoice::Auto => &auto,
            TierChoice::Fentry => &[Tier::Fentry],
            TierChoice::Kprobe => &[Tier::Kprobe],
            TierChoice::Tracepoint => &[],
        };
        source.registry.programs_come();
        let refused = std::mem::take(&mut source.refused);
        let by_functions = load::attach_delivery(&mut source.ebpf, &kernel, tiers, refused);
        let (attached, tier, usage) = match by_functions {
            Err(why) if matches!(choice, TierChoice::Auto | TierChoice::Tracepoint) => {
                let attached =
                    follow_calls(&mut source, &kernel, manner).map_err(|error| join(&why, &error))?;
                (attached, Tier::Tracepoint, Ok(()))
            }
            other => other?,
        };
        source.attached = attached;
        source.skipped = Skipped::of(&source.ebpf);
        let failed = |error: LoadError| error.to_string();
        source.ring = Some(take(&mut source.ebpf, RECORDS).map_err(failed)?);
        let groups = Groups {
            first: take(&mut source.ebpf, FIRST_MAP).map_err(failed)?,
            others: take(&mut source.ebpf, "FOLLOWED").map_err(failed)?,
        };
        let usage = match usage {
            Ok(()) => Ok(Usages {
                users: take(&mut source.ebpf, "USERS").map_err(failed)?,
                files: take(&mut source.ebpf, "USAGES").map_err(failed)?,
                count: take(&mut source.ebpf, "USED_FILES").map_err(failed)?,
            }),
            Err(error) => Err(error),
        };
        Ok(Self { source, groups, tier, usage })
    }

    /// Why it is not seen what files the processes use.
    pub fn blind(&self) -> Option<&str> {
        self.usage.as_ref().err().map(String::as_str)
    }

    /// From now on it is seen what files a process uses.
    pub fn observe(&mut self, process: u32) {
        if let Ok(usage) = &mut self.usage {
            // When there are too many, nothing is known of this one: a file of it is `None`.
            let _ = usage.users.insert(process, 1, 0);
        }
    }

    /// When a process used a file last; `None` when that is not known.
    pub fn usage(&self, used: Used) -> Option<Usage> {
        let usage = self.usage.as_ref().ok()?;
        usage.users.get(&used.process, 0).ok()?;
        // Once there were more than the map holds, some may be forgotten.
        if usage.count.get(&0, 0).ok()? > u64::from(USED_FILES / 2) {
            return None;
        }
        let found = usage.files.get(&UsedPod(used), 0).map_or_else(|_| Usage::default(), |found| found.0);
        (found.read != UNSEEN).then_some(found)
    }

    /// Kind of the programs.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether programs see what instances are offered; otherwise they see system calls.
    #[must_use]
    pub fn sees_offers(&self) -> bool {
        self.tier != Tier::Tracepoint
    }

    /// What a descriptor of this process leads to, with the marks on its inode.
    ///
    /// # Errors
    /// When the kernel program could not resolve it.
    pub fn look(&mut self, fd: BorrowedFd<'_>) -> Result<Registered, LoadError> {
        let found = self.source.register(&[fd])?;
        found.first().copied().ok_or(LoadError::Map("EXCHANGE"))
    }

    /// Address of the group of an instance, by a descriptor of this process.
    ///
    /// # Errors
    /// When the kernel program could not resolve it.
    pub fn group_of(&mut self, instance: BorrowedFd<'_>) -> Result<u64, LoadError> {
        Ok(self.look(instance)?.private_data)
    }

    /// Follows an instance: its records have this slot.
    ///
    /// # Errors
    /// When there are more than the programs can hold.
    pub fn follow(&mut self, group: u64, slot: u32) -> Result<(), LoadError> {
        let EbpfSource { registry, ebpf, .. } = &mut self.source;
        registry.follow(ebpf, &mut self.groups, group, Some(slot))
    }

    /// Follows it no longer.
    ///
    /// # Errors
    /// When the kernel refuses the change.
    pub fn leave(&mut self, group: u64) -> Result<(), LoadError> {
        let EbpfSource { registry, ebpf, .. } = &mut self.source;
        registry.follow(ebpf, &mut self.groups, group, None)
    }

    /// The next record.
    pub fn take_next(&mut self) -> Option<RawDelivery<'_>> {
        self.source.ring.as_mut()?.next().map(RawDelivery)
    }

    /// Records that are missing for certain or perhaps: the ring was full, or a program was skipped.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.source.counters().ring_full + self.source.skipped()
    }
}

/// A record in the ring buffer.
pub struct RawDelivery<'a>(RingBufItem<'a>);

impl RawDelivery<'_> {
    /// What it is. `None` for what is too short to be a record.
    #[must_use]
    pub fn seen(&self) -> Option<Seen<'_>> {
        if let Some(first) = self.0.first_chunk::<{ size_of::<Chunk>() }>() {
            // SAFETY: `Chunk` is plain integers, any bytes are a value of it; the read is unaligned.
            let chunk = unsafe { first.as_ptr().cast::<Chunk>().read_unaligned() };
            return Some(Seen::Chunk(chunk));
        }
        let (header, name) = self.0.split_first_chunk::<{ size_of::<Offer>() }>()?;
        // SAFETY: `Offer` is plain integers, any bytes are a value of it; the read is unaligned.
        let offer = unsafe { header.as_ptr().cast::<Offer>().read_unaligned() };
        // Only then there is one.
        let length = if offer.kind == OFFERED { offer.name_len as usize } else { 0 };
        Some(Seen::Offer(offer, name.get(..length).unwrap_or_default()))
    }
}

impl AsFd for DeliverySource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}
