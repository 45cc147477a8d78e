//! Commands that cannot run, processes that cannot be signalled, checks that hang: each has a clear line.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::run::{HOTR, Scratch, Watch, root, until};

/// The reload fails, and its line says why.
fn fails(scratch: &Scratch, args: &[&str], command: &[&str], state: &str, why: &str) {
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::start(args, &scratch.w(), command);
    fs::write(&conf, "2").unwrap();
    let line = watch.reload(state);
    assert!(line["why"].as_str().unwrap_or_default().contains(why), "{line}");
    watch.end();
}

#[test]
fn a_command_that_cannot_be_run() {
    let scratch = Scratch::new("cannot");
    fails(&scratch, &["-p"], &["/no/such/command"], "failed", "not found");
    let plain = scratch.0.join("plain");
    fs::write(&plain, "echo").unwrap();
    fails(&scratch, &["-p"], &[plain.to_str().unwrap()], "failed", "not executable");
    fails(&scratch, &["-p", "--workdir", "/no/such/dir"], &["true"], "failed", "working directory");
}

#[test]
fn a_service_that_exits_at_once_is_backed_off() {
    let scratch = Scratch::new("loop");
    let watch = Watch::start(&["-r"], &scratch.w(), &["false"]);
    watch.until_said("starting it again in 200 ms");
    watch.until_said("starting it again in 400 ms");
    watch.until_said("starting it again in 800 ms");
    watch.end();
}

#[test]
fn a_service_that_ignores_its_stop_signal_is_killed() {
    let scratch = Scratch::new("stubborn");
    let conf = scratch.file("conf", "1");
    let script = scratch.script("serve", "trap '' TERM; echo up >&2; while :; do sleep 0.05; done");
    let mut watch = Watch::start(&["-r", "--stop-timeout", "200ms"], &scratch.w(), &[&script]);
    watch.until_said("up");
    fs::write(&conf, "2").unwrap();
    watch.until_said("did not end within 200ms of its stop signal: killed");
    watch.reload("started");
    watch.end();
}

#[test]
fn pid_files_that_name_nobody() {
    let scratch = Scratch::new("pid-file");
    let file = scratch.0.join("pid");
    let args = ["-s", "HUP", "--pid-file", file.to_str().unwrap()];
    fails(&scratch, &args, &[], "failed", "No such file");
    fs::write(&file, "").unwrap();
    fails(&scratch, &args, &[], "failed", "it is empty");
    fs::write(&file, "words").unwrap();
    fails(&scratch, &args, &[], "failed", "no process id");
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    fs::write(&file, gone.id().to_string()).unwrap();
    fails(&scratch, &args, &[], "failed", "stale");
    // A process that was started long after the file was written is not the one that wrote it.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(&file, other.id().to_string()).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    fails(&scratch, &args, &[], "failed", "was started after the file was written");
    assert!(other.try_wait().unwrap().is_none(), "it was not signalled");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_process_of_another_user_is_refused() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("other-user");
    let file = scratch.0.join("pid");
    let mut other = Command::new("sleep").arg("1000").uid(65534).gid(65534).spawn().unwrap();
    fs::write(&file, other.id().to_string()).unwrap();
    std::os::unix::fs::chown(&file, Some(1), Some(1)).unwrap();
    let args = ["-s", "HUP", "--pid-file", file.to_str().unwrap()];
    fails(&scratch, &args, &[], "failed", "belongs to user 1, and process");
    assert!(other.try_wait().unwrap().is_none(), "it was not signalled");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_process_that_may_not_be_signalled() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("not-allowed");
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let conf = scratch.file("conf", "1");
    let copy = scratch.0.join("hotr");
    fs::copy(HOTR, &copy).unwrap();
    let mut hotr = Command::new(copy);
    hotr.args(["watch", "--json", "-s", "HUP", "--pid", &other.id().to_string()]).arg(scratch.w());
    hotr.uid(65534).gid(65534);
    let mut watch = Watch::spawn(hotr, &scratch.w());
    fs::write(&conf, "2").unwrap();
    let line = watch.reload("failed");
    let why = line["why"].as_str().unwrap();
    assert!(why.contains("it belongs to user 0; run hotr as that user or as root"), "{line}");
    assert!(other.try_wait().unwrap().is_none(), "it was not signalled");
    other.kill().unwrap();
    other.wait().unwrap();
    watch.end();
}

#[test]
fn a_recycled_pid_is_not_hit() {
    let scratch = Scratch::new("recycled");
    let mut service = Command::new("sleep").arg("1000").spawn().unwrap();
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::start(&["-s", "HUP", "--pid", &service.id().to_string()], &scratch.w(), &[]);
    service.kill().unwrap();
    service.wait().unwrap();
    fs::write(&conf, "2").unwrap();
    let line = watch.reload("failed");
    assert!(line["why"].as_str().unwrap().contains("it has ended"), "{line}");
    watch.end();
}

