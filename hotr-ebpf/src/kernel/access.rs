//! Two ways to read kernel memory, one source for both.
//!
//! `Direct` dereferences pointers that the verifier knows the type of (fentry, fexit, BTF tracepoint arguments
//! and what is reached from them): one load, and a fault reads 0. `Probe` uses `bpf_probe_read_kernel` for
//! everything else (kprobes, untyped addresses) and reads 0 on a fault as well.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Reads of kernel memory at `base + offset`. A NULL or bad address reads as 0.
///
/// Callers may pass any address: neither implementation can fault the kernel. For [`Direct`] the verifier
/// refuses a program whose pointer has no known type.
pub trait Mem {
    /// A pointer member.
    fn ptr(base: *const u8, offset: u32) -> *const u8;
    /// A 64-bit member.
    fn u64(base: *const u8, offset: u32) -> u64;
    /// A 32-bit member.
    fn u32(base: *const u8, offset: u32) -> u32;
    /// A 16-bit member.
    fn u16(base: *const u8, offset: u32) -> u16;
    /// A byte.
    fn u8(base: *const u8, offset: u32) -> u8;
    /// A pointer as a number, see [`number`].
    fn number(pointer: *const u8) -> u64;
}

/// Loads through pointers of known type.
pub struct Direct;

impl Mem for Direct {
    #[inline(always)]
    fn ptr(base: *const u8, offset: u32) -> *const u8 {
        // SAFETY: the verifier turns loads through BTF pointers into ones that read 0 on a fault.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn u64(base: *const u8, offset: u32) -> u64 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn u32(base: *const u8, offset: u32) -> u32 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn u16(base: *const u8, offset: u32) -> u16 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn u8(base: *const u8, offset: u32) -> u8 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(base.add(offset as usize)) }
    }

    #[inline(always)]
    fn number(pointer: *const u8) -> u64 {
        number(pointer)
    }
}

/// Reads by helper call.
pub struct Probe;

#[inline(always)]
fn probe<T: Default>(base: *const u8, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the destination is a local of the given size; the helper checks the source and leaves zeros
    // behind when it is not readable.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            base.wrapping_add(offset as usize).cast(),
        );
    }
    value
}

impl Mem for Probe {
    #[inline(always)]
    fn ptr(base: *const u8, offset: u32) -> *const u8 {
        probe::<u64>(base, offset) as *const u8
    }

    #[inline(always)]
    fn u64(base: *const u8, offset: u32) -> u64 {
        probe(base, offset)
    }

    #[inline(always)]
    fn u32(base: *const u8, offset: u32) -> u32 {
        probe(base, offset)
    }

    #[inline(always)]
    fn u16(base: *const u8, offset: u32) -> u16 {
        probe(base, offset)
    }

    #[inline(always)]
    fn u8(base: *const u8, offset: u32) -> u8 {
        probe(base, offset)
    }

    #[inline(always)]
    fn number(pointer: *const u8) -> u64 {
        pointer as u64
    }
}

/// A pointer as a number. The verifier does not take a pointer of known type where a global function has a number;
/// this copies it through an instruction that it does not follow.
#[inline(always)]
pub fn number(pointer: *const u8) -> u64 {
    let mut copy: u64 = 0;
    let source = pointer as u64;
    // SAFETY: both are locals of this size.
    unsafe {
        bpf_probe_read_kernel((&raw mut copy).cast(), size_of::<u64>() as u32, (&raw const source).cast());
    }
    copy
}
