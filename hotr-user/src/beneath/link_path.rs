//! A path with links on its way, of which not everybody's are followed.
//!
//! In: a path, and whose links may lead. Out: the held directory of its last name. Each directory is gone on from as it is
//! held: what is swapped meanwhile leads nowhere else.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;

use super::{Dir, search_flags};

/// As the kernel: more links on one way are a loop.
const MOST_LINKS: u32 = 40;

/// Why a path leads to no directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// It has no last name.
    NoName,
    /// This link is of a user who may not lead.
    Link(OsString, u32),
    /// The kernel refused.
    Refused(Errno),
}

impl From<Errno> for Lost {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// Opens the directory of a path; with the last name, which is not looked at. `may_lead`: whether links of this user are
/// followed.
///
/// # Errors
/// See [`Lost`].
pub fn way(path: &Path, may_lead: impl Fn(u32) -> bool) -> Result<(Dir, OsString), Lost> {
    let name = path.file_name().ok_or(Lost::NoName)?.to_owned();
    let mut todo = backwards(path.parent().unwrap_or(Path::new("")));
    let mut at = Dir::search(Path::new("."))?;
    let mut links = 0;
    while let Some(next) = todo.pop() {
        let stat = statat(&at, &next, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            at = Dir(openat(&at, &next, search_flags() | OFlags::NOFOLLOW, Mode::empty())?);
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        if !may_lead(stat.st_uid) {
            return Err(Lost::Link(next, stat.st_uid));
        }
        let target = readlinkat(&at, &next, Vec::new())?;
        todo.extend(backwards(&PathBuf::from(OsString::from_vec(target.into_bytes()))));
    }
    Ok((at, name))
}

/// The components of a path, the last first.
fn backwards(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|component| *component != Component::CurDir)
        .map(|component| component.as_os_str().to_owned())
        .collect()
}
