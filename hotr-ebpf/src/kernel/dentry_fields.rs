//! What a walk up the directories needs of a dentry, with one read where the fields are neighbours.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use super::{Mem, Probe};
use crate::globals::off;

/// `d_parent`, `d_name` and `d_inode` of a dentry, in the order in which every kernel so far has them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DentryFields {
    pub parent: u64,
    /// `d_name.hash_len`: the length is the upper half.
    hash_len: u64,
    pub name: u64,
    pub inode: u64,
}

/// Where these fields are, asked once a walk.
#[derive(Clone, Copy)]
pub struct Layout {
    are_neighbours: bool,
    parent: usize,
}

impl Layout {
    #[inline(always)]
    pub fn of_kernel() -> Self {
        Self { are_neighbours: off!(dentry_neighbours) != 0, parent: off!(dentry_d_parent) as usize }
    }
}

impl DentryFields {
    /// Reads them; an address that is not readable gives zeros.
    #[inline(always)]
    pub fn read(dentry: u64, layout: Layout) -> Self {
        let dentry = dentry as *const u8;
        if layout.are_neighbours {
            let mut near = MaybeUninit::<Self>::uninit();
            // SAFETY: the helper fills the whole destination, with zeros when the source is not readable.
            unsafe {
                bpf_probe_read_kernel(
                    near.as_mut_ptr().cast(),
                    size_of::<Self>() as u32,
                    dentry.wrapping_add(layout.parent).cast(),
                );
                return near.assume_init();
            }
        }
        Self {
            parent: Probe::u64(dentry, off!(dentry_d_parent)),
            hash_len: u64::from(Probe::u32(dentry, off!(dentry_d_name_len))) << 32,
            name: Probe::u64(dentry, off!(dentry_d_name_name)),
            inode: Probe::u64(dentry, off!(dentry_d_inode)),
        }
    }

    /// Length of the name in bytes.
    #[inline(always)]
    pub fn name_len(&self) -> u64 {
        (self.hash_len >> 32) & 0xff
    }
}
