//! How the thread that reads the channels is scheduled, and the commands it starts; and its signals.
//!
//! A thread of the kernel's normal policy asks for short turns, so that a change is reported at once on a busy
//! processor too. Where it would preempt a kernel program it becomes one that preempts nobody. That has its price: on a
//! busy machine it waits for its turn, and so do its reports. A child inherits both; what the user runs is to have what
//! hotr was started with, so it is set back between fork and exec.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::sched_attr;

/// The shortest turn that the kernel grants, in nanoseconds (kernel/sched/syscalls.c `__setparam_fair`).
const SHORTEST: u64 = 100_000;

/// Whether a thread of this process has left the normal policy.
static LEFT: AtomicBool = AtomicBool::new(false);
/// The turns hotr was started with, plus one; 0 while no others were requested.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// Whether the kernel says that it lets nobody be preempted while it works for them (kernel/sched/debug.c
/// `sched_dynamic_show`, the mode that holds is in parentheses). It says nothing under lockdown, nor where the choice was
/// made when it was built.
pub(crate) fn kernel_is_never_preempted() -> bool {
    std::fs::read_to_string("/sys/kernel/debug/sched/preempt").is_ok_and(|modes| is_never_preempted(&modes))
}

/// Whether the kernel says that it preempts tasks while it works for them: programs on functions may then be skipped.
pub(crate) fn kernel_preempts() -> bool {
    std::fs::read_to_string("/sys/kernel/debug/sched/preempt").is_ok_and(|modes| is_preempted(&modes))
}

/// Gives the calling thread the lowest priority for processor and disk. Where the scheduler's idle class is refused,
/// it gets the highest niceness; where the disk's is refused, none: neither changes what the thread does.
pub(crate) fn run_idle() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: the struct is plain numbers; the call takes a pointer to one that lives on, and 0 names this thread.
    let refused = unsafe {
        let parameter: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) != 0
    };
    if refused {
        // SAFETY: takes numbers only; on Linux 0 names this thread.
        let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    }
    // SAFETY: takes numbers only; 0 names this thread.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE) };
}

fn is_preempted(modes: &str) -> bool {
    modes.split_ascii_whitespace().any(|mode| matches!(mode, "(full)" | "(lazy)"))
}

fn is_never_preempted(modes: &str) -> bool {
    modes.split_ascii_whitespace().any(|mode| matches!(mode, "(none)" | "(voluntary)"))
}

/// Makes this thread one that does not preempt others when it is woken (`SCHED_BATCH`; kernel/sched/fair.c
/// `wakeup_preempt_fair`). A record wakes it from inside a kernel program, and where tasks are preempted in the
/// kernel, the program would be interrupted there and not be run for whoever runs meanwhile on that CPU. On another,
/// idle CPU it runs at once all the same. A policy that the user chose stays.
pub(crate) fn never_preempt() {
    // If refused, more programs are skipped: that is reported.
    let _ = attributes().and_then(|mut now| {
        if now.sched_policy == NORMAL {
            now.sched_policy = BATCH;
            set(&now)?;
            LEFT.store(true, Ordering::Relaxed);
        }
        Ok(())
    });
}

/// While this lives, this thread runs before all usual ones, as soon as it is woken. Where that is not permitted, nothing
/// changes.
pub(crate) struct First(bool);

impl First {
    /// Until the drop.
    pub(crate) fn new() -> Self {
        Self(policy(libc::SCHED_FIFO, 1))
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if self.0 {
            policy(libc::SCHED_OTHER, 0);
        }
    }
}

/// Sets the policy of this thread; a child of it starts with the usual one. Whether that was permitted.
fn policy(policy: libc::c_int, priority: libc::c_int) -> bool {
    let wanted = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters live until the call returns; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const wanted) == 0 }
}

