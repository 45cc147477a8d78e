//! Why nothing was offered to an instance for a change.
//!
//! In: a change, and the watches of the instance as they were and are. Out: a [`Why`]. Only called when the kernel offered
//! nothing: that is proved; the cause may be inferred.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::instance::{Instance, Watch};
use super::verdict::{ReportedChange, Verdict};
use crate::diagnose::finding::Proof;
use crate::diagnose::view::bits;
use hotr_events::Cause;
use hotr_events::{Change, FileId, Layer, Op};

/// What is known of a change that was not sent.
pub(super) struct Reason {
    cause: Option<Cause>,
    proof: Proof,
    watched_ino: Option<u64>,
    mask: Option<u32>,
    wd: Option<i32>,
    evidence: Vec<String>,
}

impl Reason {
    /// Whether there is a cause.
    pub(super) fn is_known(&self) -> bool {
        self.cause.is_some()
    }
}

/// See the module.
pub(super) enum Why {
    /// The instance has no watch that the change has to do with.
    NotConcerned,
    /// The watch does not ask for this, and the content did not change by it.
    Unasked,
    /// An event of these kinds about this inode is to come, or may; if none does, this is the reason.
    Later { by: u32, ino: u64, reason: Option<Box<Reason>> },
    /// This is the reason.
    Never(Box<Reason>),
    /// The file took the place of a watched one, and the program may set its watch again.
    Replaced(FileId, Box<Reason>),
}

/// A verdict with its reason.
pub(super) fn filled(mut verdict: Verdict, reason: Reason) -> Verdict {
    (verdict.cause, verdict.proof) = (reason.cause, reason.proof);
    (verdict.watched_ino, verdict.mask) = (reason.watched_ino, reason.mask);
    verdict.target.wd = reason.wd;
    verdict.evidence = reason.evidence;
    verdict
}

fn reason(cause: Option<Cause>, proof: Proof, watch: &Watch, evidence: String) -> Box<Reason> {
    Box::new(Reason {
        cause,
        proof,
        watched_ino: Some(watch.ino),
        mask: Some(watch.mask),
        wd: Some(watch.wd),
        evidence: vec![evidence],
    })
}

/// The reason of a change that no watch of a process has to do with.
pub(super) fn unwatched(made: &ReportedChange) -> Reason {
    let dir = made.change.path.parent().unwrap_or(&made.change.path);
    Reason {
        cause: Some(Cause::NeverWatched),
        proof: Proof::Proved,
        watched_ino: None,
        mask: None,
        wd: None,
        evidence: vec![format!("no watch of it is on {}", dir.display())],
    }
}

/// What the kernel sends to a directory for a change; 0 when it sends nothing for this name.
fn wanted(change: &Change) -> u32 {
    match change.op {
        Op::Create => bits::CREATE,
        Op::Write => bits::CONTENT,
        Op::Attrib => bits::ATTRIB,
        Op::Rename => bits::MOVED_TO,
        Op::Remove => bits::DELETE,
    }
}

/// Whether an instance has, or had, a watch that a change has to do with.
pub(super) fn has_to_do(change: &Change, instance: &Instance) -> bool {
    let (path, dir) = (Some(change.path.as_path()), change.path.parent());
    instance.watches.iter().any(|watch| {
        let at = watch.path.as_deref();
        at.is_some() && (at == path || watch.is_dir && at == dir)
    })
}

/// See the module.
pub(super) fn why(made: &ReportedChange, instance: &Instance) -> Why {
    let change = &made.change;
    let was_there = |watch: &&Watch| watch.gone.is_none_or(|gone| gone > made.made_ns);
    let of = |is_dir: bool, path: Option<&Path>| {
        let mut all = instance.watches.iter().rev();
        let path = path.map(Path::to_path_buf);
        all.find(move |watch| watch.is_dir == is_dir && path.is_some() && watch.path == path)
    };
    if let Some(watch) = of(true, change.path.parent()).filter(was_there) {
        return by_directory(made, watch);
    }
    if let Some(watch) = of(false, Some(&change.path)) {
        return by_file(made, instance, watch);
    }
    let old = change.old_path.as_deref();
    if of(true, old.and_then(Path::parent)).or(of(false, old)).is_some_and(|watch| was_there(&watch)) {
        return Why::Unasked;
    }
    Why::NotConcerned
}

/// What the way of the change says.
fn by_way(made: &ReportedChange, id: FileId, watch: &Watch) -> Option<Why> {
    let change = &made.change;
    let is = |word: &str| change.detail.iter().any(|detail| detail == word);
    let (cause, why) = match change.layer {
        Some(Layer::Upper) => (Cause::LayerBypass, "made in the upperdir of the overlay"),
        Some(Layer::Lower) => (Cause::LayerBypass, "made in a lowerdir of the overlay"),
        _ if is("mmap") => (Cause::Mmap, "stored through a mapping"),
        _ if is("aio") || is("io_uring") => (Cause::Aio, "an asynchronous write"),
        _ if is("chattr") => (Cause::KernelWriter, "inode flags were set"),
        _ => return None,
    };
    let reason = reason(Some(cause), Proof::Inferred, watch, why.to_owned());
    // The kernel may tell of it once it has completed, and does when the file is closed.
    let by = match cause {
        Cause::Aio => watch.mask & (bits::MODIFY | bits::CLOSE_WRITE),
        Cause::Mmap => watch.mask & bits::CLOSE_WRITE,
        _ => 0,
    };
    Some(if by == 0 { Why::Never(reason) } else { Why::Later { by, ino: id.ino, reason: Some(reason) } })
}

