//! Gives the kernel side every system call that changes files: by its number in the native table, and by the one in the
//! 32-bit table, which other programs of the same machine use.
//!
//! A 32-bit call has its arguments in the same order as the native one, in other registers.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use hotr_common::hook::Hook;
use hotr_common::rules::{RULE_COMPAT, RULES, Rule};

use super::error::LoadError;
use super::plan::PlannedHook;
use super::syscalls::{self, SystemCall};
use super::table::is_optional;
use super::types::KernelTypes;
use super::uring;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct RulePod(Rule);
// SAFETY: `Rule` is `repr(C)`, eight bytes without padding.
unsafe impl aya::Pod for RulePod {}

/// Writes the rules; in force are those for the hooks without a tier.
///
/// # Errors
/// When the map is not as expected.
pub(super) fn write(ebpf: &mut Ebpf, kernel: &KernelTypes, plan: &[PlannedHook]) -> Result<(), LoadError> {
    let offsets = &kernel.offsets;
    let wrong = || LoadError::Map("SYSCALLS");
    let map = ebpf.map_mut("SYSCALLS").ok_or_else(wrong)?;
    let mut rules: Array<&mut MapData, RulePod> = Array::try_from(map).map_err(|_| wrong())?;
    let is_missing = |hook| is_missing(plan, hook);
    let enabled = |call: &SystemCall| call.hooks.iter().any(|hook| is_missing(*hook));
    for call in syscalls::all() {
        let rule = call.rule(&offsets.regs_arg, enabled(call)).map_err(|_| wrong())?;
        let index = u32::try_from(call.number).ok().filter(|number| *number < RULES).ok_or_else(wrong)?;
        rules.set(index, RulePod(rule), 0).map_err(|_| wrong())?;
    }
    for (number, native) in COMPAT {
        let Some(call) = i32::try_from(*native).ok().and_then(syscalls::by_number) else { continue };
        let rule = call.rule(&offsets.regs_compat, enabled(call)).map_err(|_| wrong())?;
        rules.set(RULES + number, RulePod(rule), 0).map_err(|_| wrong())?;
        // At this number the program looks first.
        let mut native = rules.get(number, 0).map_err(|_| wrong())?;
        native.0.flags |= RULE_COMPAT;
        rules.set(*number, native, 0).map_err(|_| wrong())?;
    }
    Ok(())
}

/// Whether a hook has no tier, and nothing else reports what it would.
fn is_missing(plan: &[PlannedHook], hook: Hook) -> bool {
    plan.iter().any(|row| row.hook == hook && row.tier.is_none() && !is_optional(row.hook))
}

/// The same for io_uring requests.
///
/// # Errors
/// When the map is not as expected.
pub(super) fn write_uring(
    ebpf: &mut Ebpf,
    kernel: &KernelTypes,
    plan: &[PlannedHook],
) -> Result<(), LoadError> {
    let wrong = || LoadError::Map("URING_RULES");
    let map = ebpf.map_mut("URING_RULES").ok_or_else(wrong)?;
    let mut rules: Array<&mut MapData, RulePod> = Array::try_from(map).map_err(|_| wrong())?;
    for (opcode, hooks, rule) in &kernel.uring {
        if hooks.iter().any(|hook| is_missing(plan, *hook)) {
            rules.set(*opcode, RulePod(uring::enabled(*rule)), 0).map_err(|_| wrong())?;
        }
    }
    Ok(())
}

/// Writes the native numbers of 32-bit calls, for the records of every tier. Without them a record names no call.
pub(super) fn write_compat(ebpf: &mut Ebpf) {
    let Some(map) = ebpf.map_mut("COMPAT_CALLS") else { return };
    let Ok(mut numbers) = Array::<&mut MapData, u32>::try_from(map) else { return };
    for (number, native) in COMPAT {
        if let Ok(native) = u32::try_from(*native) {
            let _ = numbers.set(*number, native + 1, 0);
        }
    }
}

/// Numbers of the 32-bit table (arch/x86/entry/syscalls/syscall_32.tbl) and of the native calls that do the same. Not
/// there: `io_submit`, whose requests have another layout, and `socketcall`.
#[cfg(target_arch = "x86_64")]
const COMPAT: &[(u32, i64)] = &[
    (4, libc::SYS_write),
    (5, libc::SYS_open),
    (8, libc::SYS_creat),
    (9, libc::SYS_link),
    (10, libc::SYS_unlink),
    (14, libc::SYS_mknod),
    (15, libc::SYS_chmod),
    (16, libc::SYS_lchown),
    (30, libc::SYS_utime),
    (38, libc::SYS_rename),
    (39, libc::SYS_mkdir),
    (40, libc::SYS_rmdir),
    (54, libc::SYS_ioctl),
    (83, libc::SYS_symlink),
    (92, libc::SYS_truncate),
    (93, libc::SYS_ftruncate),
    (94, libc::SYS_fchmod),
    (95, libc::SYS_fchown),
    (146, libc::SYS_writev),
    (181, libc::SYS_pwrite64),
    (182, libc::SYS_chown),
    (187, libc::SYS_sendfile),
    // truncate64, ftruncate64
    (193, libc::SYS_truncate),
    (194, libc::SYS_ftruncate),
    // lchown32, fchown32, chown32
    (198, libc::SYS_lchown),
    (207, libc::SYS_fchown),
    (212, libc::SYS_chown),
    (226, libc::SYS_setxattr),
    (227, libc::SYS_lsetxattr),
    (228, libc::SYS_fsetxattr),
    (235, libc::SYS_removexattr),
    (236, libc::SYS_lremovexattr),
    (237, libc::SYS_fremovexattr),
    // sendfile64
    (239, libc::SYS_sendfile),
    (271, libc::SYS_utimes),
    (295, libc::SYS_openat),
    (296, libc::SYS_mkdirat),
    (297, libc::SYS_mknodat),
    (298, libc::SYS_fchownat),
    (299, libc::SYS_futimesat),
    (301, libc::SYS_unlinkat),
    (302, libc::SYS_renameat),
    (303, libc::SYS_linkat),
    (304, libc::SYS_symlinkat),
    (306, libc::SYS_fchmodat),
    (313, libc::SYS_splice),
    (320, libc::SYS_utimensat),
    (324, libc::SYS_fallocate),
    (334, libc::SYS_pwritev),
    (342, libc::SYS_open_by_handle_at),
    (353, libc::SYS_renameat2),
    (361, libc::SYS_bind),
    (377, libc::SYS_copy_file_range),
    (379, libc::SYS_pwritev2),
    // utimensat_time64
    (412, libc::SYS_utimensat),
    (426, libc::SYS_io_uring_enter),
    (437, libc::SYS_openat2),
    // fchmodat2, setxattrat, removexattrat, file_setattr: the same in every table.
    (452, 452),
    (463, 463),
    (466, 466),
    (469, 469),
];

/// No 32-bit table is known.
#[cfg(not(target_arch = "x86_64"))]
const COMPAT: &[(u32, i64)] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_of_the_32_bit_table_stands_for_a_known_call_once() {
        for (position, (number, native)) in COMPAT.iter().enumerate() {
            assert!(*number < RULES);
            assert!(i32::try_from(*native).ok().and_then(syscalls::by_number).is_some(), "{number}");
            assert!(COMPAT[..position].iter().all(|(other, _)| other < number), "{number} is out of order");
        }
    }
}
