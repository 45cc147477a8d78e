//! When content is good, and going back to it.
//!
//! In: changes whose reload was good, or bad. Out: the last good content at those paths again, by [`Vault`]. Changes
//! of several bad reloads in a row go back together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ReloadOptions, WatchOptions};
use crate::action::backup::{Restored, Vault};
use crate::pipeline::confirm::{Confirmed, Confirmer, Evidence, Kind, State};

/// See the module; does nothing when no rollback was asked for.
pub(super) struct Rollback {
    vault: Option<Vault>,
    /// Paths that are not good, and their state.
    bad: BTreeMap<PathBuf, State>,
}

impl Rollback {
    /// Keeps what is there now.
    pub(super) fn start(
        reload: &ReloadOptions,
        watch: &WatchOptions,
        confirmer: &Confirmer,
        say: &dyn Fn(&str),
    ) -> Self {
        let mut rollback = Self { vault: None, bad: BTreeMap::new() };
        let Some(place) = &reload.rollback else { return rollback };
        let root = watch.trace.paths.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
        let beside = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
        match Vault::new(place.as_deref().unwrap_or(beside), confirmer.options()) {
            Ok(vault) => rollback.vault = Some(vault),
            Err(why) => say(&format!("no rollback: {why}")),
        }
        if let Some(vault) = &mut rollback.vault {
            for (path, state) in confirmer.states() {
                vault.stage(path, state).unwrap_or_else(|why| say(&why));
                vault.promote(path, state);
            }
        }
        rollback
    }

    /// Changes were confirmed: their content may be gone by the time it is known to be good.
    pub(super) fn stage(&mut self, changes: &[Confirmed], say: &dyn Fn(&str)) {
        let Some(vault) = &mut self.vault else { return };
        for change in changes {
            vault.stage(&change.path, &change.state).unwrap_or_else(|why| say(&why));
        }
    }

    /// A reload went well: these are good, and so is what was bad before and is still there.
    pub(super) fn good(&mut self, changes: Vec<Confirmed>) {
        let Some(vault) = &mut self.vault else { return };
        let before = std::mem::take(&mut self.bad);
        let now = changes.into_iter().map(|change| (change.path, change.state));
        let all: BTreeMap<PathBuf, State> = before.into_iter().chain(now).collect();
        for (path, state) in all {
            vault.promote(&path, &state);
        }
    }

    /// A reload did not go well.
    pub(super) fn bad(&mut self, changes: Vec<Confirmed>) {
        let Some(vault) = &mut self.vault else { return };
        for change in changes {
            if matches!(change.kind, Kind::Created | Kind::Renamed) {
                vault.keep_absent(&change.path);
            }
            self.bad.insert(change.path, change.state);
        }
    }

    /// Puts the good content back. Returns what was put back.
    pub(super) fn restore(&mut self, confirmer: &mut Confirmer, say: &dyn Fn(&str)) -> Vec<Confirmed> {
        let Some(vault) = &mut self.vault else { return Vec::new() };
        let mut restored = Vec::new();
        for (path, bad) in std::mem::take(&mut self.bad) {
            match vault.restore(&path, &bad) {
                Ok(Restored::Good(state)) => {
                    // Its events find it confirmed.
                    confirmer.put(path.clone(), state.clone());
                    let size = if let State::File(file) = &state { Some(file.size) } else { None };
                    let kind = if state == State::Absent { Kind::Removed } else { Kind::Written };
                    restored.push(Confirmed {
                        kind,
                        path,
                        by: Evidence::Digest,
                        size,
                        seen_by: Vec::new(),
                        state,
                    });
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
        restored
    }
}
