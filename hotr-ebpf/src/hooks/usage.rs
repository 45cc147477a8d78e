//! When followed processes last opened and read which file, for `hotr diagnose`: what an application does with an event
//! that it has read. Attached while a diagnosis runs.
//!
//! Nothing is sent: userspace looks a file up once it wants to know.

use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use hotr_common::delivery::{UNSEEN, Usage, Used};
use hotr_common::uapi::file::{FMODE_READ, S_IFREG};

use crate::globals::{add, off};
use crate::kernel::{Direct, Mem, Probe, S_IFMT};

/// Followed processes. Userspace gives this map and the next their size.
#[map(name = "USERS")]
static USERS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Files that they used.
#[map(name = "USAGES")]
static USAGES: LruHashMap<Used, Usage> = LruHashMap::with_max_entries(1, 0);

/// Files that were put into [`USAGES`]: with more than it holds, the first may be forgotten.
#[map(name = "USED_FILES")]
static USED_FILES: Array<u64> = Array::with_max_entries(1, 0);

/// `O_NOATIME`, which has one value on all architectures.
const O_NOATIME: u32 = 0o1_000_000;
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

/// `touch_atime(path)`, which reading a file calls (`file_accessed`), and mapping it; writes do not, nor does reading from an
/// inotify instance.
#[fentry]
pub fn fentry_usage_read(ctx: FEntryContext) -> u32 {
    read(PhantomData::<Direct>, ctx.arg(0));
    0
}

/// See [`fentry_usage_read`].
#[kprobe]
pub fn kprobe_usage_read(ctx: ProbeContext) -> u32 {
    read(PhantomData::<Probe>, ctx.arg::<u64>(0).unwrap_or(0) as *const u8);
    0
}

/// `vfs_clone_file_range(from, …)` and `vfs_copy_file_range(from, …)`, which may share blocks without reading them.
#[fentry]
pub fn fentry_usage_copy(ctx: FEntryContext) -> u32 {
    copied(ctx.arg(0));
    0
}

/// See [`fentry_usage_copy`].
#[fentry]
pub fn fentry_usage_clone(ctx: FEntryContext) -> u32 {
    copied(ctx.arg(0));
    0
}

/// See [`fentry_usage_copy`].
#[kprobe]
pub fn kprobe_usage_copy(ctx: ProbeContext) -> u32 {
    copied(ctx.arg(0).unwrap_or(0));
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
    if Probe::u32(file, off!(file_f_mode)) & FMODE_READ == 0 {
        return;
    }
    let inode = Probe::ptr(file, off!(file_f_inode));
    if Probe::u16(inode, off!(inode_i_mode)) & S_IFMT != S_IFREG {
        return;
    }
    let is_unseen = Probe::u32(file, off!(file_f_flags)) & O_NOATIME != 0;
    used_inode(process, inode, if is_unseen { Use::OpenedUnseen } else { Use::Opened });
}

#[inline(always)]
fn read<M: Mem>(_: PhantomData<M>, path: *const u8) {
    let Some(process) = user() else { return };
    // The first member of a `path` is the mount.
    let inode = M::ptr(M::ptr(path, off!(file_dentry) - off!(file_mnt)), off!(dentry_d_inode));
    if M::u16(inode, off!(inode_i_mode)) & S_IFMT == S_IFREG {
        used_inode(process, inode, Use::Read);
    }
}

#[inline(always)]
fn copied(file: u64) {
    let Some(process) = user() else { return };
    used_inode(process, Probe::ptr(file as *const u8, off!(file_f_inode)), Use::Read);
}

/// How a process used a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It opened it for reading.
    Opened,
    /// The same, and that it reads it will not be seen.
    OpenedUnseen,
    /// It read it.
    Read,
}

/// A process used a file.
#[inline(always)]
pub fn used(process: u32, file: *const u8, how: Use) {
    used_inode(process, Probe::ptr(file, off!(file_f_inode)), how);
}

#[inline(always)]
fn used_inode(process: u32, inode: *const u8, how: Use) {
    let dev = Probe::u32(Probe::ptr(inode, off!(inode_i_sb)), off!(super_block_s_dev));
    let key = Used { process, dev, ino: Probe::u64(inode, off!(inode_i_ino)) };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(usage) = USAGES.get_ptr_mut(&key) else {
        let usage = match how {
            Use::Opened => Usage { opened: now, read: 0 },
            Use::OpenedUnseen => Usage { opened: now, read: UNSEEN },
            Use::Read => Usage { opened: 0, read: now },
        };
        if USAGES.insert(&key, &usage, 0).is_ok()
            && let Some(count) = USED_FILES.get_ptr_mut(0)
        {
            add(count, 1);
        }
        return;
    };
    // SAFETY: map memory; words are written whole.
    unsafe {
        let read = &raw mut (*usage).read;
        match how {
            // Once a reading may be unseen, no later one shows that there was none.
            Use::Read if read.read_volatile() == UNSEEN => {}
            Use::Read => read.write_volatile(now),
            Use::Opened => (&raw mut (*usage).opened).write_volatile(now),
            Use::OpenedUnseen => {
                read.write_volatile(UNSEEN);
                (&raw mut (*usage).opened).write_volatile(now);
            }
        }
    }
}
