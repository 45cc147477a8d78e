//! One process: who it is, its inotify and fanotify instances, and what they hold unread.
//!
//! In: a process id. Out: a [`Process`]. Everything is read below one open `/proc/PID` directory, so a number that is
//! given to another process meanwhile is not mixed up with this one. Nothing of the target is changed: a descriptor
//! is duplicated for one `FIONREAD`, never read from, and closed at once.

use hotr_common::uapi::task::PF_KTHREAD;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use super::fdinfo::{self, Marks};
use crate::procinfo::cgroup;

/// What an instance is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// inotify.
    Inotify,
    /// fanotify.
    Fanotify,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inotify => "inotify",
            Self::Fanotify => "fanotify",
        }
    }
}

/// An open instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Instance {
    /// The descriptor in its process.
    pub fd: i32,
    /// inotify or fanotify.
    pub kind: Kind,
    /// Its watches.
    pub marks: Marks,
    /// Bytes of unread events; absent when it may not be asked.
    pub unread: Option<u64>,
}

/// A user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct UserNs {
    /// Its number.
    pub ino: u64,
    /// The user who made it, for whom the namespace above counts what is in it.
    pub owner: u32,
}

/// A process with its instances.
#[derive(Debug)]
#[non_exhaustive]
pub struct Process {
    /// Its id, in the pid namespace of hotr's `/proc`.
    pub pid: u32,
    /// Its id in its own pid namespace, when that is another.
    pub ns_pid: Option<u32>,
    /// Its command name.
    pub comm: Vec<u8>,
    /// Its effective user id.
    pub uid: u32,
    /// The user namespace it is in, when that is not hotr's.
    pub user_ns: Option<UserNs>,
    /// Its state, a letter as in `/proc/PID/stat`.
    pub state: u8,
    /// Id of the container it runs in.
    pub container: Option<String>,
    /// Its instances, by descriptor.
    pub instances: Vec<Instance>,
    /// When it started, since 1970, by the clock as it is set now: up to 10 ms too early.
    pub(super) started: Option<Duration>,
    pub(super) dir: ProcDir,
}

impl Process {
    /// Unread bytes of each instance that had some, as they are now.
    pub(super) fn unread_now(&self) -> Vec<(i32, u64)> {
        let Some(pidfd) = self.dir.pidfd().filter(|_| self.dir.read("comm").is_ok()) else {
            return Vec::new();
        };
        let some = self.instances.iter().filter(|instance| instance.unread.is_some_and(|bytes| bytes > 0));
        some.filter_map(|instance| Some((instance.fd, unread(&pidfd, instance.fd)?))).collect()
    }
}

/// An open directory `/proc/PID`.
#[derive(Debug)]
pub(super) struct ProcDir {
    pub(super) fd: OwnedFd,
    pub(super) pid: u32,
}

