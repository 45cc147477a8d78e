//! Watches whose path leads to another inode now, or nowhere.
//!
//! A watch is on an inode. Which path its program named is nowhere in the kernel, so it is concluded: from the last
//! name of an inode that has none any more, from the words of the command line, from the layout of Kubernetes'
//! volumes. What is on top of a watched inode, and whether its filesystem is mounted, the mount table proves.

use std::path::{Path, PathBuf};

use rustix::fs::readlinkat;

use super::super::finding::{Finding, Proof, Severity};
use super::super::hints::Hint;
use super::super::namespaces::{FileKind, Namespaces, Reachability, Seen};
use super::super::process::Kind;
use super::super::view::{View, WatchLocation};
use super::super::watched_inode::last_name;
use crate::mounts::Location;
use hotr_events::Cause;

const REPLACED: &str = "watch the directory for IN_MOVED_TO and IN_CREATE, or add the watch again when the file is replaced; \
                        restart the program to make it work now";

/// Every watch that has lost its path.
pub(super) fn judge(view: &View<'_>, space: &Namespaces) -> Vec<Finding> {
    let mut findings = Vec::new();
    for seat in &view.seats {
        let finding = unlinked(view, seat)
            .or_else(|| covered(view, seat))
            .or_else(|| unmounted(view, seat, space))
            .or_else(|| data_link(view, seat))
            .or_else(|| renamed_away(view, seat))
            .or_else(|| other_target(view, seat));
        match finding {
            Some(finding) if matches!(finding.cause, Cause::MountedOver | Cause::Unmounted) => {
                push_once(&mut findings, finding);
            }
            finding => findings.extend(finding),
        }
    }
    findings
}

/// One mount hides a whole tree of watches: the topmost stands for all that an instance has there.
fn push_once(findings: &mut Vec<Finding>, mut new: Finding) {
    let same = |known: &&mut Finding| {
        (known.cause, known.target.fd, &known.evidence) == (new.cause, new.target.fd, &new.evidence)
    };
    let Some(known) = findings.iter_mut().find(same) else {
        findings.push(new);
        return;
    };
    let count = known.watches.unwrap_or(1) + 1;
    let depth = |finding: &Finding| finding.path_in_target.as_ref().map(|path| path.as_os_str().len());
    if depth(&new) < depth(known) {
        std::mem::swap(known, &mut new);
    }
    known.watches = Some(count);
    known.target.wd = None;
}

/// The inode has no name any more, and is held by somebody.
fn unlinked(view: &View<'_>, seat: &WatchLocation<'_>) -> Option<Finding> {
    let place = &seat.place;
    let location = place.location.as_ref().filter(|_| place.unlinked)?;
    if view.learns_of(location) {
        // A program that also watches the directory received that, and may have its reasons.
        return None;
    }
    let name = last_name(&location.fs_path).to_vec();
    let name = String::from_utf8_lossy(&name);
    let mut finding = view.about(seat, Severity::Deaf, Cause::ReplacedFile, Proof::Inferred);
    match place.successor {
        Some(now) if now.ino == seat.watch.ino => None,
        Some(now) if view.watches(location.dev, now.ino) => None,
        Some(now) => {
            finding.path_ino = Some(now.ino);
            let (old, new) = (seat.watch.ino, now.ino);
            finding.evidence = vec![
                format!("the watch is on inode {old}, which has lost this name; its last name was {name:?}"),
                format!("{name:?} in the same directory is inode {new} now"),
            ];
            Some(finding.remedy(REPLACED))
        }
        None => {
            finding.cause = Cause::MarkGone;
            let text = format!(
                "inode {} was deleted: its last name was {name:?}, which does not exist now",
                seat.watch.ino
            );
            let held = "the inode is still held open, so the watch still exists".to_owned();
            finding.evidence = vec![text, held];
            Some(finding.remedy("watch the directory, which reports the file when it is created again"))
        }
    }
}

