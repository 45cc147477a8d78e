//! What the kernel programs have counted, all CPUs together.

use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, MapData};
use hotr_common::counters::{Counters, FREQUENT_CELLS, Frequent};

use super::shared::Shared;
use hotr_events::KernelTotals;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct CountersPod(Counters);
// SAFETY: `Counters` is `repr(C)`, made of integers, without padding.
unsafe impl Pod for CountersPod {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct FrequentPod([Frequent; FREQUENT_CELLS]);
// SAFETY: as above.
unsafe impl Pod for FrequentPod {}

/// How often counters that do not add up are read again, and when.
const READ_AGAIN: usize = 100;
const SOON: Duration = Duration::from_micros(100);

/// The counters' maps.
pub(super) struct Counts {
    usual: Shared<CountersPod>,
    frequent: Array<MapData, FrequentPod>,
}

impl Counts {
    pub(super) fn new(usual: Shared<CountersPod>, frequent: Array<MapData, FrequentPod>) -> Self {
        Self { usual, frequent }
    }

    /// Those that report losses, without [`Frequent`]. Takes no system call.
    pub(super) fn usual(&self) -> KernelTotals {
        let mut sum = KernelTotals::default();
        for CountersPod(cpu) in self.usual.values() {
            sum.seen += cpu.seen;
            sum.submitted += cpu.submitted;
            sum.filtered += cpu.filtered;
            sum.ring_full += cpu.ring_full;
            sum.oversize += cpu.oversize;
        }
        sum
    }

    /// All, for the end of a run. A program that runs at this moment has counted the call, and not yet what came of it: it
    /// is given the time to. On a machine that never rests they are taken as they are.
    pub(super) fn all(&self) -> KernelTotals {
        let mut sum = self.once();
        for _ in 0..READ_AGAIN {
            if sum.add_up() {
                break;
            }
            std::thread::sleep(SOON);
            sum = self.once();
        }
        sum
    }

    /// By bpf(2), which keeps kprobes of this CPU from being handled meanwhile (kernel/bpf/syscall.c
    /// `bpf_disable_instrumentation`).
    fn once(&self) -> KernelTotals {
        let mut sum = self.usual();
        // A map of one value, which is there as long as the programs.
        let cells = self.frequent.get(&0, 0).map(|FrequentPod(cells)| cells);
        for cell in cells.iter().flatten() {
            sum.seen += cell.outside + cell.coalesced;
            sum.coalesced += cell.coalesced;
            sum.filtered += cell.outside;
        }
        sum
    }
}
