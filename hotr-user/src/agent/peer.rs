//! Who a subscriber is.
//!
//! In: a connected socket. Out: the rights on files it had when it connected, as the kernel keeps them with the socket
//! (net/unix/af_unix.c `init_peercred`), and what may be said to it of other processes.
//!
//! What the socket does not say is asked of `/proc`, of a process that a descriptor of the socket's own holds
//! (`SO_PEERPIDFD`, Linux 6.5). Where there is none, another process may have the number by now: hotr then reports no process to
//! the subscriber, and grants it no capability.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`: the capabilities that open directories.
const DIRECTORY_CAPABILITIES: u64 = 1 << 1 | 1 << 2;
/// More groups than this no process has (include/uapi/linux/limits.h `NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;
/// User namespaces lie in each other at most so deep (kernel/user_namespace.c).
const DEEPEST: usize = 33;
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// Which processes a subscriber can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// All: it is in the agent's PID namespace.
    All,
    /// Those of the PID namespace with this inode number.
    Namespace(u64),
    /// It is not known which.
    Nobody,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// In the agent's user namespace.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Its process when it connected, in the agent's PID namespace.
    pub(super) pid: u32,
    /// Bits of those capabilities that let it into directories.
    pub(super) capabilities: u64,
    pub(super) sees: Sees,
    /// It is in the agent's user namespace, so numbers of users mean the same to both.
    pub(super) shares_users: bool,
    /// The user whose limits count: of a user namespace, who made it, so that its many users are one.
    pub(super) account: u32,
}

impl Peer {
    /// Who has connected.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials: libc::ucred = option(socket, libc::SO_PEERCRED)?;
        let mut peer = Self {
            uid: credentials.uid,
            gid: credentials.gid,
            groups: groups(socket)?,
            pid: u32::try_from(credentials.pid).unwrap_or(0),
            capabilities: 0,
            sees: Sees::Nobody,
            shares_users: false,
            account: credentials.uid,
        };
        let number = match option::<libc::c_int>(socket, libc::SO_PEERPIDFD) {
            Ok(number) => number,
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => return Ok(peer),
            Err(_) => return Err(has_ended()),
        };
        // SAFETY: the kernel has just made this descriptor for us.
        let process = unsafe { OwnedFd::from_raw_fd(number) };
        peer.look(process.as_fd())?;
        Ok(peer)
    }

    /// Asks `/proc` of the process that is held; believes it if the process is alive afterwards, so that its number was its own. One
    /// that has ended is refused: nobody could say whose namespace's user it was, and one person who has many users there
    /// would have the places of many.
    fn look(&mut self, process: BorrowedFd<'_>) -> io::Result<()> {
        let pid = match pid_of(process) {
            Some(pid @ 1..) => u32::try_from(pid).map_err(|_number| has_ended())?,
            // It is in no PID namespace of the agent's.
            Some(0) => return Ok(()),
            _ => return Err(has_ended()),
        };
        let namespaces = Namespaces::of(pid).ok_or_else(has_ended)?;
        // A process that was root when it connected cannot have gained capabilities since that it could not have had then.
        let capabilities = if self.uid == 0 { effective(pid).unwrap_or(0) } else { 0 };
        if !is_alive(process) {
            return Err(has_ended());
        }
        self.pid = pid;
        self.shares_users = namespaces.shares_users;
        self.sees = namespaces.sees;
        self.account = namespaces.owner.unwrap_or(self.uid);
        if self.shares_users {
            self.capabilities = capabilities & DIRECTORY_CAPABILITIES;
        }
        Ok(())
    }

    /// Whether a process of this user may be named to it.
    pub(super) fn may_know(&self, uid: u32, processes_are_hidden: bool) -> bool {
        self.shares_users && (!processes_are_hidden || self.uid == uid || self.uid == 0)
    }
}

/// What `/proc` says of a process's namespaces.
struct Namespaces {
    sees: Sees,
    shares_users: bool,
    /// Who made the outermost user namespace between the agent's and that of the process.
    owner: Option<u32>,
}

impl Namespaces {
    fn of(pid: u32) -> Option<Self> {
        let inode = |process: &str, kind: &str| {
            fs::metadata(format!("/proc/{process}/ns/{kind}")).ok().map(|data| data.ino())
        };
        let theirs = pid.to_string();
        let (pids, own_pids) = (inode(&theirs, "pid")?, inode("self", "pid")?);
        let own_users = inode("self", "user")?;
        let mut at = File::open(format!("/proc/{pid}/ns/user")).ok()?;
        let shares_users = at.metadata().ok()?.ino() == own_users;
        let mut owner = None;
        for _ in 0..DEEPEST {
            if at.metadata().ok()?.ino() == own_users {
                let sees = if pids == own_pids { Sees::All } else { Sees::Namespace(pids) };
                return Some(Self { sees, shares_users, owner });
            }
            owner = Some(owner_of(&at)?);
            at = parent_of(&at)?;
        }
        None
    }
}

fn owner_of(namespace: &File) -> Option<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the request writes one number to where the pointer leads.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    (result == 0).then_some(uid)
}

fn parent_of(namespace: &File) -> Option<File> {
    // SAFETY: the request has no argument and gives a new descriptor, which nobody else has.
    unsafe {
        let number = libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT);
        (number >= 0).then(|| File::from(OwnedFd::from_raw_fd(number)))
    }
}

/// The effective capabilities of a process.
fn effective(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let text = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

fn has_ended() -> io::Error {
    io::Error::other("the process that has connected has ended; connect in one that stays")
}

/// The number of a held process; -1 when it has ended, 0 when it has none here.
fn pid_of(process: BorrowedFd<'_>) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// Whether the process was not reaped yet: until then its number is no other's.
fn is_alive(process: BorrowedFd<'_>) -> bool {
    // Signal 0 is delivered to nobody; rustix has no name for it.
    // SAFETY: no pointer is passed but a null one, which the call allows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    result == 0
}

fn option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the buffer is as long as is said, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 || usize::try_from(length).ok() != Some(size_of::<T>()) {
        return Err(if result == 0 { io::ErrorKind::InvalidData.into() } else { io::Error::last_os_error() });
    }
    // SAFETY: it was zeroed, and the kernel wrote all of it; it is used for numbers and structures of them.
    Ok(unsafe { value.assume_init() })
}

/// The supplementary groups (Linux 4.13).
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).unwrap_or(0);
        // SAFETY: the buffer is as long as is said, and the kernel writes no more than that.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count > MOST_GROUPS || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn this_process_is_known_by_its_socket() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(one.as_fd()).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        if option::<libc::c_int>(one.as_fd(), libc::SO_PEERPIDFD).is_ok() {
            assert_eq!((peer.pid, peer.sees, peer.shares_users), (std::process::id(), Sees::All, true));
            assert_eq!(peer.account, peer.uid);
        }
    }
}
