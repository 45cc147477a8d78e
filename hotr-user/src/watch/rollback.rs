//! When content is good, and going back to it.
//!
//! In: changes whose reload was good, or bad. Out: the last good content at those paths again, by [`Vault`]. Changes
//! of several bad reloads in a row go back together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::action::backup::{Restored, Vault};
use crate::beneath::NamedPath;
use crate::error::Error;
use crate::pipeline::confirm::{ConfirmOptions, Confirmed, Confirmer, Evidence, Kind, State};

/// Files that cannot be kept, each with a sentence of its own.
const FEW: u64 = 5;
/// Files with bad content that are named; the others are counted.
const FEW_ASIDE: usize = 5;

/// How many files could not be kept: a full disk has one reason for thousands of them.
#[derive(Debug, Default)]
struct Unkept(u64);

impl Unkept {
    /// One more, and why; the sentence to say of it.
    fn add(&mut self, why: String) -> Option<String> {
        self.0 += 1;
        (self.0 <= FEW).then_some(why)
    }

    /// These were all; the sentence to say of those that have had none.
    fn end(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0).saturating_sub(FEW);
        (rest > 0).then(|| format!("{rest} more files could not be kept; they cannot be rolled back either"))
    }
}

/// See the module; does nothing when no rollback was requested.
#[derive(Debug, Default)]
pub(super) struct Rollback {
    vault: Option<Vault>,
    roots: Vec<PathBuf>,
    /// What the trees held at the start is good. After a link led elsewhere it must prove itself first.
    is_base_good: bool,
    has_begun: bool,
    /// Paths that are not good, and their state.
    bad: BTreeMap<PathBuf, State>,
    unkept: Unkept,
}

impl Rollback {
    /// Makes room, in `place` or beside the first of the roots.
    ///
    /// # Errors
    /// When there can be no directory: the rollback is then impossible.
    pub(super) fn start(
        place: Option<PathBuf>,
        roots: Vec<PathBuf>,
        options: ConfirmOptions,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let root = roots.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
        let beside = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
        let is_named = place.is_some();
        let place = place.as_deref().unwrap_or(beside);
        let mut vault =
            Vault::new(place, !is_named, options, Arc::clone(stop)).map_err(|source| Error::Os {
                operation: "keep content for a rollback in",
                object: place.display().to_string(),
                source,
                next: "name another place with --backup-dir",
            })?;
        let holds = |root: &PathBuf| match root.parent() {
            Some(parent) if !root.is_dir() => parent.to_owned(),
            _ => root.clone(),
        };
        vault.clear_left(&roots.iter().map(holds).collect::<Vec<_>>());
        Ok(Self { vault: Some(vault), roots, ..Self::default() })
    }

    /// What there is to say of what a killed hotr left.
    pub(super) fn take_news(&mut self) -> Vec<String> {
        self.vault.as_mut().map(Vault::take_news).unwrap_or_default()
    }

    /// Whether content is kept.
    pub(super) const fn is_on(&self) -> bool {
        self.vault.is_some()
    }

    /// The trees are read; if not for the first time, they are other ones, and nothing of the former is put there.
    pub(super) fn begin(&mut self) {
        self.is_base_good = !self.has_begun;
        self.has_begun = true;
        self.bad.clear();
        self.unkept = Unkept::default();
        if let Some(vault) = &mut self.vault {
            vault.hold(&self.roots);
        }
    }

    /// The file behind a path: what the user named may be a link, which stays as it is.
    fn file_of(vault: &Vault, path: &Path, state: &State) -> PathBuf {
        let is_behind = !matches!(state, State::Link(_));
        is_behind.then(|| vault.behind(path)).flatten().unwrap_or(path).to_owned()
    }

    /// These named paths lead elsewhere: nothing of what they led to is put there.
    pub(super) fn relinked(&mut self, links: &[PathBuf]) {
        let Some(vault) = &mut self.vault else { return };
        for link in links {
            vault.hold_again(link);
            self.bad.retain(|path, _| !path.starts_with(link));
        }
    }

    /// The state of a path before the first change. A sentence when it cannot be rolled back to that.
    pub(super) fn learn(&mut self, path: &Path, state: &State) -> Option<String> {
        let vault = self.vault.as_mut()?;
        let file = Self::file_of(vault, path, state);
        if let Err(why) = vault.stage(&file, state) {
            return self.unkept.add(why);
        }
        if self.is_base_good {
            vault.promote(&file, state);
        }
        None
    }

