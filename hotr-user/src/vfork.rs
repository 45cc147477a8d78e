//! A child that shares this process's memory until it ends or runs another program, as `vfork` makes one.

use std::ffi::{c_int, c_void};
use std::io;

use crate::sched::Blocked;

/// Bytes of the stack; the frames of what runs on it are small.
const SIZE: usize = 64 * 1024;

/// A stack as the ABI wants it.
#[repr(C, align(16))]
struct Aligned([u8; SIZE]);

/// A child's stack, which one child after the other may use.
pub(crate) struct ChildStack(Box<Aligned>);

impl ChildStack {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(Box::new(Aligned([0; SIZE])))
    }

    /// Runs `body` with `argument` in a child; returns its number once it has ended or runs another program. `flags` are
    /// further flags of clone(2), and the signal that the child sends at its end.
    ///
    /// # Errors
    /// No process can be made.
    ///
    /// # Safety
    /// `body` takes a pointer to a `T`. It only makes system calls, allocates nothing, does not unwind, and uses nothing that
    /// another thread may hold locked.
    pub(crate) unsafe fn run<T>(
        &mut self,
        body: extern "C" fn(*mut c_void) -> c_int,
        argument: &mut T,
        flags: c_int,
    ) -> io::Result<libc::pid_t> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | flags;
        let signals = Blocked::all();
        // SAFETY: the pointer is to the end of a live allocation, at which stacks begin.
        let top = unsafe { (&raw mut self.0.0).cast::<c_void>().add(SIZE) };
        // SAFETY: `CLONE_VFORK` suspends this thread until the child has ended or runs another program, so that the stack and
        // the argument outlive the child's use of them, and nobody else uses them or this thread's `errno`. Signals are
        // blocked: no handler of this process runs in the child. What `body` may do is the caller's promise.
        let child = unsafe { libc::clone(body, top, flags, (&raw mut *argument).cast()) };
        let error = io::Error::last_os_error();
        drop(signals);
        if child < 0 { Err(error) } else { Ok(child) }
    }
}
