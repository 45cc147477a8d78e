//! How often the kernel did not run a program of hotr's although its hook was passed.
//!
//! It does not run a tracing program that is running already on that CPU, and no kprobe program while another one
//! runs there; where tasks are preempted inside the kernel, that is another task's call. It counts those in
//! `recursion_misses` of the program's fdinfo (kernel/bpf/syscall.c `bpf_prog_show_fdinfo`), on kernels that have it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use aya::Ebpf;

use crate::kernel::tracepoints;

/// The open fdinfo files of the loaded programs.
#[derive(Default)]
pub(super) struct Skipped {
    programs: Vec<File>,
}

impl Skipped {
    /// Of the programs that are loaded now. `wake` is left out: what it was not run for, the run that was in its way
    /// does.
    pub(super) fn of(ebpf: &Ebpf) -> Self {
        let programs = ebpf.programs().filter(|(name, _)| *name != tracepoints::WAKE);
        let fds = programs.filter_map(|(_, program)| program.fd().ok());
        let open =
            fds.filter_map(|fd| File::open(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok());
        Self { programs: open.collect() }
    }

    /// The sum over the programs; 0 on kernels that do not count it.
    pub(super) fn count(&self) -> u64 {
        let mut text = [0; 512];
        let misses = self.programs.iter().filter_map(|file| {
            let len = file.read_at(&mut text, 0).ok()?;
            let text = std::str::from_utf8(&text[..len]).ok()?;
            text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse::<u64>().ok())
        });
        misses.sum()
    }
}
