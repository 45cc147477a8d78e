//! Requests of io_uring that make, change and remove names, and those that change a file otherwise than by writing to it.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::{IoUring, opcode, squeue, types};

use super::uring::{wait, with_personality};
use super::{BLOCK, Cell, DATA, OpError, Operation, SIZE, Step, all_fs, exactly, step};
use crate::expect::Expect;

pub(super) const OPS: &[Operation] = &[
    all_fs("uring-create", |c| {
        let path = c.inside("new");
        let line = Expect::new("create", &["open"], &path).by_worker();
        step(vec![line], move || open(&path, libc::O_CREAT | libc::O_WRONLY))
    }),
    all_fs("uring-create-truncating", |c| {
        let path = c.inside("new");
        let line = Expect::new("create", &["open"], &path).by_worker();
        step(vec![line], move || open(&path, libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY))
    }),
    all_fs("uring-create-in-slot", |c| in_slot(c, false)),
    all_fs("uring-create-in-slot-truncating", |c| in_slot(c, true)),
    all_fs("uring-openat2", |c| {
        let path = c.inside("new");
        let line = Expect::new("create", &["open"], &path).by_worker();
        step(vec![line], move || {
            let name = name(&path)?;
            let how = types::OpenHow::new()
                .flags((libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY) as u64)
                .mode(0o644);
            close(one(opcode::OpenAt2::new(HERE, name.as_ptr(), &raw const how).build())?)
        })
    }),
    all_fs("uring-trunc", |c| {
        let path = c.file("f")?;
        let line = Expect::new("write", &["o_trunc"], &path).by_worker();
        step(vec![line], move || open(&path, libc::O_TRUNC | libc::O_WRONLY))
    }),
    all_fs("uring-create-found-trunc", |c| {
        let path = c.file("f")?;
        let line = Expect::new("write", &["o_trunc"], &path).by_worker();
        step(vec![line], move || open(&path, libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY))
    }),
    all_fs("uring-mkdir", |c| {
        let path = c.inside("d");
        let line = Expect::new("create", &["mkdir"], &path).kind("dir").by_worker();
        step(vec![line], move || make_directory(&path))
    }),
    all_fs("uring-symlink", |c| {
        let path = c.inside("l");
        let line = Expect::new("create", &["symlink"], &path).kind("symlink").by_worker();
        step(vec![line], move || {
            let name = name(&path)?;
            done(opcode::SymlinkAt::new(HERE, c"nowhere".as_ptr(), name.as_ptr()).build())
        })
    }),
    all_fs("uring-link", |c| {
        let (from, to) = (c.file("from")?, c.inside("to"));
        let line = Expect::new("create", &["link"], &to).by_worker();
        step(vec![line], move || {
            let (from, to) = (name(&from)?, name(&to)?);
            done(opcode::LinkAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build())
        })
    }),
    all_fs("uring-unlink", |c| {
        let path = c.file("f")?;
        let line = Expect::new("remove", &["unlink"], &path).by_worker();
        step(vec![line], move || remove(&path, 0))
    }),
    all_fs("uring-rmdir", |c| {
        let path = c.inside("d");
        std::fs::create_dir(&path)?;
        let line = Expect::new("remove", &["rmdir"], &path).kind("dir").by_worker();
        step(vec![line], move || remove(&path, libc::AT_REMOVEDIR))
    }),
    all_fs("uring-rename", |c| {
        let (from, to) = (c.file("from")?, c.inside("to"));
        let line = Expect::new("rename", &["rename"], &to).from(&from).by_worker();
        step(vec![line], move || rename(&from, &to, 0))
    }),
    all_fs("uring-rename-exchange", |c| {
        let (from, to) = (c.file("from")?, c.file("to")?);
        let line = Expect::new("rename", &["rename", "exchange"], &to).from(&from).by_worker();
        step(vec![line], move || rename(&from, &to, libc::RENAME_EXCHANGE))
    }),
    all_fs("uring-names-together", together),
    all_fs("uring-fallocate", |c| {
        on_file(c, "write", "fallocate", |file| opcode::Fallocate::new(file, 9 * BLOCK).build())
    }),
    all_fs("uring-ftruncate", |c| {
        on_file(c, "write", "ftruncate", |file| opcode::Ftruncate::new(file, 9 * BLOCK).build())
    }),
    all_fs("uring-fsetxattr", |c| {
        on_file(c, "attrib", "xattr", |file| {
            opcode::FSetXattr::new(file, c"user.hotr".as_ptr(), c"v".as_ptr().cast(), 1).build()
        })
    }),
    all_fs("uring-setxattr", |c| {
        let path = c.file("f")?;
        let line = Expect::new("attrib", &["xattr"], &path).by_worker();
        step(vec![line], move || {
            let path = name(&path)?;
            let value = c"v".as_ptr().cast();
            done(opcode::SetXattr::new(c"user.hotr".as_ptr(), value, path.as_ptr(), 1).build())
        })
    }),
    all_fs("uring-splice", |c| {
        let (path, to) = c.open("to")?;
        let (read, write) = rustix::pipe::pipe()?;
        File::from(write).write_all(DATA)?;
        let line = Expect::data(path, "splice", DATA.len() as u64).by_worker();
        step(vec![line], move || {
            let (from, to) = (types::Fd(read.as_raw_fd()), types::Fd(to.as_raw_fd()));
            let length = u32::try_from(DATA.len()).unwrap_or(u32::MAX);
            exactly(one(opcode::Splice::new(from, -1, to, 0, length).build())?, DATA.len())
        })
    }),
    all_fs("absent-uring-open-found", |c| {
        let path = c.file("f")?;
        step(vec![], move || open(&path, libc::O_CREAT | libc::O_WRONLY))
    }),
    all_fs("absent-uring-refused", |c| {
        let (there, missing) = (c.file("f")?, c.inside("missing"));
        step(vec![], move || {
            refused(make_directory(&there), libc::EEXIST)?;
            refused(rename(&missing, &there, 0), libc::ENOENT)?;
            refused(remove(&missing, 0), libc::ENOENT)
        })
    }),
    all_fs("absent-uring-rename-same", |c| {
        let (one, two) = (c.file("f")?, c.inside("g"));
        rustix::fs::link(&one, &two)?;
        step(vec![], move || {
            rename(&one, &one, 0)?;
            rename(&one, &two, 0)
        })
    }),
];

