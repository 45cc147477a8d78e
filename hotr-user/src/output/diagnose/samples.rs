//! A diagnosis for the printers' tests, and how it looks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnose::finding::{Finding, Proof, Severity, Target};
use crate::diagnose::process::Kind;
use crate::diagnose::reach::{Answer, Reception};
use crate::diagnose::{Diagnosis, InstanceInfo, Watcher};
use hotr_events::Cause;

pub(super) const PAGE: &str = include_str!("samples/page.txt");
pub(super) const LINES: &str = include_str!("samples/lines.jsonl");

pub(super) fn diagnosis() -> Diagnosis {
    let target = Target {
        pid: Some(42),
        comm: b"app\x1b[2J".to_vec(),
        mechanism: Some(Kind::Inotify),
        fd: Some(5),
        wd: Some(1),
        uid: None,
        container: Some("0123456789abcdef".repeat(4)),
    };
    let mut deaf = Finding::new(Severity::Deaf, Cause::ReplacedFile, Proof::Inferred, target.clone());
    deaf.path = Some(PathBuf::from(OsStr::from_bytes(b"/var/lib/c/a\xff\n.conf")));
    deaf.path_in_target = Some(PathBuf::from(OsStr::from_bytes(b"/etc/a\xff\n.conf")));
    (deaf.watched_ino, deaf.path_ino, deaf.mask) = (Some(1), Some(2), Some(0x8000_0fff));
    deaf.evidence = vec!["inode 1 was \"a\u{202e}\"".to_owned()];
    deaf.remedy = "restart it".to_owned();
    let user = Target { uid: Some(7), ..Target::default() };
    let mut limit = Finding::new(Severity::AtRisk, Cause::Limit, Proof::Inferred, user);
    limit.remedy = "raise it".to_owned();
    let answer = Answer {
        target: Target { wd: None, container: None, ..target },
        path: PathBuf::from("/etc/a"),
        path_ino: Some(2),
        by: vec!["file", "directory"],
        mask: 2,
        write: Reception::Yes,
        replace: Reception::Once(Cause::ReplacedFile, "the old one".to_owned()),
        create: Reception::No(Cause::MaskMismatch, "the mask has no IN_CREATE".to_owned()),
    };
    let watcher = |pid, comm: &[u8], instances, worst| Watcher {
        pid,
        ns_pid: None,
        comm: comm.to_vec(),
        uid: 0,
        container: None,
        instances,
        worst,
    };
    let info = InstanceInfo { fd: 5, kind: Kind::Inotify, watches: 3, unread: Some(2048) };
    let unknown = InstanceInfo { fd: 6, kind: Kind::Fanotify, watches: 1, unread: None };
    Diagnosis {
        watchers: vec![
            watcher(42, b"app\x1b[2J", vec![info], Some(Severity::Deaf)),
            watcher(43, b"other", vec![unknown], None),
        ],
        findings: vec![deaf, limit],
        answers: vec![
            (PathBuf::from("/etc/a"), vec![answer]),
            (PathBuf::from("/etc/b"), Vec::new()),
            (PathBuf::from("/etc/c"), Vec::new()),
        ],
        absent: vec![(PathBuf::from("/etc/c"), "does not exist".to_owned())],
        unreadable: 1,
        without_path: 2,
        notes: Vec::new(),
        took: Duration::from_millis(12),
    }
}