impl ProcDir {
    /// Opens it; `NOENT` when there is no such process.
    pub(super) fn open(pid: u32) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?, pid })
    }

    /// The whole of a file in it.
    pub(super) fn read(&self, name: &str) -> rustix::io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.fd, name, flags, Mode::empty())?;
        let mut text = Vec::with_capacity(4096);
        loop {
            text.reserve(4096);
            match retry_on_intr(|| rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)))? {
                0 => return Ok(text),
                // Few calls for a long text.
                _ => text.reserve(text.len()),
            }
        }
    }

    /// Where a link in it leads.
    pub(super) fn link(&self, name: &str) -> rustix::io::Result<Vec<u8>> {
        readlinkat(&self.fd, name, Vec::new()).map(CString::into_bytes)
    }

    /// Opens what a link in it leads to, as a place only.
    pub(super) fn place(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.fd, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// The names in a directory in it.
    pub(super) fn list(&self, name: &str) -> rustix::io::Result<Vec<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = Dir::new(openat(&self.fd, name, flags, Mode::empty())?)?;
        let names = dir.map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()));
        names
            .filter(|name| !name.as_ref().is_ok_and(|name| name.starts_with(b".")))
            .collect::<rustix::io::Result<Vec<_>>>()
    }

    /// Whether it is a kernel thread: these have no descriptors (kernel: include/linux/sched.h `PF_KTHREAD`).
    pub(super) fn is_kernel_thread(&self) -> bool {
        let flags = self.read("stat").ok().and_then(|stat| stat_field(&stat, 9));
        flags.is_some_and(|flags: u32| flags & PF_KTHREAD != 0)
    }

    /// Whether it has a queue of requests to the kernel: what it does by that is no system call of its own. `None`
    /// where its descriptors cannot be read.
    pub(super) fn has_io_uring(&self) -> Option<bool> {
        let links = self.list("fd").ok()?;
        let mut names = links.into_iter().filter_map(|name| String::from_utf8(name).ok());
        Some(
            names.any(|name| self.link(&format!("fd/{name}")).is_ok_and(|to| to == b"anon_inode:[io_uring]")),
        )
    }

    /// Whether it has a file open whose reads do not call `touch_atime`. `None` where its descriptors cannot be read.
    pub(super) fn reads_without_atime(&self) -> Option<bool> {
        let names = self.list("fd").ok()?.into_iter().filter_map(|name| String::from_utf8(name).ok());
        // What has a path; the text about an inotify instance may be long.
        let mut files =
            names.filter(|name| self.link(&format!("fd/{name}")).is_ok_and(|to| to.starts_with(b"/")));
        Some(files.any(|name| self.read(&format!("fdinfo/{name}")).is_ok_and(|text| has_noatime(&text))))
    }

    /// The descriptors that are instances.
    fn instances(&self) -> rustix::io::Result<Vec<(i32, Kind)>> {
        let mut found = Vec::new();
        for name in self.list("fd")? {
            let Ok(name) = String::from_utf8(name) else { continue };
            // Closed meanwhile.
            let Ok(target) = self.link(&format!("fd/{name}")) else { continue };
            let kind = match target.as_slice() {
                b"anon_inode:inotify" | b"anon_inode:[inotify]" => Kind::Inotify,
                b"anon_inode:[fanotify]" | b"anon_inode:fanotify" => Kind::Fanotify,
                _ => continue,
            };
            found.extend(name.parse().ok().map(|fd| (fd, kind)));
        }
        found.sort_by_key(|(fd, _)| *fd);
        Ok(found)
    }

    fn instance(&self, pidfd: Option<&OwnedFd>, fd: i32, kind: Kind) -> Option<Instance> {
        let marks = fdinfo::parse(&self.read(&format!("fdinfo/{fd}")).ok()?);
        let unread = pidfd.and_then(|pidfd| unread(pidfd, fd));
        Some(Instance { fd, kind, marks, unread })
    }

    /// Reads the process; without instances `None`, or all the rest with `even_without`.
    pub(super) fn process(self, even_without: bool) -> rustix::io::Result<Option<Process>> {
        let found = self.instances()?;
        if found.is_empty() && !even_without {
            return Ok(None);
        }
        let pidfd = self.pidfd();
        // If this can still be read, the descriptor above is of the same process.
        let status = self.read("status")?;
        let instances =
            found.into_iter().filter_map(|(fd, kind)| self.instance(pidfd.as_ref(), fd, kind)).collect();
        let comm = self.read("comm")?;
        let text = String::from_utf8_lossy(&status);
        let ns_pid = field(&text, "NSpid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
        Ok(Some(Process {
            pid: self.pid,
            ns_pid,
            comm: comm.strip_suffix(b"\n").unwrap_or(&comm).to_vec(),
            uid: field(&text, "Uid:")
                .and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or(0),
            user_ns: self.user_ns(),
            state: field(&text, "State:").and_then(|state| state.bytes().next()).unwrap_or(b'?'),
            container: self.read("cgroup").ok().and_then(|text| container_of(&text)),
            instances,
            started: self.read("stat").ok().and_then(|stat| started(&stat)),
            dir: self,
        }))
    }

    /// The user namespace, when it is not hotr's.
    fn user_ns(&self) -> Option<UserNs> {
        let theirs = self.link("ns/user").ok()?;
        let ours = readlinkat(CWD, "/proc/self/ns/user", Vec::new()).ok()?;
        if theirs == ours.to_bytes() {
            return None;
        }
        let ns = openat(&self.fd, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // _IO(0xb7, 4) (kernel: include/uapi/linux/nsfs.h).
        const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
        let mut owner: libc::uid_t = 0;
        // SAFETY: the request writes one user id to the address, which is of such a variable.
        let done = unsafe { libc::ioctl(raw(&ns), NS_GET_OWNER_UID, &raw mut owner) };
        let ino = rustix::fs::fstat(&ns).ok()?.st_ino;
        (done == 0).then_some(UserNs { ino, owner })
    }

    /// A descriptor of the process; sure to be of this one only while something can be read here after it.
    fn pidfd(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    }

    /// Its command line.
    pub(super) fn arguments(&self) -> Vec<Vec<u8>> {
        let text = self.read("cmdline").unwrap_or_default();
        text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
    }

    /// Its working directory, as it sees it; absent when that has no path.
    pub(super) fn cwd(&self) -> Option<PathBuf> {
        let path = PathBuf::from(OsString::from_vec(self.link("cwd").ok()?));
        path.is_absolute().then_some(path)
    }
}

/// Bytes of unread events of an instance in another process.
fn unread(pidfd: &OwnedFd, fd: i32) -> Option<u64> {
    let copy = pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).ok()?;
    // The number may stand for another file by now, and the count would then mean something else.
    let link = readlinkat(CWD, format!("/proc/self/fd/{}", raw(&copy)), Vec::new()).ok()?;
    link.to_bytes().starts_with(b"anon_inode:").then(|| ioctl_fionread(&copy).ok()).flatten()
}

fn raw(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd())
}

