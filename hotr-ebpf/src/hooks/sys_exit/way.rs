//! The two ways to attach a program to a tracepoint, and what it receives there.
//!
//! [`Raw`] has typed arguments. Where tracepoints may be preempted (7.x), the kernel skips such a program for every
//! other task of the CPU until a preempted one continues (kernel/trace/bpf_trace.c `__bpf_trace_run`). [`Perf`] is
//! called by perf's handler, which forbids preemption for as long as it runs (include/trace/perf.h
//! `perf_trace_##call`); it receives numbers only.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use hotr_common::rules::CLASSES;

use crate::call::{PERF_TRACEPOINT, TRACEPOINT};
use crate::globals::{live, off};
use crate::kernel::{Direct, Mem, Probe, task};

/// The program for each [`hotr_common::rules::Class`] of system calls.
#[map(name = "CLASS_PROGRAMS")]
pub static CLASS_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(CLASSES, 0);

/// The same for programs on tracepoints through perf: a map holds programs of one kind.
#[map(name = "PERF_CLASSES")]
pub static PERF_CLASSES: ProgramArray = ProgramArray::with_max_entries(CLASSES, 0);

/// What a [`Perf`] program returns: perf processes the event further. With 0 it would withhold it from others, such as
/// `perf trace`.
pub const PASS: u32 = 1;

/// Where a perf record of `sys_exit` has the number and the result; checked by userspace (`kernel/perf.rs`).
const ID: usize = 8;
const RET: usize = 16;

/// How a program learns that a system call ends.
pub trait Way: Copy {
    /// Of its records.
    const TIER: u16;
    /// The result.
    fn ret(self) -> i64;
    /// The number of the call.
    fn sysno(self) -> u32;
    /// Whether the caller's registers can be found.
    fn is_ready(self) -> bool;
    /// The caller's registers, as a plain number: the verifier does not know which of them is read.
    fn registers(self) -> *const u8;
    /// The call's first argument.
    fn first_argument(self) -> u64;
    /// Ends this program and runs the one of a class: apart, each is small enough for every kernel's verifier. Comes
    /// back only when there is none.
    fn continue_as(self, class: u8);
}

/// A BTF tracepoint: `sys_exit(regs, ret)`.
#[derive(Clone, Copy)]
pub struct Raw<'a>(&'a BtfTracePointContext);

impl<'a> Raw<'a> {
    #[inline(always)]
    pub fn of(context: &'a BtfTracePointContext) -> Self {
        Self(context)
    }
}

impl Way for Raw<'_> {
    const TIER: u16 = TRACEPOINT;

    #[inline(always)]
    fn ret(self) -> i64 {
        self.0.arg(1)
    }

    #[inline(always)]
    fn sysno(self) -> u32 {
        Direct::u64(self.0.arg(0), off!(regs_sysno)) as u32
    }

    #[inline(always)]
    fn is_ready(self) -> bool {
        true
    }

    #[inline(always)]
    fn registers(self) -> *const u8 {
        Probe::ptr(self.0.as_ptr() as *const u8, 0)
    }

    #[inline(always)]
    fn first_argument(self) -> u64 {
        Direct::u64(self.0.arg(0), off!(regs_arg[0]))
    }

    #[inline(always)]
    fn continue_as(self, class: u8) {
        // SAFETY: nothing of this program is in use any more.
        unsafe { CLASS_PROGRAMS.tail_call(self.0, u32::from(class)) };
    }
}

/// A perf event of `raw_syscalls:sys_exit`.
#[derive(Clone, Copy)]
pub struct Perf<'a>(&'a TracePointContext);

impl<'a> Perf<'a> {
    #[inline(always)]
    pub fn of(context: &'a TracePointContext) -> Self {
        Self(context)
    }

    /// A word of the record.
    #[inline(always)]
    fn word(self, offset: usize) -> u64 {
        // SAFETY: a load from the program's own context at an offset the verifier checks.
        unsafe { core::ptr::read_volatile(self.0.as_ptr().add(offset).cast()) }
    }
}

impl Way for Perf<'_> {
    const TIER: u16 = PERF_TRACEPOINT;

    #[inline(always)]
    fn ret(self) -> i64 {
        self.word(RET) as i64
    }

    #[inline(always)]
    fn sysno(self) -> u32 {
        self.word(ID) as u32
    }

    #[inline(always)]
    fn is_ready(self) -> bool {
        live!(regs_off) != 0
    }

    #[inline(always)]
    fn registers(self) -> *const u8 {
        task::registers()
    }

    #[inline(always)]
    fn first_argument(self) -> u64 {
        task::first_argument()
    }

    #[inline(always)]
    fn continue_as(self, class: u8) {
        // SAFETY: as above.
        unsafe { PERF_CLASSES.tail_call(self.0, u32::from(class)) };
    }
}
