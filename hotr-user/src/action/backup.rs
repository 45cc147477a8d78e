//! The last good content of watched files, and putting it back.
//!
//! In: paths with the state that was confirmed as good, later the state that was confirmed as bad. Out: the good
//! content at the path again, with owner, mode, times and extended attributes. Content is kept as a reflink where
//! the filesystem can (`FICLONE`), as a copy elsewhere, in a directory only this user can enter.
//!
//! Nothing that changed since is overwritten: the good file and the bad one change places in one step
//! (`RENAME_EXCHANGE`), what came out is compared with what was confirmed as bad, and if it is anything else they
//! change back. Where a filesystem has no exchange, the comparison is made just before the rename: a write in
//! between would be lost.

mod place;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    CWD, RenameFlags, Timespec, Timestamps, fchmod, fchown, futimens, ioctl_ficlone, renameat_with,
};
use rustix::io::Errno;
use xattr::FileExt;

use crate::pipeline::confirm::{ConfirmOptions, State};

/// Bytes that are copied in one go.
const PIECE: u64 = 16 << 20;

/// The kept contents; the directory is removed with it.
#[derive(Debug)]
pub struct Vault {
    dir: PathBuf,
    /// Says that the directory is in use.
    _lock: File,
    options: ConfirmOptions,
    /// Ends what only keeps content.
    stop: Arc<AtomicBool>,
    next: u64,
    kept: HashMap<PathBuf, Kept>,
    /// Confirmed, and not known to be good yet.
    staged: HashMap<PathBuf, Kept>,
}

#[derive(Debug)]
struct Kept {
    /// None: the good state has no file (absent, or a link).
    file: Option<PathBuf>,
    state: State,
}

/// What putting back came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The path is in its last good state, which is this.
    Good(State),
    /// It has changed since it was found bad: left alone.
    Changed,
    /// There is no good state to go back to.
    Unknown,
}

