//! The file of `trace --output`: lines are appended to it, and to a new one once it was renamed or removed.
//!
//! In: whole lines. Out: the same in a regular file. Before a line, at most once a second, hotr looks whether the name still
//! leads to the file that it writes to; so `logrotate` needs no signal. What cannot take its place (a link, a pipe, a file of
//! somebody else) is named once, and the lines stay with the file that is held.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use hotr_user::beneath::Dir;
use hotr_user::options::OwnFiles;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::{files, say};

/// How often the name is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    id: (u64, u64),
    /// What hotr does not report.
    own: OwnFiles,
    looked: Instant,
    /// The last byte that was written is not the end of a line.
    is_within_line: bool,
    /// Why the lines stay with a file that has lost its name, as was said last.
    said: String,
}

impl LogFile {
    /// Opens or makes the file, which can be read by its owner only where it is new.
    pub(super) fn open(path: &Path, own: OwnFiles) -> anyhow::Result<Self> {
        let (dir, name) = files::directory(OPERATION, path)?;
        let (file, id) = append_to(&dir, &name).map_err(|why| failed(path, &why))?;
        own.add(&file)?;
        let (path, looked) = (path.to_owned(), Instant::now());
        Ok(Self { path, file, id, own, looked, is_within_line: false, said: String::new() })
    }

    /// Follows the name where it leads to another file.
    fn look(&mut self) {
        self.looked = Instant::now();
        let other = files::directory(OPERATION, &self.path).and_then(|(dir, name)| {
            let held = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| id(&stat) == self.id);
            if held {
                return Ok(None);
            }
            append_to(&dir, &name).map(Some).map_err(|why| failed(&self.path, &why))
        });
        match other {
            Ok(None) => self.said.clear(),
            Ok(Some((file, id))) => {
                // An error would be of statx, which has just worked.
                let _ = self.own.add(&file);
                (self.file, self.id) = (file, id);
                self.said.clear();
            }
            Err(why) => {
                let why = format!("{why:#}; until then, lines go to the file that had this name");
                if why != self.said {
                    say(&why);
                    self.said = why;
                }
            }
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_within_line && self.looked.elapsed() >= LOOK_EVERY {
            self.look();
        }
        let written = self.file.write(bytes)?;
        if let Some(last) = written.checked_sub(1).and_then(|last| bytes.get(last)) {
            self.is_within_line = *last != b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const OPERATION: &str = "append to";

fn failed(path: &Path, why: &str) -> anyhow::Error {
    anyhow!("{OPERATION} {}: {why}", path.display())
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Opens the file of this name, or makes it. Its type is asked before, because to open a pipe would already wake its
/// readers, and again of the descriptor.
fn append_to(dir: &Dir, name: &OsStr) -> Result<(File, (u64, u64)), String> {
    let refused = |errno: Errno| format!("{}; name another file", io::Error::from(errno));
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => check(&stat)?,
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(refused(errno)),
    }
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from).map_err(refused)?;
    let stat = fstat(&file).map_err(refused)?;
    check(&stat)?;
    Ok((file, id(&stat)))
}

/// Who may write to the directory may have put anything there: another name of a file that only root may write to, or a file
/// that he can read.
fn check(stat: &Stat) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err("it is a symbolic link; name the file itself".to_owned()),
        _ => return Err("it is not a regular file; name another file".to_owned()),
    }
    if stat.st_uid != own && stat.st_uid != 0 {
        return Err(format!("it belongs to user {}; remove it, or name another file", stat.st_uid));
    }
    if stat.st_nlink > 1 {
        return Err("it has other names (hard links); remove them, or name another file".to_owned());
    }
    Ok(())
}