/// The rest of the line of `/proc/PID/status` with this key.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// A numbered field (from 3) of `/proc/PID/stat`; the name before may hold spaces and parentheses.
pub(super) fn stat_field<T: std::str::FromStr>(stat: &[u8], number: usize) -> Option<T> {
    let after = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    std::str::from_utf8(after).ok()?.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// When the process of this `/proc/PID/stat` started. The file counts from the boot, in hundredths of a second (kernel:
/// fs/proc/array.c `do_task_stat`).
fn started(stat: &[u8]) -> Option<Duration> {
    let after_boot = Duration::from_millis(stat_field::<u64>(stat, 22)?.checked_mul(10)?);
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    (now + after_boot).checked_sub(since_boot)
}

/// The id of a container in the text of `/proc/PID/cgroup`: 64 hexadecimal digits in the name of a cgroup.
pub(super) fn container_of(cgroup: &[u8]) -> Option<String> {
    cgroup_names(cgroup).find_map(|name| {
        let id = cgroup::container_id(name)?;
        (id.len() == 64).then(|| id.to_owned())
    })
}

/// The names of the cgroups that a process is in, of every hierarchy.
pub(super) fn cgroup_names(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.splitn(3, ':').nth(2))
        .flat_map(cgroup::names)
}

/// Every process id that `/proc` shows.
pub(super) fn all() -> io::Result<Vec<u32>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = Dir::new(openat(CWD, "/proc", flags, Mode::empty())?)?;
    let mut pids: Vec<u32> =
        dir.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Whether an error means that the process has ended.
pub(super) fn has_ended(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH)
}

/// Whether the text about a descriptor has `O_NOATIME` among its flags, which are octal (kernel: fs/proc/fd.c `seq_show`).
fn has_noatime(fdinfo: &[u8]) -> bool {
    let flags = fdinfo.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(std::str::from_utf8(flags).ok()?.trim(), 8).ok());
    flags.is_some_and(|flags| OFlags::from_bits_retain(flags).contains(OFlags::NOATIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_without_atime_is_found() {
        assert!(has_noatime(b"pos:\t0\nflags:\t01100000\nmnt_id:\t26\n"));
        assert!(!has_noatime(b"pos:\t0\nflags:\t0100000\n") && !has_noatime(b""));
        let me = ProcDir::open(std::process::id()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
        let held = openat(CWD, file.path(), flags, Mode::empty()).unwrap();
        assert_eq!(me.reads_without_atime(), Some(true));
        drop(held);
    }

    #[test]
    fn a_ring_of_requests_is_found() {
        let me = ProcDir::open(std::process::id()).unwrap();
        assert_eq!(me.has_io_uring(), Some(false), "no other test makes one");
        let mut parameters = [0u64; 15];
        // SAFETY: `io_uring_params` has 120 bytes, which live over the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        let Ok(fd @ 0..) = i32::try_from(fd) else { return eprintln!("this kernel refuses io_uring") };
        // SAFETY: a new descriptor, which nobody else has.
        let ring = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        assert_eq!(me.has_io_uring(), Some(true));
        drop(ring);
        assert_eq!(me.has_io_uring(), Some(false));
    }

    #[test]
    fn this_process_is_read_with_what_is_unread() {
        let fd = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
        let dir = std::env::temp_dir().join(format!("hotr-unread-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let events = rustix::fs::inotify::WatchFlags::CREATE;
        rustix::fs::inotify::add_watch(&fd, &dir, events).unwrap();
        std::fs::write(dir.join("f"), "").unwrap();
        let me = ProcDir::open(std::process::id()).unwrap().process(false).unwrap().unwrap();
        let instance = me.instances.iter().find(|instance| instance.fd == raw(&fd)).unwrap();
        assert_eq!(
            (instance.kind, instance.marks.watches.len(), instance.unread),
            (Kind::Inotify, 1, Some(32))
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_process_that_exits_while_it_is_read() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let dir = ProcDir::open(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let errno = dir.process(true).unwrap_err();
        assert!(has_ended(errno), "{errno}");
    }

    #[test]
    fn fields_of_stat_come_after_the_name() {
        let stat = b"7 (a) b (c)) S 1 2 3 4 5 2097152 0";
        assert_eq!(stat_field::<u32>(stat, 9), Some(2_097_152));
        assert_eq!(stat_field::<char>(stat, 3), Some('S'));
        assert_eq!(stat_field::<u32>(b"7 a", 3), None);
    }

    #[test]
    fn containers_are_known_by_their_cgroups() {
        let id = "0123456789abcdef".repeat(4);
        for (text, want) in [
            (format!("0::/docker/{id}\n"), Some(&id)),
            (format!("1:name=systemd:/\n0::/system.slice/docker-{id}.scope\n"), Some(&id)),
            (format!("0::/kubepods/pod1/cri-containerd-{id}.scope\n"), Some(&id)),
            (format!("0::/machine.slice/libpod-{id}.scope/container\n"), Some(&id)),
            ("0::/system.slice/nginx.service\n".to_owned(), None),
            ("0::/user.slice/deadbeef\n".to_owned(), None),
        ] {
            assert_eq!(container_of(text.as_bytes()).as_ref(), want, "{text}");
        }
    }
}
