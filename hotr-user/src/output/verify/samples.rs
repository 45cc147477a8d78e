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
        evidence: Evidence { accounts, facts: vec![("done", 1)] },
        duration: Duration::from_millis(12),
    }
}

pub(super) const LINES: &str = "";
pub(super) const PAGE: &str = "";
