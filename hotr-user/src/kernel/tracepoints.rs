//! Attaches the tracepoint tier: for the hooks that got nothing better, the system calls they are reached by, and the
//! tracepoints for what no system call shows.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::{BtfTracePoint, ProgramError, ProgramFd, RawTracePoint};
use hotr_common::hook::Hook;
use hotr_common::offsets::RESULT_IN_CQE;
use hotr_common::offsets::{ABSENT, Arguments, NO_ARG, Offsets};
use hotr_common::rules::Class;
use hotr_common::tier::Tier;

use super::error::chain;
use super::perf::Events;
use super::plan::PlannedHook;
use super::syscalls;
use super::table::is_optional;
use super::types::KernelTypes;
use super::{preload, rules};

/// Why requests about names are not reported: their program shares its buffer with those on `sys_exit`
/// (`hotr-ebpf/src/hooks/uring_names.rs`).
const SHARED: &str =
    "programs on tracepoints may be preempted, and attaching them through perf does not work";

/// The program that wakes userspace after the one on `sys_exit`.
pub const WAKE: &str = "wake";

/// How this kernel runs programs on tracepoints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// A task may be preempted in one; the kernel skips it for other tasks of that CPU meanwhile.
    pub preemptible: bool,
}

/// How this kernel's `io_uring_complete` shows which request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completion {
    /// It names the request.
    Request(Arguments),
    /// By its user data; the request is recorded at its submission.
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

/// What replaces a hook on this tier.
fn stand_in(hook: Hook) -> Option<Hook> {
    match hook {
        Hook::Mmap | Hook::KernelWrite => Some(Hook::Dirty),
        Hook::UringDone | Hook::UringComplete | Hook::UringIopoll => Some(Hook::UringTrace),
        _ if syscalls::all().any(|call| call.hooks.contains(&hook)) => Some(Hook::SysExit),
        // Writes of kernel threads, for which no tracepoint shows a result.
        _ => None,
    }
}

/// Gives the hooks of the plan that have no tier the tracepoint tier, as far as the kernel lets it; the plan says what was
/// in the way. Returns the perf events that programs hang on.
pub fn attach(
    ebpf: &mut Ebpf,
    kernel: &KernelTypes,
    manner: Manner,
    plan: &mut [PlannedHook],
) -> Vec<OwnedFd> {
    let written = rules::write(ebpf, kernel, plan).and_then(|()| rules::write_uring(ebpf, kernel, plan));
    if let Err(error) = written {
        let why = chain(&error);
        for row in plan.iter_mut().filter(|row| row.tier.is_none()) {
            row.why = format!("{}; tracepoint: {why}", row.why);
        }
        return Vec::new();
    }
    let mut tier = Attaching { ebpf, kernel, manner, exits_by_perf: false, events: Vec::new() };
    for traced in [Hook::SysExit, Hook::Dirty, Hook::UringTrace] {
        let mut waiting: Vec<&mut PlannedHook> =
            plan.iter_mut().filter(|row| row.tier.is_none() && stand_in(row.hook) == Some(traced)).collect();
        // What another hook reports anyway would be reported twice.
        if waiting.iter().all(|row| is_optional(row.hook)) {
            continue;
        }
        let (function, outcome): (&'static str, _) = match traced {
            Hook::Dirty => (DIRTY, tier.programs(&with_copies(DIRTY_PROGRAMS, manner))),
            Hook::UringTrace => (URING, tier.uring()),
            _ => (SYS_EXIT, tier.exit()),
        };
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
        for (name, tracepoint) in with_copies(VICTIM_PROGRAMS, manner) {
            // Without them a removed file is reported without its number and type.
            let _ = tier.program(name, tracepoint);
        }
    }
    tier.events
}

/// The tier while it is being attached.
struct Attaching<'a> {
    ebpf: &'a mut Ebpf,
    kernel: &'a KernelTypes,
    manner: Manner,
    /// The programs on `sys_exit` go through perf.
    exits_by_perf: bool,
    /// The perf events that programs hang on.
    events: Vec<OwnedFd>,
}

