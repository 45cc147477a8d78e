//! What a command starts in a session of its own ends with it; a daemon, whose parent has exited, does not.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::run::{Scratch, Watch, root, until};

/// A command that has a child in a session of its own, which has a child too, and a daemon; it writes their numbers
/// to `pids` once all have their sessions.
fn family(scratch: &Scratch, before: &str, end: &str) -> (String, PathBuf) {
    let pids = scratch.0.join("pids");
    fs::write(&pids, "").unwrap();
    let inner = scratch.script("inner", &format!("{before}\nsleep 1000 & echo own $! $$ >> \"$1\"; wait"));
    let daemon = scratch.script("daemon", "echo daemon $$ >> \"$1\"; exec sleep 1000");
    // `setsid -f` exits at once, so that the daemon's parent has.
    let body =
        format!("umask 0\n{before}\nsetsid {inner} {0} & setsid -f {daemon} {0}\n{end}", pids.display());
    (scratch.script("outer", &body), pids)
}

fn numbers(pids: &Path, kind: &str) -> Vec<i32> {
    let text = fs::read_to_string(pids).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
    lines.flat_map(|line| line.split_whitespace().map(|pid| pid.parse().unwrap())).collect()
}

fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn runs(pid: &i32) -> bool {
    stat(*pid).is_some_and(|stat| stat[0] != "Z" && stat[0] != "X")
}

/// Waits for all of the family's `n`th generation, and checks that none of it is in hotr's session.
fn complete(pids: &Path, n: usize) {
    until("all run", || numbers(pids, "own").len() == 2 * n && numbers(pids, "daemon").len() == n);
    let session = |pid: i32| stat(pid).map(|stat| stat[3].clone());
    let ours = session(std::process::id().cast_signed());
    let all = [numbers(pids, "own"), numbers(pids, "daemon")].concat();
    let living = all.into_iter().filter(runs).collect::<Vec<_>>();
    assert!(living.iter().all(|pid| session(*pid) != ours), "{living:?}");
}

/// The daemons live, and end now.
fn end_daemons(pids: &Path) {
    for pid in numbers(pids, "daemon") {
        assert!(runs(&pid), "a daemon was ended");
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}

#[test]
fn sessions_of_a_command_end_with_hotr_and_daemons_stay() {
    for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
        for args in [&["-r"][..], &[]] {
            let scratch = Scratch::new("sessions");
            let (command, pids) = family(&scratch, "", "wait");
            let watch = Watch::start(args, &scratch.w(), &[&command]);
            complete(&pids, 1);
            watch.end_by(signal);
            let own = numbers(&pids, "own");
            until("they have ended", || !own.iter().any(runs));
            end_daemons(&pids);
        }
    }
}

#[test]
fn sessions_of_a_command_end_when_it_is_restarted() {
    for args in [&["-r"][..], &["-o", "restart"]] {
        let scratch = Scratch::new("restarted");
        let conf = scratch.file("conf", "1");
        let (command, pids) = family(&scratch, "", "wait");
        let watch = Watch::start(args, &scratch.w(), &[&command]);
        complete(&pids, 1);
        let first = numbers(&pids, "own");
        fs::write(&conf, "2").unwrap();
        complete(&pids, 2);
        // Before the second was started.
        assert!(!first.iter().any(runs), "{first:?}");
        watch.end();
        end_daemons(&pids);
    }
}

#[test]
fn sessions_that_ignore_the_stop_signal_are_killed() {
    let scratch = Scratch::new("stubborn");
    let (command, pids) = family(&scratch, "trap '' TERM", "wait");
    let watch = Watch::start(&["-r", "--stop-timeout", "100ms"], &scratch.w(), &[&command]);
    complete(&pids, 1);
    let said = watch.end();
    let own = numbers(&pids, "own");
    until("they have ended", || !own.iter().any(runs));
    assert!(said.contains("killed"), "{said}");
    end_daemons(&pids);
}

#[test]
fn a_check_over_its_time_ends_with_its_sessions() {
    let scratch = Scratch::new("check");
    let conf = scratch.file("conf", "1");
    let (check, pids) = family(&scratch, "", "wait");
    let args = ["-p", "--validate-timeout", "5s", "--validate", &check];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::write(&conf, "2").unwrap();
    watch.reload("invalid");
    complete(&pids, 1);
    let own = numbers(&pids, "own");
    until("they have ended", || !own.iter().any(runs));
    watch.end();
    end_daemons(&pids);
}

#[test]
fn a_command_can_stop_its_sessions_itself() {
    let scratch = Scratch::new("orderly");
    let (got, ready) = (scratch.0.join("got"), scratch.0.join("ready"));
    let inner = format!(
        "trap 'echo term >> {0}' TERM; trap 'echo usr1 >> {0}; exit' USR1\n: > {1}\nwhile :; do sleep 0.02; done",
        got.display(),
        ready.display()
    );
    let inner = scratch.script("inner", &inner);
    // It is the leader that says when.
    let outer = format!("setsid {inner} & child=$!\ntrap 'kill -USR1 $child; wait $child; exit' TERM\nwait");
    let outer = scratch.script("outer", &outer);
    let watch = Watch::start(&["-r"], &scratch.w(), &[&outer]);
    until("it runs", || ready.exists());
    watch.end();
    assert_eq!(fs::read_to_string(&got).unwrap(), "usr1\n");
}

#[test]
fn sessions_of_another_user_end_too() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("user");
    let (command, pids) = family(&scratch, "", "wait");
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    fs::set_permissions(&pids, open).unwrap();
    let args = ["-r", "--user", "65534", "--group", "65534"];
    let watch = Watch::start(&args, &scratch.w(), &[&command]);
    complete(&pids, 1);
    watch.end_by(Signal::HUP);
    let own = numbers(&pids, "own");
    until("they have ended", || !own.iter().any(runs));
    end_daemons(&pids);
}
