//! Content by system calls that carry data: write and its variants, copies, splices, clones, truncation.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use rustix::io::ReadWriteFlags;

use super::{
    Aligned, BLOCK, Cell, DATA, OpError, Operation, SIZE, Step, aligned_block, all_fs, checked, done,
    exactly, open_direct, step,
};
use crate::expect::Expect;

/// `_IOW(0x94, 13, struct file_clone_range)`
const FICLONERANGE: libc::c_ulong = 0x4020_940d;

/// Number of writes in a storm.
const STORM: u64 = 1000;

pub(super) const OPS: &[Operation] = &[
    all_fs("write", |c| call(c, "write", |f| Ok(rustix::io::write(f, DATA)?))),
    all_fs("write-append", write_append),
    all_fs("write-1m", write_large),
    all_fs("write-storm", write_storm),
    all_fs("write-inode-again", write_inode_again),
    all_fs("write-other-user", write_other_user),
    all_fs("pwrite", |c| call(c, "pwrite64", |f| Ok(rustix::io::pwrite(f, DATA, 1)?))),
    all_fs("writev", |c| call(c, "writev", |f| Ok(rustix::io::writev(f, &halves())?))),
    all_fs("pwritev", |c| call(c, "pwritev", |f| Ok(rustix::io::pwritev(f, &halves(), 1)?))),
    all_fs("pwritev2", |c| {
        call(c, "pwritev2", |f| Ok(rustix::io::pwritev2(f, &halves(), 1, ReadWriteFlags::empty())?))
    }),
    all_fs("direct-pwrite", direct_pwrite),
    all_fs("truncate", |c| {
        let path = c.file("f")?;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())
            .map_err(|_| OpError::other("the path holds a NUL"))?;
        step(vec![Expect::new("write", &["truncate"], path)], move || {
            // SAFETY: `name` is a NUL-terminated string that lives over the call.
            checked(libc::c_long::from(unsafe { libc::truncate(name.as_ptr(), 7) })).map(drop)
        })
    }),
    all_fs("ftruncate", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("write", &["ftruncate"], path)], move || {
            Ok(rustix::fs::ftruncate(&file, BLOCK * 3)?)
        })
    }),
    all_fs("ftruncate-grow", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("write", &["ftruncate"], path)], move || {
            Ok(rustix::fs::ftruncate(&file, BLOCK * 9)?)
        })
    }),
    all_fs("open-trunc", |c| {
        let path = c.file("f")?;
        step(vec![Expect::new("write", &["o_trunc"], &path)], move || {
            done(std::fs::OpenOptions::new().write(true).truncate(true).open(&path))
        })
    }),
    all_fs("copy-file-range", |c| {
        pair(c, "copy_file_range", |from, to| {
            Ok(rustix::fs::copy_file_range(from, None, to, None, DATA.len())?)
        })
    }),
    all_fs("sendfile", |c| {
        pair(c, "sendfile", |from, to| Ok(rustix::fs::sendfile(to, from, None, DATA.len())?))
    }),
    all_fs("splice", splice),
    all_fs("clone", |c| clone(c, |from, to| Ok(rustix::fs::ioctl_ficlone(to, from)?))),
    all_fs("clone-range", |c| clone(c, clone_range)),
];

fn halves() -> [IoSlice<'static>; 2] {
    let (head, tail) = DATA.split_at(2);
    [IoSlice::new(head), IoSlice::new(tail)]
}

/// One call that writes [`DATA`] to an open file.
fn call(c: &Cell<'_>, detail: &str, call: fn(&File) -> Result<usize, OpError>) -> Step {
    let (path, file) = c.open("f")?;
    let expect = vec![Expect::data(path, detail, DATA.len() as u64)];
    step(expect, move || exactly(call(&file)?, DATA.len()))
}

fn write_append(c: &Cell<'_>) -> Step {
    let path = c.file("f")?;
    let file = std::fs::OpenOptions::new().append(true).open(&path)?;
    step(vec![Expect::data(path, "write", DATA.len() as u64)], move || {
        exactly(rustix::io::write(&file, DATA)?, DATA.len())
    })
}

fn write_large(c: &Cell<'_>) -> Step {
    let (path, file) = c.open("f")?;
    let buffer = vec![b'l'; 1 << 20];
    step(vec![Expect::data(path, "write", 1 << 20)], move || {
        exactly(rustix::io::write(&file, &buffer)?, buffer.len())
    })
}

