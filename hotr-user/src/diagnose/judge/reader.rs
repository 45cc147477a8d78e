//! Whether events are read: empty instances, full queues, stopped and busy readers.

use std::collections::HashMap;
use std::time::Duration;

use super::super::finding::{Finding, Proof, Severity};
use super::super::hints::Hint;
use super::super::process::{Instance, Kind};
use super::super::thread_waits::{self, Wait};
use super::super::view::View;
use hotr_events::Cause;

/// What a second look at unread bytes gave, by process and descriptor, and how long after the first.
#[derive(Debug, Default)]
pub(in super::super) struct Later {
    pub(in super::super) unread: HashMap<(u32, i32), u64>,
    pub(in super::super) after_ms: u64,
    pub(in super::super) max_queued: Option<u64>,
}

/// Size of an event without a name (kernel: include/uapi/linux/inotify.h `struct inotify_event`).
const EVENT: u64 = 16;
/// Size of one with the longest name.
const LONGEST: u64 = EVENT + 256;

/// Everything about reading.
pub(super) fn judge(view: &View<'_>, later: &Later, findings: &mut Vec<Finding>) {
    let stopped = matches!(view.process.state, b'T' | b't');
    if stopped && let Some(instance) = view.process.instances.first() {
        findings.push(stopped_reader(view, instance));
    }
    for instance in &view.process.instances {
        if instance.kind == Kind::Inotify {
            findings.extend(no_watch(view, instance));
            findings.extend(queue(view, instance, later.max_queued));
        }
        if !stopped {
            findings.extend(not_read(view, instance, later));
        }
    }
}

fn stopped_reader(view: &View<'_>, instance: &Instance) -> Finding {
    let how = if view.process.state == b't' { "by a debugger (state t)" } else { "by a signal (state T)" };
    let unread: u64 = view.process.instances.iter().filter_map(|instance| instance.unread).sum();
    let instance = (view.process.instances.len() == 1).then_some(instance);
    let target = view.target(instance, None);
    Finding::new(Severity::AtRisk, Cause::Unread, Proof::Proved, target)
        .evidence(format!("the process is stopped {how}, with {unread} bytes of events unread"))
        .remedy(format!("resume it: kill -CONT {}", view.process.pid))
}

/// No watch at all, and somebody who waits for an event.
fn no_watch(view: &View<'_>, instance: &Instance) -> Option<Finding> {
    if !instance.marks.watches.is_empty() {
        return None;
    }
    let threads = thread_waits::threads(&view.process.dir)?;
    // Some events may be left; the last says that the watch no longer exists.
    if instance.unread != Some(0) {
        return None;
    }
    let named = newest(view);
    let target = view.target(Some(instance), None);
    let mut finding = Finding::new(Severity::Deaf, Cause::MarkGone, Proof::Proved, target);
    if thread_waits::only_for(&threads, instance.fd) {
        finding = finding
            .evidence("the instance has no watch, and a thread waits for its events and for nothing else");
    } else if named.is_some() && thread_waits::only_for_but_wakers(&view.process.dir, &threads, instance.fd) {
        // A library may keep an instance without a watch until its program needs one; not when a file was replaced.
        finding = finding.evidence(
            "the instance has no watch, and a thread waits for its events, and to be woken by others",
        );
    } else {
        return None;
    }
    if let Some(hint) = named {
        finding.cause = Cause::ReplacedFile;
        finding.proof = Proof::Inferred;
        finding.path_ino = Some(hint.seen.ino);
        finding.path_in_target = Some(hint.named.clone());
        finding.path = if view.namespace.ours { Some(hint.named.clone()) } else { view.paths(&hint.real).0 };
        let (path, ino) = (hint.named.display(), hint.seen.ino);
        finding = finding.evidence(format!(
            "the command line names {path}, which is inode {ino} now: the watch ended with an earlier inode"
        ));
    }
    Some(finding.remedy("restart the program; let it watch the directory for IN_MOVED_TO and IN_CREATE"))
}

/// What the command line names and may have taken its name while the process ran: the newest. A script, or a file that is
/// only read, is older. The start is known to be up to 10 ms too early, and times of files are as much: what may be younger is.
fn newest<'v>(view: &'v View<'_>) -> Option<&'v Hint> {
    const TICK: Duration = Duration::from_millis(10);
    let started = view.process.started?;
    let times = view.hints.iter().filter_map(|hint| Some((hint.times?.changed, hint)));
    let younger = times.filter(|(changed, _)| *changed + TICK > started);
    younger.max_by_key(|(changed, _)| *changed).map(|(_, hint)| hint)
}

