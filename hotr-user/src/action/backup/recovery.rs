//! After hotr was killed during a rollback: what it had made in a watched directory is removed, and bad content that it was
//! about to keep is kept.
//!
//! In: the journal that it left. Out: what there is to say. Nothing else is touched: the directory must be the one that was
//! noted, reached without links, and what has the name must be the inode that was noted.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, Stat, unlinkat};
use rustix::process::geteuid;

use super::bad_content;
use super::journal::{For, MADE, NAME, Note, SIZE, id, id_of};
use super::tree::Spot;
use crate::beneath::Dir;

/// Ends what a killed hotr had begun, by the journal in its directory of kept content. Returns what there is to say.
pub(super) fn clear(left: &Dir) -> Vec<String> {
    let Ok((file, data)) = left.file(Path::new(NAME)) else { return Vec::new() };
    let mut bytes = [0; 2 * SIZE];
    if data.uid() != geteuid().as_raw() || file.read_exact_at(&mut bytes, 0).is_err() {
        return Vec::new();
    }
    [For::New, For::Found].into_iter().filter_map(|what| clear_one(what, &bytes[what.begin()..])).collect()
}

fn clear_one(what: For, bytes: &[u8]) -> Option<String> {
    let note = Note::of(bytes)?;
    let temporary = note.spot()?;
    let there = temporary.stat().ok()?;
    let (made, now) = (id_of(bytes, MADE), Some(id(&there)));
    let is_made = match made {
        Some(_) => made == now,
        None => what == For::New && note.found != now && is_new(&there),
    };
    if is_made && is_content(&there) {
        let _ = unlinkat(&temporary.dir, &temporary.name, AtFlags::empty());
    }
    if is_made || note.found != now {
        return None;
    }
    let kept = bad_content::keep(&Spot::new(temporary.dir, &note.name), temporary.name);
    let path = note.path.join(kept);
    Some(format!("hotr was killed during a rollback; bad content is kept: {}", path.display()))
}

fn is_content(there: &Stat) -> bool {
    matches!(there.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFLNK)
}

/// Whether this is as hotr makes it, before its inode is noted.
fn is_new(there: &Stat) -> bool {
    let is_link = there.st_mode & libc::S_IFMT == libc::S_IFLNK;
    there.st_uid == geteuid().as_raw()
        && there.st_nlink == 1
        && (is_link || there.st_size == 0 && there.st_mode & 0o7177 == 0)
}

#[cfg(test)]
mod tests;
