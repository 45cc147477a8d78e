//! Which name is being made in a watched directory: what a killed hotr leaves there is found by it.
//!
//! In: a held directory and a temporary name, before anything is made under it. Out: a [`Note`] of it, for
//! [`super::recovery`] at the next start.
//!
//! The journal is a file in the directory of kept content, which only this user can enter. Its space is taken at the
//! start: a full disk must not hold back a restore. Two names are noted at a time: of what is made, and of what is taken out.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, readlinkat, unlinkat};
use rustix::io::Errno;

use super::new_name::create;
use super::tree::Spot;
use crate::beneath::Dir;

/// Its name in the directory of kept content.
pub(super) const NAME: &str = "journal";
/// For a name: more than the longest path, two names and the rest.
pub(super) const SIZE: usize = 8192;
/// What is made gets its inode noted here, by itself: within one page, so never a part of it only.
pub(super) const MADE: usize = 0;
/// Where the length of the note is, and its digest, which shows whether all of it was written.
pub(super) const LENGTH: usize = 16;
pub(super) const DIGEST: usize = 24;
pub(super) const NOTE: usize = 56;

/// Device and inode.
pub(super) type Id = (u64, u64);

pub(super) fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// What a temporary name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Something new; it may change places with what was found.
    New,
    /// What was found, to be taken out.
    Found,
}

impl For {
    pub(super) const fn begin(self) -> usize {
        match self {
            Self::New => 0,
            Self::Found => SIZE,
        }
    }
}

/// What is noted of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) dir: Id,
    /// What was found at `name`, and may have the temporary name by now.
    pub(super) found: Option<Id>,
    pub(super) temporary: OsString,
    /// The path's own name.
    pub(super) name: OsString,
    /// Of the directory; empty when it has none.
    pub(super) path: PathBuf,
}

/// Makes a journal, and takes its space. Where that cannot be had (a full disk, `RLIMIT_FSIZE`) nothing is noted, and
/// `news` says so: reloads continue.
pub(super) fn make(place: &Dir, news: &mut Vec<String>) {
    let made = create(place.as_fd(), OsStr::new(NAME)).map_err(io::Error::from).and_then(|file| {
        file.write_all_at(&[0; 2 * SIZE], 0)?;
        file.sync_all()
    });
    if let Err(error) = made {
        let _ = unlinkat(place, NAME, AtFlags::empty());
        news.push(format!(
            "record what a rollback creates: {error}; if hotr is killed during a rollback, a `.hotr-restore-` file stays beside a watched file"
        ));
    }
}

/// It is not held open, for descriptors may be few. None: it could not be made.
fn open(place: &Dir) -> io::Result<Option<File>> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(place, NAME, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Before a temporary name appears. `found`: what is at the path.
pub(super) fn begin(
    place: &Dir,
    what: For,
    spot: &Spot,
    temporary: &OsStr,
    found: Option<&Stat>,
) -> io::Result<()> {
    let Some(file) = open(place)? else { return Ok(()) };
    let link = format!("/proc/self/fd/{}", spot.dir.as_fd().as_raw_fd());
    // A path that is too long is not found again; the content goes back all the same.
    let path = readlinkat(CWD, link, Vec::new()).map_or_else(|_| Vec::new(), CString::into_bytes);
    let note = Note {
        dir: id(&spot.dir.stat()?),
        found: found.map(id),
        temporary: temporary.to_owned(),
        name: spot.name.clone(),
        path: OsString::from_vec(path).into(),
    };
    file.write_all_at(&note.to_bytes(), what.begin() as u64)?;
    file.sync_data()
}

/// What was made under the name.
pub(super) fn made(place: &Dir, made: &Stat) -> io::Result<()> {
    open(place)?.map_or(Ok(()), |file| file.write_all_at(&bytes_of(id(made)), MADE as u64))
}

/// The temporary names are gone, or are the user's.
pub(super) fn end(place: &Dir) {
    let Ok(Some(file)) = open(place) else { return };
    for what in [For::New, For::Found] {
        // Should that fail, nothing that was noted has such a name.
        let _ = file.write_all_at(&[0; 8], (what.begin() + LENGTH) as u64);
    }
}

fn bytes_of((dev, ino): Id) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dev.to_le_bytes());
    bytes[8..].copy_from_slice(&ino.to_le_bytes());
    bytes
}

/// None: nothing was noted.
pub(super) fn id_of(bytes: &[u8], at: usize) -> Option<Id> {
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let id = (number(at)?, number(at + 8)?);
    (id != (0, 0)).then_some(id)
}

impl Note {
    /// With nothing made yet.
    fn to_bytes(&self) -> Vec<u8> {
        let mut note = [bytes_of(self.dir), bytes_of(self.found.unwrap_or_default())].concat();
        note.extend(self.temporary.as_bytes());
        note.push(0);
        note.extend(self.name.as_bytes());
        note.push(0);
        note.extend(self.path.as_os_str().as_bytes());
        let mut bytes = vec![0; NOTE];
        bytes[LENGTH..LENGTH + 8].copy_from_slice(&(note.len() as u64).to_le_bytes());
        bytes[DIGEST..NOTE].copy_from_slice(blake3::hash(&note).as_bytes());
        bytes.extend(note);
        bytes
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let length = bytes.get(LENGTH..LENGTH + 8)?.try_into().ok().map(u64::from_le_bytes)?;
        let note = bytes.get(NOTE..NOTE.checked_add(usize::try_from(length).ok()?)?)?;
        if note.is_empty() || blake3::hash(note).as_bytes() != bytes.get(DIGEST..NOTE)? {
            return None;
        }
        let mut parts = note.get(32..)?.splitn(3, |byte| *byte == 0).map(|part| part.to_vec());
        let mut part = || parts.next().map(OsString::from_vec);
        Some(Self {
            dir: id_of(note, 0)?,
            found: id_of(note, 16),
            temporary: part()?,
            name: part()?,
            path: part()?.into(),
        })
    }

    /// The directory, if it is still that.
    pub(super) fn spot(&self) -> Option<Spot> {
        let below = self.path.strip_prefix("/").ok()?;
        let dir = Dir::open(Path::new("/")).ok()?.dir(below).ok()?;
        (id(&dir.stat().ok()?) == self.dir).then(|| Spot::new(dir, &self.temporary))
    }
}