impl Attaching<'_> {
    /// The programs on `sys_exit`: through perf where they could be preempted, unless that is not available.
    fn exit(&mut self) -> Result<(), String> {
        if goes_by_perf(self.kernel, self.manner) && self.exit_by_perf().is_ok() {
            self.exits_by_perf = true;
            return Ok(());
        }
        self.load_classes("CLASS_PROGRAMS", CLASS_PROGRAMS)?;
        self.programs(EXIT_PROGRAMS)
    }

    fn exit_by_perf(&mut self) -> Result<(), String> {
        self.load_classes("PERF_CLASSES", PERF_CLASS_PROGRAMS)?;
        self.by_perf(PERF_EXIT, "raw_syscalls/sys_exit")
    }

    /// The programs on io_uring's completions.
    fn uring(&mut self) -> Result<(), String> {
        let by_perf = goes_by_perf(self.kernel, self.manner) && tells_request(self.kernel);
        if by_perf && self.by_perf(PERF_URING, "io_uring/io_uring_complete").is_ok() {
            if !self.exits_by_perf {
                return Err(SHARED.to_owned());
            }
            return self.by_perf(PERF_SUBMITTED, "io_uring/io_uring_submit_req");
        }
        self.programs(uring_programs(self.kernel))?;
        let Some(tracepoint) = submission(self.kernel) else { return Ok(()) };
        if self.manner.preemptible {
            return Err(SHARED.to_owned());
        }
        self.programs(&[(SUBMITTED, tracepoint)])
    }

    fn by_perf(&mut self, name: &str, event: &str) -> Result<(), String> {
        let descriptor = self.loaded(name, "").map_err(|error| chain(&error))?;
        let events = Events::open().map_err(|error| format!("open tracefs: {error}"))?;
        self.events.push(events.attach(event, descriptor.as_fd()).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn load_classes(&mut self, map: &str, programs: &[(Class, &str)]) -> Result<(), String> {
        for &(class, name) in programs {
            let descriptor = self.loaded(name, SYS_EXIT).map_err(|error| chain(&error))?;
            let map = self.ebpf.map_mut(map).ok_or_else(|| format!("the object has no map {map}"))?;
            let mut classes: ProgramArray<&mut MapData> = map.try_into().map_err(|error| chain(&error))?;
            classes.set(class as u32, &descriptor, 0).map_err(|error| chain(&error))?;
        }
        Ok(())
    }

    fn programs(&mut self, programs: &[(&str, &str)]) -> Result<(), String> {
        if programs.is_empty() {
            return Err("this kernel's tracepoint does not show which request ended".to_owned());
        }
        for (name, tracepoint) in programs {
            self.program(name, tracepoint).map_err(|error| chain(&error))?;
        }
        Ok(())
    }

    fn program(&mut self, name: &str, tracepoint: &str) -> Result<(), ProgramError> {
        self.loaded(name, tracepoint)?;
        let program: &mut BtfTracePoint =
            self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.attach()?;
        Ok(())
    }

    /// A program, loaded for a tracepoint unless it has been.
    fn loaded(&mut self, name: &str, tracepoint: &str) -> Result<ProgramFd, ProgramError> {
        let program = self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
        preload::load(program, tracepoint, self.kernel)?;
        Ok(program.fd()?.try_clone()?)
    }
}

/// Attaches what sees the system calls of followed processes, for a diagnosis. Returns the perf event that it hangs on.
pub fn attach_follow(ebpf: &mut Ebpf, kernel: &KernelTypes, manner: Manner) -> Result<Vec<OwnedFd>, String> {
    let mut tier = Attaching { ebpf, kernel, manner, exits_by_perf: false, events: Vec::new() };
    if goes_by_perf(kernel, manner) && tier.by_perf(PERF_FOLLOW, "raw_syscalls/sys_exit").is_ok() {
        return Ok(tier.events);
    }
    let program = ebpf.program_mut(FOLLOW).ok_or("the object has no such program")?;
    let program: &mut RawTracePoint = program.try_into().map_err(|error| chain(&error))?;
    program.load().map_err(|error| chain(&error))?;
    program.attach("sys_exit").map_err(|error| chain(&error))?;
    Ok(Vec::new())
}

/// Whether programs on `sys_exit` and `io_uring_complete` go through perf, which costs more where it is not needed.
fn goes_by_perf(kernel: &KernelTypes, manner: Manner) -> bool {
    manner.preemptible && kernel.knows_exit
}

/// Whether perf's records of io_uring have the request, at its submission and with its result.
fn tells_request(kernel: &KernelTypes) -> bool {
    let offsets = &kernel.offsets;
    [offsets.trace_uring_req, offsets.trace_uring_res, offsets.trace_uring_submitted]
        .iter()
        .all(|offset| *offset != ABSENT)
}

/// The tracepoint of a submitted request that begins with the request. Where the completion does not name the request,
/// another program is there for both.
fn submission(kernel: &KernelTypes) -> Option<&'static str> {
    if !matches!(completion(kernel), Some(Completion::Request(_))) {
        return None;
    }
    ["io_uring_submit_req", "io_uring_submit_sqe"].into_iter().find(|name| {
        let first = kernel.tracepoint(name).and_then(|found| found.parameters.first());
        first.is_some_and(|name| name.as_deref() == Some("io_kiocb"))
    })
}

/// Every tracepoint that is used.
pub(super) const ALL: &[&str] = &[
    SYS_EXIT,
    "writeback_mark_inode_dirty",
    "ctime_ns_xchg",
    "ctime_xchg_skip",
    "inode_set_ctime_to_ts",
    "io_uring_complete",
    "io_uring_submit_sqe",
    "io_uring_submit_req",
];

