//! A FUSE filesystem that shows the files of another directory, so that these can be changed behind it.
//!
//! In: the directory, and where to mount. Out: a mount, until its server ends. The server is a process of its own: a process that
//! waits for its own answer cannot be killed (fs/fuse/dev.c, `request_wait_answer`).

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, Notifier, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::mount::{MountFlags, mount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, getgid, getuid, set_parent_process_death_signal};

use super::child::{KilledAtEnd, Side, end, fork};

/// The kernel's device of FUSE servers.
const DEVICE: &str = "/dev/fuse";

/// What the server tells the kernel when it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// `FUSE_NOTIFY_INVAL_INODE` of all files: what is cached of them is no longer so.
    Invalidate,
    /// `FUSE_NOTIFY_DELETE` of the first file that was looked up: its name is no more.
    Delete,
}

impl Notice {
    const fn byte(self) -> u8 {
        match self {
            Self::Invalidate => b'i',
            Self::Delete => b'd',
        }
    }
}

/// The running server; ends with this, and what it mounted answers no more.
pub(super) struct Fuse {
    _server: KilledAtEnd,
    requests: File,
    answers: File,
}

impl Fuse {
    /// Mounts a filesystem on `target` that shows the files of `backing`; the kernel may keep their attributes as long as `lifetime`. This
    /// process must have no other threads.
    ///
    /// # Errors
    /// A sentence: why there is no FUSE here.
    pub(super) fn mount(backing: OwnedFd, target: &Path, lifetime: Duration) -> Result<Self, String> {
        let fault = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let device = File::options().read(true).write(true).open(DEVICE);
        let device = device.map_err(|error| fault("open /dev/fuse", &error))?;
        let (their_requests, requests) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fault("make a pipe", &errno))?;
        let (answers, their_answers) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fault("make a pipe", &errno))?;
        let (number, user, group) = (device.as_raw_fd(), getuid().as_raw(), getgid().as_raw());
        let options = format!("fd={number},rootmode=40700,user_id={user},group_id={group}");
        let options = CString::new(options).map_err(|error| fault("mount fuse", &error))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("hotr-verify", target, "fuse", flags, Some(options.as_c_str()))
            .map_err(|errno| fault("mount fuse", &errno))?;
        let pid = match fork().map_err(|error| fault("start a process", &error))? {
            Side::Child => {
                drop((requests, answers));
                let pipes = (File::from(their_requests), File::from(their_answers));
                end(i32::from(serve(backing, device.into(), lifetime, pipes).is_err()))
            }
            Side::Parent(pid) => pid,
        };
        // The connection ends with its last descriptor, which must be the server's.
        drop(device);
        Ok(Self { _server: KilledAtEnd(pid), requests: requests.into(), answers: answers.into() })
    }

    /// Has the server tell the kernel something, which it has done on return.
    pub(super) fn notify(&mut self, notice: Notice) -> io::Result<()> {
        self.requests.write_all(&[notice.byte()])?;
        let mut answer = [0; 4];
        self.answers.read_exact(&mut answer)?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The server's process: answers until the parent has closed its pipe.
fn serve(
    backing: OwnedFd,
    device: OwnedFd,
    lifetime: Duration,
    (mut requests, mut answers): (File, File),
) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let shown = Shown { backing, lifetime, names: Mutex::new(Vec::new()) };
    let session = Session::from_fd(shown, device, SessionACL::Owner, Config::default())?.spawn()?;
    let notifier = session.notifier();
    let mut request = [0];
    while requests.read_exact(&mut request).is_ok() {
        let result = told(&notifier, request[0]);
        let errno = result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
        answers.write_all(&errno.to_ne_bytes())?;
    }
    Ok(())
}

/// How many files can be looked up; an experiment has fewer, with its barriers.
const MOST_FILES: u64 = 256;

