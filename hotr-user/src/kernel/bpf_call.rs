//! bpf(2), where aya has no function for what is asked. The attributes are those of aya-obj, generated from the kernel's
//! include/uapi/linux/bpf.h; what a kernel does not know of them is zero, which it accepts.

use std::io;
use std::mem::zeroed;

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Attributes that are all zero.
pub(crate) const fn no_attributes() -> bpf_attr {
    // SAFETY: all members of the union are numbers and arrays of numbers, of which zero is one.
    unsafe { zeroed() }
}

/// Calls bpf(2). Returns what the kernel does: a descriptor, or 0.
///
/// # Errors
/// The kernel's answer.
///
/// # Safety
/// What the attributes point to must be as large as the command has it, and live until this returns.
pub(crate) unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<libc::c_int> {
    // SAFETY: the attributes have the size that is given; of what they point to the caller says it.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attributes, size_of::<bpf_attr>())
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as libc::c_int) }
}
