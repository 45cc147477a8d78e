//! The exit of system calls, where functions cannot be hooked.
//!
//! A call through a descriptor is resolved here: the file is still open, and its dentry is the truth. A call that takes
//! a path is only copied (see [`path`]), because at its exit no kernel object says what the path led to.
//!
//! This runs at every system call of the machine: a failed call, or one that changes nothing, ends after one map
//! lookup.
//!
//! Each program is here twice, for the two ways to a tracepoint (see [`way`]).

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::BtfTracePointContext;
use hotr_common::hook::Hook;
use hotr_common::rules::{
    Class, NO_REGISTER, RULE_COMPAT, RULE_ENABLED, RULE_MAY_BE_DESCRIPTOR, RULE_TIMES, RULES, Rule,
    subvolume_name,
};
use hotr_common::uapi::file::{FMODE_CREATED, O_TMPFILE, O_TRUNC, S_IFREG};

use crate::call::{Call, Known, Second};
use crate::change::{self, Target};
use crate::emit;
use crate::filter;
use crate::globals::off;
use crate::kernel::{Mem, Probe, S_IFMT, task};
use way::Way;

mod aio;
pub mod path;
pub mod way;

pub use way::PASS;

/// What to do at the exit of a system call, by its number; zeros for the ones that change nothing. See [`RULES`].
#[map(name = "SYSCALLS")]
pub static SYSCALLS: Array<Rule> = Array::with_max_entries(2 * RULES, 0);

/// The `ioctl` commands that change a file: FICLONE, FICLONERANGE, FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS,
/// FS_IOC_FSSETXATTR.
#[inline(always)]
fn command_changes(command: u32) -> bool {
    matches!(command, 0x4004_9409 | 0x4020_940d | 0x4008_6602 | 0x4004_6602 | 0x401c_5820)
}

