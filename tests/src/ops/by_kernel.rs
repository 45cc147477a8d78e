//! What the kernel itself writes in a task: the accounts of processes that have ended.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::{OpError, Operation, all_fs, checked, step};
use crate::expect::Expect;

/// Size of `struct acct_v3` (linux/acct.h).
const ACCOUNT: u64 = 64;

pub(super) const OPS: &[Operation] = &[all_fs("process-accounting", |c| {
    let path = c.inside("acct");
    std::fs::write(&path, b"")?;
    let name =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| OpError::other("the path holds a NUL"))?;
    let line = Expect::data(path, "kernel-write", 2 * ACCOUNT);
    let line = Expect { pid: None, tid: None, comm: None, writes: Some(2), repeated: true, ..line };
    step(vec![line], move || in_namespace(|| account(&name)))
})];

/// Runs a function in the first process of a pid namespace of its own, whose processes alone are then accounted for.
fn in_namespace(run: impl FnOnce() -> i32) -> Result<(), OpError> {
    // SAFETY: as fork, because no stack is given; the child calls `run` and ends without running anything of this
    // process.
    let child =
        checked(unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWPID | libc::SIGCHLD, 0, 0, 0, 0) })?;
    if child == 0 {
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(run()) };
    }
    match wait_for(i32::try_from(child).unwrap_or(-1)) {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(errno).into()),
    }
}

/// Accounts for a process that has ended, and for this one. Returns an error number, or 0.
fn account(name: &CString) -> i32 {
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    // SAFETY: a NUL-terminated string that lives over the call.
    if unsafe { libc::acct(name.as_ptr()) } != 0 {
        return errno();
    }
    // SAFETY: the child of a process with one thread, which only ends.
    match unsafe { libc::fork() } {
        -1 => return errno(),
        // SAFETY: ends the child at once.
        0 => unsafe { libc::_exit(0) },
        child => wait_for(child),
    };
    // SAFETY: no string: accounting ends, and so has, for it, the process that ends it.
    if unsafe { libc::acct(std::ptr::null()) } == 0 { 0 } else { errno() }
}

/// The status with which a child has ended.
fn wait_for(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the destination is a local.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited == child && libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { libc::ECHILD }
}
