//! btrfs subvolumes: an ioctl creates and destroys them, without calling the functions that create and remove names.
//! The name is taken where its dentry gets or loses the inode, and reported at the end of the call, when inotify has
//! been notified.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::{fentry, kprobe};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use hotr_common::hook::Hook;
use hotr_common::record::{MAX_NAME, TOO_DEEP};
use hotr_common::rules::subvolume_name;

use super::{Victim, entry_hook};
use crate::call::{Call, FENTRY, KPROBE};
use crate::counters::{Count, count};
use crate::emit;
use crate::event::Event;
use crate::filter;
use crate::globals::off;
use crate::kernel::{Mem, Probe, number, task};
use crate::kernel::{S_IFDIR, S_IFMT};
use crate::messages::note;

/// Subvolumes that the ioctl of a thread has made or destroyed, by its id.
#[map(name = "SUBVOLUMES")]
pub static SUBVOLUMES: HashMap<u32, Subvolume> = HashMap::with_max_entries(64, 0);

// Their other function, `d_instantiate_new`, has helpers.
entry_hook!(SubvolumeMade, made => fentry_subvolume_made, kprobe_subvolume_made);
entry_hook!(SubvolumeGone, gone => fentry_subvolume_gone, kprobe_subvolume_gone);

/// A subvolume between the moment its name appears or disappears, and the end of the call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Subvolume {
    /// [`Hook`] number.
    hook: u64,
    /// Of the ioctl.
    command: u64,
    /// Dentry of the directory it is in.
    parent: u64,
    /// The directory that it is.
    itself: Victim,
    /// The name, NUL-terminated.
    name: [u8; MAX_NAME],
}

/// Room to build one: it is too large for the stack.
#[aya_ebpf::macros::map(name = "SUBVOLUME_INIT")]
static SUBVOLUME_INIT: aya_ebpf::maps::Array<Subvolume> = aya_ebpf::maps::Array::with_max_entries(1, 0);

/// `d_instantiate(dentry, inode)`.
#[inline(always)]
fn made<M: Mem>(_: PhantomData<M>, call: &Call) {
    remember(Hook::SubvolumeMade, number(call.subject), number(call.second()));
}

/// `d_delete(dentry)`.
#[inline(always)]
fn gone<M: Mem>(_: PhantomData<M>, call: &Call) {
    let dentry = number(call.subject);
    remember(Hook::SubvolumeGone, dentry, Probe::u64(dentry as *const u8, off!(dentry_d_inode)));
}

/// `d_instantiate_new(dentry, inode)`.
#[fentry]
pub fn fentry_subvolume_new(ctx: FEntryContext) -> u32 {
    remember(Hook::SubvolumeMade, number(ctx.arg(0)), number(ctx.arg(1)));
    0
}

/// See [`fentry_subvolume_new`].
#[kprobe]
pub fn kprobe_subvolume_new(ctx: ProbeContext) -> u32 {
    remember(Hook::SubvolumeMade, ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

#[inline(always)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

#[inline(always)]
fn remember(hook: Hook, dentry: u64, inode: u64) {
    let (dentry, inode) = (dentry as *const u8, inode as *const u8);
    if !filter::is_watched(Probe::ptr(dentry, off!(dentry_d_sb)))
        || Probe::u16(inode, off!(inode_i_mode)) & S_IFMT != S_IFDIR
    {
        return;
    }
    let Some(command) = task::ioctl_command() else { return };
    if subvolume_name(command).is_none() {
        return;
    }
    let thread = thread();
    let Some(empty) = SUBVOLUME_INIT.get(0) else { return };
    // A full map loses the change; it holds more than there are such calls at a time.
    if SUBVOLUMES.insert(&thread, empty, 0).is_err() {
        return;
    }
    let Some(found) = SUBVOLUMES.get_ptr_mut(&thread) else { return };
    // SAFETY: the entry is this thread's own, and the name is bounded by the array.
    unsafe {
        (*found).hook = hook as u64;
        (*found).command = u64::from(command);
        (*found).parent = Probe::u64(dentry, off!(dentry_d_parent));
        (*found).itself = Victim::of::<Probe>(inode);
        let name = Probe::ptr(dentry, off!(dentry_d_name_name));
        bpf_probe_read_kernel_str((&raw mut (*found).name).cast(), MAX_NAME as u32, name.cast());
    }
}

/// `mnt_drop_write_file(file)`: the last thing such a call does.
#[fentry]
pub fn fentry_subvolume_end(_ctx: FEntryContext) -> u32 {
    emit_change(FENTRY);
    0
}

/// See [`fentry_subvolume_end`].
#[kprobe]
pub fn kprobe_subvolume_end(_ctx: ProbeContext) -> u32 {
    emit_change(KPROBE);
    0
}

#[inline(always)]
fn emit_change(tier: u16) {
    let thread = thread();
    let Some(found) = SUBVOLUMES.get_ptr(&thread) else { return };
    tell_one(found, tier);
    let _ = SUBVOLUMES.remove(&thread);
}

#[inline(always)]
fn tell_one(found: *const Subvolume, tier: u16) {
    // SAFETY: the entry lives until this program removes it.
    let (hook, command, parent, itself) =
        unsafe { ((*found).hook, (*found).command, (*found).parent as *const u8, (*found).itself) };
    let superblock = Probe::ptr(parent, off!(dentry_d_sb));
    count(Count::Seen);
    let directory = filter::directory::<Probe>(parent, superblock);
    let is_gone = hook == Hook::SubvolumeGone as u64;
    let mut event = Event::new(hook as u16, tier, 0, core::ptr::null());
    event.aux = [command, if is_gone { itself.itself } else { 0 }];
    // SAFETY: as above; only the address is taken.
    event.old_name = unsafe { (&raw const (*found).name).cast() };
    if !directory.is_inside() || task::is_own() {
        if event.aux[1] == 0 {
            note!(when directory.root() == TOO_DEEP => too_deep, event.hook, itself.ino);
            note!(when directory.root() != TOO_DEEP => outside, event.hook, itself.ino);
            count(if directory.root() == TOO_DEEP { Count::Oversize } else { Count::Filtered });
            return;
        }
        // No path is reported.
    } else {
        event.old_parent = parent;
        event.old_root = directory.root();
        event.victim = itself.ino;
        event.victim_generation = itself.generation;
        event.victim_mode = itself.mode;
    }
    // Seldom, so by the class of records that has room for every path.
    event.len = u16::MAX;
    emit::emit_rename(&event);
}