/// Asks for short turns: of those who wait for the processor and have not used up their share, the one that asks for
/// less is run first, and at once when it is woken (kernel/sched/fair.c `wakeup_preempt_fair`, `PREEMPT_SHORT`). The share
/// stays what it was. Kernels that know no such request ignore it. A policy that the user chose stays.
pub(crate) fn answer_soon() {
    // If refused, a change is reported a little later where others use the processor.
    let _ = attributes().and_then(|mut now| {
        if now.sched_policy == NORMAL && (now.sched_runtime == 0 || now.sched_runtime > SHORTEST) {
            let before = std::mem::replace(&mut now.sched_runtime, SHORTEST);
            set(&now)?;
            // What this process requested before is not what it was started with.
            let _ = TURNS.compare_exchange(0, before + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(())
    });
}

/// Gives the calling thread the policy and the turns that hotr was started with. For a child between fork and exec:
/// loads and system calls, no memory is allocated and no lock is taken.
///
/// # Errors
/// Those of `sched_getattr` and `sched_setattr`.
pub(crate) fn as_started() -> io::Result<()> {
    let (left, turns) = (LEFT.load(Ordering::Relaxed), TURNS.load(Ordering::Relaxed));
    if !left && turns == 0 {
        return Ok(());
    }
    let mut now = attributes()?;
    if left {
        now.sched_policy = NORMAL;
    }
    if let Some(turns) = turns.checked_sub(1) {
        now.sched_runtime = turns;
    }
    set(&now)
}

/// `SCHED_NORMAL`, as in [`sched_attr`].
const NORMAL: u32 = libc::SCHED_OTHER.cast_unsigned();
/// `SCHED_BATCH`, likewise.
const BATCH: u32 = libc::SCHED_BATCH.cast_unsigned();

/// What the calling thread has.
fn attributes() -> io::Result<sched_attr> {
    // SAFETY: plain integers, for which zero is a value.
    let mut attributes: sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<sched_attr>() as u32;
    // SAFETY: a pointer to a live structure of the size that is named; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, attributes.size, 0) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn set(attributes: &sched_attr) -> io::Result<()> {
    // SAFETY: a pointer to a live structure that holds its size; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) } {
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
        for (modes, never, preempts) in [
            ("(none) voluntary full\n", true, false),
            ("none (voluntary) full lazy\n", true, false),
            ("none voluntary (full) lazy\n", false, true),
            ("full (lazy)\n", false, true),
            ("(undefined)\n", false, false),
        ] {
            assert_eq!((is_never_preempted(modes), is_preempted(modes)), (never, preempts), "{modes}");
        }
    }

    /// In a thread of its own: what is changed is the thread's.
    fn after(change: impl FnOnce() + Send + 'static) -> sched_attr {
        std::thread::spawn(move || {
            change();
            attributes().unwrap()
        })
        .join()
        .unwrap()
    }

    fn take(policy: libc::c_int, flags: u64) {
        let chosen =
            sched_attr { sched_policy: policy.cast_unsigned(), sched_flags: flags, ..attributes().unwrap() };
        set(&chosen).unwrap();
    }

    /// include/uapi/linux/sched.h.
    const RESET_ON_FORK: u64 = 1;

    #[test]
    fn only_the_normal_policy_and_its_turns_are_left_and_taken_again() {
        let fresh = after(|| ());
        for (chosen, flags) in
            [(libc::SCHED_BATCH, 0), (libc::SCHED_IDLE, 0), (libc::SCHED_IDLE, RESET_ON_FORK)]
        {
            let kept = after(move || {
                take(chosen, flags);
                answer_soon();
                never_preempt();
            });
            assert_eq!((kept.sched_policy, kept.sched_flags), (chosen.cast_unsigned(), flags));
            assert_eq!(kept.sched_runtime, fresh.sched_runtime);
        }
        for flags in [0, RESET_ON_FORK] {
            let left = after(move || {
                take(libc::SCHED_OTHER, flags);
                answer_soon();
                never_preempt();
            });
            assert_eq!((left.sched_policy, left.sched_flags), (BATCH, flags));
            // 0 on kernels that report none.
            assert!([0, SHORTEST].contains(&left.sched_runtime), "{}", left.sched_runtime);
            assert_eq!(left.sched_runtime == 0, fresh.sched_runtime == 0);
        }
        let again = after(|| {
            answer_soon();
            answer_soon();
            never_preempt();
            as_started().unwrap();
        });
        assert_eq!(again.sched_policy, fresh.sched_policy);
        assert_eq!(again.sched_runtime, fresh.sched_runtime);
    }
}
