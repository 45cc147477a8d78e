//! Runs programs that are attached to nothing, in the thread that asks (`BPF_PROG_TEST_RUN`, for raw tracepoints from 5.10
//! on). Unlike bpf(2) on a map it is in no other program's way (kernel/bpf/syscall.c `bpf_disable_instrumentation`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya_obj::generated::bpf_cmd;

use crate::kernel::bpf_call::{bpf, no_attributes};
use crate::kernel::load::LoadError;

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
    let mut attributes = no_attributes();
    attributes.test.prog_fd = program.as_raw_fd().cast_unsigned();
    attributes.test.ctx_size_in = size_of_val(arguments) as u32;
    attributes.test.ctx_in = arguments.as_ptr().expose_provenance() as u64;
    // SAFETY: the attributes point to the arguments, whose size they have, and which outlive the call.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes) }.map(drop)
}