/// How many events some bytes can be: at least, and at most.
fn events(instance: &Instance, view: &View<'_>, bytes: u64) -> (u64, u64) {
    // Events of a watched file carry no name.
    let nameless = view.of(instance.fd).all(|seat| seat.place.kind.is_some() && !seat.place.is_dir());
    let most = bytes / EVENT;
    if nameless && !instance.marks.watches.is_empty() {
        (most, most)
    } else {
        (bytes.div_ceil(LONGEST), most)
    }
}

/// A full queue, or one that may be.
fn queue(view: &View<'_>, instance: &Instance, limit: Option<u64>) -> Option<Finding> {
    let (bytes, limit) = (instance.unread.filter(|bytes| *bytes > 0)?, limit.filter(|limit| *limit > 0)?);
    let (least, most) = events(instance, view, bytes);
    let target = view.target(Some(instance), None);
    let remedy = "read faster, or raise fs.inotify.max_queued_events and restart the program";
    let new = |severity, proof| {
        Finding::new(severity, Cause::QueueOverflow, proof, target)
            .evidence(format!("{bytes} bytes of events are unread"))
            .remedy(remedy)
    };
    if least >= limit {
        let finding = new(Severity::Lost, Proof::Proved);
        return Some(finding.evidence(format!("that is at least {least} events; the queue takes {limit}")));
    }
    if is_full_of_equals(bytes, limit) {
        let finding = new(Severity::Lost, Proof::Inferred);
        return Some(finding.evidence(format!(
            "that is exactly {limit} events of one size, as many as the queue takes, and one overflow event"
        )));
    }
    (most >= limit).then(|| {
        new(Severity::AtRisk, Proof::Inferred)
            .evidence(format!("that is between {least} and {most} events; the queue takes {limit}"))
    })
}

/// A queue with as many events as it takes, all of one size, and the mark of the overflow.
fn is_full_of_equals(bytes: u64, limit: u64) -> bool {
    bytes.checked_sub(EVENT).is_some_and(|bytes| {
        bytes > 0 && bytes.is_multiple_of(limit) && {
            let size = bytes / limit;
            size.is_multiple_of(EVENT) && (EVENT..=LONGEST).contains(&size)
        }
    })
}

/// Events that nobody read for a while.
fn not_read(view: &View<'_>, instance: &Instance, later: &Later) -> Option<Finding> {
    let before = instance.unread.filter(|bytes| *bytes > 0)?;
    let after = *later.unread.get(&(view.process.pid, instance.fd))?;
    if after < before {
        return None;
    }
    let threads = thread_waits::threads(&view.process.dir)?;
    if thread_waits::only_for(&threads, instance.fd) {
        // It is about to be woken.
        return None;
    }
    let finding =
        Finding::new(Severity::AtRisk, Cause::Unread, Proof::Proved, view.target(Some(instance), None));
    let mut finding = finding
        .evidence(format!("{after} bytes of events are unread, none was read for {} ms", later.after_ms));
    if !thread_waits::any_for(&threads, instance.fd)
        && let Some(what) = occupation(&threads)
    {
        finding = finding.evidence(what);
    }
    Some(finding.remedy("find out what the program does instead; it receives its events late, and loses them if the queue fills"))
}

/// What a process does, when all its threads do one thing.
fn occupation(threads: &[Wait]) -> Option<String> {
    let all = |state: u8| threads.iter().all(|thread| thread.state == state);
    let [only] = threads else {
        return all(b'D')
            .then(|| "all its threads wait in the kernel without interruption (state D)".to_owned());
    };
    match (only.state, &only.function) {
        (b'R', _) => Some("it is busy: it runs (state R)".to_owned()),
        (b'D', Some(function)) => Some(format!("it is blocked in the kernel, in {function} (state D)")),
        (_, Some(function)) => Some(format!("it waits for something else, in {function}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::is_full_of_equals;

    #[test]
    fn a_full_queue_of_equal_events_is_known_by_its_size() {
        for (bytes, want) in [
            (16384 * 32 + 16, true),
            (16384 * 16 + 16, true),
            (16384 * 272 + 16, true),
            (16384 * 32, false),
            (16384 * 32 + 32, false),
            (16384 * 288 + 16, false),
            (16384 * 24 + 16, false),
            (16, false),
            (0, false),
        ] {
            assert_eq!(is_full_of_equals(bytes, 16384), want, "{bytes}");
        }
    }
}
