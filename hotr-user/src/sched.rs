//! The scheduling policy of the thread that reads the channels, and of the commands it starts; and its signals.
//!
//! A thread of the kernel's normal policy becomes one that preempts nobody, where it would preempt a kernel program.
//! That has its price: on a busy machine it waits for its turn, and so do its reports. A child inherits the policy; what
//! the user runs is to have the one that hotr was started with, so it is set back between fork and exec.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// include/uapi/linux/sched.h: a bit beside the policy.
const RESET_ON_FORK: libc::c_int = 0x4000_0000;

/// Whether a thread of this process has left the normal policy.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Whether the kernel says that it lets nobody be preempted while it works for them (kernel/sched/debug.c
/// `sched_dynamic_show`, the mode that holds is in parentheses). It says nothing under lockdown, nor where the choice was
/// made when it was built.
pub(crate) fn kernel_is_never_preempted() -> bool {
    std::fs::read_to_string("/sys/kernel/debug/sched/preempt").is_ok_and(|modes| is_never_preempted(&modes))
}

fn is_never_preempted(modes: &str) -> bool {
    modes.split_ascii_whitespace().any(|mode| matches!(mode, "(none)" | "(voluntary)"))
}

/// Makes this thread one that does not preempt others when it is woken (`SCHED_BATCH`; kernel/sched/fair.c
/// `wakeup_preempt_fair`). A record wakes it from inside a kernel program, and where tasks are preempted in the
/// kernel, the program would be interrupted there and not be run for whoever runs meanwhile on that CPU. On another,
/// idle CPU it runs at once all the same. A policy that the user chose stays.
pub(crate) fn never_preempt() {
    // SAFETY: plain numbers; 0 is the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy & !RESET_ON_FORK == libc::SCHED_OTHER && policy >= 0 {
        // Refused, more programs are skipped: that is told.
        let done = set(libc::SCHED_BATCH | policy & RESET_ON_FORK);
        LEFT.fetch_or(done.is_ok(), Ordering::Relaxed);
    }
}

/// Gives the calling thread the policy that hotr was started with. For a child between fork and exec: a load and a
/// system call, no memory is allocated and no lock is taken.
///
/// # Errors
/// Those of `sched_setscheduler`.
pub(crate) fn as_started() -> io::Result<()> {
    if LEFT.load(Ordering::Relaxed) { set(libc::SCHED_OTHER) } else { Ok(()) }
}

fn set(policy: libc::c_int) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: a pointer to a live structure, for the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Signals of this thread are blocked while this lives.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    /// Until the drop.
    pub(crate) fn all() -> Self {
        // SAFETY: plain numbers, filled by the calls; both pointers are to live sets.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: a pointer to a live set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_parentheses_holds() {
        for (modes, never) in [
            ("(none) voluntary full\n", true),
            ("none (voluntary) full lazy\n", true),
            ("none voluntary (full) lazy\n", false),
            ("full (lazy)\n", false),
            ("(undefined)\n", false),
        ] {
            assert_eq!(is_never_preempted(modes), never, "{modes}");
        }
    }

    /// In a thread of its own: the policy is the thread's.
    fn policy_after(start: libc::c_int, change: fn()) -> libc::c_int {
        let thread = std::thread::spawn(move || {
            set(start).unwrap();
            change();
            // SAFETY: plain numbers; 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_the_normal_policy_is_left_and_taken_again() {
        for chosen in [libc::SCHED_BATCH, libc::SCHED_IDLE, libc::SCHED_IDLE | RESET_ON_FORK] {
            assert_eq!(policy_after(chosen, never_preempt), chosen);
        }
        for normal in [0, RESET_ON_FORK] {
            let left = policy_after(libc::SCHED_OTHER | normal, never_preempt);
            assert_eq!(left, libc::SCHED_BATCH | normal);
        }
        assert_eq!(
            policy_after(libc::SCHED_OTHER, || (never_preempt(), drop(as_started())).1),
            libc::SCHED_OTHER
        );
    }
}
