//! Attaches the tracepoint tier: for the hooks that got nothing better, the system calls they are reached by, and
//! the tracepoints for what no system call tells.

use std::collections::HashMap;

use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{BtfTracePoint, ProgramError, ProgramFd};
use hotr_common::hook::Hook;
use hotr_common::offsets::{Arguments, NO_ARG, Offsets};
use hotr_common::rules::{Class, RULES, Rule};

use super::load::{LoadError, PlannedHook, Tier, chain};
use super::syscalls;
use super::table::is_optional;
use super::types::KernelTypes;

/// The program that wakes userspace after the one on `sys_exit`.
pub const WAKE: &str = "wake";

/// [`Arguments::ret_pointer`] of the io_uring tracepoint when its result is in the completion entry.
const RESULT_IN_CQE: u8 = 1;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct RulePod(Rule);
// SAFETY: `Rule` is `repr(C)`, eight bytes without padding.
unsafe impl aya::Pod for RulePod {}

/// How this kernel's `io_uring_complete` tells which request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completion {
    /// It names the request.
    Request(Arguments),
    /// By its user data; the request is told at its submission.
    UserData,
}

fn completion(kernel: &KernelTypes) -> Option<Completion> {
    let complete = kernel.tracepoint("io_uring_complete")?;
    let request =
        |second, ret_pointer| Completion::Request(Arguments { subject: 1, second, ret: NO_ARG, ret_pointer });
    if complete.parameters.get(2).is_some_and(|name| name.as_deref() == Some("io_uring_cqe")) {
        return Some(request(2, RESULT_IN_CQE));
    }
    if complete.parameters.len() > 4 {
        return Some(request(3, 0));
    }
    // (ctx, req, opcode, user_data, …); before it named the request, it had five parameters.
    let submit = kernel.tracepoint("io_uring_submit_sqe")?;
    (submit.parameters.len() > 5).then_some(Completion::UserData)
}

/// Positions of the io_uring tracepoint's arguments, for the frozen offsets.
pub fn set_arguments(kernel: &KernelTypes, offsets: &mut Offsets) {
    if let Some(Completion::Request(arguments)) = completion(kernel) {
        offsets.arguments[Hook::UringTrace as usize] = arguments;
    }
}

/// What stands in for a hook on this tier.
fn stand_in(hook: Hook) -> Option<Hook> {
    match hook {
        Hook::Mmap => Some(Hook::Dirty),
        Hook::UringDone | Hook::UringComplete | Hook::UringIopoll => Some(Hook::UringTrace),
        _ if syscalls::all().any(|call| call.hooks.contains(&hook)) => Some(Hook::SysExit),
        // Writes of kernel threads, for which no tracepoint tells a result.
        _ => None,
    }
}

/// Gives the hooks of the plan that have no tier the tracepoint tier, as far as the kernel lets it.
///
/// # Errors
/// When the map of rules is not as expected.
pub fn attach(ebpf: &mut Ebpf, kernel: &KernelTypes, plan: &mut [PlannedHook]) -> Result<(), LoadError> {
    write_rules(ebpf, &kernel.offsets, plan)?;
    for traced in [Hook::SysExit, Hook::Dirty, Hook::UringTrace] {
        let mut waiting: Vec<&mut PlannedHook> =
            plan.iter_mut().filter(|row| row.tier.is_none() && stand_in(row.hook) == Some(traced)).collect();
        // What another hook tells anyway would be told twice.
        if waiting.iter().all(|row| is_optional(row.hook)) {
            continue;
        }
        let (function, programs): (&'static str, &[(&str, &str)]) = match traced {
            Hook::Dirty => ("writeback_mark_inode_dirty", DIRTY_PROGRAMS),
            Hook::UringTrace => ("io_uring_complete", uring_programs(kernel)),
            _ => (SYS_EXIT, EXIT_PROGRAMS),
        };
        let outcome = match traced {
            Hook::SysExit => load_classes(ebpf, kernel),
            _ => Ok(()),
        }
        .and_then(|()| attach_programs(ebpf, kernel, programs));
        for row in &mut waiting {
            match &outcome {
                Ok(()) => {
                    row.tier = Some(Tier::Tracepoint);
                    row.function = function;
                }
                Err(why) => {
                    if !row.why.is_empty() {
                        row.why.push_str("; ");
                    }
                    row.why.push_str(&format!("tracepoint {function}: {why}"));
                }
            }
        }
    }
    if plan.iter().any(|row| row.hook == Hook::Unlink && row.tier == Some(Tier::Tracepoint)) {
        for (name, tracepoint) in VICTIM_PROGRAMS {
            // Without them a removed file is reported without its number and type.
            let _ = attach_program(ebpf, kernel, name, tracepoint);
        }
    }
    Ok(())
}

/// Every tracepoint that is asked for.
pub(super) const ALL: &[&str] = &[
    SYS_EXIT,
    "writeback_mark_inode_dirty",
    "ctime_ns_xchg",
    "ctime_xchg_skip",
    "inode_set_ctime_to_ts",
    "io_uring_complete",
    "io_uring_submit_sqe",
];

