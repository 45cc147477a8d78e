//! The last good content of watched files, and how it is restored.
//!
//! In: paths with the state that was confirmed as good, later the state that was confirmed as bad. Out: the good
//! content at the path again, with owner, mode, times and extended attributes. Content is kept as a reflink where
//! the filesystem can (`FICLONE`), as a copy elsewhere, in a directory only this user can enter.
//!
//! Nothing that changed since is overwritten: the good file and the bad one change places in one step
//! (`RENAME_EXCHANGE`), what came out is compared with what was confirmed as bad, and if it is anything else they
//! change back. Where a filesystem has no exchange, the comparison is made just before the rename: a write in
//! between would be lost.
//!
//! A directory may be somebody else's. So no path is resolved twice: trees and the vault are held by descriptors, each
//! step goes below them without links, and root puts nothing where others than the file's owner can swap it.

mod bad_content;
mod copy;
mod journal;
mod new_name;
mod recovery;
mod replacement;
mod tree;
mod vault_directory;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, RenameFlags, fstat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::pipeline::confirm::{ConfirmOptions, State};
use journal::For;
use new_name::{create, with_new_name};
use replacement::{Beside, remove};
use tree::{Spot, Trees};
use vault_directory::VaultDirectory;

/// The kept contents; the directory is removed with it.
#[derive(Debug)]
pub struct Vault {
    place: VaultDirectory,
    trees: Trees,
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
    /// The name in the vault. None: the good state has no file (absent, or a link).
    file: Option<String>,
    state: State,
    /// User and group.
    owner: (u32, u32),
}

/// What putting back came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The path is in its last good state, which is this; and the name beside it that the bad content has now.
    Good(State, Option<OsString>),
    /// It has changed since it was found bad: left alone.
    Changed,
    /// There is no good state to go back to.
    Unknown,
}