#[test]
fn a_validation_that_fails_or_hangs_keeps_the_reload_back() {
    let scratch = Scratch::new("validate");
    let ran = scratch.0.join("ran");
    let run = scratch.script("run", &format!("touch {}", ran.display()));
    let bad = scratch.script("bad", "echo line 3 is wrong >&2; exit 7");
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::start(&["-p", "--validate", &bad], &scratch.w(), &[&run]);
    fs::write(&conf, "2").unwrap();
    let line = watch.reload("invalid");
    assert_eq!(line["status"], 7, "{line}");
    watch.until_said("line 3 is wrong");
    watch.end();
    let args = ["-p", "--validate", "sleep 1000", "--validate-timeout", "200ms"];
    fails(&scratch, &args, &[&run], "invalid", "no answer within 200ms: killed");
    assert!(!ran.exists());
}

#[test]
fn health_that_comes_and_goes_slows_reloads_down() {
    let scratch = Scratch::new("flap");
    let conf = scratch.file("conf", "0");
    let args = ["-p", "--health", "false", "--health-timeout", "100ms"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    for number in 1..4 {
        fs::write(&conf, number.to_string()).unwrap();
        watch.reload("unhealthy");
    }
    watch.until_said("health failed after 2 of the last 2 reloads; the next one waits 1s");
    watch.end();
}

#[test]
fn unreadable_files_are_compared_by_size_and_time() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("unreadable");
    let secret = scratch.file("secret", "one");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let copy = scratch.0.join("hotr");
    fs::copy(HOTR, &copy).unwrap();
    let mut hotr = Command::new(copy);
    hotr.args(["watch", "--json", "-v", "-p"]).arg(scratch.w()).args(["--", "true"]).uid(65534).gid(65534);
    let mut watch = Watch::spawn(hotr, &scratch.w());
    watch.until_said(" files is known");
    fs::write(&secret, "two, and longer").unwrap();
    let line = watch.reload("started");
    assert_eq!(line["changes"][0]["by"], "size-mtime", "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn a_pipe_in_the_tree_is_not_waited_for() {
    let scratch = Scratch::new("fifo");
    assert!(Command::new("mkfifo").arg(scratch.w().join("pipe")).status().unwrap().success());
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn wrong_command_lines() {
    for (args, want) in [
        (&["watch", "-s", "HUP"][..], "--signal needs --pid"),
        (&["watch", "-r"], "--restart needs a command"),
        (&["watch", "/tmp", "no-such-command"], "a command goes after --"),
        (&["watch", "-s", "HUP", "--pid", "1", "--", "true"], "choose one"),
        (&["watch", "--rollback", "--", "true"], "--health"),
        (&["watch", "--validate", "'open", "--", "true"], "a quote is open"),
        (&["watch", "-s", "NONSENSE", "--pid", "1"], "is not a signal"),
        (&["watch", "-s", "HUP", "--comm", ""], "'--comm <NAME>': it is empty"),
        (&["watch", "-s", "HUP", "--unit", ""], "'--unit <UNIT>': it is empty"),
        (&["watch", "-s", "HUP", "--pid", "0"], "0 is not in 1.."),
        (&["watch", "-s", "HUP", "--pid", "1", "--unit", "x"], "cannot be used with"),
        (&["watch", "--", ""], "has an empty name"),
        (&["watch", "--shell=", "--", "true"], "'--shell[=<SHELL>]': it is empty"),
        (&["watch", "--validate", "", "--", "true"], "nothing is there"),
        (&["watch", "--health", "''", "--", "true"], "nothing is there"),
        (&["watch", "-e", "toml,"], "it is empty; write it as toml"),
        (&["watch", "-f", ""], "an empty pattern matches nothing"),
        (&["watch", "-E", "=x", "--", "true"], "write it as KEY=VALUE"),
        (&["watch", "-d", "5"], "a unit is needed, as in 5s"),
        (&["watch", "--hash", "md5"], "possible values: sha256, blake3"),
        (&["watch", "--hash-limit", "64MB"], "write it as 512, 64K, 64M or 1G"),
        (&["watch", "--hash-entries", "0"], "'--hash-entries <COUNT>'"),
        (&["watch", "--poll=1ms"], "less than 100ms"),
        (&["watch", "--poll-budget", "0%"], "above 0% and at most 100%"),
        (&["watch", "--poll", "--no-poll"], "cannot be used with"),
        (&["watch", "-r", "-o", "queue", "--", "true"], "cannot be used with"),
        (&["watch", "-q", "-v"], "cannot be used with"),
        (&["watch", "--backup-dir", "/tmp", "--", "true"], "--rollback"),
        (&["watch", "--tier", "kprobe", "--channels", "inotify"], "--channels leaves ebpf out"),
    ] {
        let output = Command::new(HOTR).args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{args:?}: {said}");
        assert!(said.contains(want), "{args:?}: {said}");
    }
}

#[test]
fn a_signal_ends_hotr_and_its_command() {
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = Scratch::new("end");
        let pids = scratch.0.join("pids");
        let script = scratch.script("run", &format!("sleep 1000 & echo $$ $! > {}; wait", pids.display()));
        let watch = Watch::start(&[], &scratch.w(), &[&script]);
        until("it runs", || fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
        let all = fs::read_to_string(&pids).unwrap();
        watch.end_by(signal);
        for pid in all.split_whitespace() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z"), "left: {stat}");
        }
    }
}
