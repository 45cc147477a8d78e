//! What userspace sets: the offsets of this kernel, and the settings of the run.

use hotr_common::config::Live;
use hotr_common::hook::HOOKS;
use hotr_common::offsets::{Arguments, Offsets};

/// Offsets of this kernel, set by the loader and frozen.
#[unsafe(no_mangle)]
pub static OFF: Offsets = Offsets {
    arguments: [Arguments::NONE; HOOKS],
    // SAFETY: every other field of `Offsets` is an integer or an array of integers, for which zero is a value.
    ..unsafe { core::mem::zeroed() }
};

/// Settings userspace changes at run time; lives alone in `.bss`. While programs are attached, `update_roots` writes them.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss")]
pub static mut LIVE: Live = Live::ZERO;

/// Reads a field of [`OFF`] or [`LIVE`]; volatile, or rustc folds the initial zeros in. Only for the macros below.
#[inline(always)]
pub fn read<T: Copy>(field: *const T) -> T {
    // SAFETY: the macros pass the address of a field of a static; userspace writes whole words.
    unsafe { core::ptr::read_volatile(field) }
}

/// Reads one offset. The map is frozen, so the verifier knows the value.
macro_rules! off {
    ($($field:tt)+) => { $crate::globals::read(&raw const $crate::globals::OFF.$($field)+) };
}
pub(crate) use off;

/// Reads one live setting.
macro_rules! live {
    // SAFETY: only the address is taken.
    ($($field:tt)+) => { $crate::globals::read(unsafe { &raw const $crate::globals::LIVE.$($field)+ }) };
}
pub(crate) use live;

/// The same number, opaque to the verifier. The verifier checks a place once for each path that reaches it with
/// different constants; this makes all of them one path.
#[inline(always)]
pub fn verifier_opaque(value: u64) -> u64 {
    value.wrapping_add(live!(zero))
}

/// Atomic add without a result: the one atomic instruction that every kernel's verifier knows.
#[inline(always)]
pub fn add(cell: *mut u64, value: u64) {
    // SAFETY: callers pass aligned pointers into map values; the prebuilt `core` has no atomics for this target.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) cell, in(reg) value, options(nostack));
    }
}
