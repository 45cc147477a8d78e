//! Copies the names of a path, leaf first, into a record.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use hotr_common::record::MAX_NAME;

use crate::kernel::{Layout, Near};

/// The path did not fit.
pub const OVERFLOW: u32 = u32::MAX;

/// Appends the NUL-terminated names from `dentry` up to (not including) the dentry of `root`, or to the root of
/// the filesystem when `root` is 0; at most `DEPTH` of them. Returns the new end, or [`OVERFLOW`].
///
/// The verifier goes through every level, and copies all it knows at each branch of one. So a level has one, and what went
/// wrong on the way is found out at the end: names are copied into the buffer wherever it is, and a name that cannot be
/// read is a very long one.
///
/// # Safety
/// `buffer` has `CAP + MAX_NAME` writable bytes, and `CAP` is a power of two.
#[inline(always)]
pub unsafe fn append<const CAP: usize, const DEPTH: u32>(
    buffer: *mut u8,
    start: u32,
    dentry: u64,
    root: u64,
) -> u32 {
    let mut dentry = dentry;
    let mut end = u64::from(start);
    let mut level = 0;
    let layout = Layout::of_kernel();
    // One more look than names: the last one finds the root.
    while level <= u64::from(DEPTH) {
        let near = Near::read(dentry, layout);
        // 0 when either is; two addresses' differences are never both such multiples of a power of 2 that it is otherwise,
        // and if they were, it would be found here.
        if is_zero((near.inode ^ root).wrapping_mul(near.parent ^ dentry)) {
            let is_whole = near.inode == root || root == 0;
            return if is_whole && end <= CAP as u64 { end as u32 } else { OVERFLOW };
        }
        // SAFETY: `bounded` keeps the place below CAP, and at most MAX_NAME bytes are written there.
        let copied = unsafe {
            let at = buffer.add(bounded::<CAP>(end));
            bpf_probe_read_kernel_str(at.cast(), MAX_NAME as u32, near.name as *const _)
        };
        end += copied as u64 & 0x7fff_ffff;
        dentry = near.parent;
        level += 1;
    }
    OVERFLOW
}

/// Whether a word is 0: it and its negative have no sign. A comparison with 0 the compiler lays out as it likes; here it
/// jumps away when it is, so that the verifier comes to the end of a loop first, and finds what it then knows least of.
/// Otherwise kernels without precision tracking (5.10) would go on from every level to the end of the program.
#[inline(always)]
fn is_zero(word: u64) -> bool {
    let mut minus = word;
    // SAFETY: one instruction without side effects. Hidden from the compiler, which would make a comparison of it.
    unsafe { core::arch::asm!("{0} = -{0}", inout(reg) minus, options(pure, nomem, nostack)) };
    (word | minus) as i64 >= 0
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
    let at = bounded::<CAP>(u64::from(end));
    // SAFETY: `at < CAP`, and at most MAX_NAME bytes are written there.
    let copied = unsafe { bpf_probe_read_kernel_str(buffer.add(at).cast(), MAX_NAME as u32, source.cast()) };
    if copied <= 0 {
        return OVERFLOW;
    }
    end + (copied as u32 & 0x1ff)
}

/// `value & (CAP - 1)`, in a form the compiler cannot drop although it knows better: the verifier needs it.
#[inline(always)]
pub fn bounded<const CAP: usize>(value: u64) -> usize {
    let mut bounded = value;
    // SAFETY: one masking instruction without side effects.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) bounded, const CAP - 1, options(pure, nomem, nostack));
    }
    bounded as usize
}
