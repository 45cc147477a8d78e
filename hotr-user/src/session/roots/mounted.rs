//! What is mounted in a watched tree: files that are mounted by themselves, and mounts that are moved with the directory they
//! are mounted in.
//!
//! A mount shows an inode, whatever becomes of the name that it was mounted from: replaced or removed there, the file is where it
//! is mounted, and its writes change what is watched. The kernel raises no event on the mount table when a directory above a
//! mount is renamed (fs/proc_namespace.c `mounts_poll`), nor when the mounted file or directory is.

use std::path::{Path, PathBuf};

use hotr_common::record::{FLAG_CALL, Record};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::super::watched_directories::WatchedDirectory;
use super::{Found, Roots};
use crate::mounts::join;
use hotr_events::{Change, FileType, Op};

impl Roots {
    /// Gives a change of a file's content or attributes the name of the place at which that is mounted and watched for.
    /// Returns the index of the named path.
    pub(in crate::session) fn claim_mounted(&self, record: &Record, change: &mut Change) -> Option<usize> {
        if record.flags & FLAG_CALL != 0 || !matches!(change.op, Op::Write | Op::Attrib) {
            return None;
        }
        self.all().filter(|(_, place)| place.is_file && place.inode == record.inode).find_map(|(_, place)| {
            change.path.clone_from(&place.visible);
            self.bases.get(place.base)?.claim(change)
        })
    }

    /// Whether a change was made to a file that is mounted by itself, and is reported by the place where it is mounted.
    pub(in crate::session) fn is_mounted_file(&self, change: &Change) -> bool {
        let Some(id) = change.id else { return false };
        self.all().any(|(_, place)| {
            let is_by_place = place.visible == change.path || !self.bases[place.base].is_root();
            place.is_file && place.identity.is_some_and(|(_, ino)| ino == id.ino) && is_by_place
        })
    }

    /// A directory got another name: what is mounted below it is found and reported there from now on. Out of the watched tree
    /// it is not reported any more.
    /// `made_ns`: when it got it, `CLOCK_MONOTONIC` nanoseconds.
    pub(in crate::session) fn carry(&mut self, change: &Change, made_ns: u64) {
        let Some(old) = &change.old_path else { return };
        if change.op != Op::Rename
            || change.file_type.is_some_and(|it| it != FileType::Dir) && !is_exchange(change)
        {
            return;
        }
        let (from, to) = (self.real(old), self.real(&change.path));
        let mut is_one_moved = false;
        for place in self.places.values_mut().chain(self.twins.iter_mut().map(|(_, place)| place)) {
            // It is where the mount table says, which shows this rename.
            if made_ns < place.placed_ns {
                continue;
            }
            let base = &self.bases[place.base];
            let Ok(prefix) = place.visible.strip_prefix(&base.shown) else { continue };
            let at = join(&base.dir, prefix);
            let new = match (at.strip_prefix(&from), at.strip_prefix(&to)) {
                // A root that is renamed keeps what is in it: see `Self::moved`.
                _ if base.dir.starts_with(&from) || base.dir.starts_with(&to) => continue,
                (Ok(rest), _) => join(&to, rest),
                (_, Ok(rest)) if is_exchange(change) => join(&from, rest),
                _ => continue,
            };
            is_one_moved = true;
            place.is_outside = !new.starts_with(&base.dir);
            if let Ok(prefix) = new.strip_prefix(&base.dir) {
                place.visible = join(&base.shown, prefix);
            }
            if place.layer.is_none() {
                place.dir = new;
            }
        }
        for (shown, _) in &mut self.mounted {
            if let Ok(rest) = shown.strip_prefix(old) {
                *shown = join(&change.path, rest);
            } else if is_exchange(change)
                && let Ok(rest) = shown.strip_prefix(&change.path)
            {
                *shown = join(old, rest);
            }
        }
        let is_below = |dir: &Path| dir.starts_with(&from) || is_exchange(change) && dir.starts_with(&to);
        if is_one_moved || self.table.mounts().iter().any(|mount| is_below(&mount.mount_point)) {
            self.mounts_have_moved();
        }
    }

    /// A mount that the mount table shows somewhere else keeps its slot, so that no moment is without one: the table may show
    /// a rename whose record was not read yet. Takes it out of `stale`, and returns whether it is one.
    pub(super) fn follow_mount(&mut self, found: &Found, stale: &mut Vec<(u16, PathBuf)>) -> bool {
        let Found { want, mount_id, registered, .. } = found;
        let table_ns = self.table_ns;
        let shown = join(&self.bases[want.base].shown, &want.prefix);
        let all = self.places.iter_mut().map(|(slot, place)| (*slot, place));
        let twins = self.twins.iter_mut().map(|(slot, place)| (*slot, place));
        let found = all.chain(twins).find_map(|(slot, place)| {
            let at = stale.iter().position(|(its, dir)| *its == slot && *dir == place.dir)?;
            let is_it = place.inode == registered.inode && place.mount_id == *mount_id;
            (is_it && place.layer.is_none() && want.layer.is_none()).then_some((at, place))
        });
        let Some((at, place)) = found else { return false };
        stale.swap_remove(at);
        (place.base, place.dir, place.visible) = (want.base, want.dir.clone(), shown);
        (place.is_outside, place.placed_ns) = (false, table_ns);
        true
    }

    /// The mounts are where the table does not say: the kernel raises no event when a directory above one is renamed.
    pub(in crate::session) fn mounts_have_moved(&mut self) {
        self.table_is_old = true;
    }

    /// Whether that is so, once.
    pub(in crate::session) fn take_table_is_old(&mut self) -> bool {
        std::mem::take(&mut self.table_is_old)
    }

    /// Whether the file with this inode number has the name that is reported.
    pub(in crate::session) fn has_name(&self, shown: &Path, ino: u64) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(CWD, self.real(shown), flags, StatxFlags::INO).is_ok_and(|stat| stat.stx_ino == ino)
    }

    /// Where a path that is reported is in our namespace.
    fn real(&self, shown: &Path) -> PathBuf {
        let of = |base: &WatchedDirectory| {
            Some((base.shown.as_os_str().len(), join(&base.dir, shown.strip_prefix(&base.shown).ok()?)))
        };
        self.bases
            .iter()
            .filter_map(of)
            .max_by_key(|(length, _)| *length)
            .map_or_else(|| shown.to_path_buf(), |(_, real)| real)
    }
}

fn is_exchange(change: &Change) -> bool {
    change.detail.iter().any(|word| word == "exchange")
}
