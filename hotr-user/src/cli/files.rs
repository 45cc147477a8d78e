//! Files that the user named: new ones, one that replaces another when it is complete, and one to read.
//!
//! In: a path. Out: descriptors of regular files. Links on the way are followed where root or this user made them; the last
//! name is never followed, and nothing is waited for. Who else may write to a directory can neither lead hotr to another
//! file, nor read what it writes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use hotr_user::beneath::{Dir, Lost, NoFile, regular, way};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// The directory of a path, held.
pub(in crate::cli) fn directory(operation: &str, path: &Path) -> anyhow::Result<(Dir, OsString)> {
    let own = rustix::process::geteuid().as_raw();
    way(path, |uid| uid == 0 || uid == own).map_err(|lost| {
        let why = match lost {
            Lost::NoName => "it is a directory; name a file".to_owned(),
            Lost::Refused(errno) => {
                format!("{}; name a file in a directory that exists", io::Error::from(errno))
            }
            Lost::Link(name, uid) => {
                format!(
                    "user {uid} made the symbolic link {} on the way to it; name it without the link",
                    name.display()
                )
            }
        };
        anyhow!("{operation} {}: {why}", path.display())
    })
}

fn create(dir: &Dir, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// A file that was not there before.
pub(in crate::cli) struct New {
    dir: Dir,
    name: OsString,
}

impl New {
    pub(in crate::cli) fn create(operation: &str, path: &Path) -> anyhow::Result<(Self, File)> {
        let (dir, name) = directory(operation, path)?;
        let file = create(&dir, &name).map_err(|errno| {
            let why = match errno {
                Errno::EXIST => "it is there already; remove it, or name another file".to_owned(),
                errno => format!("{}; name another file", io::Error::from(errno)),
            };
            anyhow!("{operation} {}: {why}", path.display())
        })?;
        Ok((Self { dir, name }, file))
    }

    /// Removes it: nothing is in it.
    pub(in crate::cli) fn remove(&self) {
        let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// A file that takes a place, or that of another file, once it is complete.
pub(in crate::cli) struct Replacing {
    path: PathBuf,
    dir: Dir,
    name: OsString,
    /// What it is called until then; empty once it has its place.
    aside: OsString,
    file: File,
}

impl Replacing {
    pub(in crate::cli) fn create(path: &Path) -> anyhow::Result<Self> {
        let (dir, name) = directory("report", path)?;
        match statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode))
        {
            Ok(FileType::RegularFile) | Err(_) => {}
            Ok(_) => {
                return Err(anyhow!(
                    "report {}: what is there is not a regular file; name another file",
                    path.display()
                ));
            }
        }
        // Keyed by the system's random numbers.
        let number = std::hash::RandomState::new().build_hasher().finish();
        let aside = OsString::from(format!(".hotr-report-{number:016x}"));
        let file = create(&dir, &aside).map_err(|errno| {
            anyhow!(
                "report {}: {}; name a file in a directory that you can write to",
                path.display(),
                io::Error::from(errno)
            )
        })?;
        Ok(Self { path: path.to_owned(), dir, name, aside, file })
    }

    /// Puts it in its place with this content.
    pub(in crate::cli) fn finish(mut self, content: &[u8]) -> anyhow::Result<()> {
        let put = |this: &mut Self| {
            this.file.write_all(content)?;
            this.file.sync_data()?;
            renameat(&this.dir, &this.aside, &this.dir, &this.name)?;
            this.aside.clear();
            Ok(())
        };
        let result: io::Result<()> = put(&mut self);
        result.map_err(|error| anyhow!("report {}: {error}; nothing was written there", self.path.display()))
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        if !self.aside.is_empty() {
            let _ = unlinkat(&self.dir, &self.aside, AtFlags::empty());
        }
    }
}

/// A regular file for reading.
pub(in crate::cli) fn open(path: &Path) -> anyhow::Result<File> {
    let (dir, name) = directory("replay", path)?;
    let (file, _) = regular(dir.as_fd(), &name).map_err(|instead| {
        let why = match instead {
            NoFile::Link => "it is a symbolic link; name the file itself".to_owned(),
            NoFile::Irregular => "it is not a regular file; name a recording".to_owned(),
            NoFile::Refused(errno) => format!("{}; name a recording", io::Error::from(errno)),
        };
        anyhow!("replay {}: {why}", path.display())
    })?;
    Ok(file)
}