fn write_storm(c: &Cell<'_>) -> Step {
    let (path, file) = c.open("f")?;
    let line = Expect::data(path, "pwrite64", STORM);
    let line = Expect { writes: Some(STORM), repeated: true, ..line };
    step(vec![line], move || {
        for offset in 0..STORM {
            exactly(rustix::io::pwrite(&file, b"s", offset)?, 1)?;
        }
        Ok(())
    })
}

/// Files that come and go one after the other, so that most have the inode and the memory of one before.
fn write_inode_again(c: &Cell<'_>) -> Step {
    const FILES: usize = 30;
    let paths: Vec<_> = (0..FILES).map(|number| c.inside(format!("f{number}"))).collect();
    let lines = paths.iter().flat_map(|path| {
        [
            Expect::new("create", &["open"], path),
            Expect::data(path, "write", DATA.len() as u64),
            Expect::new("remove", &["unlink"], path),
        ]
    });
    step(lines.collect(), move || {
        for path in &paths {
            exactly(rustix::io::write(&File::create_new(path)?, DATA)?, DATA.len())?;
            std::fs::remove_file(path)?;
        }
        Ok(())
    })
}

/// A thread with a user id and a name of its own: the writer is the thread, not whoever started hotr.
fn write_other_user(c: &Cell<'_>) -> Step {
    const USER: u32 = 1234;
    let (path, file) = c.open("f")?;
    let line = Expect::data(path, "write", DATA.len() as u64);
    let line = Expect { tid: None, uid: Some(USER), comm: Some("other-writer".into()), ..line };
    let body = move || -> Result<(), OpError> {
        // SAFETY: the raw call changes the ids of this thread only, and takes no pointers.
        checked(unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) })?;
        exactly(rustix::io::write(&file, DATA)?, DATA.len())
    };
    step(vec![line], move || {
        let thread = std::thread::Builder::new().name("other-writer".into()).spawn(body)?;
        thread.join().map_err(|_| OpError::other("the writing thread panicked"))?
    })
}

fn direct_pwrite(c: &Cell<'_>) -> Step {
    let path = c.file("f")?;
    let file = open_direct(&path)?;
    let block: Box<Aligned> = aligned_block();
    step(vec![Expect::data(path, "pwrite64", BLOCK)], move || {
        exactly(rustix::io::pwrite(&file, &block.0, 0)?, block.0.len())
    })
}

/// One call that copies [`DATA`]'s length from one file to another of the same directory.
fn pair(c: &Cell<'_>, detail: &str, call: fn(&File, &File) -> Result<usize, OpError>) -> Step {
    let from = File::open(c.file("from")?)?;
    let (path, to) = c.open("to")?;
    step(vec![Expect::data(path, detail, DATA.len() as u64)], move || exactly(call(&from, &to)?, DATA.len()))
}

fn splice(c: &Cell<'_>) -> Step {
    let (path, to) = c.open("to")?;
    let (read, write) = rustix::pipe::pipe()?;
    File::from(write).write_all(DATA)?;
    step(vec![Expect::data(path, "splice", DATA.len() as u64)], move || {
        let flags = rustix::pipe::SpliceFlags::empty();
        exactly(rustix::pipe::splice(&read, None, &to, None, DATA.len(), flags)?, DATA.len())
    })
}

fn clone(c: &Cell<'_>, call: fn(&File, &File) -> Result<(), OpError>) -> Step {
    let from = File::open(c.file("from")?)?;
    let path = c.inside("to");
    let to = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&path)?;
    step(vec![Expect::new("write", &["clone"], path)], move || call(&from, &to))
}

fn clone_range(from: &File, to: &File) -> Result<(), OpError> {
    /// `struct file_clone_range` of linux/fs.h.
    #[repr(C)]
    struct Range {
        src_fd: i64,
        src_offset: u64,
        src_length: u64,
        dest_offset: u64,
    }
    let range =
        Range { src_fd: i64::from(from.as_raw_fd()), src_offset: 0, src_length: SIZE as u64, dest_offset: 0 };
    // SAFETY: the argument is the structure this request reads, and lives over the call.
    checked(libc::c_long::from(unsafe { libc::ioctl(to.as_raw_fd(), FICLONERANGE as _, &raw const range) }))
        .map(drop)
}
