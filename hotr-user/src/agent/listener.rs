//! The agent's socket: made where nobody else can put another one in its place.
//!
//! In: a path. Out: a listening socket, or one sentence. A socket that nobody listens on is of an agent that has died, and is
//! taken over. A lock beside it decides between two agents that start at once; the kernel lets go of it when its agent dies.
//! Or a socket that listens already, which whoever started the agent has made and keeps (systemd's socket units).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, chmodat, flock, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::geteuid;

use super::error::AgentError;
use crate::beneath::Dir;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    _name: Option<Name>,
}

/// The name that an agent has given to its socket; it goes with it.
#[derive(Debug)]
struct Name {
    dir: Dir,
    name: OsString,
    lock_name: OsString,
    /// Inode of the name.
    ino: u64,
    _lock: OwnedFd,
}

impl Listener {
    /// Takes a socket that listens already.
    pub(super) fn adopt(fd: OwnedFd) -> Result<Self, AgentError> {
        let refuse = |cause: &str| AgentError::Inherited { cause: cause.to_owned() };
        let is_unix = sockopt::socket_domain(&fd).is_ok_and(|domain| domain == AddressFamily::UNIX);
        let is_stream = sockopt::socket_type(&fd).is_ok_and(|kind| kind == SocketType::STREAM);
        if !is_unix || !is_stream {
            return Err(refuse("it is no stream socket of AF_UNIX"));
        }
        if !sockopt::socket_acceptconn(&fd).unwrap_or(false) {
            return Err(refuse("it does not listen"));
        }
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|errno| refuse(&errno.to_string()))?;
        Ok(Self { socket: UnixListener::from(fd), _name: None })
    }

    /// Listens at a path.
    pub(super) fn bind(path: &Path) -> Result<Self, AgentError> {
        Self::try_bind(path).map_err(|(cause, next)| AgentError::Socket {
            path: path.to_owned(),
            cause,
            next,
        })
    }

    fn try_bind(path: &Path) -> Result<Self, (String, &'static str)> {
        let other = "name another socket with --socket";
        let says = |errno: Errno| (std::io::Error::from(errno).to_string(), other);
        let name = path.file_name().ok_or_else(|| ("it names no file".to_owned(), other))?.to_owned();
        let dir = directory(path)?;
        let mut lock_name = name.clone();
        lock_name.push(".lock");
        let lock = lock(&dir, &lock_name)?;
        take_over(&dir, &name)?;
        let socket = UnixListener::bind(in_held(&dir, &name)).map_err(|error| (error.to_string(), other))?;
        // Whoever may not read a directory learns nothing here, so everybody may ask.
        chmodat(&dir, &name, Mode::from_raw_mode(0o666), AtFlags::empty()).map_err(says)?;
        let ino = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(says)?.st_ino;
        Ok(Self { socket, _name: Some(Name { dir, name, lock_name, ino, _lock: lock }) })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let is_ours = statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_ino == self.ino);
        if is_ours {
            let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
        let _ = unlinkat(&self.dir, &self.lock_name, AtFlags::empty());
    }
}

/// The directory of the socket, made when only it is missing. Somebody else's would let him replace the socket.
fn directory(path: &Path) -> Result<Dir, (String, &'static str)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = match Dir::open(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = mkdirat(rustix::fs::CWD, parent, Mode::from_raw_mode(0o755));
            made.map_err(std::io::Error::from).and_then(|()| Dir::open(parent))
        }
        opened => opened,
    };
    let dir = dir.map_err(|error| (format!("its directory: {error}"), "create the directory, as root"))?;
    let stat = dir.stat().map_err(|error| (error.to_string(), "name another directory"))?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        let cause = "others may write to its directory, and put another socket in its place".to_owned();
        return Err((cause, "name one in a directory of root's that only root may write to"));
    }
    Ok(dir)
}

/// A path to a name in the held directory, which is also short enough for a socket's address.
fn in_held(dir: &Dir, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(name)
}

/// The lock of whoever listens there.
fn lock(dir: &Dir, name: &OsStr) -> Result<OwnedFd, (String, &'static str)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let says = |errno: Errno| {
        (
            format!("its lock {}: {errno}", PathBuf::from(name).display()),
            "remove the lock, or name another socket",
        )
    };
    let in_use = || ("another agent listens there".to_owned(), "use that one, or name another socket");
    loop {
        let lock = openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(says)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use()),
            Err(errno) => return Err(says(errno)),
        }
        // Its agent may have ended, and removed the name, since it was opened.
        let held = fstat(&lock).map_err(says)?;
        if statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|named| named.st_ino == held.st_ino) {
            return Ok(lock);
        }
    }
}

/// Removes the socket of an agent that has died.
fn take_over(dir: &Dir, name: &OsStr) -> Result<(), (String, &'static str)> {
    let next = "remove it if nothing needs it, or name another socket";
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err((errno.to_string(), next)),
        Ok(stat) => stat,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(("something that is no socket has the name".to_owned(), next));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err((format!("the socket there is of user {}", stat.st_uid), next));
    }
    match UnixStream::connect(in_held(dir, name)) {
        Ok(_) => Err(("another program listens there".to_owned(), next)),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            unlinkat(dir, name, AtFlags::empty()).map_err(|errno| (errno.to_string(), next))
        }
        Err(error) => Err((error.to_string(), next)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn refused(path: &Path) -> String {
        Listener::bind(path).unwrap_err().to_string()
    }

    #[test]
    fn a_socket_is_taken_over_only_from_the_dead() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run/agent.sock");
        let first = Listener::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert!(refused(&path).contains("another agent listens there"));
        // As a kill leaves it: the socket has its name, and nobody listens.
        let Listener { socket, .. } = &first;
        let stale = place.path().join("run/stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(Listener::bind(&stale).is_ok());
        let foreign = place.path().join("run/foreign.sock");
        let other = UnixListener::bind(&foreign).unwrap();
        assert!(refused(&foreign).contains("another program listens there"));
        drop((other, socket));
        drop(first);
        assert!(!path.exists(), "the name goes with the agent");
        fs::write(&path, "").unwrap();
        assert!(refused(&path).contains("no socket"));
    }

    #[test]
    fn a_place_of_others_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("agent.sock");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&path).contains("others may write"));
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if geteuid().is_root() {
            drop(UnixListener::bind(&path).unwrap());
            chown(&path, Some(54_321), None).unwrap();
            assert!(refused(&path).contains("of user 54321"));
        }
        assert!(refused(Path::new("/none/of/these")).contains("directory"));
    }
}