    /// All states before the first change are known.
    pub(super) fn learned(&mut self) -> Option<String> {
        self.unkept.end()
    }

    /// Changes were confirmed: their content may be gone by the time it is known to be good.
    pub(super) fn stage(&mut self, changes: &[Confirmed], say: &dyn Fn(&str)) {
        let Some(vault) = &mut self.vault else { return };
        for change in changes {
            let file = Self::file_of(vault, &change.path, &change.state);
            let refused = vault.stage(&file, &change.state).err();
            if let Some(why) = refused.and_then(|why| self.unkept.add(why)) {
                say(&why);
            }
        }
        if let Some(rest) = self.unkept.end() {
            say(&rest);
        }
    }

    /// A reload succeeded: these are good, and so is what was bad before and is still there.
    pub(super) fn good(&mut self, changes: Vec<Confirmed>) {
        let Some(vault) = &mut self.vault else { return };
        let is_of_now = |change: &Confirmed| {
            change.kind == Kind::Link
                && self.roots.contains(&change.path)
                && NamedPath::follow(&change.path)
                    .real()
                    .is_some_and(|target| change.state == State::Link(target))
        };
        if !self.is_base_good && changes.iter().any(is_of_now) {
            self.is_base_good = true;
            vault.promote_all();
        }
        for link in changes.iter().filter(|change| is_of_now(change)) {
            vault.promote_below(&link.path);
            if let State::Link(target) = &link.state {
                vault.promote_below(target);
            }
        }
        let before = std::mem::take(&mut self.bad);
        let now = changes.into_iter().map(|change| (change.path.clone(), change.state));
        let all: BTreeMap<PathBuf, State> = before.into_iter().chain(now).collect();
        for (path, state) in all {
            let file = Self::file_of(vault, &path, &state);
            vault.promote(&file, &state);
        }
    }

    /// A reload did not go well.
    pub(super) fn bad(&mut self, changes: Vec<Confirmed>) {
        let Some(vault) = &mut self.vault else { return };
        for change in changes {
            if matches!(change.kind, Kind::Created | Kind::Renamed) {
                let file = Self::file_of(vault, &change.path, &change.state);
                vault.keep_absent(&file);
            }
            self.bad.insert(change.path.clone(), change.state);
        }
    }

    /// Restores the good content. Returns what was restored.
    pub(super) fn restore(&mut self, confirmer: &mut Confirmer, say: &dyn Fn(&str)) -> Vec<Confirmed> {
        let Some(vault) = &mut self.vault else { return Vec::new() };
        let (mut restored, mut aside) = (Vec::new(), Vec::new());
        let all = std::mem::take(&mut self.bad);
        let count = all.len();
        for (path, bad) in all {
            let file = Self::file_of(vault, &path, &bad);
            match vault.restore(&file, &bad) {
                Ok(Restored::Good(state, bad)) => {
                    aside.extend(bad.map(|name| file.with_file_name(name)));
                    // Its events find it confirmed.
                    confirmer.put(&path, state.clone());
                    let kind = if state == State::Absent { Kind::Removed } else { Kind::Written };
                    restored.push(Confirmed::new(kind, path, Evidence::Digest, Vec::new(), state));
                }
                Ok(Restored::Changed) => {
                    say(&format!("roll back {}: it has changed since; left alone", path.display()));
                }
                Ok(Restored::Unknown) => {
                    say(&format!("roll back {}: no good content was kept; left alone", path.display()));
                }
                Err(why) => say(&why),
            }
        }
        aside
            .iter()
            .take(FEW_ASIDE)
            .for_each(|path| say(&format!("bad content is kept: {}", path.display())));
        if let Some(more) = aside.len().checked_sub(FEW_ASIDE).filter(|more| *more > 0) {
            say(&format!("bad content of {more} more files is kept beside them, as .hotr-bad-NAME"));
        }
        match restored.len() {
            back if back == count && count > 0 => say("the last good content is restored"),
            back => say(&format!("the last good content of {back} of {count} files is restored")),
        }
        restored
    }
}
