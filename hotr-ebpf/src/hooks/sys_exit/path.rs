//! System calls that take paths: what the caller wrote, and the directory it starts from. Userspace finds out
//! which file that was.
//!
//! The record is put together in a per-CPU buffer and copied into the ring buffer with its exact length, for most
//! paths are short and every such call of the machine comes by. The buffer is this program's alone: programs on
//! tracepoints run without preemption, by way of perf on every kernel; and where a raw one may be preempted (7.x), the
//! kernel does not start it again on a CPU that is running it. One of the two ways is attached.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use hotr_common::hook::Hook;
use hotr_common::record::{FLAG_CALL, MAX_NAME, MAX_PATH, NO_ROOT, Record};
use hotr_common::rules::{Class, NO_REGISTER, RULE_REMOVES, WORKING_DIRECTORY};

use super::Exit;
use super::way::Way;
use crate::emit::{self, Event};
use crate::filter;
use crate::kernel::{Mem, Probe, task};
use crate::maps::{CALL_RECORD, CALL_VICTIMS, Count, RECORDS, count, live, off};
use crate::path::{self, OVERFLOW, Walk, bounded};

/// Room for two strings and the two directories they start from; a power of two.
const PATHS: usize = 4 * MAX_PATH;

/// A record with room for what a call may name. The slack is there because the verifier bounds offset and length
/// of a copy by themselves.
#[repr(C)]
pub struct CallRecord {
    record: Record,
    paths: [u8; PATHS],
    slack: [u8; MAX_PATH + MAX_NAME],
    walk: Walk,
}

/// Where a path starts.
struct Base {
    root: u16,
    mnt_id: u32,
    end: u32,
}

/// Reports the call.
#[inline(always)]
pub fn emit<W: Way>(exit: &Exit<W>) {
    let rule = exit.rule;
    if rule.old_descriptor != NO_REGISTER {
        // A rename, of a directory perhaps.
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
    }
    let Some(sized) = CALL_RECORD.get_ptr_mut(0) else { return };
    // SAFETY: see the module: nobody else uses this CPU's buffer now.
    let (record, buffer) = unsafe { (&raw mut (*sized).record, (&raw mut (*sized).paths).cast::<u8>()) };
    count(Count::Seen);
    let mut event = Event::new(Hook::SysExit as u16, W::TIER, 0, core::ptr::null());
    event.flags = FLAG_CALL;
    event.aux = [exit.argument(rule.aux0), exit.argument(rule.aux1)];
    // SAFETY: `record` is valid for writes.
    unsafe { emit::header(record, &event) };
    if rule.flags & RULE_REMOVES != 0 {
        // SAFETY: as above.
        unsafe { set_victim(record) };
    }
    let base = append(buffer, 0, directory(exit, rule.descriptor), string);
    let end = base.end;
    // SAFETY: as above.
    unsafe {
        (*record).root = base.root;
        (*record).mnt_id = base.mnt_id;
        (*record).path_len = end as u16;
        (*record).old_len = 0;
        (*record).inode = u64::from(task::mount_namespace(task::current()));
    }
    let mut total = end;
    if end != OVERFLOW && rule.old_path != NO_REGISTER {
        let base = append(buffer, end, directory(exit, rule.old_descriptor), exit.argument(rule.old_path));
        total = base.end;
        // SAFETY: as above.
        unsafe {
            (*record).old_root = base.root;
            (*record).inode |= u64::from(base.mnt_id) << 32;
            (*record).old_len = total.wrapping_sub(end) as u16;
        }
    }
    if total > PATHS as u32 {
        count(Count::Oversize);
        return;
    }
    let len = size_of::<Record>() + bounded::<{ 2 * PATHS }>(u64::from(total)).min(PATHS);
    // SAFETY: the record and `total` bytes behind it have been written, by this program or an earlier one.
    let bytes = unsafe { core::slice::from_raw_parts(sized.cast::<u8>(), len) };
    match RECORDS.output::<[u8]>(bytes, emit::submission(Hook::SysExit as u16, W::TIER)) {
        Ok(()) => count(Count::Submitted),
        Err(_) => count(Count::RingFull),
    }
}

/// Tells the file that the call removed, if it was seen.
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
enum Directory {
    /// Not told.
    Untold,
    Working,
    Descriptor(i32),
}

#[inline(always)]
fn directory<W: Way>(exit: &Exit<W>, register: u8) -> Directory {
    /// `AT_FDCWD`.
    const WORKING: i32 = -100;
    if register == NO_REGISTER {
        return Directory::Untold;
    }
    if register == WORKING_DIRECTORY {
        return Directory::Working;
    }
    match exit.argument(register) as i32 {
        WORKING => Directory::Working,
        descriptor => Directory::Descriptor(descriptor),
    }
}

/// Appends a string of the caller's and, when it is relative, the names of the directory it starts from.
#[inline(always)]
fn append(buffer: *mut u8, start: u32, directory: Directory, string: u64) -> Base {
    let mut base = Base { root: NO_ROOT, mnt_id: 0, end: OVERFLOW };
    // SAFETY: `bounded` keeps the start below PATHS, and MAX_PATH bytes of slack follow.
    let (at, copied) = unsafe {
        let at = buffer.add(bounded::<PATHS>(u64::from(start)));
        (at, bpf_probe_read_user_str(at.cast(), MAX_PATH as u32, string as *const _))
    };
    if copied < 0 {
        return base;
    }
    // Older kernels do not count the terminator of an empty string, which they have copied.
    let copied = copied.max(1);
    base.end = start + (copied as u32 & (2 * MAX_PATH as u32 - 1));
    // SAFETY: one byte that was just written.
    if unsafe { *at } == b'/' {
        return base;
    }
    let task = task::current();
    let (dentry, mnt) = match directory {
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