const SYS_EXIT: &str = "sys_exit";
const DIRTY: &str = "writeback_mark_inode_dirty";
const URING: &str = "io_uring_complete";
/// In this order: the second wakes for what the first submitted.
const EXIT_PROGRAMS: &[(&str, &str)] = &[("sys_exit", SYS_EXIT), (WAKE, SYS_EXIT)];
const FOLLOW: &str = "follow_exit";
const PERF_FOLLOW: &str = "perf_follow_exit";
const PERF_EXIT: &str = "perf_sys_exit";
const PERF_URING: &str = "perf_uring_complete";
const SUBMITTED: &str = "uring_submitted";
const PERF_SUBMITTED: &str = "perf_uring_submitted";
const DIRTY_PROGRAMS: &[Copied] = &[(["mark_dirty", "mark_dirty_2", "mark_dirty_3"], DIRTY)];

/// Programs that see the file which a removing call removes, on kernels that have their tracepoints.
const VICTIM_PROGRAMS: &[Copied] = &[
    (["ctime_xchg", "ctime_xchg_2", "ctime_xchg_3"], "ctime_ns_xchg"),
    (["ctime_skip", "ctime_skip_2", "ctime_skip_3"], "ctime_xchg_skip"),
    (["ctime_set", "ctime_set_2", "ctime_set_3"], "inode_set_ctime_to_ts"),
];

/// A program with its copies, and the tracepoint. Its record lacks what the program needs, so it cannot go through
/// perf. Where it may be preempted, the copies replace it and each other.
type Copied = ([&'static str; 3], &'static str);

/// The programs of such a list that this kernel needs, each with its tracepoint.
fn with_copies(programs: &[Copied], manner: Manner) -> Vec<(&'static str, &'static str)> {
    let needed = if manner.preemptible { 3 } else { 1 };
    programs.iter().flat_map(|(names, on)| names.iter().take(needed).map(|name| (*name, *on))).collect()
}

/// Groups of programs that replace each other: what one is skipped for, another one does.
pub fn copies() -> impl Iterator<Item = &'static [&'static str]> {
    DIRTY_PROGRAMS.iter().map(|(names, _)| names.as_slice())
}

/// The same for those that report no change.
pub fn victims() -> impl Iterator<Item = &'static [&'static str]> {
    VICTIM_PROGRAMS.iter().map(|(names, _)| names.as_slice())
}

/// Names of this tier's programs on this kernel, each with its tracepoint.
pub(super) fn programs(kernel: &KernelTypes, manner: Manner) -> HashMap<&'static str, &'static str> {
    let mut all = with_copies(DIRTY_PROGRAMS, manner);
    all.extend(with_copies(VICTIM_PROGRAMS, manner));
    let classes = if goes_by_perf(kernel, manner) {
        all.push((PERF_EXIT, SYS_EXIT));
        if tells_request(kernel) {
            all.extend([(PERF_URING, URING), (PERF_SUBMITTED, URING)]);
        }
        PERF_CLASS_PROGRAMS
    } else {
        all.extend(EXIT_PROGRAMS);
        all.extend(uring_programs(kernel));
        all.extend(submission(kernel).map(|tracepoint| (SUBMITTED, tracepoint)));
        CLASS_PROGRAMS
    };
    all.extend(classes.iter().map(|(_, name)| (*name, SYS_EXIT)));
    all.retain(|(_, tracepoint)| kernel.tracepoint(tracepoint).is_some());
    all.into_iter().collect()
}

/// The program of each class of system calls, which the one on `sys_exit` continues with.
const CLASS_PROGRAMS: &[(Class, &str)] = &[
    (Class::Write, "exit_descriptor"),
    (Class::File, "exit_descriptor"),
    (Class::Ioctl, "exit_descriptor"),
    (Class::Open, "exit_open"),
    (Class::OpenHow, "exit_open"),
    (Class::Creat, "exit_open"),
    (Class::OpenTruncate, "exit_descriptor"),
    (Class::Aio, "exit_aio"),
    (Class::Path, "exit_path"),
    (Class::Bind, "exit_path"),
    (Class::Subvolume, "exit_path"),
];

/// The same through perf.
const PERF_CLASS_PROGRAMS: &[(Class, &str)] = &[
    (Class::Write, "perf_descriptor"),
    (Class::File, "perf_descriptor"),
    (Class::Ioctl, "perf_descriptor"),
    (Class::Open, "perf_open"),
    (Class::OpenHow, "perf_open"),
    (Class::Creat, "perf_open"),
    (Class::OpenTruncate, "perf_descriptor"),
    (Class::Aio, "perf_aio"),
    (Class::Path, "perf_path"),
    (Class::Bind, "perf_path"),
    (Class::Subvolume, "perf_path"),
];

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
