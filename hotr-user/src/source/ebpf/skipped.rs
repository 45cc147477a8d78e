//! How often the kernel did not run one of hotr's programs although its hook was reached.
//!
//! It does not run a tracing program that is running already on that CPU, and no kprobe program while another one runs
//! there: in a task that was preempted, or that an interrupt came into. It counts those in `recursion_misses` of the
//! program's fdinfo (kernel/bpf/syscall.c `bpf_prog_show_fdinfo`), on kernels that have it. Probes that were not even
//! handled it counts in tracefs (see [`Attached::missed`]), and in the `missed` of their link
//! (kernel/trace/trace_kprobe.c `bpf_get_kprobe_info`, 6.7), for those that could not be made through tracefs.
//!
//! [`Attached::missed`]: crate::kernel::load::Attached::missed

use std::fs::File;
use std::mem::{offset_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use aya::Ebpf;
use aya::programs::Program;
use aya_obj::generated::{bpf_cmd, bpf_link_info, bpf_link_type, bpf_perf_event_type};

use super::registry::{REGISTER, UPDATE_ROOTS};
use crate::kernel::bpf_call::{bpf, no_attributes};
use crate::kernel::tracepoints;

/// What to ask.
#[derive(Default)]
pub(super) struct Skipped {
    /// The fdinfo files of the loaded programs; together those that replace each other.
    programs: Vec<Vec<File>>,
    /// The links of probes.
    probes: Vec<OwnedFd>,
}

impl Skipped {
    /// Of the programs that are loaded now, except those that see no change. When `wake` is skipped, the run that
    /// blocked it does its work; and without the programs that see a removed file its removal is reported, but not its
    /// number.
    pub(super) fn of(ebpf: &Ebpf) -> Self {
        let file = |program: &Program| {
            let descriptor = program.fd().ok()?.as_fd().as_raw_fd();
            File::open(format!("/proc/self/fdinfo/{descriptor}")).ok()
        };
        let others = || {
            let copies = tracepoints::copies().chain(tracepoints::victims()).flatten().copied();
            copies.chain([tracepoints::WAKE, REGISTER, UPDATE_ROOTS])
        };
        let alone = ebpf.programs().filter(|(name, _)| others().all(|other| other != *name));
        let mut programs: Vec<Vec<File>> =
            alone.filter_map(|(_, program)| file(program)).map(|file| vec![file]).collect();
        let group = |names: &[&str]| names.iter().filter_map(|name| file(ebpf.program(name)?)).collect();
        programs.extend(tracepoints::copies().map(group));
        Self { programs, probes: probes() }
    }

    /// The sum over programs and probes; 0 on kernels that do not count it. For programs that replace each other, the
    /// one that was skipped least shows how often all may have been.
    pub(super) fn count(&self) -> u64 {
        let least = |group: &Vec<File>| group.iter().filter_map(recursion_misses).min();
        self.programs.iter().filter_map(least).sum::<u64>()
            + self.probes.iter().filter_map(|link| missed(link.as_fd())).sum::<u64>()
    }
}

/// From the fdinfo of a program.
fn recursion_misses(file: &File) -> Option<u64> {
    let mut text = [0; 512];
    let len = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..len]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

/// Links of kprobes and kretprobes among the descriptors of this process: all of them are hotr's.
fn probes() -> Vec<OwnedFd> {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = descriptors.flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let is_link = target.to_str()?.contains("bpf") && target.to_str()?.contains("link");
        is_link.then_some(entry.file_name().to_str()?.parse::<i32>().ok()?)
    });
    let links = numbers.filter_map(|number| {
        // SAFETY: the link stays open as long as it is attached, and nothing is detached on this thread meanwhile.
        unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().ok()
    });
    links.filter(|link| missed(link.as_fd()).is_some()).collect()
}

/// The kinds of events of probes.
const PROBES: [bpf_perf_event_type; 2] =
    [bpf_perf_event_type::BPF_PERF_EVENT_KPROBE, bpf_perf_event_type::BPF_PERF_EVENT_KRETPROBE];
/// Bytes of a link's description up to `missed` of a probe.
const UP_TO_MISSED: usize =
    offset_of!(bpf_link_info, __bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed) + size_of::<u64>();

/// How often a probe was not handled; `None` when the link is of something else, or the kernel does not show it (before
/// 6.7).
fn missed(link: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: all members of the structure are numbers, of which zero is one.
    let mut info: bpf_link_info = unsafe { zeroed() };
    let mut attributes = no_attributes();
    attributes.info.bpf_fd = u32::try_from(link.as_raw_fd()).ok()?;
    attributes.info.info_len = u32::try_from(UP_TO_MISSED).ok()?;
    attributes.info.info = (&raw mut info).expose_provenance() as u64;
    // SAFETY: the kernel writes at most `info_len` bytes to `info` (kernel/bpf/syscall.c `bpf_link_get_info_by_fd`), which is
    // larger and lives until it returns.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }.ok()?;
    // SAFETY: the kernel has written its new length there.
    let is_told = unsafe { attributes.info.info_len } as usize == UP_TO_MISSED;
    // SAFETY: every member of the unions is made of numbers. Of another link these are others, which are not used.
    let (event, missed) = unsafe {
        let event = &info.__bindgen_anon_1.perf_event;
        (event.type_, event.__bindgen_anon_1.kprobe.missed)
    };
    let is_probe = info.type_ == bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32
        && PROBES.iter().any(|kind| *kind as u32 == event);
    (is_probe && is_told).then_some(missed)
}
