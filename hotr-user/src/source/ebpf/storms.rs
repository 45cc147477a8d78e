//! hotr's side of the table of storms: reads totals, and frees the slots of files that have become quiet.
//!
//! The table is memory that the kernel programs share (`hotr-ebpf/src/storm.rs`). A `bpf(BPF_MAP_LOOKUP_ELEM)` would
//! make the kernel skip kprobe programs on this CPU meanwhile (kernel/bpf/syscall.c `bpf_disable_instrumentation`).

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use hotr_common::config::{STORM_CLOSED, STORM_FREE, Storm};
use hotr_common::record::Record;

use super::StormPod;
use super::shared::Shared;

/// A storm: its slot, and when it was born there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StormId {
    /// Index into the table.
    pub slot: u32,
    /// `CLOCK_MONOTONIC` nanoseconds. A later storm of the slot is born later.
    pub born: u64,
}

impl StormId {
    /// The storm that counted a record's change.
    #[must_use]
    pub const fn of(record: &Record) -> Option<Self> {
        if record.writes == 0 { None } else { Some(Self { slot: record.storm, born: record.born }) }
    }
}

/// What became of an attempt to end a storm.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// Its last totals: nothing is added to them any more.
    Last(Storm),
    /// A program is counting there: to be tried again.
    Busy,
    /// It ended before.
    Before,
}

/// The mapped table.
pub struct StormTable(Shared<StormPod>);

impl StormTable {
    pub(super) fn new(slots: Shared<StormPod>) -> Self {
        Self(slots)
    }

    /// Totals of a storm; `None` when it has ended.
    #[must_use]
    pub fn read(&self, id: StormId) -> Option<Storm> {
        let storm = self.0.get(id.slot)?.0;
        (storm.inode != STORM_FREE && storm.born == id.born).then_some(storm)
    }

    /// Closes a storm's slot, and frees it when no program is counting there.
    ///
    /// A program makes itself busy and then looks whether the slot is open; here it is closed first. So a program that
    /// is not seen here sees the slot closed, and what is read afterwards are the last totals.
    #[must_use]
    pub fn end(&self, id: StormId) -> Ended {
        let words =
            (self.0.word(id.slot, offset_of!(Storm, inode)), self.0.word(id.slot, offset_of!(Storm, busy)));
        let (Some(inode), Some(busy), Some(_)) = (words.0, words.1, self.read(id)) else {
            return Ended::Before;
        };
        inode.store(STORM_CLOSED, Ordering::SeqCst);
        if busy.load(Ordering::SeqCst) != 0 {
            return Ended::Busy;
        }
        let last = self.read(id);
        inode.store(STORM_FREE, Ordering::SeqCst);
        last.map_or(Ended::Before, Ended::Last)
    }
}
