//! Watches that do not ask for what usual programs do, or that the kernel removes by itself.
//!
//! One finding per instance and kind: a watcher has the same mask everywhere.

use std::time::Duration;

use super::super::finding::{Finding, Proof, Severity};
use super::super::hints::Hint;
use super::super::namespaces::FileKind;
use super::super::process::Kind;
use super::super::view::{View, WatchLocation, bits};
use crate::doctor::cover::is_pseudo;
use hotr_events::Cause;

/// Every fault of a mask.
pub(super) fn judge(view: &View<'_>, findings: &mut Vec<Finding>) {
    for instance in view.process.instances.iter().filter(|instance| instance.kind == Kind::Inotify) {
        let seats: Vec<_> = view.of(instance.fd).collect();
        for rule in RULES {
            let faulty: Vec<_> = seats.iter().copied().filter(|seat| (rule.applies)(view, seat)).collect();
            let Some(first) = faulty.first() else { continue };
            let mut finding = view.about(first, rule.severity, rule.cause, rule.proof);
            finding.evidence = vec![rule.evidence.to_owned()];
            finding.remedy = rule.remedy.to_owned();
            if faulty.len() > 1 {
                finding.watches = Some(faulty.len());
                finding.target.wd = None;
            }
            findings.push(finding);
        }
    }
}

/// A fault of a mask.
struct Rule {
    severity: Severity,
    cause: Cause,
    proof: Proof,
    applies: fn(&View<'_>, &WatchLocation<'_>) -> bool,
    evidence: &'static str,
    remedy: &'static str,
}

const RULES: [Rule; 6] = [
    Rule {
        severity: Severity::AtRisk,
        cause: Cause::ReplacedFile,
        proof: Proof::Inferred,
        applies: |view, seat| lone_file(view, seat) && !is_set_again(view, seat),
        evidence: "the watch is on the file itself, and nothing of the program watches its directory: when an editor or \
                   `sed -i` replaces the file, the watch ends with the old one",
        remedy: "watch the directory for IN_MOVED_TO and IN_CLOSE_WRITE, and compare the name",
    },
    Rule {
        severity: Severity::Note,
        cause: Cause::RewatchRace,
        proof: Proof::Inferred,
        applies: |view, seat| lone_file(view, seat) && is_set_again(view, seat),
        evidence: "the watch is on the file itself, which the command line names; the file was created after the program \
                   started, and the watch is not the first of its instance: when the file is replaced, the program sets \
                   its watch again, and what changes in between is not reported",
        remedy: "none is needed if the program reads the file each time after setting the watch; otherwise watch the directory",
    },
    Rule {
        severity: Severity::AtRisk,
        cause: Cause::MaskMismatch,
        proof: Proof::Proved,
        applies: no_moved_to,
        evidence: "the directory watch does not ask for IN_MOVED_TO: a file that is renamed into place, as most editors \
                   and `sed -i` do it, is not reported",
        remedy: "add IN_MOVED_TO to the mask",
    },
    Rule {
        severity: Severity::Note,
        cause: Cause::MaskMismatch,
        proof: Proof::Proved,
        applies: no_content,
        evidence: "the directory watch asks for new names only, not for IN_CLOSE_WRITE or IN_MODIFY: a file written in \
                   place is not reported",
        remedy: "add IN_CLOSE_WRITE to the mask, unless every writer renames into place",
    },
    Rule {
        severity: Severity::AtRisk,
        cause: Cause::MarkGone,
        proof: Proof::Proved,
        applies: |_, seat| seat.watch.mask & bits::ONESHOT != 0,
        evidence: "IN_ONESHOT: the kernel removes the watch with its first event; what changes before the program adds it \
                   again is not reported",
        remedy: "remove IN_ONESHOT, or check the files each time after adding the watch",
    },
    Rule {
        severity: Severity::Note,
        cause: Cause::MarkGone,
        proof: Proof::Proved,
        applies: |_, seat| seat.watch.mask & bits::EXCL_UNLINK != 0,
        evidence: "IN_EXCL_UNLINK: writes to a file that was deleted while open are not reported",
        remedy: "none is needed, unless the program must follow deleted files",
    },
];

/// A filesystem on which files are replaced by renaming.
fn has_files(seat: &WatchLocation<'_>) -> bool {
    !seat.fs_type().is_empty() && !is_pseudo(seat.fs_type())
}

/// A file that is watched for its content, by itself.
fn lone_file(view: &View<'_>, seat: &WatchLocation<'_>) -> bool {
    let Some(location) = seat.place.location.as_ref() else { return false };
    seat.place.kind == Some(FileKind::File)
        && !seat.place.unlinked
        && has_files(seat)
        && seat.watch.mask & bits::CONTENT != 0
        && !view.learns_of(location)
}

/// Whether the watch was set on a file that replaced an earlier one of the same name: the program did so by itself.
/// Its start is known to 10 ms, and times of files lag by as much.
fn is_set_again(view: &View<'_>, seat: &WatchLocation<'_>) -> bool {
    let is_it = |hint: &&Hint| hint.real.dev == seat.watch.dev && hint.seen.ino == seat.watch.ino;
    let hint = view.hints.iter().find(is_it);
    let born = hint.and_then(|hint| hint.times?.born).zip(view.process.started);
    seat.watch.wd > 1 && born.is_some_and(|(born, started)| born > started + Duration::from_millis(20))
}

fn living_dir(seat: &WatchLocation<'_>) -> bool {
    seat.place.is_dir() && !seat.place.unlinked && has_files(seat)
}

/// A directory that is watched for writes or new files.
fn no_moved_to(view: &View<'_>, seat: &WatchLocation<'_>) -> bool {
    let asks = seat.watch.mask & (bits::CONTENT | bits::CREATE) != 0;
    living_dir(seat) && asks && whole_mask(view, seat) & bits::MOVED_TO == 0
}

/// A directory that is watched for new names, by a program that watches no file in it.
fn no_content(view: &View<'_>, seat: &WatchLocation<'_>) -> bool {
    let mask = whole_mask(view, seat);
    living_dir(seat)
        && mask & bits::APPEARED != 0
        && mask & bits::CONTENT == 0
        && !seat.place.location.as_ref().is_some_and(|at| view.watches_file_in(at))
}

/// What the whole program asks for in a directory: it may have more than one instance.
fn whole_mask(view: &View<'_>, seat: &WatchLocation<'_>) -> u32 {
    seat.watch.mask | seat.place.location.as_ref().map_or(0, |location| view.dir_mask(location))
}
