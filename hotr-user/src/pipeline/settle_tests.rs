//! Cases of merging: one file each under `tests/cases/settle`, with a clock of its own.
//!
//! A case lists steps (`push`, `due`, `finish`) with a time in milliseconds, and after each what comes out.

use hotr_events::Cause;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::Settler;
use hotr_events::{Actor, Change, Channel, FileId, Layer, Missed, Op, Written};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: u64,
    push: Option<Short>,
    #[serde(default)]
    due: bool,
    #[serde(default)]
    finish: bool,
    out: Vec<Short>,
    next_ms: Option<u64>,
}

/// A change, as far as a case cares.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Short {
    op: String,
    path: PathBuf,
    old_path: Option<PathBuf>,
    ino: Option<u64>,
    writes: u64,
    bytes: u64,
    size: Option<u64>,
    detail: Vec<String>,
    pid: Option<u32>,
    upper: bool,
    seen_by: Vec<String>,
    missed_by: Vec<String>,
    time_ms: u64,
}

impl Short {
    fn into_change(self, at_ms: u64) -> Change {
        let actor =
            |pid| Actor { pid, tid: pid, uid: 0, comm: vec![], exe: None, cgroup: None, origin: None };
        let channel = |word: &String| if word == "ebpf" { Channel::Ebpf } else { Channel::Inotify };
        let missed = |word: &String| Missed {
            channel: Channel::Inotify,
            cause: Cause::ALL.into_iter().find(|cause| cause.as_str() == word).unwrap(),
            why: "".into(),
        };
        Change {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms),
            op: *Op::ALL.iter().find(|op| op.as_str() == self.op).expect("a case names a known operation"),
            detail: self.detail.into_iter().map(Into::into).collect(),
            path: self.path,
            old_path: self.old_path,
            file_type: None,
            id: self.ino.map(|ino| FileId { dev: 1, ino, gen_: 0 }),
            size: self.size,
            written: Written { writes: self.writes, bytes: self.bytes },
            layer: self.upper.then_some(Layer::Upper),
            actor: self.pid.map(actor),
            seen_by: self.seen_by.iter().map(channel).collect(),
            missed_by: self.missed_by.iter().map(missed).collect(),
            watcher: None,
        }
    }

    fn of(change: Change) -> Self {
        let time = change.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self {
            op: change.op.as_str().into(),
            path: change.path,
            old_path: change.old_path,
            ino: change.id.map(|id| id.ino),
            writes: change.written.writes,
            bytes: change.written.bytes,
            size: change.size,
            detail: change.detail.iter().map(ToString::to_string).collect(),
            pid: change.actor.map(|actor| actor.pid),
            upper: change.layer.is_some(),
            seen_by: change.seen_by.iter().map(|channel| channel.as_str().into()).collect(),
            missed_by: change.missed_by.iter().map(|missed| missed.cause.as_str().into()).collect(),
            time_ms: u64::try_from(time.as_millis()).unwrap(),
        }
    }
}

fn run(path: &Path) {
    let text = std::fs::read(path).unwrap();
    let steps: Vec<Step> =
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut settler = Settler::new();
    for (number, step) in steps.into_iter().enumerate() {
        let now_ns = step.at_ms * 1_000_000;
        let mut out = Vec::new();
        if let Some(short) = step.push {
            settler.push(short.into_change(step.at_ms), now_ns, &mut out);
        }
        if step.due {
            settler.due(now_ns, &mut out);
        }
        if step.finish {
            out.extend(settler.finish());
        }
        let out: Vec<Short> = out.into_iter().map(Short::of).collect();
        assert_eq!(out, step.out, "{}: step {number}", path.display());
        if let Some(next_ms) = step.next_ms {
            let next = settler.next_deadline();
            assert_eq!(next, Some(next_ms * 1_000_000), "{}: step {number}", path.display());
        }
    }
    assert_eq!(settler.finish(), [], "{}: a case says all that comes out", path.display());
}

#[test]
fn every_case_settles_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/settle");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 8, "the cases are gone");
    cases.iter().for_each(|case| run(case));
}

#[test]
fn repeats_that_a_process_missed_are_no_repeats_of_those_that_it_received() {
    use hotr_events::{Watcher, WatcherId, WatcherState};
    let write = |state, cause: Option<Cause>| {
        let id = WatcherId { pid: 7, comm: b"app".to_vec() };
        let missed = cause.map(|cause| Missed { channel: Channel::Inotify, cause, why: "".into() });
        Change {
            written: Written { writes: 1, bytes: 2 },
            seen_by: vec![Channel::Ebpf],
            missed_by: missed.into_iter().collect(),
            watcher: Some(Box::new(Watcher { id, state, fd: None, wd: None, proof: None })),
            ..Change::new(Op::Write, PathBuf::from("/a"), SystemTime::UNIX_EPOCH)
        }
    };
    let (mut settler, mut out) = (Settler::new(), Vec::new());
    settler.push(write(WatcherState::Delivered, None), 0, &mut out);
    settler.push(write(WatcherState::NeverSent, Some(Cause::ReplacedFile)), 1, &mut out);
    settler.push(write(WatcherState::Merged, None), 2, &mut out);
    settler.push(write(WatcherState::NeverSent, Some(Cause::ReplacedFile)), 3, &mut out);
    out.extend(settler.finish());
    let seen: Vec<_> =
        out.iter().map(|change| (change.watcher.as_ref().unwrap().state, change.missed_by.len())).collect();
    let want = [
        (WatcherState::Delivered, 0),
        (WatcherState::NeverSent, 1),
        (WatcherState::Merged, 0),
        (WatcherState::NeverSent, 1),
    ];
    assert_eq!(seen, want);
}
