//! The exit of system calls, where functions cannot be hooked.
//!
//! A call through a descriptor is resolved here: the file is still open, and its dentry is the truth. A call that
//! takes a path is only copied (see [`path`]), for at its exit no kernel object says what the path led to.
//!
//! This runs at every system call of the machine: a failed call, or one that changes nothing, ends after one map
//! lookup.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use hotr_common::hook::Hook;
use hotr_common::rules::{Class, NO_REGISTER, RULE_ENABLED, RULE_MAY_BE_DESCRIPTOR, Rule};

use crate::call::{Call, Known, TRACEPOINT};
use crate::change::{self, Target};
use crate::emit;
use crate::filter;
use crate::kernel::{Direct, Mem, Probe, task};
use crate::maps::{CLASS_PROGRAMS, SYSCALLS, off};

mod aio;
mod path;

pub use path::CallRecord;

/// `FMODE_CREATED`.
const FMODE_CREATED: u32 = 1 << 20;
/// `__O_TMPFILE`.
const O_TMPFILE: u32 = 0o20_000_000;
/// `O_TRUNC`.
const O_TRUNC: u64 = 0o1000;
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;

/// The `ioctl` commands that change a file: FICLONE, FICLONERANGE, FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS,
/// FS_IOC_FSSETXATTR.
#[inline(always)]
fn command_changes(command: u32) -> bool {
    matches!(command, 0x4004_9409 | 0x4020_940d | 0x4008_6602 | 0x4004_6602 | 0x401c_5820)
}

/// `sys_exit(regs, ret)`: sends what changes something on to the program of its class.
#[btf_tracepoint]
pub fn sys_exit(ctx: BtfTracePointContext) -> u32 {
    if ctx.arg::<i64>(1) < 0 {
        return 0;
    }
    let sysno = Direct::u64(ctx.arg(0), off!(regs_sysno)) as u32;
    let Some(rule) = SYSCALLS.get(sysno) else { return 0 };
    if rule.flags & RULE_ENABLED == 0 || task::is_current_compat() {
        return 0;
    }
    continue_as(&ctx, rule.class);
    0
}

/// Ends this program and runs the one of a class: apart, each is small enough for every kernel's verifier. Comes
/// back only when there is none.
#[inline(always)]
fn continue_as(ctx: &BtfTracePointContext, class: u8) {
    // SAFETY: nothing of this program is in use any more.
    unsafe { CLASS_PROGRAMS.tail_call(ctx, u32::from(class)) };
}

/// After `sys_exit`, on the same tracepoint: wakes userspace for what was submitted there without waking it. Where
/// tracepoints may be preempted (7.x), waking preempts the program that does it, and the kernel skips it for every
/// task that runs on the CPU until the first one goes on. A skipped run of this program is made up for by the run
/// that made it be skipped.
#[btf_tracepoint]
pub fn wake(_ctx: BtfTracePointContext) -> u32 {
    emit::wake();
    0
}

/// A system call that has succeeded.
struct Exit {
    context: *const u8,
    /// Typed: to be read at offsets that the verifier knows.
    regs: *const u8,
    rule: &'static Rule,
    sysno: u32,
    ret: i64,
}

impl Exit {
    #[inline(always)]
    fn of(ctx: &BtfTracePointContext) -> Option<Self> {
        let sysno = Direct::u64(ctx.arg(0), off!(regs_sysno)) as u32;
        Some(Self {
            context: ctx.as_ptr() as *const u8,
            regs: ctx.arg(0),
            rule: SYSCALLS.get(sysno)?,
            sysno,
            ret: ctx.arg(1),
        })
    }

    /// The argument whose register is at this offset; 0 when the call has none.
    #[inline(always)]
    fn argument(&self, register: u8) -> u64 {
        if register == NO_REGISTER {
            return 0;
        }
        // As a plain number: the verifier does not know the offset.
        let regs = Probe::ptr(self.context, 0);
        Probe::u64(regs, u32::from(register))
    }

    /// The descriptor; of most calls the first argument, which is one load.
    #[inline(always)]
    fn descriptor(&self) -> u32 {
        if u32::from(self.rule.descriptor) == off!(regs_arg[0]) {
            Direct::u64(self.regs, off!(regs_arg[0])) as u32
        } else {
            self.argument(self.rule.descriptor) as u32
        }
    }

