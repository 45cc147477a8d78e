//! Renames: the old name is taken at the entry of `vfs_rename`, because at its exit the dentry has the new one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use core::marker::PhantomData;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use hotr_common::record::{FLAG_OLD_OUTSIDE, MAX_NAME, NO_ROOT};

use crate::call::Call;
use crate::counters::{Count, count};
use crate::emit;
use crate::event::Event;
use crate::filter::{self, DirectoryPosition};
use crate::globals::off;
use crate::hooks::{entry_hook, exit_hook};
use crate::kernel::{Mem, Probe, S_IFDIR, S_IFMT, task};
use crate::messages::note;

/// Names about to be changed, by the address of the `renamedata`.
#[map(name = "OLD_NAMES")]
pub static OLD_NAMES: HashMap<u64, OldName> = HashMap::with_max_entries(512, 0);

entry_hook!(Rename, remember => fentry_rename, kprobe_rename_old);
exit_hook!(Rename, Other, rename => fexit_rename, kprobe_rename, kretprobe_rename);

/// A name before a rename.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OldName {
    /// Dentry of the directory it was in.
    pub parent: u64,
    /// Inode number of the file that the rename replaces or exchanges, 0 when none.
    pub victim: u64,
    /// [`filter::lost_root`] of what is renamed in the low 16 bits, of the other one above them.
    pub itself: u64,
    /// The name, NUL-terminated.
    pub name: [u8; MAX_NAME],
}

/// Room to build an [`OldName`]: it is too large for the stack.
#[aya_ebpf::macros::map(name = "OLD_NAME_INIT")]
static OLD_NAME_INIT: aya_ebpf::maps::Array<OldName> = aya_ebpf::maps::Array::with_max_entries(1, 0);

/// Entry of `vfs_rename(rd)`.
#[inline(always)]
fn remember<M: Mem>(_: PhantomData<M>, call: &Call) {
    let dentry = M::ptr(call.subject, off!(renamedata_old_dentry));
    if !filter::is_watched(M::ptr(dentry, off!(dentry_d_sb))) {
        return;
    }
    let target = Probe::ptr(call.subject, off!(renamedata_new_dentry));
    let victim = Probe::ptr(target, off!(dentry_d_inode));
    let inode = Probe::ptr(dentry, off!(dentry_d_inode));
    let key = call.subject as u64;
    // Two names of one file, or one and the same: the function returns 0 and leaves both (fs/namei.c `vfs_rename`).
    if inode as u64 == victim as u64 || call.has_no_end() {
        // The place on the stack may have been another call's, whose end was not seen.
        let _ = OLD_NAMES.remove(&key);
        return;
    }
    let Some(empty) = OLD_NAME_INIT.get(0) else { return };
    if OLD_NAMES.insert(&key, empty, 0).is_err() {
        return;
    }
    let Some(old) = OLD_NAMES.get_ptr_mut(&key) else { return };
    let name = Probe::ptr(dentry, off!(dentry_d_name_name));
    // SAFETY: the entry is this call's own until its exit, and the name is bounded by the array.
    unsafe {
        (*old).parent = Probe::u64(dentry, off!(dentry_d_parent));
        (*old).victim = if victim.is_null() { 0 } else { Probe::u64(victim, off!(inode_i_ino)) };
        (*old).itself = filter::lost_root(inode) | filter::lost_root(victim) << 16;
        bpf_probe_read_kernel_str((&raw mut (*old).name).cast(), MAX_NAME as u32, name.cast());
    }
    if Probe::u16(inode, off!(inode_i_mode)) & S_IFMT == S_IFDIR {
        // Before and after: a verdict found in between may be of either place.
        filter::bump_epoch();
    }
}

/// Exit of `vfs_rename(rd)`: the dentry has its new parent and name.
#[inline(always)]
fn rename<M: Mem>(_: PhantomData<M>, call: &Call) {
    let key = call.subject as u64;
    let Some(old) = OLD_NAMES.get_ptr(&key) else { return };
    if call.status() == 0 {
        moved(call, old);
    }
    let _ = OLD_NAMES.remove(&key);
}

#[inline(always)]
fn moved(call: &Call, old: *const OldName) {
    let dentry = Probe::ptr(call.subject, off!(renamedata_old_dentry));
    let inode = Probe::ptr(dentry, off!(dentry_d_inode));
    let superblock = Probe::ptr(dentry, off!(dentry_d_sb));
    if !filter::is_watched(superblock) {
        return;
    }
    count(Count::Seen);
    let flags = Probe::u32(call.subject, off!(renamedata_flags));
    if Probe::u16(inode, off!(inode_i_mode)) & S_IFMT == S_IFDIR || flags != 0 {
        filter::bump_epoch();
    }
    // SAFETY: the entry lives until this program removes it.
    let old_parent = unsafe { (*old).parent } as *const u8;
    let new = filter::directory::<Probe>(Probe::ptr(dentry, off!(dentry_d_parent)), superblock);
    let from = filter::directory::<Probe>(old_parent, superblock);
    let inside = if new.is_inside() { new } else { from };
    // SAFETY: as above.
    let itself = unsafe { (*old).itself };
    let mut event = Event::new(call.hook as u16, call.tier, dentry as u64, inode);
    event.aux = [u64::from(flags), itself];
    // SAFETY: as above; only the address is taken.
    event.old_name = unsafe { (&raw const (*old).name).cast() };
    if !inside.is_inside() || filter::is_inner(inside.root(), dentry, inode) || task::is_own() {
        if itself == 0 {
            note!(when inside.is_inside() => inner, call.hook, inode);
            note!(when !inside.is_inside() => outside, call.hook, inode);
            count(Count::Filtered);
            return;
        }
        // No path is reported.
        event.dentry = core::ptr::null();
    } else {
        // SAFETY: as above.
        event.victim = unsafe { (*old).victim };
        event.old_parent = old_parent;
        event.root = known(new);
        event.old_root = known(from);
        if event.old_root == NO_ROOT {
            event.flags |= FLAG_OLD_OUTSIDE;
        }
        // Outside paths are as long as they are: take the large class for them.
        event.len = if event.root == NO_ROOT || event.old_root == NO_ROOT {
            u16::MAX
        } else {
            new.len().saturating_add(from.len()).saturating_add(2 * MAX_NAME as u16 / 2)
        };
        event.depth = if new.depth() > from.depth() { new.depth() } else { from.depth() };
    }
    emit::emit_rename(&event);
}

#[inline(always)]
fn known(directory: DirectoryPosition) -> u16 {
    if directory.is_inside() { directory.root() } else { NO_ROOT }
}