fn told(notifier: &Notifier, request: u8) -> io::Result<()> {
    if request == Notice::Delete.byte() {
        return notifier.delete(INodeNo::ROOT, INodeNo(FIRST), OsStr::new(SHOWN));
    }
    // A file that the kernel does not know is no error.
    (FIRST..FIRST + MOST_FILES).try_for_each(|ino| notifier.inval_inode(INodeNo(ino), 0, 0))
}

/// The name of the file that experiments change, which has the first number.
pub(super) const SHOWN: &str = "f";
/// Its inode number; those of others follow.
const FIRST: u64 = 2;

/// The filesystem: one directory, with the files of another one.
struct Shown {
    backing: OwnedFd,
    lifetime: Duration,
    /// Of each inode number after that of [`SHOWN`], the name.
    names: Mutex<Vec<OsString>>,
}

impl Shown {
    /// The inode number of a name, which it keeps.
    fn number(&self, name: &OsStr) -> u64 {
        if name == SHOWN {
            return FIRST;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        FIRST + 1 + at as u64
    }

    fn name(&self, ino: INodeNo) -> io::Result<OsString> {
        let at = match ino {
            INodeNo::ROOT => return Ok(OsString::from(".")),
            INodeNo(FIRST) => return Ok(OsString::from(SHOWN)),
            INodeNo(number) => usize::try_from(number.saturating_sub(FIRST + 1)),
        };
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = at.ok().and_then(|at| names.get(at).cloned());
        name.ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    fn open_file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        Ok(openat(self.backing.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn attributes(&self, ino: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let metadata = self.open_file(name, OFlags::RDONLY)?.metadata()?;
        let time = |seconds: i64, nanoseconds: i64| -> SystemTime {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            UNIX_EPOCH + Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0))
        };
        Ok(FileAttr {
            ino,
            size: metadata.len(),
            blocks: metadata.blocks(),
            atime: time(metadata.atime(), metadata.atime_nsec()),
            mtime: time(metadata.mtime(), metadata.mtime_nsec()),
            ctime: time(metadata.ctime(), metadata.ctime_nsec()),
            crtime: UNIX_EPOCH,
            kind: if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile },
            perm: if metadata.is_dir() { 0o700 } else { 0o600 },
            nlink: 1,
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self.backing.as_fd())? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn entry(&self, name: &OsStr) -> io::Result<FileAttr> {
        let metadata = self.attributes(INodeNo::ROOT, name)?;
        Ok(FileAttr { ino: INodeNo(self.number(name)), ..metadata })
    }
}

impl Filesystem for Shown {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.entry(name) {
            Ok(attributes) => reply.entry(&self.lifetime, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.name(ino).and_then(|name| self.attributes(ino, &name)) {
            Ok(attributes) => reply.attr(&self.lifetime, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = || {
            let name = self.name(ino)?;
            if let Some(size) = size {
                self.open_file(&name, OFlags::WRONLY)?.set_len(size)?;
            }
            self.attributes(ino, &name)
        };
        match change() {
            Ok(attributes) => reply.attr(&self.lifetime, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let file = self.open_file(&self.name(ino)?, OFlags::RDONLY)?;
            let mut data = vec![0; size as usize];
            let length = file.read_at(&mut data, offset)?;
            data.truncate(length);
            io::Result::Ok(data)
        };
        match read() {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || self.open_file(&self.name(ino)?, OFlags::WRONLY)?.write_all_at(data, offset);
        match write() {
            // The kernel sends no more at once than a number of this type can say.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let create = || {
            self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
            self.entry(name)
        };
        match create() {
            Ok(attributes) => {
                reply.created(&self.lifetime, &attributes, Generation(0), FileHandle(0), FopenFlags::empty())
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match unlinkat(self.backing.as_fd(), name, AtFlags::empty()) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(Errno::from_i32(errno.raw_os_error())),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = match self.list() {
            Ok(names) => names,
            Err(error) => return reply.error(error.into()),
        };
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (name, next) in names.iter().zip(1_u64..).skip(first) {
            if reply.add(INodeNo(self.number(name)), next, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