/// `AT_FDCWD`.
pub(super) const HERE: types::Fd = types::Fd(libc::AT_FDCWD);

pub(super) fn name(path: &Path) -> Result<CString, OpError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| OpError::other("the path holds a NUL"))
}

/// A request about a name, made with credentials other than the thread's.
pub(super) fn with_personality_done(entry: squeue::Entry) -> Result<(), OpError> {
    let (mut ring, personality) = with_personality()?;
    one_of(&mut ring, entry.personality(personality)).map(drop)
}

/// Submits one request on a ring of its own; its result.
fn one(entry: squeue::Entry) -> Result<usize, OpError> {
    one_of(&mut IoUring::new(4)?, entry)
}

fn one_of(ring: &mut IoUring, entry: squeue::Entry) -> Result<usize, OpError> {
    // SAFETY: what the entry points to lives in the callers until they return, which is after the completion.
    unsafe { ring.submission().push(&entry) }.map_err(|_| OpError::other("the submission queue is full"))?;
    let result = wait(ring)?;
    usize::try_from(result).map_err(|_| std::io::Error::from_raw_os_error(-result).into())
}

fn done(entry: squeue::Entry) -> Result<(), OpError> {
    one(entry).map(drop)
}

fn open(path: &Path, flags: i32) -> Result<(), OpError> {
    let name = name(path)?;
    close(one(opcode::OpenAt::new(HERE, name.as_ptr()).flags(flags).mode(0o644).build())?)
}

/// Closes the descriptor that a request returned.
fn close(descriptor: usize) -> Result<(), OpError> {
    let descriptor = i32::try_from(descriptor).map_err(|_| OpError::other("no descriptor was returned"))?;
    // SAFETY: the kernel has just made it for this request, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), OpError> {
    let name = name(path)?;
    done(opcode::MkDirAt::new(HERE, name.as_ptr()).mode(0o755).build())
}

fn remove(path: &Path, flags: i32) -> Result<(), OpError> {
    let name = name(path)?;
    done(opcode::UnlinkAt::new(HERE, name.as_ptr()).flags(flags).build())
}

fn rename(from: &Path, to: &Path, flags: u32) -> Result<(), OpError> {
    let (from, to) = (name(from)?, name(to)?);
    done(opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).flags(flags).build())
}

fn refused(result: Result<(), OpError>, expected: i32) -> Result<(), OpError> {
    match result {
        Err(error) if error.errno == Some(expected) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(OpError::other(format!("succeeded instead of failing with error {expected}"))),
    }
}

/// A request that changes an open file and returns 0.
fn on_file(c: &Cell<'_>, op: &str, detail: &str, entry: fn(types::Fd) -> squeue::Entry) -> Step {
    let (path, file) = c.open("f")?;
    let line = Expect::new(op, &[detail], path).by_worker();
    step(vec![line], move || done(entry(types::Fd(file.as_raw_fd()))))
}

/// An open whose file gets no descriptor: one that makes its file, or one that finds and cuts it.
fn in_slot(c: &Cell<'_>, is_there: bool) -> Step {
    let path = c.inside("f");
    let line = if is_there {
        c.file("f")?;
        Expect::new("write", &["o_trunc"], &path)
    } else {
        Expect::new("create", &["open"], &path)
    };
    let mut ring = IoUring::new(4)?;
    ring.submitter().register_files(&[-1, -1])?;
    step(vec![line.by_worker()], move || {
        let name = name(&path)?;
        let slot =
            types::DestinationSlot::try_from_slot_target(1).map_err(|_| OpError::other("no such slot"))?;
        let open = opcode::OpenAt::new(HERE, name.as_ptr()).file_index(Some(slot));
        let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY;
        one_of(&mut ring, open.flags(flags).mode(0o644).build()).map(drop)
    })
}

/// Several requests in one submission, each waiting for the one before it.
fn together(c: &Cell<'_>) -> Step {
    let (dir, from, to) = (c.inside("d"), c.file("from")?, c.inside("to"));
    let lines = vec![
        Expect::new("create", &["mkdir"], &dir).kind("dir").by_worker(),
        Expect::new("rename", &["rename"], &to).from(&from).by_worker(),
    ];
    let mut ring = IoUring::new(4)?;
    step(lines, move || {
        let (dir, from, to) = (name(&dir)?, name(&from)?, name(&to)?);
        let entries = [
            opcode::MkDirAt::new(HERE, dir.as_ptr())
                .mode(0o755)
                .build()
                .flags(squeue::Flags::IO_LINK)
                .user_data(1),
            opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build().user_data(2),
        ];
        // SAFETY: the names live until both have completed.
        unsafe { ring.submission().push_multiple(&entries) }
            .map_err(|_| OpError::other("the submission queue is full"))?;
        for _ in &entries {
            let result = wait(&mut ring)?;
            if result < 0 {
                return Err(std::io::Error::from_raw_os_error(-result).into());
            }
        }
        // The file kept its content on the way.
        exactly(usize::try_from(std::fs::metadata(c_path(&to))?.len()).unwrap_or(0), SIZE)
    })
}

fn c_path(name: &CString) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()))
}