impl Vault {
    /// Makes the directory, inside `parent`, so that contents can be shared with the files below it; if `elsewhere` is
    /// allowed, root's is made in `/run/hotr` where others may write to `parent` or above. What a killed hotr left
    /// there is removed first. Once `stop` is set, nothing more is kept.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(
        parent: &Path,
        elsewhere: bool,
        options: ConfirmOptions,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let place = VaultDirectory::new(parent, elsewhere)?;
        let (kept, staged) = (HashMap::new(), HashMap::new());
        Ok(Self { place, trees: Trees::default(), options, stop, next: 0, kept, staged })
    }

    /// Ends what killed ones had begun, by what they left in these directories, or in `/run/hotr`.
    pub fn clear_left(&mut self, dirs: &[PathBuf]) {
        let run = rustix::process::geteuid().is_root().then_some(Path::new("/run/hotr"));
        self.place.clear(dirs.iter().map(PathBuf::as_path).chain(run));
    }

    /// Sentences about what was left.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.place.news)
    }

    /// Forgets everything, and takes hold of the trees as they are now.
    pub fn hold(&mut self, roots: &[PathBuf]) {
        for kept in self.kept.drain().chain(self.staged.drain()) {
            remove_kept(&self.place, kept.1);
        }
        self.trees = Trees::hold(roots);
    }

    /// The file behind a path that the user named, as it was when its tree was taken hold of.
    #[must_use]
    pub fn behind(&self, path: &Path) -> Option<&Path> {
        self.trees.behind(path)
    }

    /// Copies a path whose state was just confirmed, in case it turns out to be good.
    ///
    /// # Errors
    /// A sentence: the path cannot be rolled back to this state.
    pub fn stage(&mut self, path: &Path, state: &State) -> Result<(), String> {
        self.drop_staged(path);
        let (file, owner) = match state {
            State::File(file) if file.digest.is_none() => {
                return Err(format!(
                    "keep {}: too large, or not readable; a rollback cannot restore it",
                    path.display()
                ));
            }
            State::File(_) => match self.keep(path, state) {
                Ok(Some((name, owner))) => (Some(name), owner),
                // It is changing at this moment, and will be confirmed again.
                Ok(None) => return Ok(()),
                Err(error) => {
                    return Err(format!(
                        "keep {}: {error}; reloads continue, but a rollback cannot restore it",
                        path.display()
                    ));
                }
            },
            _ => {
                let stat = self.trees.spot(path).and_then(|spot| spot.stat());
                (None, stat.map_or((0, 0), |stat| (stat.st_uid, stat.st_gid)))
            }
        };
        self.staged.insert(path.to_owned(), Kept { file, state: state.clone(), owner });
        Ok(())
    }

    /// Copies a file into the vault, if its content is what was confirmed; what was copied is what is compared.
    fn keep(&mut self, path: &Path, state: &State) -> io::Result<Option<(String, (u32, u32))>> {
        let spot = self.trees.spot(path)?;
        let (source, _) = spot.dir.file(Path::new(&spot.name))?;
        let name = self.next.to_string();
        self.next += 1;
        let target = create(self.place.as_fd(), OsStr::new(&name))?;
        let copied = copy::copy(&source, &target, self.options.hash_limit, true, Some(&self.stop));
        let is_same = || State::of_open(&target, self.options, &self.stop).as_ref() == Some(state);
        let result = match copied {
            Ok(()) if is_same() => {
                let stat = fstat(&source)?;
                return Ok(Some((name, (stat.st_uid, stat.st_gid))));
            }
            Ok(()) => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        };
        let _ = unlinkat(&*self.place, name, AtFlags::empty());
        result
    }

    /// A state turned out to be good: if it was staged, [`Self::restore`] restores it from now on. Otherwise an older
    /// good content stays.
    pub fn promote(&mut self, path: &Path, state: &State) {
        if self.staged.get(path).is_none_or(|staged| staged.state != *state) {
            return;
        }
        let Some(staged) = self.staged.remove(path) else { return };
        if let Some(old) = self.kept.insert(path.to_owned(), staged) {
            remove_kept(&self.place, old);
        }
    }

    /// All that was staged turned out to be good.
    pub fn promote_all(&mut self) {
        let states: Vec<_> =
            self.staged.iter().map(|(path, kept)| (path.clone(), kept.state.clone())).collect();
        states.iter().for_each(|(path, state)| self.promote(path, state));
    }

    /// Forgets what is known of a named path and of all below it, because it leads to other files now, and opens those.
    pub fn hold_again(&mut self, root: &Path) {
        for files in [&mut self.kept, &mut self.staged] {
            for (_, kept) in files.extract_if(|path, _| path.starts_with(root)) {
                remove_kept(&self.place, kept);
            }
        }
        if let Some(file) = self.trees.behind(root).map(Path::to_owned) {
            for files in [&mut self.kept, &mut self.staged] {
                files.remove(&file).into_iter().for_each(|kept| remove_kept(&self.place, kept));
            }
        }
        self.trees.hold_again(root);
    }

    /// What was staged of a path and of all below it turned out to be good.
    pub fn promote_below(&mut self, dir: &Path) {
        let staged = self.staged.iter().filter(|(path, _)| path.starts_with(dir));
        let staged: Vec<_> = staged.map(|(path, kept)| (path.clone(), kept.state.clone())).collect();
        staged.iter().for_each(|(path, state)| self.promote(path, state));
    }

    fn drop_staged(&mut self, path: &Path) {
        if let Some(kept) = self.staged.remove(path) {
            remove_kept(&self.place, kept);
        }
    }

    /// Notes that a path which is not kept was absent while all was good.
    pub fn keep_absent(&mut self, path: &Path) {
        let absent = Kept { file: None, state: State::Absent, owner: (0, 0) };
        self.kept.entry(path.to_owned()).or_insert(absent);
    }

    /// Puts the good content of a path back, unless the path is not in its bad state any more.
    ///
    /// # Errors
    /// A sentence, when it cannot be restored.
    pub fn restore(&mut self, path: &Path, bad: &State) -> Result<Restored, String> {
        if self.staged.get(path).is_some_and(|staged| staged.state == *bad) {
            self.drop_staged(path);
        }
        let Some(kept) = self.kept.get(path) else { return Ok(Restored::Unknown) };
        let explain = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::NotFound => "its directory no longer exists",
                _ => "repair it by hand",
            };
            format!("restore {}: {error}; {next}", path.display())
        };
        let spot = match self.trees.spot(path) {
            Ok(spot) => spot,
            // It is not there, as it was not while all was good.
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_absent(&kept.state, bad) => {
                return Ok(Restored::Good(State::Absent, None));
            }
            Err(error) => return Err(explain(error)),
        };
        let restored = self.restore_at(kept, &spot, bad);
        journal::end(&self.place);
        restored.map_err(explain)
    }

    fn restore_at(&self, kept: &Kept, spot: &Spot, bad: &State) -> io::Result<Restored> {
        if self.look(spot, &spot.name) != *bad {
            return Ok(Restored::Changed);
        }
        if kept.state == *bad {
            return Ok(Restored::Good(bad.clone(), None));
        }
        if *bad == State::Dir {
            return Err(io::Error::other("a directory has its name now"));
        }
        let there = spot.stat().ok();
        let owner = match (&kept.state, &there) {
            (State::Absent, Some(there)) => there.st_uid,
            _ => kept.owner.0,
        };
        if let Some(why) = spot.open_to_others(owner) {
            return Err(io::Error::other(why));
        }
        let same_owner = there.is_none_or(|there| (there.st_uid, there.st_gid) == kept.owner);
        let beside = match (&kept.state, &kept.file) {
            (State::File(_), Some(file)) => self.beside_file(spot, file, same_owner)?,
            (State::Link(target), _) => self.beside_link(spot, target, kept.owner)?,
            (State::Absent, _) => return self.take_away(spot, bad),
            _ => return Ok(Restored::Unknown),
        };
        Ok(match self.swap(&beside, spot, bad)? {
            Some(aside) => {
                Restored::Good(kept.state.clone(), aside.map(|name| bad_content::keep(spot, name)))
            }
            None => Restored::Changed,
        })
    }

    fn look(&self, spot: &Spot, name: &OsStr) -> State {
        State::look_in(spot.dir.as_fd(), name, None, self.options, &AtomicBool::new(false))
    }

    /// Takes away what was not there while all was good: moved aside first, and back when it is not what was found bad.
    fn take_away(&self, spot: &Spot, bad: &State) -> io::Result<Restored> {
        let found = spot.stat().ok();
        let moved = with_new_name(|aside| {
            journal::begin(&self.place, For::Found, spot, aside, found.as_ref())?;
            Ok(renameat_with(&spot.dir, &spot.name, &spot.dir, aside, RenameFlags::NOREPLACE)?)
        });
        let aside = match moved {
            Ok((aside, ())) => aside,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Restored::Changed),
            Err(error) => return Err(error),
        };
        if self.look(spot, &aside) == *bad {
            return Ok(Restored::Good(State::Absent, Some(bad_content::keep(spot, aside))));
        }
        // Should the name be taken again already, what was moved stays beside it: nothing is lost.
        renameat_with(&spot.dir, &aside, &spot.dir, &spot.name, RenameFlags::NOREPLACE)?;
        Ok(Restored::Changed)
    }

    /// Puts what is beside a path at it if that is in its bad state, and gives the name of the bad content, if there is
    /// one; None when the path is in another state. What is beside it then is removed.
    fn swap(&self, new: &Beside, spot: &Spot, bad: &State) -> io::Result<Option<Option<OsString>>> {
        let rename = |flags| renameat_with(&spot.dir, &new.name, &spot.dir, &spot.name, flags);
        if *bad == State::Absent {
            return match rename(RenameFlags::NOREPLACE) {
                Ok(()) => Ok(Some(None)),
                Err(errno) => {
                    remove(spot, new);
                    if errno == Errno::EXIST { Ok(None) } else { Err(errno.into()) }
                }
            };
        }
        match rename(RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if self.look(spot, &spot.name) != *bad {
                    remove(spot, new);
                    return Ok(None);
                }
                let aside = bad_content::link(spot, &self.place);
                renameat(&spot.dir, &new.name, &spot.dir, &spot.name).inspect_err(|_| remove(spot, new))?;
                return Ok(Some(aside));
            }
            Err(errno) => {
                remove(spot, new);
                return if errno == Errno::NOENT { Ok(None) } else { Err(errno.into()) };
            }
        }
        if self.look(spot, &new.name) == *bad {
            return Ok(Some(Some(new.name.clone())));
        }
        // Somebody was faster: what they wrote goes back to its place.
        rename(RenameFlags::EXCHANGE)?;
        remove(spot, new);
        Ok(None)
    }
}

fn is_absent(good: &State, bad: &State) -> bool {
    *good == State::Absent && *bad == State::Absent
}

fn remove_kept(place: &VaultDirectory, kept: Kept) {
    if let Some(file) = kept.file {
        let _ = unlinkat(&**place, file, AtFlags::empty());
    }
}