/// The watch asks for none of what is sent.
fn mismatch(watch: &Watch) -> Box<Reason> {
    let evidence = format!("the mask {:#x} of watch {} does not ask for it", watch.mask, watch.wd);
    reason(Some(Cause::MaskMismatch), Proof::Proved, watch, evidence)
}

fn by_directory(made: &ReportedChange, watch: &Watch) -> Why {
    let change = &made.change;
    let Some(id) = change.id else { return Why::Unasked };
    // Seen first after the change: set before or after it.
    let is_new = watch.since > made.made_ns;
    if watch.mask & wanted(change) == 0 {
        return match change.op {
            _ if is_new => Why::Unasked,
            // A file that is renamed into place afterwards arrives by that.
            Op::Write => Why::Later { by: bits::APPEARED, ino: id.ino, reason: Some(mismatch(watch)) },
            Op::Rename => Why::Never(mismatch(watch)),
            _ => Why::Unasked,
        };
    }
    if let Some(why) = by_way(made, id, watch) {
        return why;
    }
    let at_close = change.op == Op::Write && watch.mask & bits::MODIFY == 0;
    if is_new {
        let evidence = format!("watch {} was first seen after the change", watch.wd);
        let late = reason(Some(Cause::NeverWatched), Proof::Inferred, watch, evidence);
        if at_close {
            return Why::Later { by: bits::CLOSE_WRITE, ino: id.ino, reason: Some(late) };
        }
        return Why::Never(late);
    }
    let now = look(&change.path);
    let found = if let Some((ino, links)) = now.filter(|(ino, links)| *ino == id.ino && *links > 1) {
        let evidence =
            format!("inode {ino} has {links} names; it was changed through one in another directory");
        reason(Some(Cause::HardlinkAlias), Proof::Inferred, watch, evidence)
    } else if let Some((ino, _)) = change.path.parent().and_then(look).filter(|(ino, _)| *ino != watch.ino) {
        let evidence = format!("the path leads to directory {ino}, and the watch is on {}", watch.ino);
        reason(Some(Cause::ReplacedFile), Proof::Inferred, watch, evidence)
    } else {
        let evidence = format!("watch {} is on the directory and asks for it", watch.wd);
        reason(None, Proof::Proved, watch, evidence)
    };
    if at_close {
        // It comes when the file is closed; of another name it does not come.
        let reason = found.cause.is_some().then_some(found);
        return Why::Later { by: bits::CLOSE_WRITE, ino: id.ino, reason };
    }
    Why::Never(found)
}

fn by_file(made: &ReportedChange, instance: &Instance, watch: &Watch) -> Why {
    let change = &made.change;
    let Some(id) = change.id else { return Why::Unasked };
    let is_gone = watch.gone.is_some_and(|gone| gone <= made.made_ns);
    if id.ino == watch.ino {
        // It took the watch off, or watches what another process removes.
        if is_gone {
            return Why::NotConcerned;
        }
        let former = (watch.since > made.made_ns).then(|| former(instance, watch)).flatten();
        return match former {
            Some(former) => replaced(change, id, former),
            None => same_file(made, id, watch),
        };
    }
    if watch.since > made.made_ns {
        return Why::NotConcerned;
    }
    if !matches!(change.op, Op::Create | Op::Write | Op::Rename) {
        return Why::Unasked;
    }
    // The old file tells of its end when nobody holds it open any more.
    match replaced(change, id, watch) {
        Why::Replaced(_, reason)
            if change.op == Op::Rename && !is_gone && watch.mask & bits::DELETE_SELF != 0 =>
        {
            Why::Later { by: bits::DELETE_SELF, ino: watch.ino, reason: Some(reason) }
        }
        other => other,
    }
}

/// The watch that was on the same path, and another inode, before this one.
fn former<'a>(instance: &'a Instance, watch: &Watch) -> Option<&'a Watch> {
    let same = |other: &&Watch| {
        !other.is_dir && other.path == watch.path && other.ino != watch.ino && other.since < watch.since
    };
    instance.watches.iter().rev().find(same)
}

/// A change of a file that took the place of a watched one.
fn replaced(change: &Change, id: FileId, watch: &Watch) -> Why {
    if !matches!(change.op, Op::Create | Op::Write | Op::Rename) {
        return Why::Unasked;
    }
    let evidence = format!("watch {} is on inode {}; the path is inode {} now", watch.wd, watch.ino, id.ino);
    Why::Replaced(id, reason(Some(Cause::ReplacedFile), Proof::Proved, watch, evidence))
}

fn same_file(made: &ReportedChange, id: FileId, watch: &Watch) -> Why {
    let change = &made.change;
    let wanted = match change.op {
        Op::Write => bits::CONTENT,
        Op::Attrib => bits::ATTRIB,
        _ => return Why::Unasked,
    };
    if watch.mask & wanted == 0 {
        return if change.op == Op::Write { Why::Never(mismatch(watch)) } else { Why::Unasked };
    }
    if let Some(why) = by_way(made, id, watch) {
        return why;
    }
    if watch.since > made.made_ns {
        return Why::NotConcerned;
    }
    if change.op == Op::Write && watch.mask & bits::MODIFY == 0 {
        return Why::Later { by: bits::CLOSE_WRITE, ino: watch.ino, reason: None };
    }
    let evidence = format!("watch {} is on the file and asks for it", watch.wd);
    Why::Never(reason(None, Proof::Proved, watch, evidence))
}

/// Inode number and links of a path as it is now; a link is itself, and no server is asked.
fn look(path: &Path) -> Option<(u64, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = statx(CWD, path, flags, StatxFlags::INO | StatxFlags::NLINK).ok()?;
    Some((stat.stx_ino, stat.stx_nlink))
}
