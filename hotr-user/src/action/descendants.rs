//! What a command has started outside its process group, in a session or group of its own, and has not let go.
//!
//! In: the group. Out: pidfds. A process belongs to the command as long as its parent does, and the chain of parents
//! reaches the group: a daemon, whose parent has exited, does not. A number is used only while its process is known to
//! live: a pidfd is opened first, and asked again after the parent was read.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use procfs::process::{Process, Stat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

/// How often the rest of a command is looked for once its leader has ended.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How often processes that appear in the meantime are looked for: who starts them faster than that is not caught.
const PASSES: usize = 8;

/// Living processes outside the group, by process id.
#[derive(Debug, Default)]
pub(super) struct Descendants(BTreeMap<i32, OwnedFd>);

impl Descendants {
    /// Those of a group whose leader has not been reaped, so that its number is nobody else's.
    pub(super) fn of(group: Pid) -> Self {
        let mut found = Self::default();
        found.look(group);
        found
    }

    /// Adds those that have appeared.
    pub(super) fn look(&mut self, group: Pid) {
        let group = group.as_raw_nonzero().get();
        let mut members = BTreeMap::new();
        for _ in 0..PASSES {
            let before = self.0.len();
            self.pass(group, &mut members);
            if self.0.len() == before {
                return;
            }
        }
    }

    fn pass(&mut self, group: i32, members: &mut BTreeMap<i32, OwnedFd>) {
        let Ok(processes) = procfs::process::all_processes() else { return };
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for stat in processes.flatten().filter_map(|process| process.stat().ok()) {
            if stat.pgrp != group {
                children.entry(stat.ppid).or_default().push(stat.pid);
            } else if let Some(pidfd) = held(stat.pid, |stat| stat.pgrp == group) {
                members.insert(stat.pid, pidfd);
            }
        }
        let mut parents: Vec<i32> = members.keys().chain(self.0.keys()).copied().collect();
        while let Some(parent) = parents.pop() {
            for pid in children.remove(&parent).unwrap_or_default() {
                let Some(pidfd) = held(pid, |stat| stat.ppid == parent) else { continue };
                // The number that was read is that of this parent, if it still lives.
                if members.get(&parent).or_else(|| self.0.get(&parent)).is_some_and(lives) {
                    self.0.insert(pid, pidfd);
                    parents.push(pid);
                }
            }
        }
    }

    /// Sends a signal to each of them; never to a process that took over a number.
    pub(super) fn signal(&self, signal: Signal) {
        for pidfd in self.0.values() {
            // It is no error if it has exited.
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }

    /// Ends those that are left: the signal, time until `over`, SIGKILL. Returns whether SIGKILL was needed.
    pub(super) async fn stop(mut self, signal: Signal, over: Instant) -> bool {
        self.0.retain(|_, pidfd| lives(pidfd));
        self.signal(signal);
        // A stopped process would not get the signal.
        self.signal(Signal::CONT);
        while !self.0.is_empty() && Instant::now() < over {
            sleep(LOOK).await;
            self.0.retain(|_, pidfd| lives(pidfd));
        }
        self.signal(Signal::KILL);
        !self.0.is_empty()
    }
}

/// A process that lives and is as it should be, by a descriptor.
fn held(pid: i32, is_so: impl FnOnce(&Stat) -> bool) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
    (is_so(&stat) && lives(&pidfd)).then_some(pidfd)
}

/// Whether a process has not exited.
fn lives(pidfd: &OwnedFd) -> bool {
    // A pidfd is readable once its process is a zombie (kernel/fork.c, `pidfd_poll`).
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}
