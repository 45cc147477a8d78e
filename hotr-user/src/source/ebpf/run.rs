//! Runs programs that are attached to nothing, in the thread that asks (`BPF_PROG_TEST_RUN`, for raw tracepoints from 5.10
//! on). Unlike bpf(2) on a map it is in no other program's way (kernel/bpf/syscall.c `bpf_disable_instrumentation`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::Ebpf;

use crate::kernel::load::LoadError;

/// `BPF_PROG_TEST_RUN`.
const TEST_RUN: libc::c_int = 10;

/// `union bpf_attr` of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    result: u32,
    data: [u64; 3],
    repeat: u32,
    duration: u32,
    context_size: u32,
    context_size_out: u32,
    context: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
}
const _: () = assert!(size_of::<Attributes>() == 72);

/// Loads a program of the object, to be run.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let program = super::raw_tracepoint(ebpf, name)?;
    let refused = |error| LoadError::Program { program: name, error };
    program.load().map_err(refused)?;
    let descriptor = program.fd().map_err(refused)?.as_fd();
    descriptor.try_clone_to_owned().map_err(|_| LoadError::Map(name))
}

/// Runs a program. It writes its result to a map: aya lets programs of this kind return nothing.
///
/// # Errors
/// `EINVAL` on kernels that run no program of this kind.
pub(super) fn run(program: BorrowedFd<'_>, arguments: &[u64]) -> io::Result<()> {
    let mut attributes = Attributes {
        program: program.as_raw_fd().cast_unsigned(),
        context_size: size_of_val(arguments) as u32,
        context: arguments.as_ptr().expose_provenance() as u64,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads the attributes and the arguments that they point to, and writes its results to the
    // attributes; both outlive the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut attributes, size_of::<Attributes>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
