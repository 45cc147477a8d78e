//! System calls that take paths: what the caller wrote, and the directory it starts from. Userspace finds out
//! which file that was.
//!
//! The record is put together in a per-CPU buffer and copied into the ring buffer with its exact length, because most
//! paths are short and every such call of the machine comes here. The buffer is this program's alone: programs on
//! tracepoints run without preemption, through perf on every kernel; and where a raw one may be preempted (7.x), the
//! kernel does not start it again on a CPU that is running it. One of the two ways is attached.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use hotr_common::hook::Hook;
use hotr_common::record::{FLAG_CALL, MAX_NAME, MAX_PATH, NO_ROOT, Record};
use hotr_common::rules::{
    Class, NO_REGISTER, RULE_REMOVES, RULE_REMOVES_DIRECTORY, Rule, SUBVOLUME_DESTROY_V2, WORKING_DIRECTORY,
    subvolume_name,
};
use hotr_common::uapi::file::AT_REMOVEDIR;

use super::Exit;
use super::way::Way;
use crate::counters::{Count, count};
use crate::emit;
use crate::event::Event;
use crate::filter;
use crate::globals::{live, off};
use crate::hooks::names::CALL_VICTIMS;
use crate::kernel::{Mem, Probe, task};
use crate::messages::note;
use crate::path::{self, OVERFLOW, Walk, bounded};
use crate::records::RECORDS;

/// Where a record about a path-taking system call is put together.
#[map(name = "CALL_RECORD")]
pub static CALL_RECORD: PerCpuArray<CallRecord> = PerCpuArray::with_max_entries(1, 0);

/// Room for two strings and the two directories they start from; a power of two.
const PATHS: usize = 4 * MAX_PATH;

/// `BTRFS_SUBVOL_SPEC_BY_ID`, in the flags of a `struct btrfs_ioctl_vol_args_v2`, which are there.
const BY_ID: u64 = 1 << 4;
const FLAGS_V2: u64 = 16;

/// A record with room for what a call may name. The slack is there because the verifier bounds offset and length
/// of a copy by themselves.
#[repr(C)]
pub struct CallRecord {
    pub record: Record,
    pub paths: [u8; PATHS],
    slack: [u8; MAX_PATH + MAX_NAME],
    walk: Walk,
}

/// The end of a path whose string cannot be read. As [`OVERFLOW`], more than any record holds.
pub const UNREADABLE: u32 = OVERFLOW - 1;

/// Where a path starts.
pub struct Base {
    root: u16,
    mnt_id: u32,
    pub end: u32,
}

/// A string of the caller's.
#[derive(Clone, Copy)]
pub enum Str {
    /// Still in the caller's memory.
    OfUser(u64),
    /// The kernel's copy.
    OfKernel(u64),
}

impl Str {
    /// Copies it, with its NUL.
    ///
    /// # Safety
    /// `at` has [`MAX_PATH`] writable bytes.
    #[inline(always)]
    unsafe fn copy(self, at: *mut u8) -> i64 {
        // SAFETY: the caller's promise; the helpers check the source.
        unsafe {
            match self {
                Self::OfUser(string) => {
                    bpf_probe_read_user_str(at.cast(), MAX_PATH as u32, string as *const _)
                }
                Self::OfKernel(string) => {
                    bpf_probe_read_kernel_str(at.cast(), MAX_PATH as u32, string as *const _)
                }
            }
        }
    }
}