/// Declares a program for both ways.
macro_rules! exit_program {
    ($(#[$doc:meta])* $body:path => $raw:ident, $perf:ident) => {
        $(#[$doc])*
        #[btf_tracepoint]
        pub fn $raw(ctx: BtfTracePointContext) -> u32 {
            $body(way::Raw::of(&ctx));
            0
        }

        $(#[$doc])*
        #[aya_ebpf::macros::tracepoint]
        pub fn $perf(ctx: aya_ebpf::programs::TracePointContext) -> u32 {
            $body(way::Perf::of(&ctx));
            PASS
        }
    };
}

exit_program! {
    /// `sys_exit(regs, ret)`: sends what changes something on to the program of its class.
    dispatch => sys_exit, perf_sys_exit
}
exit_program! {
    /// [`Class::Write`], [`Class::File`], [`Class::Ioctl`]: the file of a descriptor was changed. [`Class::OpenTruncate`]: a
    /// file was opened that was there; the open may have cut it.
    descriptor => exit_descriptor, perf_descriptor
}
exit_program! {
    /// [`Class::Open`], [`Class::OpenHow`], [`Class::Creat`]: a file was opened that may not have been there.
    open => exit_open, perf_open
}
exit_program! {
    /// [`Class::Path`], [`Class::Bind`], [`Class::Subvolume`].
    path_call => exit_path, perf_path
}
exit_program! {
    /// [`Class::Aio`].
    aio_call => exit_aio, perf_aio
}

#[inline(always)]
fn dispatch<W: Way>(way: W) {
    if way.ret() < 0 {
        return;
    }
    let Some(mut rule) = SYSCALLS.get(way.sysno()) else { return };
    if rule.flags & (RULE_ENABLED | RULE_COMPAT) == 0 || !way.is_ready() {
        return;
    }
    if task::is_current_compat() {
        let Some(other) = compat_rule(way.sysno()) else { return };
        rule = other;
    }
    if rule.flags & RULE_ENABLED != 0 {
        way.continue_as(rule.class);
    }
}

/// After `sys_exit`, on the same tracepoint: wakes userspace for what was submitted there without waking it. Where
/// tracepoints may be preempted (7.x), waking preempts the program that does it, and the kernel skips it for every task
/// that runs on the CPU until the first one continues. The run that caused a skip does the work of the skipped run.
#[btf_tracepoint]
pub fn wake(_ctx: BtfTracePointContext) -> u32 {
    emit::wake();
    0
}

/// The rule for a call of the 32-bit table.
#[inline(always)]
fn compat_rule(number: u32) -> Option<&'static Rule> {
    if number >= RULES {
        return None;
    }
    SYSCALLS.get(number + RULES)
}

/// A system call that has succeeded.
struct Exit<W> {
    way: W,
    /// Of the 32-bit table: its arguments are in other registers, and only their lower half counts.
    is_compat: bool,
    rule: &'static Rule,
    sysno: u32,
    ret: i64,
}

impl<W: Way> Exit<W> {
    #[inline(always)]
    fn of(way: W) -> Option<Self> {
        let sysno = way.sysno();
        let mut rule = SYSCALLS.get(sysno)?;
        // Asked again only where it can be: writes come by here.
        let is_compat = rule.flags & RULE_COMPAT != 0 && task::is_current_compat();
        if is_compat {
            rule = compat_rule(sysno)?;
        }
        Some(Self { way, is_compat, rule, sysno, ret: way.ret() })
    }

    /// The argument whose register is at this offset; 0 when the call has none.
    #[inline(always)]
    fn argument(&self, register: u8) -> u64 {
        if register == NO_REGISTER {
            return 0;
        }
        let word = Probe::u64(self.way.registers(), u32::from(register));
        if self.is_compat { u64::from(word as u32) } else { word }
    }

    /// The descriptor; of most calls the first argument, which is one load.
    #[inline(always)]
    fn descriptor(&self) -> u32 {
        if u32::from(self.rule.descriptor) == off!(regs_arg[0]) {
            self.way.first_argument() as u32
        } else {
            self.argument(self.rule.descriptor) as u32
        }
    }

    /// Whether the two times of the call are both to be left as they are.
    #[inline(always)]
    fn omits_times(&self) -> bool {
        /// `UTIME_OMIT`, in the nanoseconds.
        const OMIT: u32 = (1 << 30) - 2;
        // A 32-bit program has two words for each time, others two of twice the length.
        let word = if self.is_compat { 4 } else { 8 };
        let times = self.argument(self.rule.aux1);
        user_word(times.wrapping_add(word)) as u32 == OMIT
            && user_word(times.wrapping_add(3 * word)) as u32 == OMIT
    }

    /// As the rest of the programs know calls.
    #[inline(always)]
    fn call(&self) -> Call {
        Call {
            hook: Hook::SysExit,
            tier: W::TIER,
            subject: core::ptr::null(),
            second: Second::Is(core::ptr::null()),
            known: Known::NOTHING,
            ret: self.ret as *const u8,
        }
    }
}

#[inline(always)]
fn descriptor<W: Way>(way: W) {
    let Some(exit) = Exit::of(way) else { return };
    let class = exit.rule.class;
    let bytes = if class == Class::Write as u8 { exit.ret as u64 } else { 0 };
    if class == Class::Write as u8 && bytes == 0 {
        return;
    }
    let opened = class != Class::Write as u8 && opens(class);
    let file = task::current_file(if opened { exit.ret as u32 } else { exit.descriptor() });
    if !is_watched(file) {
        return;
    }
    let mut aux = exit.argument(exit.rule.aux0);
    if class == Class::Ioctl as u8 && !command_changes(aux as u32) {
        if subvolume_name(aux as u32).is_some() {
            way.continue_as(Class::Subvolume as u8);
        }
        return;
    }
    if opened {
        if class == Class::Creat as u8 {
            aux = u64::from(O_TRUNC);
        } else if class == Class::OpenHow as u8 {
            aux = user_word(aux);
        }
        let inode = Probe::ptr(file, off!(file_f_inode));
        if aux & u64::from(O_TRUNC) == 0 || Probe::u16(inode, off!(inode_i_mode)) & S_IFMT != S_IFREG {
            return;
        }
    }
    change::file::<Probe>(&exit.call(), &Target::file::<Probe>(file), exit.sysno, bytes, aux);
}

#[inline(always)]
fn open<W: Way>(way: W) {
    let Some(exit) = Exit::of(way) else { return };
    let file = task::current_file(exit.ret as u32);
    if !is_watched(file) {
        return;
    }
    let target = Target::file::<Probe>(file);
    if Probe::u32(file, off!(file_f_mode)) & FMODE_CREATED != 0 {
        // A nameless file: its name, if it gets one, comes by linkat.
        if Probe::u32(file, off!(file_f_flags)) & O_TMPFILE == 0 {
            change::name::<Probe>(&exit.call(), &target, 0, |_| {});
        }
        return;
    }
    // Apart, for two kinds of reports in one program need more stack than it has.
    way.continue_as(Class::OpenTruncate as u8);
}

/// Whether a call of this class returns a new descriptor.
#[inline(always)]
fn opens(class: u8) -> bool {
    class == Class::Open as u8 || class == Class::OpenHow as u8 || class == Class::Creat as u8
}

#[inline(always)]
fn path_call<W: Way>(way: W) {
    let Some(exit) = Exit::of(way) else { return };
    if exit.rule.flags & RULE_TIMES != 0 && exit.omits_times() {
        return;
    }
    if exit.rule.flags & RULE_MAY_BE_DESCRIPTOR != 0 && is_empty(exit.argument(exit.rule.path)) {
        way.continue_as(Class::File as u8);
        return;
    }
    path::emit(&exit);
}

#[inline(always)]
fn aio_call<W: Way>(way: W) {
    let Some(exit) = Exit::of(way) else { return };
    if aio::next(&exit) {
        way.continue_as(Class::Aio as u8);
        aio::give_up(way);
    }
}

/// A word of the caller's memory, 0 when it cannot be read.
#[inline(always)]
fn user_word(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the destination is a local; the helper checks the source.
    unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const _) };
    word
}

/// Whether a path is missing or has no bytes.
#[inline(always)]
fn is_empty(address: u64) -> bool {
    let mut first = 0u8;
    // SAFETY: as above.
    unsafe { bpf_probe_read_user((&raw mut first).cast(), 1, address as *const _) };
    first == 0
}

/// Whether a file lies on a watched filesystem.
#[inline(always)]
pub fn is_watched(file: *const u8) -> bool {
    filter::is_watched(Probe::ptr(Probe::ptr(file, off!(file_f_inode)), off!(inode_i_sb)))
}
