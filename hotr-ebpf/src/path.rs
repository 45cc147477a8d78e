//! Copies the names of a path, leaf first, into a record.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use hotr_common::record::MAX_NAME;

use crate::kernel::{Layout, Near};

/// The path did not fit.
pub const OVERFLOW: u32 = u32::MAX;

/// Appends the NUL-terminated names from `dentry` up to (not including) the dentry of `root`, or to the root of
/// the filesystem when `root` is 0; at most `DEPTH` of them. Returns the new end, or [`OVERFLOW`].
///
/// # Safety
/// `buffer` has `CAP + MAX_NAME` writable bytes, and `CAP` is a power of two.
#[inline(always)]
pub unsafe fn append<const CAP: usize, const DEPTH: u32>(
    buffer: *mut u8,
    start: u32,
    dentry: *const u8,
    root: u64,
) -> u32 {
    let mut dentry = dentry as u64;
    let mut end = start;
    let mut level = 0;
    let layout = Layout::of_kernel();
    // One more look than names: the last one finds the root.
    while level <= DEPTH {
        let near = Near::read(dentry, layout);
        if near.inode == root {
            return end;
        }
        if near.parent == dentry {
            return if root == 0 { end } else { OVERFLOW };
        }
        // SAFETY: the caller's promise.
        end = unsafe { name::<CAP>(buffer, end, near.name as *const u8) };
        if end == OVERFLOW {
            return OVERFLOW;
        }
        dentry = near.parent;
        level += 1;
    }
    OVERFLOW
}

/// Appends one NUL-terminated name.
///
/// # Safety
/// As [`append`].
#[inline(always)]
pub unsafe fn name<const CAP: usize>(buffer: *mut u8, end: u32, source: *const u8) -> u32 {
    if end >= CAP as u32 {
        return OVERFLOW;
    }
    let at = bounded::<CAP>(end);
    // SAFETY: `at < CAP`, and at most MAX_NAME bytes are written there.
    let copied = unsafe { bpf_probe_read_kernel_str(buffer.add(at).cast(), MAX_NAME as u32, source.cast()) };
    if copied <= 0 {
        return OVERFLOW;
    }
    end + (copied as u32 & 0x1ff)
}

/// `value & (CAP - 1)`, in a form the compiler cannot drop although it knows better: the verifier needs it.
#[inline(always)]
pub fn bounded<const CAP: usize>(value: u32) -> usize {
    let mut bounded = u64::from(value);
    // SAFETY: one masking instruction without side effects.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) bounded, const CAP - 1, options(pure, nomem, nostack));
    }
    bounded as usize
}