    /// As the rest of the programs know calls.
    #[inline(always)]
    fn call(&self) -> Call {
        Call {
            hook: Hook::SysExit,
            tier: TRACEPOINT,
            subject: core::ptr::null(),
            second: core::ptr::null(),
            known: Known::NOTHING,
            ret: self.ret as *const u8,
        }
    }
}

/// [`Class::Write`], [`Class::File`], [`Class::Ioctl`]: the file of a descriptor was changed.
#[btf_tracepoint]
pub fn exit_descriptor(ctx: BtfTracePointContext) -> u32 {
    let Some(exit) = Exit::of(&ctx) else { return 0 };
    let class = exit.rule.class;
    let bytes = if class == Class::Write as u8 { exit.ret as u64 } else { 0 };
    if class == Class::Write as u8 && bytes == 0 {
        return 0;
    }
    let file = task::current_file(exit.descriptor());
    if !is_watched(file) {
        return 0;
    }
    let aux = exit.argument(exit.rule.aux0);
    if class == Class::Ioctl as u8 && !command_changes(aux as u32) {
        return 0;
    }
    change::file::<Probe>(&exit.call(), &Target::file::<Probe>(file), exit.sysno, bytes, aux);
    0
}

/// [`Class::Open`], [`Class::OpenHow`], [`Class::Creat`]: a file was opened that may not have been there.
#[btf_tracepoint]
pub fn exit_open(ctx: BtfTracePointContext) -> u32 {
    let Some(exit) = Exit::of(&ctx) else { return 0 };
    let file = task::current_file(exit.ret as u32);
    if !is_watched(file) {
        return 0;
    }
    let target = Target::file::<Probe>(file);
    if Probe::u32(file, off!(file_f_mode)) & FMODE_CREATED != 0 {
        // A nameless file: its name, if it gets one, comes by linkat.
        if Probe::u32(file, off!(file_f_flags)) & O_TMPFILE == 0 {
            change::name::<Probe>(&exit.call(), &target, |_| {});
        }
        return 0;
    }
    // Apart, for two kinds of reports in one program need more stack than it has.
    continue_as(&ctx, Class::OpenTruncate as u8);
    0
}

/// [`Class::OpenTruncate`]: a file was opened that was there; the open may have cut it.
#[btf_tracepoint]
pub fn exit_open_truncate(ctx: BtfTracePointContext) -> u32 {
    let Some(exit) = Exit::of(&ctx) else { return 0 };
    let file = task::file(task::current(), exit.ret as u32);
    let target = Target::file::<Probe>(file);
    let class = exit.rule.class;
    let mut flags = exit.argument(exit.rule.aux0);
    if class == Class::Creat as u8 {
        flags = O_TRUNC;
    } else if class == Class::OpenHow as u8 {
        flags = user_word(flags);
    }
    if flags & O_TRUNC != 0 && Probe::u16(target.inode, off!(inode_i_mode)) & S_IFMT == S_IFREG {
        change::file::<Probe>(&exit.call(), &target, exit.sysno, 0, flags);
    }
    0
}

/// [`Class::Path`], [`Class::Bind`].
#[btf_tracepoint]
pub fn exit_path(ctx: BtfTracePointContext) -> u32 {
    let Some(exit) = Exit::of(&ctx) else { return 0 };
    if exit.rule.flags & RULE_MAY_BE_DESCRIPTOR != 0 && is_empty(exit.argument(exit.rule.path)) {
        continue_as(&ctx, Class::File as u8);
        return 0;
    }
    path::emit(&exit);
    0
}

/// [`Class::Aio`].
#[btf_tracepoint]
pub fn exit_aio(ctx: BtfTracePointContext) -> u32 {
    let Some(exit) = Exit::of(&ctx) else { return 0 };
    if aio::next(&exit) {
        continue_as(&ctx, Class::Aio as u8);
    }
    0
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
fn is_watched(file: *const u8) -> bool {
    filter::is_watched(Probe::ptr(Probe::ptr(file, off!(file_f_inode)), off!(inode_i_sb)))
}
