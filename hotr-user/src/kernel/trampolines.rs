//! Whether the kernel takes programs at functions (fentry, fexit) at all, asked with the smallest one there is.
//!
//! In: the id of a function. Out: the kernel's answer, before any of the object's programs is loaded.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use super::bpf_call::{bpf, no_attributes};

/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// Loads a program that does nothing for the function's exit, and gives it up again.
///
/// # Errors
/// The kernel's answer (kernel/bpf/syscall.c `bpf_prog_load`): `EPERM` for lack of a capability or of trampolines.
pub(super) fn for_fexit(function: u32) -> io::Result<()> {
    let mut attributes = no_attributes();
    // SAFETY: every member of the union is made of numbers, and all are zero.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.insn_cnt = NOTHING.len() as u32;
    load.insns = NOTHING.as_ptr().expose_provenance() as u64;
    load.license = c"GPL".as_ptr().expose_provenance() as u64;
    load.expected_attach_type = bpf_attach_type::BPF_TRACE_FEXIT as u32;
    load.attach_btf_id = function;
    // SAFETY: the attributes point to the code, whose length they have, and to the licence, which ends in a zero; both live
    // for ever.
    let program = unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }?;
    // SAFETY: a descriptor that was just opened, and is known to nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(program) });
    Ok(())
}
