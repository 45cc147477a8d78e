//! rmdir: `vfs_rmdir` is small, and some compilers copy it into `do_rmdir`, where no program can see its end. So its
//! security check, which cannot be copied, remembers the directory, and what is still remembered when `do_rmdir`
//! returns was removed there.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use hotr_common::hook::Hook;

use super::names;
use super::{Victim, exit_hook};
use crate::call::{Call, FENTRY, KPROBE, Known, Second, layer_credentials};
use crate::filter;
use crate::globals::off;
use crate::kernel::{Mem, Probe, task};

/// Directories about to be removed, by thread id: where the compiler put a copy of `vfs_rmdir` into its caller, the
/// function itself is never entered, and only the caller's return shows the end.
#[map(name = "RMDIRS")]
pub static RMDIRS: HashMap<u32, Removal> = HashMap::with_max_entries(1024, 0);

exit_hook!(Rmdir, Dentry, removed => fexit_rmdir, kprobe_rmdir, kretprobe_rmdir);

/// A directory between its security check and its end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Removal {
    pub dentry: u64,
    pub victim: Victim,
    /// See [`layer_credentials`].
    pub credentials: u64,
}

#[inline(always)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Exit of `vfs_rmdir`, where it is a function of its own.
#[inline(always)]
fn removed<M: Mem>(mode: PhantomData<M>, call: &Call) {
    let thread = thread();
    if let Some(known) = RMDIRS.get_ptr(&thread) {
        // SAFETY: the entry is this thread's own.
        if unsafe { (*known).dentry } == call.subject as u64 {
            let _ = RMDIRS.remove(&thread);
        }
    }
    names::remove(mode, call);
}

/// `security_inode_rmdir(dir, dentry)`.
#[fentry]
pub fn fentry_rmdir_check(ctx: FEntryContext) -> u32 {
    check(ctx.arg::<u64>(1));
    0
}

/// See [`fentry_rmdir_check`].
#[kprobe]
pub fn kprobe_rmdir_check(ctx: ProbeContext) -> u32 {
    check(ctx.arg::<u64>(1).unwrap_or(0));
    0
}

#[inline(always)]
fn check(dentry: u64) {
    let pointer = dentry as *const u8;
    if !filter::is_watched(Probe::ptr(pointer, off!(dentry_d_sb))) {
        return;
    }
    let (thread, credentials) = (thread(), layer_credentials());
    // SAFETY: the entry is this thread's own.
    let within = unsafe { RMDIRS.get(&thread) };
    if credentials != 0 && task::acts_for_another() && within.is_some_and(|it| it.credentials != credentials)
    {
        // An overlay's operation on its own layer.
        return;
    }
    let inode = Probe::ptr(pointer, off!(dentry_d_inode));
    let victim = Victim::of::<Probe>(inode);
    // A full map loses removals on kernels that copied the function; it holds more than there are tasks in it.
    let _ = RMDIRS.insert(&thread, &Removal { dentry, victim, credentials }, 0);
}

/// Exit of `do_rmdir(dfd, name)`.
#[fexit]
pub fn fexit_rmdir_caller(ctx: FExitContext) -> u32 {
    caller(FENTRY, ctx.arg::<u64>(2));
    0
}

/// Return of the same.
#[kretprobe]
pub fn kretprobe_rmdir_caller(ctx: RetProbeContext) -> u32 {
    caller(KPROBE, ctx.ret::<u64>());
    0
}

#[inline(always)]
fn caller(tier: u16, ret: u64) {
    let thread = thread();
    let Some(known) = RMDIRS.get_ptr(&thread) else { return };
    // SAFETY: the entry is this thread's own.
    let removal = unsafe { *known };
    let _ = RMDIRS.remove(&thread);
    let call = Call {
        hook: Hook::Rmdir,
        tier,
        subject: removal.dentry as *const u8,
        second: Second::Is(core::ptr::null()),
        known: Known::NOTHING,
        ret: ret as *const u8,
    };
    if call.status() == 0 {
        names::tell_removal::<Probe>(&call, removal.victim);
    }
}
