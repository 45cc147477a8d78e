//! A finding, and how it is printed.

use std::time::Duration;

use crate::verify::evidence::{Account, Event, Evidence, Listener, State};
use crate::verify::{Finding, Ruling, Verdict, catalogue};

/// Every kind of evidence.
pub(super) fn finding() -> Finding {
    let event = |at, what: &[&str], name: Option<&[u8]>, count| Event {
        at,
        what: what.iter().map(|word| (*word).to_owned()).collect(),
        name: name.map(<[u8]>::to_vec),
        cookie: 0,
        count,
    };
    let account = |listener, state, events| Account { listener, state, events };
    let accounts = vec![
        account(
            Listener::Inotify,
            State::Listening,
            vec![event("d", &["MODIFY"], Some(b"f\x1b"), 3), event("d", &["CREATE", "ISDIR"], None, 1)],
        ),
        account(Listener::Fanotify, State::Off("no".to_owned()), Vec::new()),
        account(Listener::Ebpf, State::Silent, Vec::new()),
        account(Listener::Poll, State::Listening, Vec::new()),
    ];
    Finding {
        experiment: catalogue::find("splice").expect("an experiment"),
        ruling: Ruling { verdict: Verdict::Confirmed, why: "the watch on d received MODIFY".to_owned() },
        evidence: Evidence {
            accounts,
            facts: vec![("done", 1)],
            kernel_path: vec![
                "vfs_write by kprobe (inode 1, d/f): write".to_owned(),
                "after: inode 1 (d/f): no marks, i_fsnotify_mask 0".to_owned(),
            ],
            filesystems: vec!["tmpfs"],
            delays: vec![
                (Listener::Inotify, Duration::from_micros(40)),
                (Listener::Ebpf, Duration::from_millis(2)),
            ],
            system_calls: vec!["read(5<anon_inode:inotify>, \"x\", 9) = 9".to_owned()],
        },
        duration: Duration::from_millis(12),
    }
}

/// As JSON Lines, with a summary.
pub(super) const LINES: &str = concat!(
    r#"{"type":"verdict","experiment":"splice","group":"content","#,
    r#""claim":"A splice from a pipe into a file is received as IN_MODIFY.","source":"fs/splice.c, do_splice","#,
    r#""verdict":"confirmed","why":"the watch on d received MODIFY","expected":"refuted","rests_on":["inotify"],"#,
    r#""channels":{"inotify":{"state":"listening","count":4,"events":["d: MODIFY f\\x1b ×3","d: CREATE|ISDIR"]},"#,
    r#""fanotify":{"state":"off","why":"no","count":0,"events":[]},"ebpf":{"state":"silent","count":0,"events":[]},"#,
    r#""poll":{"state":"listening","count":0,"events":[]}},"facts":{"done":1},"#,
    r#""kernel_path":["vfs_write by kprobe (inode 1, d/f): write","after: inode 1 (d/f): no marks, i_fsnotify_mask 0"],"#,
    r#""filesystems":["tmpfs"],"delays_us":{"inotify":40,"ebpf":2000},"#,
    r#""system_calls":["read(5<anon_inode:inotify>, \"x\", 9) = 9"],"duration_ms":12}"#,
    "\n",
    r#"{"type":"summary","experiments":2,"confirmed":1,"refuted":0,"partly":0,"not_testable":1,"differing":1,"#,
    r#""duration_ms":7}"#,
    "\n"
);

/// For humans.
pub(super) const PAGE: &str = r#"CONFIRMED    splice
  claim      A splice from a pipe into a file is received as IN_MODIFY.
  because    the watch on d received MODIFY
  expected   REFUTED, by the saved run
  inotify    d: MODIFY f\x1b ×3, d: CREATE|ISDIR
  fanotify   off: no
  ebpf       received not even the barrier
  poll       nothing
  kernel     vfs_write by kprobe (inode 1, d/f): write
             after: inode 1 (d/f): no marks, i_fsnotify_mask 0
  strace     read(5<anon_inode:inotify>, "x", 9) = 9

CONFIRMED      1
REFUTED        0
PARTLY         0
NOT-TESTABLE   1
total          2 in 0.7 s
1 verdict differs from the saved run
"#;
