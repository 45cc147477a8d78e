//! inotify's limits, and who uses how much of them today.
//!
//! In: /proc/sys/fs/inotify, and for every process /proc/PID/fd and /proc/PID/fdinfo. Out: limits and the largest
//! users. An instance that a process shares with its children is counted for each of them.

use hotr_common::uapi::task::PF_KTHREAD;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use procfs::process::{FDTarget, Process, all_processes};

use super::{Check, Mark};

/// How many users are listed.
const TOP: usize = 10;

/// Limits and users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inotify {
    /// Watches a user may have.
    pub max_user_watches: Option<u64>,
    /// Instances a user may have.
    pub max_user_instances: Option<u64>,
    /// Unread events an instance may have.
    pub max_queued_events: Option<u64>,
    /// The largest users, by watches, then by instances.
    pub users: Vec<User>,
    /// Watches of all processes of this user, as far as they can be read.
    pub used_by_me: u64,
    /// Processes whose descriptors this user may not read.
    pub unreadable: u64,
}

/// A process with inotify instances.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// Process id.
    pub pid: i32,
    /// Command name.
    pub comm: String,
    /// User id.
    pub uid: u32,
    /// Open inotify descriptors.
    pub instances: u64,
    /// Watches in all of them.
    pub watches: u64,
}

impl Inotify {
    /// Reads them; takes a few milliseconds for each hundred processes.
    #[must_use]
    pub fn read() -> Self {
        let limit =
            |name: &str| fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok();
        let mut inotify = Self {
            max_user_watches: limit("max_user_watches"),
            max_user_instances: limit("max_user_instances"),
            max_queued_events: limit("max_queued_events"),
            ..Self::default()
        };
        inotify.scan();
        inotify
    }

    fn scan(&mut self) {
        let me = rustix::process::getuid().as_raw();
        for process in all_processes().into_iter().flatten().flatten() {
            match user(&process) {
                Ok(Some(user)) => {
                    if user.uid == me {
                        self.used_by_me += user.watches;
                    }
                    self.users.push(user);
                }
                Ok(None) => {}
                Err(procfs::ProcError::PermissionDenied(_)) => {
                    self.unreadable += u64::from(!is_kernel_thread(&process));
                }
                // It has ended meanwhile.
                Err(_) => {}
            }
        }
        self.users.sort_by_key(|user| std::cmp::Reverse((user.watches, user.instances)));
        self.users.truncate(TOP);
    }

    /// Watches that hotr may use: half of the limit, and no more than what is left of it.
    #[must_use]
    pub fn budget(&self) -> u64 {
        let limit = self.max_user_watches.unwrap_or(0);
        (limit / 2).min(limit.saturating_sub(self.used_by_me))
    }

    /// The limits, each with its mark.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        [
            ("max_user_watches", self.max_user_watches),
            ("max_user_instances", self.max_user_instances),
            ("max_queued_events", self.max_queued_events),
        ]
        .into_iter()
        .map(|(name, limit)| match limit {
            Some(0) => Check::new(name, Mark::Bad, "0: nothing can be watched")
                .next(format!("sysctl fs.inotify.{name}=65536")),
            Some(limit) if name == "max_user_watches" => Check::new(
                name,
                Mark::Good,
                format!(
                    "{limit}; in use by this user: {}; hotr takes at most {}",
                    self.used_by_me,
                    self.budget()
                ),
            ),
            Some(limit) => Check::new(name, Mark::Good, limit.to_string()),
            None => {
                Check::new(name, Mark::Bad, "not readable: the kernel has no inotify, or /proc is hidden")
                    .next("mount /proc, or use --channels ebpf")
            }
        })
        .collect()
    }

    /// What could not be read.
    #[must_use]
    pub fn gap(&self) -> Option<Check> {
        (self.unreadable > 0).then(|| {
            Check::new(
                "users",
                Mark::Note,
                format!("{} processes of other users could not be looked at", self.unreadable),
            )
            .next("run as root to see all inotify users")
        })
    }
}

/// A kernel thread has no descriptors (kernel: include/linux/sched.h `PF_KTHREAD`).
fn is_kernel_thread(process: &Process) -> bool {
    process.stat().is_ok_and(|stat| stat.flags & PF_KTHREAD != 0)
}

/// The inotify use of one process; `None` when it has no instance.
fn user(process: &Process) -> procfs::ProcResult<Option<User>> {
    let mut found = (0, 0);
    for fd in process.fd()? {
        let Ok(fd) = fd else { continue };
        if matches!(&fd.target, FDTarget::AnonInode(name) if name == "inotify" || name == "[inotify]") {
            found.0 += 1;
            found.1 += File::open(format!("/proc/{}/fdinfo/{}", process.pid, fd.fd))
                .map_or(0, |file| count_watches(BufReader::new(file)));
        }
    }
    if found.0 == 0 {
        return Ok(None);
    }
    let status = process.status()?;
    Ok(Some(User {
        pid: process.pid,
        comm: status.name,
        uid: status.ruid,
        instances: found.0,
        watches: found.1,
    }))
}

/// Each watch is a line that begins with `inotify wd:` (kernel: fs/notify/fdinfo.c `inotify_fdinfo`).
fn count_watches(mut fdinfo: impl BufRead) -> u64 {
    let mut line = Vec::new();
    let mut count = 0;
    while fdinfo.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        count += u64::from(line.starts_with(b"inotify wd:"));
        line.clear();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_lines_of_fdinfo() {
        let fdinfo = "pos:\t0\nflags:\t02004000\nmnt_id:\t15\nino:\t1\n\
                      inotify wd:2 ino:1 sdev:fd00001 mask:2 ignored_mask:0 fhandle-bytes:8\n\
                      inotify wd:1 ino:2 sdev:fd00001 mask:2 ignored_mask:0 fhandle-bytes:8\n";
        assert_eq!(count_watches(fdinfo.as_bytes()), 2);
        assert_eq!(count_watches(&b"pos:\t0\n"[..]), 0);
    }

    #[test]
    fn hotr_leaves_others_their_half() {
        let budget = |limit, used_by_me| {
            Inotify { max_user_watches: limit, used_by_me, ..Inotify::default() }.budget()
        };
        assert_eq!(budget(Some(100), 0), 50);
        assert_eq!(budget(Some(100), 70), 30);
        assert_eq!(budget(Some(100), 200), 0);
        assert_eq!(budget(None, 0), 0);
    }

    #[test]
    fn this_process_is_found_with_its_watches() {
        let fd = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
        rustix::fs::inotify::add_watch(&fd, "/", rustix::fs::inotify::WatchFlags::CREATE).unwrap();
        let me = user(&Process::myself().unwrap()).unwrap().expect("has an instance");
        assert!(me.instances >= 1 && me.watches >= 1, "{me:?}");
        assert_eq!(me.uid, rustix::process::getuid().as_raw());
    }
}
