//! Directories whose names may have changed.
//!
//! In: an open directory and what is known of its entries. Out: its entries, and how they differ.

use std::ffi::CStr;

use rustix::fs::RawDir;
use rustix::io::Errno;

use super::{OpenDirectory, Round, Scanner, Verdict};
use crate::source::poll::attr::{self, Attr, WANTED};
use crate::source::poll::matcher::Matcher;
use crate::source::poll::moves::{Appeared, Disappeared};
use crate::source::poll::tree::{self, Base, Body, NONE};
use crate::source::walk::stat_at;

/// Entries of a directory whose room is kept for the next one.
const MANY: usize = 8192;

impl Scanner<'_, '_, '_> {
    /// Reads the names; what is known under a name is compared, in whatever order they come.
    pub(super) fn list(
        &mut self,
        dir: &mut OpenDirectory<'_>,
        body: &mut Body,
        relative: Option<&std::path::Path>,
    ) -> rustix::io::Result<Round> {
        let mut round = Round::new();
        let mut match_ = Matcher::new(body);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.entries.clear();
        self.names.clear();
        let now = attr::coarse_now();
        let mut listing = RawDir::new(dir.fd, buffer.spare_capacity_mut());
        let mut failed = None;
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..")
                || relative.is_some_and(|relative| self.is_excluded(relative, name))
            {
                continue;
            }
            if !self.pace.step() {
                failed = Some(Errno::CANCELED);
                break;
            }
            match stat_at(dir.fd, name, WANTED) {
                Ok(stat) => self.entry(dir, &mut round, body, &mut match_, name, &stat, now),
                Err(Errno::NOENT) => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.buffer = buffer;
        if let Some(error) = failed {
            return Err(error);
        }
        for (slot, _, name) in body.names() {
            if !match_.met[slot as usize] {
                let (attr, child) = (body.attr(slot, dir.base), body.child(slot));
                round.gone.push(Disappeared {
                    parent: dir.task.id,
                    name: name.to_bytes().into(),
                    attr,
                    child,
                });
            }
        }
        for (attr, _) in &self.entries {
            self.fit(attr, dir, |_| ());
        }
        let is_large = self.entries.len() > MANY;
        // Of a large directory the names stay where they are: a copy would take their room twice.
        let names =
            if is_large { std::mem::take(&mut self.names).into() } else { self.names.as_slice().into() };
        let tree = self.shared.tree();
        *body = Body::build(&self.entries, names, Base { devices: &tree.devices, ..dir.base });
        drop(tree);
        if is_large {
            self.entries = Vec::new();
        }
        Ok(round)
    }

    #[expect(clippy::too_many_arguments, reason = "all of one entry; a struct would have one use")]
    fn entry(
        &mut self,
        dir: &OpenDirectory<'_>,
        round: &mut Round,
        body: &Body,
        match_: &mut Matcher,
        name: &CStr,
        stat: &rustix::fs::Statx,
        now: i64,
    ) {
        let place = (self.entries.len() as u32, self.names.len() as u32);
        let record = match match_.find(body, name) {
            Some(known) => {
                let old = body.attr(known, dir.base);
                let verdict = dir.judge(&old, Attr::of(stat, now), stat, name);
                let gone = matches!(verdict, Verdict::Replaced(_)).then(|| name.to_bytes().into());
                self.take(dir, round, &old, body.child(known), verdict, place, gone)
            }
            None => {
                let mut attr = Attr::of(stat, now);
                attr.ident = attr::ident(dir.source, dir.fd, name, stat);
                let (slot, name_at) = place;
                if !dir.task.fresh {
                    round.came.push(Appeared { dir: dir.task.id, slot, name_at });
                }
                if attr.is_dir() {
                    let (dev, ino) = (attr.dev, attr.ino);
                    round.kids.push(super::Subdirectory { slot, name_at, id: NONE, dev, ino, changed: true });
                }
                (attr, NONE)
            }
        };
        self.entries.push(record);
        self.names.extend_from_slice(name.to_bytes_with_nul());
    }

    fn is_excluded(&self, relative: &std::path::Path, name: &CStr) -> bool {
        self.shared.options.exclude.is_match(tree::join(relative.to_owned(), name.to_bytes()))
    }
}