impl Vault {
    /// Makes the directory, inside `parent`, so that contents can be shared with the files below it. What a killed
    /// hotr left there is removed first. Once `stop` is set, nothing more is kept.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(parent: &Path, options: ConfirmOptions, stop: Arc<AtomicBool>) -> io::Result<Self> {
        place::remove_left(parent);
        let (dir, lock) = place::make(parent)?;
        let (kept, staged) = (HashMap::new(), HashMap::new());
        Ok(Self { dir, _lock: lock, options, stop, next: 0, kept, staged })
    }

    /// Copies a path whose state was just confirmed, in case it turns out to be good.
    ///
    /// # Errors
    /// A sentence: the path cannot be rolled back to this state.
    pub fn stage(&mut self, path: &Path, state: &State) -> Result<(), String> {
        self.drop_staged(path);
        let file = match state {
            State::File(file) if file.digest.is_none() => {
                return Err(format!(
                    "keep {}: too large, or not readable; it cannot be rolled back",
                    path.display()
                ));
            }
            State::File(_) => {
                let to = self.dir.join(self.next.to_string());
                self.next += 1;
                copy_whole(path, &to, Some(&self.stop)).map_err(|error| {
                    format!("keep {}: {error}; reloads go on, and it cannot be rolled back", path.display())
                })?;
                if State::look(&to, None, self.options, &self.stop) != *state {
                    // It is changing at this moment, and will be confirmed again.
                    let _ = fs::remove_file(&to);
                    return Ok(());
                }
                Some(to)
            }
            _ => None,
        };
        self.staged.insert(path.to_owned(), Kept { file, state: state.clone() });
        Ok(())
    }

    /// A state turned out to be good: if it was staged it is what [`Self::restore`] puts back from now on. Otherwise
    /// an older good content stays.
    pub fn promote(&mut self, path: &Path, state: &State) {
        if self.staged.get(path).is_none_or(|staged| staged.state != *state) {
            return;
        }
        let Some(staged) = self.staged.remove(path) else { return };
        if let Some(old) = self.kept.insert(path.to_owned(), staged).and_then(|kept| kept.file) {
            let _ = fs::remove_file(old);
        }
    }

    /// All that was staged turned out to be good.
    pub fn promote_all(&mut self) {
        let states: Vec<_> =
            self.staged.iter().map(|(path, kept)| (path.clone(), kept.state.clone())).collect();
        states.iter().for_each(|(path, state)| self.promote(path, state));
    }

    /// Forgets everything: the paths lead to other files now.
    pub fn clear(&mut self) {
        for kept in self.kept.drain().chain(self.staged.drain()) {
            if let Some(file) = kept.1.file {
                let _ = fs::remove_file(file);
            }
        }
    }

    fn drop_staged(&mut self, path: &Path) {
        if let Some(file) = self.staged.remove(path).and_then(|staged| staged.file) {
            let _ = fs::remove_file(file);
        }
    }

    /// Notes that a path which is not kept was absent while all was good.
    pub fn keep_absent(&mut self, path: &Path) {
        self.kept.entry(path.to_owned()).or_insert(Kept { file: None, state: State::Absent });
    }

    /// Puts the good content of a path back, unless the path is not in its bad state any more.
    ///
    /// # Errors
    /// A sentence, when it cannot be put back.
    pub fn restore(&mut self, path: &Path, bad: &State) -> Result<Restored, String> {
        if self.staged.get(path).is_some_and(|staged| staged.state == *bad) {
            self.drop_staged(path);
        }
        let Some(kept) = self.kept.get(path) else { return Ok(Restored::Unknown) };
        if State::of(path, None, self.options) != *bad {
            return Ok(Restored::Changed);
        }
        if kept.state == *bad {
            return Ok(Restored::Good(bad.clone()));
        }
        let explain = |error: io::Error| {
            let next = if path.parent().is_some_and(Path::is_dir) {
                "repair it by hand"
            } else {
                "its directory is gone"
            };
            format!("put {} back: {error}; {next}", path.display())
        };
        let temporary = self.temporary(path);
        match (&kept.state, &kept.file) {
            (State::File(_), Some(file)) => copy_whole(file, &temporary, None),
            (State::Link(target), _) => std::os::unix::fs::symlink(target, &temporary),
            (State::Absent, _) => return self.take_away(path, &temporary, bad).map_err(explain),
            _ => return Ok(Restored::Unknown),
        }
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .map_err(explain)?;
        let swapped = self.swap(&temporary, path, bad).map_err(explain);
        let good = kept.state.clone();
        let _ = fs::remove_file(&temporary);
        if !swapped? {
            return Ok(Restored::Changed);
        }
        Ok(Restored::Good(good))
    }

    /// Removes what was not there while all was good: moved aside first, and back when it is not what was found bad.
    fn take_away(&self, path: &Path, aside: &Path, bad: &State) -> io::Result<Restored> {
        match renameat_with(CWD, path, CWD, aside, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Restored::Changed),
            Err(errno) => return Err(errno.into()),
        }
        if State::of(aside, None, self.options) == *bad {
            fs::remove_file(aside)?;
            return Ok(Restored::Good(State::Absent));
        }
        // Should the name be taken again already, what was moved stays beside it: nothing is lost.
        renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE)?;
        Ok(Restored::Changed)
    }

    fn temporary(&self, path: &Path) -> PathBuf {
        let name = format!(".hotr-restore-{}-{}", std::process::id(), self.next);
        path.parent().unwrap_or(path).join(name)
    }

    /// Puts `new` at `path` if that is in its bad state; `false` when it is not.
    fn swap(&self, new: &Path, path: &Path, bad: &State) -> io::Result<bool> {
        if *bad == State::Absent {
            return match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(errno) => Err(errno.into()),
            };
        }
        match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if State::of(path, None, self.options) != *bad {
                    return Ok(false);
                }
                return fs::rename(new, path).map(|()| true);
            }
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        if State::of(new, None, self.options) == *bad {
            return Ok(true);
        }
        // Somebody was faster: what they wrote goes back to its place.
        renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE)?;
        Ok(false)
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A new file with the content, owner, mode, times and extended attributes of another.
fn copy_whole(from: &Path, to: &Path, stop: Option<&AtomicBool>) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut source = File::options().read(true).custom_flags(flags).open(from)?;
    let mut target = File::options().read(true).write(true).create_new(true).mode(0o600).open(to)?;
    let copied = copy_open(&mut source, &mut target, stop);
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

fn copy_open(source: &mut File, target: &mut File, stop: Option<&AtomicBool>) -> io::Result<()> {
    let data = source.metadata()?;
    if ioctl_ficlone(&*target, &*source).is_err() {
        while io::copy(&mut source.take(PIECE), target)? == PIECE {
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Errno::CANCELED.into());
            }
        }
    }
    // Without privileges the owner is ours already, or cannot be given.
    let owner = (rustix::fs::Uid::from_raw(data.uid()), rustix::fs::Gid::from_raw(data.gid()));
    match fchown(&*target, Some(owner.0), Some(owner.1)) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    fchmod(&*target, rustix::fs::Mode::from_raw_mode(data.mode() & 0o7777))?;
    copy_xattrs(source, target)?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    futimens(
        &*target,
        &Timestamps {
            last_access: time(data.atime(), data.atime_nsec()),
            last_modification: time(data.mtime(), data.mtime_nsec()),
        },
    )?;
    Ok(())
}

fn copy_xattrs(source: &File, target: &File) -> io::Result<()> {
    let names = match source.list_xattr() {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names {
        let Ok(Some(value)) = source.get_xattr(&name) else { continue };
        match target.set_xattr(&name, &value).map_err(|error| (error.kind(), error)) {
            // Attributes of namespaces that this user, or this filesystem, may not set.
            Ok(()) | Err((io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied, _)) => {}
            Err((_, error)) => return Err(error),
        }
    }
    Ok(())
}
