//! What the kernel itself writes in a task: the accounts of processes that have ended, the memory of one that crashes.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{OpError, Operation, all_fs, checked, step};
use crate::expect::Expect;

/// Size of `struct acct_v3` (linux/acct.h).
const ACCOUNT: u64 = 64;

/// Most bytes of a core dump: the crashing test has much memory.
const CORE: u64 = 64 << 10;

pub(super) const OPS: &[Operation] = &[
    all_fs("process-accounting", |c| {
        let path = c.inside("acct");
        std::fs::write(&path, b"")?;
        let name = c_string(&path)?;
        let line = Expect::data(path, "kernel-write", 2 * ACCOUNT);
        let line = Expect { pid: None, tid: None, comm: None, writes: Some(2), repeated: true, ..line };
        step(vec![line], move || in_namespace(|| account(&name)))
    }),
    all_fs("core-dump", |c| {
        let pattern = std::fs::read("/proc/sys/kernel/core_pattern")?;
        if pattern.trim_ascii() != b"core" {
            return Err(OpError::other("set kernel.core_pattern to core: dumps go elsewhere"));
        }
        let path = c.inside("core");
        let dir = c_string(path.parent().unwrap_or(&path))?;
        let of_child = |line| Expect { pid: None, tid: None, ..line };
        let made = of_child(Expect::new("create", &["open"], &path));
        // Dumps are not made over what was there: the file is cut, though it is new.
        let cut = of_child(Expect::data(&path, "ftruncate", 0));
        // How many writes a dump takes depends on the kernel, how many bytes on which pages are empty.
        let dump = Expect::data(&path, "kernel-write", 0);
        let dump = of_child(Expect { writes: None, bytes: None, repeated: true, ..dump });
        step(vec![made, cut, dump], move || crash_in(&dir))
    }),
];

fn c_string(path: &Path) -> Result<CString, OpError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| OpError::other("the path holds a NUL"))
}

/// A process that crashes in a directory, and leaves its memory there (fs/coredump.c `do_coredump`).
fn crash_in(dir: &CString) -> Result<(), OpError> {
    // SAFETY: the child of a process with one thread; it only makes system calls, and crashes.
    let child = checked(unsafe { libc::fork() }.into())?;
    if child == 0 {
        let limit = libc::rlimit { rlim_cur: CORE, rlim_max: CORE };
        // SAFETY: a NUL-terminated string and a local; ends the child at once.
        unsafe {
            libc::chdir(dir.as_ptr());
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            // It is not after a change of credentials, which another operation may have made.
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            libc::signal(libc::SIGABRT, libc::SIG_DFL);
            libc::abort();
        }
    }
    let mut status = 0;
    // SAFETY: the destination is a local.
    let waited = unsafe { libc::waitpid(i32::try_from(child).unwrap_or(-1), &raw mut status, 0) };
    if waited == i32::try_from(child).unwrap_or(-1) && libc::WCOREDUMP(status) {
        return Ok(());
    }
    Err(OpError::other(format!("the process left no core: status {status:#x}")))
}

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
