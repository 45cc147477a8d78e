//! Names that appear and disappear.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::{Cell, DATA, OpError, Operation, Step, all_fs, checked, done, exactly, step};
use crate::expect::Expect;

pub(super) const OPS: &[Operation] = &[
    all_fs("create-open", |c| {
        create(c, &["open"], "file", |path| done(OpenOptions::new().write(true).create_new(true).open(path)))
    }),
    all_fs("create-write", |c| {
        let path = c.inside("f");
        let lines =
            vec![Expect::new("create", &["open"], &path), Expect::data(&path, "write", DATA.len() as u64)];
        step(lines, move || exactly(rustix::io::write(&File::create(&path)?, DATA)?, DATA.len()))
    }),
    all_fs("create-tmpfile-link", |c| {
        let file = tmpfile(&c.inside(""))?;
        create_with(c, &["tmpfile-link"], "file", move |path| {
            Ok(rustix::fs::linkat(&file, "", CWD, path, AtFlags::EMPTY_PATH)?)
        })
    }),
    all_fs("mkdir", |c| create(c, &["mkdir"], "dir", |path| Ok(rustix::fs::mkdir(path, Mode::RWXU)?))),
    all_fs("mkdir-before-chroot", |c| {
        let (root, path) = (c.inside(""), c.inside("d"));
        let line = Expect::new("create", &["mkdir"], &path).kind("dir");
        step(vec![Expect { pid: None, tid: None, ..line }], move || before_chroot(&path, &root))
    }),
    all_fs("mknod-regular", |c| create(c, &["mknod"], "file", |path| mknod(path, FileType::RegularFile))),
    all_fs("mkfifo", |c| create(c, &["mknod"], "fifo", |path| mknod(path, FileType::Fifo))),
    all_fs("mknod-char", |c| create(c, &["mknod"], "char", |path| mknod(path, FileType::CharacterDevice))),
    all_fs("mknod-block", |c| create(c, &["mknod"], "block", |path| mknod(path, FileType::BlockDevice))),
    all_fs("bind-socket", |c| create(c, &["mknod"], "socket", |path| done(UnixListener::bind(path)))),
    all_fs("symlink", |c| {
        create(c, &["symlink"], "symlink", |path| Ok(rustix::fs::symlink("nowhere", path)?))
    }),
    all_fs("link", |c| {
        let from = c.file("from")?;
        create_with(c, &["link"], "file", move |path| Ok(rustix::fs::link(&from, path)?))
    }),
    all_fs("link-from-outside", |c| {
        let from = super::make_file(c.outside("from"))?;
        create_with(c, &["link"], "file", move |path| Ok(rustix::fs::link(&from, path)?))
    }),
    all_fs("unlink", |c| {
        let path = c.file("f")?;
        step(vec![Expect::new("remove", &["unlink"], &path)], move || Ok(rustix::fs::unlink(&path)?))
    }),
    all_fs("unlink-one-of-two", |c| {
        let path = c.file("f")?;
        rustix::fs::link(&path, c.inside("other"))?;
        step(vec![Expect::new("remove", &["unlink"], &path)], move || Ok(rustix::fs::unlink(&path)?))
    }),
    all_fs("unlink-symlink", |c| {
        let path = c.inside("l");
        rustix::fs::symlink("nowhere", &path)?;
        step(vec![Expect::new("remove", &["unlink"], &path).kind("symlink")], move || {
            Ok(rustix::fs::unlink(&path)?)
        })
    }),
    all_fs("rmdir", |c| {
        let path = c.inside("d");
        std::fs::create_dir(&path)?;
        step(vec![Expect::new("remove", &["rmdir"], &path).kind("dir")], move || {
            Ok(rustix::fs::rmdir(&path)?)
        })
    }),
];

/// A process that makes a directory, has another root directory from then on, and stays until this one ends.
fn before_chroot(path: &Path, root: &Path) -> Result<(), OpError> {
    let name = |path: &Path| {
        CString::new(path.as_os_str().as_bytes()).map_err(|_| OpError::other("the path holds a NUL"))
    };
    let (path, root) = (name(path)?, name(root)?);
    let (read, write) = rustix::pipe::pipe()?;
    // SAFETY: the child makes a few system calls on memory that is there already.
    let child = checked(libc::c_long::from(unsafe { libc::fork() }))?;
    if child == 0 {
        // SAFETY: as above; the strings are NUL-terminated, and the child never returns from here.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let made = libc::mkdir(path.as_ptr(), 0o700) == 0 && libc::chroot(root.as_ptr()) == 0;
            libc::write(write.as_raw_fd(), [u8::from(made)].as_ptr().cast(), 1);
            loop {
                libc::pause();
            }
        }
    }
    drop(write);
    let mut answer = [0];
    File::from(read).read_exact(&mut answer)?;
    if answer == [1] { Ok(()) } else { Err(OpError::other("the child could not make the directory")) }
}

/// A file without a name in this directory, open for writing.
pub(super) fn tmpfile(dir: &Path) -> Result<File, OpError> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).map_err(|_| OpError::other("O_TMPFILE is no C int"))?;
    Ok(OpenOptions::new().write(true).custom_flags(flags).mode(0o600).open(dir)?)
}

fn mknod(path: &Path, kind: FileType) -> Result<(), OpError> {
    // 1:3 is /dev/null; the number is not used for the other types.
    let device = match kind {
        FileType::CharacterDevice => rustix::fs::makedev(1, 3),
        FileType::BlockDevice => rustix::fs::makedev(7, 0),
        _ => 0,
    };
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device)?)
}

fn create(c: &Cell<'_>, detail: &[&str], kind: &str, call: fn(&Path) -> Result<(), OpError>) -> Step {
    create_with(c, detail, kind, call)
}

fn create_with(
    c: &Cell<'_>,
    detail: &[&str],
    kind: &str,
    call: impl FnOnce(&Path) -> Result<(), OpError> + 'static,
) -> Step {
    let path = c.inside("new");
    step(vec![Expect::new("create", detail, &path).kind(kind)], move || call(&path))
}
