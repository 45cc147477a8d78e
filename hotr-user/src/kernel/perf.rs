//! Attaches programs to tracepoints through perf: perf's handler forbids preemption while they run, on every kernel.
//!
//! In: the kernel's name of an event, a loaded program. Out: a descriptor; closing it detaches. Events have numbers
//! that only tracefs gives. It is opened as a mount that nobody else sees, which disappears when it is closed; without
//! `CAP_SYS_ADMIN`, where it is mounted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::btf::Btf;
use crate::private_mount::private_mount;

/// Where distributions mount it.
const MOUNTED: &str = "/sys/kernel/tracing";

/// `struct perf_event_attr` in its first form, which every kernel knows (include/uapi/linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    event_type: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    breakpoint_address: u64,
}

const _: () = assert!(size_of::<Attributes>() == 64);

const PERF_TYPE_TRACEPOINT: u32 = 2;
/// `attr.disabled`: nothing is counted.
const DISABLED: u64 = 1;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// `PERF_EVENT_IOC_SET_BPF`, `_IOW('$', 8, __u32)`.
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;

/// Whether this kernel's record of `sys_exit` is as the programs read it (`hotr-ebpf/src/hooks/sys_exit/way.rs`).
#[must_use]
pub fn knows_exit(btf: &Btf) -> bool {
    let at = |member| btf.offset_of("trace_event_raw_sys_exit", member);
    at("id") == Some(8) && at("ret") == Some(16)
}

/// The kernel's events.
pub struct Events(OwnedFd);

impl Events {
    /// Opens tracefs.
    ///
    /// # Errors
    /// When it can neither be mounted nor is.
    pub fn open() -> Result<Self, Errno> {
        private_mount("tracefs", MountAttrFlags::empty())
            .or_else(|error| {
                let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
                openat(CWD, Path::new(MOUNTED), flags, Mode::empty()).map_err(|_| error)
            })
            .map(Self)
    }

    /// Runs a loaded program at an event, such as `raw_syscalls/sys_exit`.
    ///
    /// The event itself stays disabled: otherwise it would be counted for nobody. Its program is run nevertheless, for
    /// every task (kernel/trace/bpf_trace.c `perf_event_attach_bpf_prog`).
    ///
    /// # Errors
    /// When there is no such event, or the kernel refuses.
    pub fn attach(&self, event: &str, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let attributes = Attributes {
            event_type: PERF_TYPE_TRACEPOINT,
            size: u32::try_from(size_of::<Attributes>()).expect("64 bytes"),
            config: self.number(event)?,
            flags: DISABLED,
            ..Attributes::default()
        };
        let (this_task, any_cpu, no_group) = (0, -1, -1);
        // SAFETY: the attributes live until the call returns.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                this_task,
                any_cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let number =
            i32::try_from(answer).ok().filter(|number| *number >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: a descriptor that the kernel has just made.
        let opened = unsafe { OwnedFd::from_raw_fd(number) };
        // SAFETY: the request takes a descriptor.
        let answer = unsafe { libc::ioctl(opened.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) };
        if answer == 0 { Ok(opened) } else { Err(io::Error::last_os_error()) }
    }

    /// Opens a file of tracefs by its path there.
    pub(super) fn open_file(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(self.0.as_fd(), Path::new(path), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The number of an event, such as `raw_syscalls/sys_enter`.
    ///
    /// # Errors
    /// When there is no such event, or it may not be read.
    pub fn number(&self, event: &str) -> io::Result<u64> {
        let file = self.open_file(&format!("events/{event}/id"), OFlags::RDONLY)?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
}
