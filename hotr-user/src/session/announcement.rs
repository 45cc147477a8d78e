//! Which changes are announcements: `hotr relay --modify` sets the modification time of a file to what it is, to wake watchers
//! of it. No hotr reports that.
//!
//! In: a change. Out: whether it is one. A program that sets times as it likes must not be able to hide that: the thread has the
//! name of the relay's, which anybody may give to a thread, but it is root's, and runs this very program.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hotr_events::{Change, Op};

/// Name of the thread that makes announcements.
pub(crate) const ANNOUNCER: &str = "hotr-relay";

/// See the module.
pub(super) fn is_announcement(change: &Change) -> bool {
    change.op == Op::Attrib
        && change.detail.iter().all(|detail| *detail == "utimes")
        && change
            .actor
            .as_ref()
            .is_some_and(|by| by.uid == 0 && by.comm == ANNOUNCER.as_bytes() && is_this_program(by.pid))
}

/// Whether a process runs the same program file as this one.
pub(crate) fn is_this_program(pid: u32) -> bool {
    let program = |pid: &str| {
        let exe = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((exe.dev(), exe.ino()))
    };
    program(&pid.to_string()).is_some_and(|theirs| program("self") == Some(theirs))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::UNIX_EPOCH;

    use super::*;
    use hotr_events::Actor;

    #[test]
    fn only_what_root_sets_by_this_program_and_that_thread_is_one() {
        let by = |comm: &str, uid, pid| Actor {
            pid,
            tid: pid,
            uid,
            comm: comm.into(),
            exe: None,
            cgroup: None,
            origin: None,
        };
        let change = |op, detail: &'static str, actor| {
            let mut change = Change::new(op, PathBuf::from("/f"), UNIX_EPOCH);
            change.detail = vec![detail.into()];
            change.actor = Some(actor);
            change
        };
        let own = std::process::id();
        assert!(is_announcement(&change(Op::Attrib, "utimes", by(ANNOUNCER, 0, own))));
        for other in [
            change(Op::Attrib, "utimes", by(ANNOUNCER, 1000, own)),
            change(Op::Attrib, "utimes", by("touch", 0, own)),
            // No pid is that large (PID_MAX_LIMIT is 2^22).
            change(Op::Attrib, "utimes", by(ANNOUNCER, 0, 1 << 23)),
            // Whatever its name: it runs another program.
            change(Op::Attrib, "utimes", by(ANNOUNCER, 0, 1)),
            change(Op::Attrib, "chmod", by(ANNOUNCER, 0, own)),
            change(Op::Write, "write", by(ANNOUNCER, 0, own)),
        ] {
            assert!(!is_announcement(&other), "{other:?}");
        }
    }
}
