//! What a program did with the events that it read: whether it used the file afterwards.
//!
//! In: delivered changes of content, and when the program used the files last, by the kernel's account. Out: findings at the
//! end of the run. They are conclusions: a program may know what it wants without opening the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hotr_common::delivery::Usage;

use super::verdict::Verdict;
use crate::diagnose::finding::{Finding, Proof, Severity, Target};
use hotr_events::Cause;
use hotr_events::Op;

/// A program may wait for the end of a save. What it read later than this before the end of the run is not judged; and
/// changes of a file that are further apart are not of one save.
const PATIENCE_NS: u64 = 1_000_000_000;

/// A file of which a program read events.
struct File {
    path: PathBuf,
    target: Target,
    /// Changes of its content.
    changes: u64,
    /// The last save: when it began, when content was written last, and when anything was done last.
    save_from: u64,
    last_written: u64,
    last_made: u64,
    /// When the program read the last event of them.
    last_read: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Applications {
    files: HashMap<Key, File>,
}

/// Process, device, inode number.
type Key = (u32, u32, u64);

impl Applications {
    /// A program read the event of a change; with 0, the change was merged with one that is not read yet.
    pub(super) fn read(&mut self, verdict: &Verdict, read_ns: u64) {
        let (sent, Some(process)) = (&verdict.sent, verdict.target.pid) else { return };
        if verdict.op == Op::Remove {
            return self.forget(process, &verdict.path);
        }
        let Some((dev, ino)) = sent.file else { return };
        let key = (process, dev, ino);
        match verdict.op {
            Op::Remove | Op::Attrib => {}
            // What a program changes by itself it need not look at.
            _ if sent.by == Some(process) => {}
            Op::Create | Op::Write | Op::Rename => {
                if self.files.get(&key).is_none_or(|file| file.path != verdict.path) {
                    // Another file has this name now, or this file another name.
                    self.forget(process, &verdict.path);
                }
                let file = self.files.entry(key).or_insert_with(|| File {
                    path: verdict.path.clone(),
                    target: verdict.target.clone(),
                    changes: 0,
                    save_from: 0,
                    last_written: 0,
                    last_made: 0,
                    last_read: 0,
                });
                file.path.clone_from(&verdict.path);
                file.changes += 1;
                if sent.made_ns > file.last_made + PATIENCE_NS {
                    file.save_from = sent.made_ns;
                }
                file.last_made = file.last_made.max(sent.made_ns);
                if verdict.op != Op::Rename {
                    file.last_written = file.last_written.max(sent.made_ns);
                }
                file.last_read = file.last_read.max(read_ns);
            }
        }
    }

    fn forget(&mut self, process: u32, path: &Path) {
        self.files.retain(|key, file| key.0 != process || file.path != path);
    }

    /// What the programs did not do until then.
    /// `usage` says when a file was used last by any followed process, when that is known.
    pub(super) fn findings(&self, now: u64, usage: impl Fn(u32, u64) -> Option<Usage>) -> Vec<Finding> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.1.path.cmp(&b.1.path));
        let judged =
            files.into_iter().filter(|(_, file)| file.last_read != 0 && file.last_read + PATIENCE_NS <= now);
        judged.filter_map(|(&(_, dev, ino), file)| finding(file, ino, now, usage(dev, ino)?)).collect()
    }
}

fn changes(count: u64) -> String {
    format!("{count} {}", if count == 1 { "change" } else { "changes" })
}

fn millis(nanoseconds: u64) -> String {
    format!("{:.1} ms", nanoseconds as f64 / 1e6)
}

fn finding(file: &File, ino: u64, now: u64, usage: Usage) -> Option<Finding> {
    let used = usage.opened.max(usage.read);
    let (cause, evidence) = if used < file.save_from {
        let waited = millis(now - file.last_read);
        let what = "no followed process opened or read the file";
        (Cause::Application, format!("{what} within {waited} after the last of these events was read"))
    } else if used < file.last_written {
        let early = millis(file.last_written - used);
        (Cause::ReadEarly, format!("it was used last {early} before its last write"))
    } else {
        return None;
    };
    let severity = if cause == Cause::ReadEarly { Severity::Lost } else { Severity::Note };
    let mut finding = Finding::new(severity, cause, Proof::Inferred, file.target.clone())
        .evidence(format!("events of {} of the file were read", changes(file.changes)))
        .evidence(evidence)
        .remedy(cause.remedy().unwrap_or_default());
    (finding.path, finding.path_ino) = (Some(file.path.clone()), Some(ino));
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A file that was saved from 10 s to 10.2 s, and of which the last event was read soon after.
    fn saved() -> File {
        File {
            path: "/app.conf".into(),
            target: Target::default(),
            changes: 3,
            save_from: 10 * SECOND,
            last_written: 10 * SECOND + SECOND / 5,
            last_made: 10 * SECOND + SECOND / 5,
            last_read: 10 * SECOND + SECOND / 4,
        }
    }

    fn cause(opened: u64, read: u64) -> Option<Cause> {
        finding(&saved(), 7, 12 * SECOND, Usage { opened, read }).map(|finding| finding.cause)
    }

    #[test]
    fn what_was_read_after_the_last_write_is_no_finding() {
        assert_eq!(cause(0, 10 * SECOND + SECOND / 3), None);
        assert_eq!(cause(10 * SECOND + SECOND / 5, 0), None);
    }

    #[test]
    fn what_was_read_within_the_save_was_read_early() {
        assert_eq!(cause(10 * SECOND + 1, 10 * SECOND + SECOND / 10), Some(Cause::ReadEarly));
    }

    #[test]
    fn what_was_not_used_since_the_save_began_was_not_acted_on() {
        assert_eq!(cause(0, 0), Some(Cause::Application));
        assert_eq!(cause(9 * SECOND, 9 * SECOND), Some(Cause::Application));
    }

    #[test]
    fn what_was_read_just_before_the_end_is_not_judged() {
        let mut all = Applications::default();
        all.files.insert((1, 2, 7), saved());
        let never = |_, _| Some(Usage::default());
        assert!(all.findings(11 * SECOND, never).is_empty());
        assert_eq!(all.findings(12 * SECOND, never).len(), 1);
        assert!(all.findings(12 * SECOND, |_, _| None).is_empty(), "it is not known");
    }
}
