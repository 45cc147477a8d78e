//! How much of inotify's limits each user has in use.
//!
//! In: all instances of the machine. Out: findings about users. The kernel counts for the user who made an instance,
//! which is taken to be the user of its process.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags, openat};

use super::finding::{Finding, Proof, Severity, Target};
use super::process::{Instance, Kind, Process};
use hotr_events::Cause;

/// The limits of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Watches a user may have.
    pub watches: Option<u64>,
    /// Instances a user may have.
    pub instances: Option<u64>,
    /// Unread events an instance made today may have.
    pub queued: Option<u64>,
}

impl Limits {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let limit = |path: String| fs::read_to_string(path).ok()?.trim().parse().ok();
        let of = |name: &str| limit(format!("/proc/sys/fs/inotify/{name}"));
        Self {
            watches: of("max_user_watches"),
            instances: of("max_user_instances"),
            queued: of("max_queued_events"),
        }
    }
}

/// Removes instances that a process shares with one before it, as a fork does.
pub(super) fn drop_shared(processes: &mut [Process]) {
    for later in 1..processes.len() {
        let (before, rest) = processes.split_at_mut(later);
        let process = &mut rest[0];
        let pid = process.pid;
        process.instances.retain(|instance| {
            let twin = |other: &Instance| {
                other.fd == instance.fd && other.kind == instance.kind && other.marks == instance.marks
            };
            !before.iter().any(|earlier| {
                earlier
                    .instances
                    .iter()
                    .any(|other| twin(other) && is_same_file(earlier.pid, pid, instance.fd))
            })
        });
    }
}

/// Whether two processes have the same open file under one number.
fn is_same_file(one: u32, other: u32, fd: i32) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let (Ok(one), Ok(other)) = (i32::try_from(one), i32::try_from(other)) else { return false };
    let fd = i64::from(fd);
    // SAFETY: all arguments are numbers; the kernel compares and changes nothing.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILE, fd, fd) == 0 }
}

/// Whose count an instance is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Who {
    uid: u32,
    /// In a user namespace below hotr's.
    inside: Option<u64>,
}

/// What a user has and may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) who: Who,
    instances: u64,
    watches: u64,
    limits: Limits,
}

impl User {
    /// Adding a watch fails.
    pub(super) fn has_no_watch_left(&self) -> bool {
        self.limits.watches.is_some_and(|limit| self.watches >= limit)
    }
}

/// In whose counts the instances of a process are: a user namespace counts for its user, and the one above for the
/// owner of the namespace (kernel: kernel/ucount.c `inc_ucount`).
pub(super) fn counted_for(process: &Process) -> impl Iterator<Item = Who> + use<> {
    let uid = process.uid;
    let (inside, above) = match process.user_ns {
        Some(ns) => (Some(Who { uid, inside: Some(ns.ino) }), Who { uid: ns.owner, inside: None }),
        None => (None, Who { uid, inside: None }),
    };
    inside.into_iter().chain([above])
}

/// What each user has.
pub(super) fn users(processes: &[Process], limits: Limits) -> Vec<User> {
    let mut users: BTreeMap<Who, User> = BTreeMap::new();
    for process in processes {
        let inotify = process.instances.iter().filter(|instance| instance.kind == Kind::Inotify);
        let (count, watches) =
            inotify.fold((0, 0), |(n, sum), instance| (n + 1, sum + instance.marks.watches.len() as u64));
        for who in counted_for(process) {
            let user = users.entry(who).or_insert_with(|| {
                let limits = if who.inside.is_some() { inside(process) } else { limits };
                User { who, instances: 0, watches: 0, limits }
            });
            user.instances += count;
            user.watches += watches;
        }
    }
    users.into_values().collect()
}

/// The limits of the user namespace of a process, which are shown to those inside only: a child enters it and reads.
fn inside(process: &Process) -> Limits {
    let read = || {
        let ns = openat(&process.dir.fd, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
        // SAFETY: the child only makes system calls, on memory of its own stack, and ends.
        match unsafe { libc::fork() } {
            0 => enter_and_read(ns.as_raw_fd(), writer.as_raw_fd()),
            child if child > 0 => {
                drop(writer);
                let mut text = String::new();
                let read = fs::File::from(reader).read_to_string(&mut text);
                // SAFETY: waits for the child made above; no status is requested.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                let mut numbers =
                    read.ok().map(|_| text.split_whitespace().filter_map(|n| n.parse().ok()))?;
                Some(Limits { watches: numbers.next(), instances: numbers.next(), queued: None })
            }
            _ => None,
        }
    };
    read().unwrap_or_default()
}

/// In the child: writes both limits to the pipe, and ends.
fn enter_and_read(ns: i32, pipe: i32) -> ! {
    let files = [c"/proc/sys/user/max_inotify_watches", c"/proc/sys/user/max_inotify_instances"];
    let mut text = [0_u8; 32];
    // SAFETY: every call gets numbers, or a buffer of this function with its size; none returns into other code.
    unsafe {
        if libc::setns(ns, libc::CLONE_NEWUSER) == 0 {
            for file in files {
                let file = libc::open(file.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
                let len = libc::read(file, text.as_mut_ptr().cast(), text.len());
                let Ok(len) = usize::try_from(len) else { break };
                libc::write(pipe, text.as_ptr().cast(), len);
            }
        }
        libc::_exit(0)
    }
}

/// Users that have used up, or nearly used up, a limit.
pub(super) fn judge(users: &[User]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for user in users {
        let uid = user.who.uid;
        for (what, used, limit) in [
            ("watches", user.watches, user.limits.watches),
            ("instances", user.instances, user.limits.instances),
        ] {
            let Some(limit) = limit.filter(|limit| used.saturating_mul(10) >= limit.saturating_mul(9)) else {
                continue;
            };
            let target = Target { uid: Some(uid), ..Target::default() };
            let (place, sysctl) = match user.who.inside {
                Some(ns) => (format!(" in user namespace {ns}"), "user.max_inotify"),
                None => (String::new(), "fs.inotify.max_user"),
            };
            let text = format!(
                "user {uid} has {used} of {limit} inotify {what}{place}; beyond that, adding one fails"
            );
            let inside = if user.who.inside.is_some() { " inside it" } else { "" };
            let finding = Finding::new(Severity::AtRisk, Cause::Limit, Proof::Inferred, target)
                .evidence(text)
                .remedy(format!("sysctl {sysctl}_{what}={}{inside}", limit.saturating_mul(4).max(1024)));
            findings.push(finding);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_of_a_limit_are_a_risk() {
        let limits = Limits { watches: Some(1000), instances: Some(100), queued: None };
        let user = |instances, watches, limits| {
            [User { who: Who { uid: 7, inside: None }, instances, watches, limits }]
        };
        for (instances, watches, want, is_full) in
            [(1, 899, 0, false), (1, 900, 1, false), (90, 1000, 2, true), (100, 0, 1, false)]
        {
            let users = user(instances, watches, limits);
            let findings = judge(&users);
            assert_eq!(
                (findings.len(), users[0].has_no_watch_left()),
                (want, is_full),
                "{instances} {watches}"
            );
            assert!(findings.iter().all(|finding| finding.target.uid == Some(7)));
        }
        assert_eq!(judge(&user(1000, 1000, Limits::default())).len(), 0, "no limit is known");
    }
}