/// Something is mounted over it.
fn covered(view: &View<'_>, seat: &WatchLocation<'_>) -> Option<Finding> {
    let location = seat.place.location.as_ref()?;
    let Reachability::Covered { path, by } = view.namespace.sight(location.dev, &location.fs_path) else {
        return None;
    };
    let mount = view.namespace.table.by_id(by)?;
    let mut finding = view.about(seat, Severity::Deaf, Cause::MountedOver, Proof::Proved);
    finding.path_ino = view.namespace.look(&path, false).ok().map(|now| now.ino);
    if finding.path_ino.is_some_and(|now| view.watches(mount.dev, now)) {
        // It watches what the path leads to as well.
        return None;
    }
    finding.path_in_target = Some(path);
    let (fs, at) = (mount.fs_type.to_string_lossy(), mount.mount_point.display());
    Some(
        finding
            .evidence(format!("{fs} is mounted at {at}, over what is watched"))
            .remedy("start the program after the mount, or restart it now"),
    )
}

/// Its filesystem is in no mount table.
fn unmounted(view: &View<'_>, seat: &WatchLocation<'_>, space: &Namespaces) -> Option<Finding> {
    if seat.place.fs_type.is_some() || space.is_mounted_anywhere(seat.watch.dev) {
        return None;
    }
    let dev = seat.watch.dev;
    // With part of the machine unseen, another namespace may still have it.
    let severity = if space.complete { Severity::Deaf } else { Severity::AtRisk };
    let finding = view.about(seat, severity, Cause::Unmounted, Proof::Inferred);
    Some(
        finding
            .evidence(format!(
                "the watched inode is on device {}:{}, which no mount of the process has",
                dev.major, dev.minor
            ))
            .remedy("restart the program if the filesystem was unmounted or replaced"),
    )
}

/// Kubernetes and others: `..data` leads to a directory whose name begins with two dots, and is switched.
fn data_link(view: &View<'_>, seat: &WatchLocation<'_>) -> Option<Finding> {
    let location = seat.place.location.as_ref()?;
    let names: Vec<_> = location.fs_path.iter().collect();
    let at = names.iter().position(|name| {
        let name = name.as_encoded_bytes();
        name.len() > 2 && name.starts_with(b"..") && name != b"..data"
    })?;
    let (_, in_target) = view.paths(location);
    let path = in_target?;
    // The last names are the same in both.
    let up = names.len() - at;
    let base = path.ancestors().nth(up)?;
    let dir = view.namespace.open(base, false).ok()?;
    let target = readlinkat(&dir, "..data", Vec::new()).ok()?.into_bytes();
    if target == names[at].as_encoded_bytes() {
        return None;
    }
    let base_location =
        Location { dev: location.dev, fs_path: location.fs_path.ancestors().nth(up)?.to_path_buf() };
    if view.dir_mask(&base_location) & super::super::view::bits::APPEARED != 0 {
        return None;
    }
    let rest: PathBuf = names[at + 1..].iter().collect();
    let named =
        if rest.as_os_str().is_empty() { base.join("..data") } else { base.join("..data").join(&rest) };
    let now = view.namespace.look(&named, true).ok();
    if now.is_some_and(|now| now.ino == seat.watch.ino || view.watches(location.dev, now.ino)) {
        return None;
    }
    let mut finding = view.about(seat, Severity::Deaf, Cause::SymlinkSwap, Proof::Inferred);
    finding.path_ino = now.map(|now| now.ino);
    let (old, new) = (names[at].to_string_lossy(), String::from_utf8_lossy(&target).into_owned());
    Some(
        finding
            .evidence(format!("the watch is below {old:?}, and the link \"..data\" beside it leads to {new:?} now"))
            .remedy("watch the directory that holds ..data for IN_CREATE and IN_MOVED_TO; restart the program to make it work now"),
    )
}

/// A hint that nothing of the process watches.
fn unwatched<'v>(view: &'v View<'_>) -> impl Iterator<Item = &'v Hint> {
    view.hints.iter().filter(|hint| {
        !view.watches(hint.real.dev, hint.seen.ino)
            && view.parent_mask(&hint.real) == 0
            && !named_dir(view, hint)
    })
}

/// Whether the directory of the name itself, before links, is watched.
fn named_dir(view: &View<'_>, hint: &Hint) -> bool {
    let Some(parent) = hint.named.parent() else { return false };
    let seen = view.namespace.look(parent, true).ok();
    seen.is_some_and(|dir| {
        view.namespace.table.by_id(dir.mount).is_some_and(|mount| view.watches(mount.dev, dir.ino))
    })
}

