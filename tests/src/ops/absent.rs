//! Calls that change nothing under the traced tree: not a line may be printed for them.

use std::fs::{File, OpenOptions};
use std::io::Read;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, renameat_with};
use rustix::io::Errno;

use super::names::tmpfile;
use super::{DATA, OpError, Operation, all_fs, done, exactly, fails, make_file, open_rw, step};

pub(super) const OPS: &[Operation] = &[
    all_fs("absent-write-nothing", |c| {
        let (_, file) = c.open("f")?;
        step(vec![], move || exactly(rustix::io::write(&file, b"")?, 0))
    }),
    all_fs("absent-write-refused", |c| {
        let file = File::open(c.file("f")?)?;
        step(vec![], move || fails(rustix::io::write(&file, DATA), Errno::BADF))
    }),
    all_fs("absent-open-enoent", |c| {
        let path = c.inside("missing");
        step(vec![], move || fails(rustix::fs::open(&path, OFlags::WRONLY, Mode::empty()), Errno::NOENT))
    }),
    all_fs("absent-open-eexist", |c| {
        let path = c.file("f")?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        step(vec![], move || fails(rustix::fs::open(&path, flags, Mode::RUSR), Errno::EXIST))
    }),
    all_fs("absent-mkdir-eexist", |c| {
        let path = c.file("f")?;
        step(vec![], move || fails(rustix::fs::mkdir(&path, Mode::RWXU), Errno::EXIST))
    }),
    all_fs("absent-link-eexist", |c| {
        let (from, to) = (c.file("from")?, c.file("to")?);
        step(vec![], move || fails(rustix::fs::link(&from, &to), Errno::EXIST))
    }),
    all_fs("absent-rename-enoent", |c| {
        let (from, to) = (c.inside("missing"), c.file("to")?);
        step(vec![], move || fails(rustix::fs::rename(&from, &to), Errno::NOENT))
    }),
    all_fs("absent-rename-eexist", |c| {
        let (from, to) = (c.file("from")?, c.file("to")?);
        step(vec![], move || fails(renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE), Errno::EXIST))
    }),
    all_fs("absent-rename-same-name", |c| {
        let path = c.file("f")?;
        step(vec![], move || Ok(rustix::fs::rename(&path, &path)?))
    }),
    all_fs("absent-rename-same-directory", |c| {
        let path = c.inside("d");
        std::fs::create_dir(&path)?;
        step(vec![], move || Ok(rustix::fs::rename(&path, &path)?))
    }),
    all_fs("absent-rename-same-file", |c| {
        let (one, two) = (c.file("f")?, c.inside("g"));
        rustix::fs::link(&one, &two)?;
        step(vec![], move || {
            rustix::fs::rename(&one, &two)?;
            Ok(renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)?)
        })
    }),
    all_fs("absent-rename-same-file-outside", |c| {
        let (inside, outside) = (c.file("f")?, c.outside("g"));
        rustix::fs::link(&inside, &outside)?;
        step(vec![], move || {
            rustix::fs::rename(&inside, &outside)?;
            Ok(rustix::fs::rename(&outside, &inside)?)
        })
    }),
    all_fs("absent-utimes-omitted", |c| {
        const OMITTED: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
        let (path, file) = c.open("f")?;
        step(vec![], move || {
            let none = Timestamps { last_access: OMITTED, last_modification: OMITTED };
            rustix::fs::utimensat(CWD, &path, &none, AtFlags::empty())?;
            Ok(rustix::fs::futimens(&file, &none)?)
        })
    }),
    all_fs("absent-unlink-enoent", |c| {
        let path = c.inside("missing");
        step(vec![], move || fails(rustix::fs::unlink(&path), Errno::NOENT))
    }),
    all_fs("absent-rmdir-notempty", |c| {
        std::fs::create_dir(c.inside("d"))?;
        c.file("d/f")?;
        let path = c.inside("d");
        step(vec![], move || fails(rustix::fs::rmdir(&path), Errno::NOTEMPTY))
    }),
    all_fs("absent-chmod-enoent", |c| {
        let path = c.inside("missing");
        step(vec![], move || fails(rustix::fs::chmod(&path, Mode::RWXU), Errno::NOENT))
    }),
    all_fs("absent-write-outside", |c| {
        let file = open_rw(&make_file(c.outside("f"))?)?;
        step(vec![], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
    }),
    all_fs("absent-names-outside", |c| {
        let (a, b) = (c.outside("a"), c.outside("b"));
        step(vec![], move || {
            drop(File::create_new(&a)?);
            rustix::fs::rename(&a, &b)?;
            rustix::fs::chmod(&b, Mode::RUSR)?;
            Ok(rustix::fs::unlink(&b)?)
        })
    }),
    all_fs("absent-write-unlinked", |c| {
        let (path, file) = c.open("f")?;
        std::fs::remove_file(path)?;
        step(vec![], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
    }),
    all_fs("absent-write-tmpfile", |c| {
        let file = tmpfile(&c.inside(""))?;
        step(vec![], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
    }),
    all_fs("absent-open-read", |c| {
        let path = c.file("f")?;
        step(vec![], move || {
            let mut byte = [0];
            exactly(File::open(&path)?.read(&mut byte)?, 1)
        })
    }),
    all_fs("absent-open-write-close", |c| {
        let path = c.file("f")?;
        step(vec![], move || done(OpenOptions::new().write(true).open(&path)))
    }),
    all_fs("absent-stat-fsync", |c| {
        let (path, file) = c.open("f")?;
        step(vec![], move || {
            std::fs::metadata(&path)?;
            std::fs::read_dir(path.parent().ok_or_else(|| OpError::other("no parent"))?)?.for_each(drop);
            Ok(file.sync_all()?)
        })
    }),
];
