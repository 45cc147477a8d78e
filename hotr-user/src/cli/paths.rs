//! Checks of the paths a user names, before anything is started.
//!
//! In: paths as given. Out: absolute roots, each once, or the first error with its cause and a next step. Looking
//! ([`look`]) is apart from judging ([`check`], [`merge`]), which are pure.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hotr_user::error::Error;
use rustix::fs::{Access, AtFlags, CWD, accessat, statfs};
use rustix::io::Errno;

/// Paths that can be traced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// Absolute, as the user named them; none twice, none inside another.
    pub(super) paths: Vec<PathBuf>,
    /// What was merged, for stderr.
    pub(super) notes: Vec<String>,
}

/// What the system says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The path made absolute, links and `..` kept; `None` when the current directory is unknown.
    pub(super) absolute: Option<PathBuf>,
    /// Where it leads when all links are followed.
    pub(super) real: Result<PathBuf, i32>,
    /// The target, when the path itself is a symbolic link.
    pub(super) link: Option<PathBuf>,
    /// `f_type` of its filesystem.
    pub(super) magic: i64,
    /// It may be read, and when it is a directory also searched.
    pub(super) readable: bool,
}

/// Checks all paths, then merges those that are the same or inside each other.
pub(super) fn roots(paths: &[PathBuf], recursive: bool) -> Result<Roots, Error> {
    let mut checked = Vec::new();
    for path in paths {
        let facts = look(path);
        let named = check(path, &facts)?;
        refuse_pseudo(path, &facts)?;
        checked.push((named, facts.real.unwrap_or_else(|_| path.clone())));
    }
    Ok(merge(checked, recursive))
}

/// Asks the system about a path.
pub(super) fn look(path: &Path) -> Facts {
    let real = path.canonicalize().map_err(|error| raw_errno(&error));
    let (mut magic, mut readable) = (0, false);
    if let Ok(real) = &real {
        let access = if real.is_dir() { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
        readable = accessat(CWD, real, access, AtFlags::EACCESS).is_ok();
        magic = statfs(real).map_or(0, |stat| to_magic(stat.f_type));
    }
    Facts { absolute: std::path::absolute(path).ok(), real, link: path.read_link().ok(), magic, readable }
}

/// `canonicalize` reports a NUL in a path without an error number.
fn raw_errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error())
}

/// The type of `f_type` differs between architectures; its values are 32 bits everywhere.
fn to_magic(f_type: impl TryInto<i64>) -> i64 {
    f_type.try_into().unwrap_or(0)
}

/// The path to trace, or what is wrong with the one given.
pub(super) fn check(path: &Path, facts: &Facts) -> Result<PathBuf, Error> {
    let bytes = path.as_os_str().as_bytes();
    let refuse = |cause: &str, next: &str| {
        Err(Error::Path { path: path.to_owned(), cause: cause.to_owned(), next: next.to_owned() })
    };
    if bytes.is_empty() {
        return refuse("an empty path names nothing", "name a directory, or . for this one");
    }
    if bytes.contains(&0) {
        return refuse("a path cannot contain a NUL byte", "correct the path");
    }
    if let Err(errno) = &facts.real {
        let (cause, next) = missing(Errno::from_raw_os_error(*errno), facts.link.as_deref());
        return refuse(&cause, next);
    }
    if !facts.readable {
        return refuse(
            "permission denied",
            "run as root, or get read permission (and search permission on directories)",
        );
    }
    match &facts.absolute {
        Some(absolute) => Ok(absolute.clone()),
        None => refuse("the current directory no longer exists", "name an absolute path"),
    }
}

/// Cause and next step for a path that does not resolve.
fn missing(errno: Errno, link: Option<&Path>) -> (String, &'static str) {
    match (errno, link) {
        (Errno::NOENT, Some(target)) => (
            format!("a symbolic link to {}, which does not exist", target.display()),
            "create its target, or name another path",
        ),
        (Errno::NOENT, None) => (
            "no such file or directory".to_owned(),
            "create it first, or name the directory in which it will appear",
        ),
        (Errno::NOTDIR, _) => ("a part of the path is not a directory".to_owned(), "correct the path"),
        (Errno::ACCESS, _) => (
            "permission denied".to_owned(),
            "run as root, or get search permission on every directory of the path",
        ),
        (Errno::LOOP, _) => ("too many symbolic links, probably a loop".to_owned(), "correct the links"),
        (Errno::NAMETOOLONG, _) => (
            "the path is too long (4095 bytes, 255 for each name)".to_owned(),
            "change to a directory on the way and name the rest",
        ),
        _ => (io::Error::from(errno).to_string(), "correct the path"),
    }
}

/// Filesystems that show kernel state: their contents change without any write.
fn refuse_pseudo(path: &Path, facts: &Facts) -> Result<(), Error> {
    match pseudo_fs(facts.magic) {
        None => Ok(()),
        Some(name) => Err(Error::Path {
            path: path.to_owned(),
            cause: format!("it is on {name}, where values change without a write that could be seen"),
            next: "read it periodically instead, or name a path on another filesystem".to_owned(),
        }),
    }
}

/// The name of a pseudo filesystem, from its magic number (kernel: include/uapi/linux/magic.h).
fn pseudo_fs(magic: i64) -> Option<&'static str> {
    Some(match magic {
        0x9fa0 => "procfs",
        0x6265_6572 => "sysfs",
        0x6462_6720 => "debugfs",
        0x7472_6163 => "tracefs",
        0x0027_e0eb | 0x6367_7270 => "cgroupfs",
        0x7363_6673 => "securityfs",
        0xcafe_4a11 => "bpffs",
        0x6265_6570 => "configfs",
        0xf97c_ff8c => "selinuxfs",
        0x6165_676c => "pstore",
        0xde5e_81e4 => "efivarfs",
        0x1cd1 => "devpts",
        _ => return None,
    })
}

/// Leaves out roots that are the same as another or inside one that is traced with everything below it.
fn merge(checked: Vec<(PathBuf, PathBuf)>, recursive: bool) -> Roots {
    let mut roots = Roots::default();
    for (i, (named, real)) in checked.iter().enumerate() {
        let same = checked[..i].iter().find(|(_, other)| other == real);
        let above = checked.iter().find(|(_, other)| recursive && other != real && real.starts_with(other));
        if let Some((other, _)) = same {
            let (named, other) = (named.display(), other.display());
            roots.notes.push(format!("{named} is the same as {other}; traced once, as {other}"));
        } else if let Some((other, _)) = above {
            let (named, other) = (named.display(), other.display());
            roots.notes.push(format!("{named} is inside {other}; traced once, as a part of {other}"));
        } else {
            roots.paths.push(named.clone());
        }
    }
    roots
}

#[cfg(test)]
mod tests;
