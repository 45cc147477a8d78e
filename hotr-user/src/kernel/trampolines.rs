//! Whether the kernel takes programs at functions (fentry, fexit) at all, asked with the smallest one there is.
//!
//! In: the id of a function. Out: the kernel's answer, before any of the object's programs is loaded.

use std::io;

/// `BPF_PROG_LOAD`.
const BPF_PROG_LOAD: libc::c_int = 5;
/// `BPF_PROG_TYPE_TRACING`.
const TRACING: u32 = 26;
/// `BPF_TRACE_FEXIT`.
const FEXIT: u32 = 25;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// `union bpf_attr` of `BPF_PROG_LOAD`, up to the last field that is used.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    types: u32,
    functions_size: u32,
    functions: u64,
    functions_count: u32,
    lines_size: u32,
    lines: u64,
    lines_count: u32,
    attach_function: u32,
}

/// Loads a program that does nothing for the function's exit, and gives it up again.
///
/// # Errors
/// The kernel's answer (kernel/bpf/syscall.c `bpf_prog_load`): `EPERM` for lack of a capability or of trampolines.
pub(super) fn for_fexit(function: u32) -> io::Result<()> {
    let attributes = LoadAttributes {
        kind: TRACING,
        instructions: NOTHING.len() as u32,
        code: NOTHING.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        attach_type: FEXIT,
        attach_function: function,
        ..LoadAttributes::default()
    };
    // SAFETY: the kernel reads the attributes, and the code and the licence that they point to, all of which live until it
    // returns.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>())
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just opened, and is known to nobody else.
    unsafe { libc::close(answer as libc::c_int) };
    Ok(())
}
