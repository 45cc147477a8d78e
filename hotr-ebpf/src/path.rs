//! Copies the names of a path, leaf first, into a record.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use hotr_common::record::{MAX_DEPTH, MAX_NAME};

use crate::globals::read;
use crate::kernel::{DentryFields, Layout};

/// The path did not fit.
pub const OVERFLOW: u32 = u32::MAX;

/// Appends the NUL-terminated names from `dentry` up to (not including) the dentry of `root`, or to the root of
/// the filesystem when `root` is 0; at most `DEPTH` of them. Returns the new end, or [`OVERFLOW`].
///
/// The verifier checks every level, and copies all it knows at each branch of one. So a level has one branch, and what
/// failed on the way is found at the end: names are copied into the buffer wherever it is.
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
        let near = DentryFields::read(dentry, layout);
        if is_zero(end_of_walk(&near, dentry, root)) {
            let is_whole = near.inode == root || root == 0;
            return if is_whole && end <= CAP as u64 { end as u32 } else { OVERFLOW };
        }
        // SAFETY: the caller's promise.
        end += unsafe { copy::<CAP>(buffer, end, &near) };
        dentry = near.parent;
        level += 1;
    }
    OVERFLOW
}

/// A walk up the directories, between two calls of [`stride`]. In map memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Walk {
    dentry: u64,
    root: u64,
    /// Where the next name goes, then the end of all.
    end: u64,
}

/// Levels that [`stride`] goes up.
const STRIDE: u64 = 8;
/// Strides for [`MAX_DEPTH`] names and the look that finds the root.
const STRIDES: u64 = MAX_DEPTH as u64 / STRIDE + 1;

impl Walk {
    /// As [`append`] of up to [`MAX_DEPTH`] names, where the verifier goes through [`STRIDE`] levels only: `on` is a global
    /// function that calls [`stride`] with this walk.
    ///
    /// # Safety
    /// `walk` is map memory that nobody else uses.
    #[inline(always)]
    pub unsafe fn along(walk: *mut Self, start: u32, dentry: u64, root: u64, on: impl Fn() -> u64) -> u32 {
        // SAFETY: the caller's promise; volatile, for `on` reads and writes the same.
        unsafe {
            walk.write_volatile(Self { dentry, root, end: u64::from(start) });
            let mut strides = 0;
            while strides < STRIDES {
                if is_zero(on()) {
                    return read(&raw const (*walk).end) as u32;
                }
                strides += 1;
            }
        }
        OVERFLOW
    }
}

/// Appends the names of the next [`STRIDE`] levels; 0 when it has come to the end, where [`Walk::end`] may be [`OVERFLOW`].
///
/// # Safety
/// As [`append`], and `walk` is map memory that nobody else uses.
#[inline(always)]
pub unsafe fn stride<const CAP: usize>(walk: *mut Walk, buffer: *mut u8) -> u64 {
    // SAFETY: the caller's promise.
    let Walk { mut dentry, root, mut end } = read(walk);
    let mut level = 0;
    let layout = Layout::of_kernel();
    while level < STRIDE {
        let near = DentryFields::read(dentry, layout);
        if is_zero(end_of_walk(&near, dentry, root)) {
            let is_whole = near.inode == root || root == 0;
            let end = if is_whole && end <= CAP as u64 { end } else { u64::from(OVERFLOW) };
            // SAFETY: the caller's promise.
            unsafe { (&raw mut (*walk).end).write_volatile(end) };
            return 0;
        }
        // SAFETY: the caller's promise.
        end += unsafe { copy::<CAP>(buffer, end, &near) };
        dentry = near.parent;
        level += 1;
    }
    // SAFETY: the caller's promise.
    unsafe { walk.write_volatile(Walk { dentry, root, end }) };
    1
}

/// 0 at the dentry of the root, and at the uppermost one: then either difference is. Two addresses' differences are never
/// both such multiples of a power of 2 that it is otherwise, and if they were, it would be found where the walk ends.
#[inline(always)]
fn end_of_walk(near: &DentryFields, dentry: u64, root: u64) -> u64 {
    (near.inode ^ root).wrapping_mul(near.parent ^ dentry)
}

/// Copies a name; the bytes it took. One that cannot be read is a very long one.
///
/// # Safety
/// As [`append`].
#[inline(always)]
unsafe fn copy<const CAP: usize>(buffer: *mut u8, end: u64, near: &DentryFields) -> u64 {
    // SAFETY: `bounded` keeps the place below CAP, and at most MAX_NAME bytes are written there.
    let copied = unsafe {
        let at = buffer.add(bounded::<CAP>(end));
        bpf_probe_read_kernel_str(at.cast(), MAX_NAME as u32, near.name as *const _)
    };
    copied as u64 & 0x7fff_ffff
}

/// Whether a word is 0: it and its negative have no sign. A comparison with 0 the compiler lays out as it likes; here
/// it jumps away when it is, so that the verifier comes to the end of a loop first, and finds what it then knows least
/// of. Otherwise kernels without precision tracking (5.10) would continue from every level to the end of the program.
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
