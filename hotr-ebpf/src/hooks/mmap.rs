//! Shared mappings: the fault that makes a page writable. Only the first store to a page before it is written
//! back is seen, and just before it is made.

use core::marker::PhantomData;

use hotr_common::offsets::ABSENT;
use hotr_common::record::FLAG_BACKING;

use crate::call::Call;
use crate::change::{self, Target};
use crate::filter;
use crate::globals::{live, off};
use crate::hooks::entry_hook;
use crate::kernel::{Mem, Probe};

entry_hook!(Mmap, fault => fentry_mmap, kprobe_mmap);

/// `FMODE_BACKING` is one of these bits, by kernel; the other one means something else there.
const FMODE_BACKING: u32 = 1 << 24 | 1 << 25;

/// `fault_dirty_shared_page(vmf)`. A mapping of an overlay file maps the file of the layer; the overlay's dentry
/// is then in the file's path (older kernels) or in `backing_file.user_path`.
#[inline(always)]
fn fault<M: Mem>(_: PhantomData<M>, call: &Call) {
    let file = M::ptr(M::ptr(call.subject, off!(vm_fault_vma)), off!(vma_vm_file));
    if let Some(dentry) = user_dentry(file, M::u32(file, off!(file_f_mode))) {
        let mut target = Target::dentry::<Probe>(dentry);
        target.flags = FLAG_BACKING;
        change::file::<Probe>(call, &target, 0, 0, 0);
        return;
    }
    let dentry = M::ptr(file, off!(file_dentry));
    let mut target = Target::dentry::<M>(dentry);
    target.file = file;
    change::file::<M>(call, &target, 0, 0, 0);
}

/// The overlay's dentry of a layer's file; taken only when it is one of a watched filesystem, because the mode bits
/// alone do not prove that there is a `backing_file` around the file.
#[inline(always)]
fn user_dentry(file: *const u8, mode: u32) -> Option<*const u8> {
    if off!(backing_file_user_dentry) == ABSENT || live!(layers) == 0 || mode & FMODE_BACKING == 0 {
        return None;
    }
    let dentry = Probe::ptr(file, off!(backing_file_user_dentry));
    filter::is_watched(Probe::ptr(dentry, off!(dentry_d_sb))).then_some(dentry)
}