const SYS_EXIT: &str = "sys_exit";
/// In this order: the second wakes for what the first submitted.
const EXIT_PROGRAMS: &[(&str, &str)] = &[("sys_exit", SYS_EXIT), (WAKE, SYS_EXIT)];
const DIRTY_PROGRAMS: &[(&str, &str)] = &[("mark_dirty", "writeback_mark_inode_dirty")];

/// Names of this tier's programs on this kernel, each with its tracepoint.
pub(super) fn programs(kernel: &KernelTypes) -> HashMap<&'static str, &'static str> {
    let classes = CLASS_PROGRAMS.iter().map(|(_, name)| (*name, SYS_EXIT));
    let rest = [EXIT_PROGRAMS, DIRTY_PROGRAMS, VICTIM_PROGRAMS, uring_programs(kernel)]
        .into_iter()
        .flatten()
        .copied();
    classes.chain(rest.filter(|(_, tracepoint)| kernel.tracepoint(tracepoint).is_some())).collect()
}

/// Programs that see the file which a removing call removes, on kernels that have their tracepoints.
const VICTIM_PROGRAMS: &[(&str, &str)] = &[
    ("ctime_xchg", "ctime_ns_xchg"),
    ("ctime_skip", "ctime_xchg_skip"),
    ("ctime_set", "inode_set_ctime_to_ts"),
];

/// The program of each class of system calls, which the one on `sys_exit` continues with.
const CLASS_PROGRAMS: &[(Class, &str)] = &[
    (Class::Write, "exit_descriptor"),
    (Class::File, "exit_descriptor"),
    (Class::Ioctl, "exit_descriptor"),
    (Class::Open, "exit_open"),
    (Class::OpenHow, "exit_open"),
    (Class::Creat, "exit_open"),
    (Class::OpenTruncate, "exit_open_truncate"),
    (Class::Aio, "exit_aio"),
    (Class::Path, "exit_path"),
    (Class::Bind, "exit_path"),
];

fn load_classes(ebpf: &mut Ebpf, kernel: &KernelTypes) -> Result<(), String> {
    for &(class, name) in CLASS_PROGRAMS {
        let descriptor = class_program(ebpf, kernel, name).map_err(|error| chain(&error))?;
        let map = ebpf.map_mut("CLASS_PROGRAMS").ok_or("the object has no map CLASS_PROGRAMS")?;
        let mut classes: ProgramArray<&mut MapData> = map.try_into().map_err(|error| chain(&error))?;
        classes.set(class as u32, &descriptor, 0).map_err(|error| chain(&error))?;
    }
    Ok(())
}

fn class_program(ebpf: &mut Ebpf, kernel: &KernelTypes, name: &str) -> Result<ProgramFd, ProgramError> {
    let program: &mut BtfTracePoint = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
    if program.fd().is_err() {
        program.load(SYS_EXIT, kernel.for_aya())?;
    }
    Ok(program.fd()?.try_clone()?)
}

/// The programs that see io_uring's completions on this kernel, and their tracepoints.
fn uring_programs(kernel: &KernelTypes) -> &'static [(&'static str, &'static str)] {
    match completion(kernel) {
        Some(Completion::Request(_)) => &[("uring_complete", "io_uring_complete")],
        Some(Completion::UserData) => {
            &[("uring_submit", "io_uring_submit_sqe"), ("uring_complete_by_data", "io_uring_complete")]
        }
        None => &[],
    }
}

/// Tells the kernel side every system call that changes files, in force for the hooks without a tier.
fn write_rules(ebpf: &mut Ebpf, offsets: &Offsets, plan: &[PlannedHook]) -> Result<(), LoadError> {
    let wrong = || LoadError::Map("SYSCALLS");
    let map = ebpf.map_mut("SYSCALLS").ok_or_else(wrong)?;
    let mut rules: Array<&mut MapData, RulePod> = Array::try_from(map).map_err(|_| wrong())?;
    for call in syscalls::all() {
        let missing = |hook: &Hook| {
            plan.iter().any(|row| row.hook == *hook && row.tier.is_none() && !is_optional(row.hook))
        };
        let rule = call.rule(&offsets.regs_arg, call.hooks.iter().any(missing)).map_err(|_| wrong())?;
        let index = u32::try_from(call.number).ok().filter(|number| *number < RULES).ok_or_else(wrong)?;
        rules.set(index, RulePod(rule), 0).map_err(|_| wrong())?;
    }
    Ok(())
}

fn attach_programs(ebpf: &mut Ebpf, kernel: &KernelTypes, programs: &[(&str, &str)]) -> Result<(), String> {
    if programs.is_empty() {
        return Err("this kernel's tracepoint does not tell which request ended".to_owned());
    }
    for (name, tracepoint) in programs {
        attach_program(ebpf, kernel, name, tracepoint).map_err(|error| chain(&error))?;
    }
    Ok(())
}

fn attach_program(
    ebpf: &mut Ebpf,
    kernel: &KernelTypes,
    name: &str,
    tracepoint: &str,
) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
    if program.fd().is_err() {
        program.load(tracepoint, kernel.for_aya())?;
    }
    program.attach()?;
    Ok(())
}