fn same_kind(seat: &WatchLocation<'_>, seen: Seen) -> bool {
    seat.place.kind == Some(seen.kind) && seat.instance.kind == Kind::Inotify
}

/// A backup was made by renaming: the watch is on the backup.
fn renamed_away(view: &View<'_>, seat: &WatchLocation<'_>) -> Option<Finding> {
    let location = seat.place.location.as_ref().filter(|_| !seat.place.unlinked)?;
    let hint = unwatched(view).find(|hint| {
        same_kind(seat, hint.seen)
            && !hint.by_link
            && hint.real.dev == location.dev
            && hint.real.fs_path.parent() == location.fs_path.parent()
            && is_backup_of(last_name(&location.fs_path), last_name(&hint.real.fs_path))
    })?;
    if view.hints.iter().any(|other| other.seen.ino == seat.watch.ino) || view.learns_of(location) {
        return None;
    }
    let mut finding = view.about(seat, Severity::Deaf, Cause::ReplacedFile, Proof::Inferred);
    finding.path_ino = Some(hint.seen.ino);
    finding.path_in_target = Some(hint.named.clone());
    finding.path = view.paths(&hint.real).0;
    let name = String::from_utf8_lossy(last_name(&location.fs_path));
    Some(
        finding
            .evidence(format!(
                "the command line names {}, which is inode {}",
                hint.named.display(),
                hint.seen.ino
            ))
            .evidence(format!("the watch is on inode {}, which is named {name:?} now", seat.watch.ino))
            .remedy(REPLACED),
    )
}

/// `app.conf.bak`, `app.conf~` and `app.conf.1` are made of `app.conf`.
fn is_backup_of(backup: &[u8], name: &[u8]) -> bool {
    name.len() >= 2
        && backup
            .strip_prefix(name)
            .is_some_and(|rest| matches!(rest.first(), Some(b'~' | b'.' | b'-' | b'_')))
}

/// The command line names a path by a link that leads elsewhere now.
fn other_target(view: &View<'_>, seat: &WatchLocation<'_>) -> Option<Finding> {
    let location = seat.place.location.as_ref().filter(|_| !seat.place.unlinked)?;
    let hint = unwatched(view).filter(|hint| hint.by_link).find(|hint| {
        same_kind(seat, hint.seen)
            && hint.real.dev == location.dev
            && looks_like(location, &hint.real, hint.seen)
    })?;
    if view.hints.iter().any(|other| other.seen.ino == seat.watch.ino) {
        return None;
    }
    let mut finding = view.about(seat, Severity::Deaf, Cause::SymlinkSwap, Proof::Inferred);
    finding.path_ino = Some(hint.seen.ino);
    finding.path_in_target = Some(hint.named.clone());
    finding.path = if view.namespace.ours { Some(hint.named.clone()) } else { None };
    let (_, watched) = view.paths(location);
    let watched = watched.unwrap_or_else(|| location.fs_path.clone());
    Some(
        finding
            .evidence(format!(
                "the command line names {}, which leads by a link to inode {} now",
                hint.named.display(),
                hint.seen.ino
            ))
            .evidence(format!("the watch is on inode {}, {}", seat.watch.ino, watched.display()))
            .remedy("watch the directory that holds the link for IN_CREATE and IN_MOVED_TO; restart the program to make it work now"),
    )
}

/// Two targets of one link: a file of the same name, or directories side by side.
fn looks_like(watched: &Location, now: &Location, seen: Seen) -> bool {
    let (old, new): (&Path, &Path) = (&watched.fs_path, &now.fs_path);
    old != new
        && match seen.kind {
            FileKind::Dir => old.parent() == new.parent(),
            _ => last_name(old) == last_name(new) || old.parent() == new.parent(),
        }
}

#[cfg(test)]
mod tests {
    use super::is_backup_of;

    #[test]
    fn names_of_backups() {
        for (backup, name, want) in [
            ("app.conf~", "app.conf", true),
            ("app.conf.bak", "app.conf", true),
            ("app.log.1", "app.log", true),
            ("conf-2024", "conf", true),
            ("app.conf", "app.conf", false),
            ("app.config", "app.conf", false),
            ("other.bak", "app.conf", false),
            ("a.b", "a", false),
        ] {
            assert_eq!(is_backup_of(backup.as_bytes(), name.as_bytes()), want, "{backup} of {name}");
        }
    }
}
