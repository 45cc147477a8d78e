//! Attributes: mode, owner, times, extended attributes, inode flags.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};

use super::{Cell, OpError, Operation, Step, all_fs, step};
use crate::expect::Expect;

const XATTR: &str = "user.hotr";

const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 1_000_000, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 1_000_001, tv_nsec: 0 },
};

pub(super) const OPS: &[Operation] = &[
    all_fs("chmod", |c| on_path(c, "chmod", |path| Ok(rustix::fs::chmod(path, Mode::RUSR)?))),
    all_fs("chmod-dir", |c| {
        let path = c.inside("d");
        std::fs::create_dir(&path)?;
        step(vec![Expect::new("attrib", &["chmod"], &path).kind("dir")], move || {
            Ok(rustix::fs::chmod(&path, Mode::RWXU)?)
        })
    }),
    all_fs("fchmod", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("attrib", &["chmod"], path)], move || {
            Ok(rustix::fs::fchmod(&file, Mode::RUSR)?)
        })
    }),
    all_fs("chown", |c| on_path(c, "chown", |path| Ok(std::os::unix::fs::chown(path, Some(7), Some(8))?))),
    all_fs("fchown", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("attrib", &["chown"], path)], move || {
            Ok(std::os::unix::fs::fchown(&file, Some(7), Some(8))?)
        })
    }),
    all_fs("chown-symlink", |c| {
        let path = c.inside("l");
        std::os::unix::fs::symlink("nowhere", &path)?;
        step(vec![Expect::new("attrib", &["chown"], &path).kind("symlink")], move || {
            Ok(std::os::unix::fs::lchown(&path, Some(7), Some(8))?)
        })
    }),
    all_fs("utimensat", |c| {
        on_path(c, "utimes", |path| Ok(rustix::fs::utimensat(CWD, path, &TIMES, AtFlags::empty())?))
    }),
    all_fs("futimens", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("attrib", &["utimes"], path)], move || Ok(rustix::fs::futimens(&file, &TIMES)?))
    }),
    all_fs("setxattr", |c| on_path(c, "xattr", set)),
    all_fs("fsetxattr", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("attrib", &["xattr"], path)], move || {
            Ok(rustix::fs::fsetxattr(&file, XATTR, b"v", XattrFlags::empty())?)
        })
    }),
    all_fs("removexattr", |c| {
        let path = c.file("f")?;
        set(&path)?;
        step(vec![Expect::new("attrib", &["xattr"], &path)], move || {
            Ok(rustix::fs::removexattr(&path, XATTR)?)
        })
    }),
    all_fs("chattr", |c| {
        let (path, file) = c.open("f")?;
        let line = Expect::new("attrib", &["chattr"], path).unheard("kernel-writer");
        step(vec![line], move || {
            let flags = rustix::fs::ioctl_getflags(&file)?;
            Ok(rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::NODUMP)?)
        })
    }),
];

fn set(path: &Path) -> Result<(), OpError> {
    Ok(rustix::fs::setxattr(path, XATTR, b"v", XattrFlags::empty())?)
}

/// One call on the path of a regular file.
fn on_path(c: &Cell<'_>, detail: &str, call: fn(&Path) -> Result<(), OpError>) -> Step {
    let path = c.file("f")?;
    step(vec![Expect::new("attrib", &[detail], &path)], move || call(&path))
}