/// Reports the call.
#[inline(always)]
pub(super) fn emit<W: Way>(exit: &Exit<W>) {
    let rule = exit.rule;
    if may_move_directories(rule, exit.argument(rule.aux0)) {
        filter::bump_epoch();
    }
    if (bpf_get_current_pid_tgid() >> 32) as u32 == live!(own_tgid) {
        return;
    }
    let mut string = exit.argument(rule.path);
    if rule.class == Class::Bind as u8 {
        // `sockaddr_un`: AF_UNIX, then the path; an abstract one begins with a NUL.
        if super::user_word(string) & 0xffff != 1 || super::is_empty(string + 2) {
            return;
        }
        string += 2;
    } else if rule.class == Class::Ioctl as u8 {
        let command = exit.argument(rule.aux0) as u32;
        let Some(name) = subvolume_name(command) else { return };
        string = exit.argument(rule.aux1).wrapping_add(name);
        if command == SUBVOLUME_DESTROY_V2
            && super::user_word(string.wrapping_sub(name - FLAGS_V2)) & BY_ID != 0
        {
            // Which name that is only the filesystem knows.
            note!(by_id, Hook::SysExit, command);
            count(Count::Seen);
            count(Count::Oversize);
            return;
        }
    }
    let Some(sized) = CALL_RECORD.get_ptr_mut(0) else { return };
    // SAFETY: see the module: nobody else uses this CPU's buffer now.
    let (record, buffer) = unsafe { (&raw mut (*sized).record, (&raw mut (*sized).paths).cast::<u8>()) };
    count(Count::Seen);
    let mut event = Event::new(Hook::SysExit as u16, W::TIER, 0, core::ptr::null());
    event.flags = FLAG_CALL;
    event.aux = [exit.argument(rule.aux0), 0];
    // SAFETY: `record` is valid for writes.
    unsafe { emit::header(record, &event) };
    if rule.flags & RULE_REMOVES != 0 {
        // SAFETY: as above.
        unsafe { set_victim(record) };
    }
    let base = append(buffer, 0, directory(exit, rule.descriptor), Str::OfUser(string));
    let end = base.end;
    // SAFETY: as above.
    unsafe { set_path(record, &base) };
    let mut total = end;
    if end < UNREADABLE && rule.old_path != NO_REGISTER {
        let string = Str::OfUser(exit.argument(rule.old_path));
        let base = append(buffer, end, directory(exit, rule.old_descriptor), string);
        total = base.end;
        // SAFETY: as above.
        unsafe { set_old_path(record, &base, end) };
    }
    submit(sized, total, emit::submission(Hook::SysExit as u16, W::TIER));
}

/// Whether a call may have given a directory another place, or its place in memory to another one: a rename, or the removal
/// of a directory.
#[inline(always)]
pub fn may_move_directories(rule: &Rule, flags: u64) -> bool {
    rule.old_descriptor != NO_REGISTER
        || (rule.flags & RULE_REMOVES_DIRECTORY != 0
            && (rule.aux0 == NO_REGISTER || flags & AT_REMOVEDIR != 0))
}

/// The path's part of a record that [`append`] has written the bytes of.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
pub unsafe fn set_path(record: *mut Record, base: &Base) {
    // SAFETY: the caller's promise.
    unsafe {
        (*record).root = base.root;
        (*record).mnt_id = base.mnt_id;
        (*record).path_len = base.end as u16;
        (*record).old_len = 0;
        (*record).inode = u64::from(task::mount_namespace(task::current()));
    }
}

/// The same for the old path, which begins at `start`.
///
/// # Safety
/// As [`set_path`].
#[inline(always)]
pub unsafe fn set_old_path(record: *mut Record, base: &Base, start: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        (*record).old_root = base.root;
        (*record).inode |= u64::from(base.mnt_id) << 32;
        (*record).old_len = base.end.wrapping_sub(start) as u16;
    }
}

/// Submits a record whose paths take `total` bytes.
#[inline(always)]
pub fn submit(sized: *mut CallRecord, total: u32, wakeup: u64) {
    // SAFETY: the record in it is complete.
    note!(when total > PATHS as u32 => oversize, unsafe { (*sized).record.hook }, 0u64);
    if total > PATHS as u32 {
        count(Count::Oversize);
        return;
    }
    let len = size_of::<Record>() + bounded::<{ 2 * PATHS }>(u64::from(total)).min(PATHS);
    // SAFETY: the record and `total` bytes behind it have been written, by this program or an earlier one.
    let bytes = unsafe { core::slice::from_raw_parts(sized.cast::<u8>(), len) };
    match RECORDS.output::<[u8]>(bytes, wakeup) {
        Ok(()) => {
            note!(sent_call, Hook::SysExit);
            count(Count::Submitted);
        }
        Err(_) => {
            note!(ring_full, Hook::SysExit, 0u64);
            count(Count::RingFull);
        }
    }
}

