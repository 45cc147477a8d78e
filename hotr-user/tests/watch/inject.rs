//! Making a channel of a running hotr deaf from outside: another process makes system calls in it (ptrace).
//!
//! The kernel has no way to detach such a program by its id (see `outside`), so the descriptors that keep it attached
//! are replaced.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long it may take until the process waits for something.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process whose main thread stands still.
pub(crate) struct Held {
    pid: libc::pid_t,
    /// As they were.
    regs: libc::user_regs_struct,
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the arguments are numbers, or a pointer to registers that outlives the call.
    let answer = unsafe { libc::ptrace(request, pid, address, data) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether its main thread waits for something.
fn is_asleep(pid: libc::pid_t) -> bool {
    procfs::process::Process::new(pid).and_then(|process| process.stat()).unwrap().state == 'S'
}

fn wait_stopped(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: a pointer to a live number.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(waited == pid && libc::WIFSTOPPED(status), "{waited} {status:#x}");
}

impl Held {
    /// Stops it in a system call; needs to be its parent.
    pub(crate) fn hold(pid: u32) -> Self {
        let pid = libc::pid_t::try_from(pid).unwrap();
        ptrace(libc::PTRACE_SEIZE, pid, 0, 0).expect("ptrace is allowed");
        let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            // One that is stopped again and again comes to no system call.
            if !is_asleep(pid) {
                std::thread::yield_now();
                continue;
            }
            ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0).unwrap();
            wait_stopped(pid);
            let regs = regs(pid);
            let mut code = [0; 2];
            memory.read_exact_at(&mut code, regs.rip - 2).unwrap();
            if code == [0x0f, 0x05] {
                return Self { pid, regs };
            }
            ptrace(libc::PTRACE_CONT, pid, 0, 0).unwrap();
        }
        panic!("never in a system call");
    }

    /// Makes a system call in it.
    pub(crate) fn call(&self, number: libc::c_long, args: [u64; 3]) -> u64 {
        let mut regs = self.regs;
        regs.rip -= 2;
        regs.rax = number.cast_unsigned();
        // Nothing to restart.
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx] = args;
        ptrace(libc::PTRACE_SETREGS, self.pid, 0, (&raw const regs).addr()).unwrap();
        ptrace(libc::PTRACE_SINGLESTEP, self.pid, 0, 0).unwrap();
        wait_stopped(self.pid);
        let answer = self::regs(self.pid).rax;
        assert!(answer.cast_signed() >= 0, "system call {number}: {}", answer.cast_signed());
        answer
    }

    /// Makes one descriptor another one.
    fn replace(&self, fd: u64, by: u64) {
        self.call(libc::SYS_dup3, [by, fd, u64::from(libc::O_CLOEXEC.cast_unsigned())]);
    }

    /// Descriptors whose `fdinfo` has this text.
    fn descriptors(&self, text: &str) -> Vec<u64> {
        let entries = fs::read_dir(format!("/proc/{}/fdinfo", self.pid)).unwrap().flatten();
        let has = |path: &std::path::Path| fs::read_to_string(path).is_ok_and(|info| info.contains(text));
        entries
            .filter(|entry| has(&entry.path()))
            .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
            .collect()
    }

    /// Detaches all programs: the descriptors of their links become those of stdin, which is the null device.
    pub(crate) fn detach_programs(&self) {
        let links = self.descriptors("link_type:");
        assert!(!links.is_empty());
        links.into_iter().for_each(|link| self.replace(link, 0));
    }

    /// Makes every inotify instance with watches one without.
    pub(crate) fn drop_watches(&self) {
        let instances = self.descriptors("inotify wd:");
        assert!(!instances.is_empty());
        let flags = (libc::IN_NONBLOCK | libc::IN_CLOEXEC).cast_unsigned();
        for instance in instances {
            let empty = self.call(libc::SYS_inotify_init1, [flags.into(), 0, 0]);
            self.replace(instance, empty);
            self.call(libc::SYS_close, [empty, 0, 0]);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace(libc::PTRACE_SETREGS, self.pid, 0, (&raw const self.regs).addr());
        let _ = ptrace(libc::PTRACE_DETACH, self.pid, 0, 0);
    }
}

fn regs(pid: libc::pid_t) -> libc::user_regs_struct {
    // SAFETY: plain numbers, filled by the call.
    let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, pid, 0, (&raw mut regs).addr()).unwrap();
    regs
}
