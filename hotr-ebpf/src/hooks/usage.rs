//! When followed processes last opened and read which file, for `hotr diagnose`: what an application does with an event
//! that it has read. Attached while a diagnosis runs.
//!
//! Nothing is sent: userspace looks a file up once it wants to know.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use hotr_common::delivery::{Usage, Used};

use crate::globals::{add, off};
use crate::kernel::{Mem, Probe};

/// Followed processes. Userspace gives this map and the next their size.
#[map(name = "USERS")]
static USERS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Files that they used.
#[map(name = "USAGES")]
static USAGES: LruHashMap<Used, Usage> = LruHashMap::with_max_entries(1, 0);

/// Files that were put into [`USAGES`]: with more than it holds, the first may be forgotten.
#[map(name = "USED_FILES")]
static USED_FILES: Array<u64> = Array::with_max_entries(1, 0);

const FMODE_READ: u32 = 1;
const MAY_READ: u32 = 4;

/// `security_file_open(file)`.
#[fentry]
pub fn fentry_usage_open(ctx: FEntryContext) -> u32 {
    opened(ctx.arg(0));
    0
}

/// See [`fentry_usage_open`].
#[kprobe]
pub fn kprobe_usage_open(ctx: ProbeContext) -> u32 {
    opened(ctx.arg(0).unwrap_or(0));
    0
}

/// `security_file_permission(file, mask)`, which every way of reading asks.
#[fentry]
pub fn fentry_usage_read(ctx: FEntryContext) -> u32 {
    read(ctx.arg(0), ctx.arg::<u64>(1) as u32);
    0
}

/// See [`fentry_usage_read`].
#[kprobe]
pub fn kprobe_usage_read(ctx: ProbeContext) -> u32 {
    read(ctx.arg(0).unwrap_or(0), ctx.arg::<u64>(1).unwrap_or(0) as u32);
    0
}

/// The running process, when it is followed.
#[inline(always)]
pub fn user() -> Option<u32> {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: only whether it is there is asked.
    unsafe { USERS.get(&process) }.map(|_| process)
}

#[inline(always)]
fn opened(file: u64) {
    let Some(process) = user() else { return };
    let file = file as *const u8;
    if Probe::u32(file, off!(file_f_mode)) & FMODE_READ != 0 {
        used(process, file, false);
    }
}

#[inline(always)]
fn read(file: u64, mask: u32) {
    if mask & MAY_READ == 0 {
        return;
    }
    let Some(process) = user() else { return };
    used(process, file as *const u8, true);
}

/// A process used a file.
#[inline(always)]
pub fn used(process: u32, file: *const u8, is_read: bool) {
    let inode = Probe::ptr(file, off!(file_f_inode));
    let dev = Probe::u32(Probe::ptr(inode, off!(inode_i_sb)), off!(super_block_s_dev));
    let key = Used { process, dev, ino: Probe::u64(inode, off!(inode_i_ino)) };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(usage) = USAGES.get_ptr_mut(&key) else {
        let usage = if is_read { Usage { opened: 0, read: now } } else { Usage { opened: now, read: 0 } };
        if USAGES.insert(&key, &usage, 0).is_ok()
            && let Some(count) = USED_FILES.get_ptr_mut(0)
        {
            add(count, 1);
        }
        return;
    };
    // SAFETY: map memory; words are written whole.
    unsafe {
        if is_read {
            (&raw mut (*usage).read).write_volatile(now);
        } else {
            (&raw mut (*usage).opened).write_volatile(now);
        }
    }
}