/// Reports the file that the call removed, if it was seen.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn set_victim(record: *mut Record) {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: the entry is this thread's own.
    let Some(victim) = (unsafe { CALL_VICTIMS.get(&thread) }).copied() else { return };
    let _ = CALL_VICTIMS.remove(&thread);
    // SAFETY: the caller's promise.
    unsafe {
        (*record).ino = victim.ino;
        (*record).generation = victim.generation;
        (*record).mode = victim.mode;
    }
}

/// Where the directory of a path is found.
#[derive(Clone, Copy)]
pub enum Directory {
    /// Not reported.
    Untold,
    Working,
    Descriptor(i32),
}

#[inline(always)]
fn directory<W: Way>(exit: &Exit<W>, register: u8) -> Directory {
    Directory::of(register, || exit.argument(register) as i32)
}

impl Directory {
    /// Of the register or field with its descriptor, which `read` reads.
    #[inline(always)]
    pub fn of(register: u8, read: impl FnOnce() -> i32) -> Self {
        /// `AT_FDCWD`.
        const WORKING: i32 = -100;
        if register == NO_REGISTER {
            return Self::Untold;
        }
        if register == WORKING_DIRECTORY {
            return Self::Working;
        }
        match read() {
            WORKING => Self::Working,
            descriptor => Self::Descriptor(descriptor),
        }
    }
}

/// Appends a string of the caller's and the names of the directory it starts from: of an absolute one, the caller's root
/// directory.
#[inline(always)]
pub fn append(buffer: *mut u8, start: u32, directory: Directory, string: Str) -> Base {
    let mut base = Base { root: NO_ROOT, mnt_id: 0, end: UNREADABLE };
    // SAFETY: `bounded` keeps the start below PATHS, and MAX_PATH bytes of slack follow.
    let (at, copied) = unsafe {
        let at = buffer.add(bounded::<PATHS>(u64::from(start)));
        (at, string.copy(at))
    };
    if copied < 0 {
        return base;
    }
    // Older kernels do not count the terminator of an empty string, which they have copied.
    let copied = copied.max(1);
    base.end = start + (copied as u32 & (2 * MAX_PATH as u32 - 1));
    let task = task::current();
    // SAFETY: one byte that was just written.
    let is_absolute = unsafe { *at } == b'/';
    let (dentry, mnt) = match directory {
        _ if is_absolute => {
            let fs = Probe::ptr(task, off!(task_fs));
            (Probe::ptr(fs, off!(fs_root_dentry)), Probe::ptr(fs, off!(fs_root_mnt)))
        }
        Directory::Untold => return base,
        Directory::Working => {
            let fs = Probe::ptr(task, off!(task_fs));
            (Probe::ptr(fs, off!(fs_pwd_dentry)), Probe::ptr(fs, off!(fs_pwd_mnt)))
        }
        Directory::Descriptor(descriptor) => {
            let file = task::file(task, descriptor as u32);
            (Probe::ptr(file, off!(file_dentry)), Probe::ptr(file, off!(file_mnt)))
        }
    };
    let mut root = 0;
    let superblock = Probe::ptr(dentry, off!(dentry_d_sb));
    if filter::is_watched(superblock) {
        let verdict = filter::directory::<Probe>(dentry, superblock);
        if verdict.is_inside() {
            base.root = verdict.root();
            root = filter::root_inode(verdict.root());
        }
    }
    base.mnt_id = Probe::u32(mnt.wrapping_sub(off!(mount_mnt) as usize), off!(mount_mnt_id));
    base.end = hotr_append_directory(base.end, dentry as u64, root);
    base
}

/// Appends the names of a directory to this CPU's record. A global function: verified once, see
/// [`filter::hotr_directory`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hotr_append_directory(start: u32, dentry: u64, root: u64) -> u32 {
    let Some(sized) = CALL_RECORD.get_ptr_mut(0) else { return OVERFLOW };
    // SAFETY: see the module: nobody else uses this CPU's buffer now.
    unsafe { Walk::along(&raw mut (*sized).walk, start, dentry, root, || hotr_append_names()) }
}

/// See [`path::stride`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hotr_append_names() -> u64 {
    let Some(sized) = CALL_RECORD.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above; the buffer has PATHS bytes and more than MAX_NAME of slack.
    unsafe { path::stride::<PATHS>(&raw mut (*sized).walk, (&raw mut (*sized).paths).cast()) }
}
