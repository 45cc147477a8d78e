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
    watch.until_said("restarting it in 200 ms");
    watch.until_said("restarting it in 400 ms");
    watch.until_said("restarting it in 800 ms");
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
    watch.until_said("did not exit within 200ms of its stop signal: killed");
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
    fails(&scratch, &args, &[], "failed", "not a process id");
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
    assert!(line["why"].as_str().unwrap().contains("it has exited"), "{line}");
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
    watch.until_said("initial state recorded");
    fs::write(&secret, "two, and longer").unwrap();
    let line = watch.reload("started");
    assert_eq!(line["changes"][0]["by"], "size-mtime", "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn what_cannot_be_looked_at_is_not_removed() {
    use std::os::unix::fs::PermissionsExt;
    if !root() {
        return;
    }
    let scratch = Scratch::new("out-of-reach");
    let (file, same) = (scratch.file("d/f", "one"), scratch.file("d/same", "one"));
    let dir = scratch.w().join("d");
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    let copy = scratch.0.join("hotr");
    fs::copy(HOTR, &copy).unwrap();
    let mut hotr = Command::new(copy);
    hotr.args(["watch", "--json", "-v", "-p"]).arg(scratch.w()).args(["--", "true"]).uid(65534).gid(65534);
    let mut watch = Watch::spawn(hotr, &scratch.w());
    watch.until_said("initial state recorded");
    watch.at_once(|| {
        fs::write(&file, "two").unwrap();
        fs::write(&same, "one").unwrap();
        mode(0o000);
    });
    watch.until_said("whether it changed is unknown");
    watch.nothing_but_a_marker();
    mode(0o755);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["d/f"], "{line}");
    assert_eq!(line["changes"][0]["kind"], "written", "{line}");
    watch.reload("done");
    let said = watch.end();
    assert_eq!(said.matches("whether it changed is unknown").count(), 1, "{said}");
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
        (&["watch", "/tmp", "no-such-command"], "put the command after --"),
        (&["watch", "-s", "HUP", "--pid", "1", "--", "true"], "choose one"),
        (&["watch", "--rollback", "--", "true"], "--health"),
        (&["watch", "--validate", "'open", "--", "true"], "a quote is not closed"),
        (&["watch", "-s", "NONSENSE", "--pid", "1"], "is not a signal"),
        (&["watch", "-s", "HUP", "--comm", ""], "'--comm <NAME>': it is empty"),
        (&["watch", "-s", "HUP", "--unit", ""], "'--unit <UNIT>': it is empty"),
        (&["watch", "-s", "HUP", "--pid", "0"], "0 is not in 1.."),
        (&["watch", "-s", "HUP", "--pid", "1", "--unit", "x"], "cannot be used with"),
        (&["watch", "--", ""], "has an empty name"),
        (&["watch", "--shell=", "--", "true"], "'--shell[=<SHELL>]': it is empty"),
        (&["watch", "--validate", "", "--", "true"], "it is empty"),
        (&["watch", "--health", "''", "--", "true"], "it is empty"),
        (&["watch", "-e", "toml,"], "it is empty; write it as toml"),
        (&["watch", "-f", ""], "an empty pattern matches nothing"),
        (&["watch", "-E", "=x", "--", "true"], "write it as KEY=VALUE"),
        (&["watch", "-d", "5"], "a unit is needed, as in 5s"),
        (&["watch", "-d", "18446744073709551615s"], "longer than ten years"),
        (&["watch", "--settle-max", "9999999years"], "longer than ten years"),
        (&["watch", "--delay-run", "584554049253years", "--", "true"], "longer than ten years"),
        (&["watch", "--stop-timeout", "99999999999999999999s", "--", "true"], "longer than ten years"),
        (&["watch", "--validate-timeout=-1s", "--", "true"], "'--validate-timeout <TIME>'"),
        (&["watch", "--poll=18446744073709551615ms"], "longer than ten years"),
        (&["watch", "--poll-budget", "inf%"], "above 0% and at most 100%"),
        (&["watch", "--poll-budget", "nan%"], "above 0% and at most 100%"),
        (&["watch", "--hash-limit", "18446744073709551615G"], "too large"),
        (&["watch", "--hash-limit", "18446744073709551616"], "write it as 512, 64K, 64M or 1G"),
        (&["watch", "--hash-entries", "18446744073709551616"], "'--hash-entries <COUNT>'"),
        (&["watch", "-s", "HUP", "--pid", "2147483648"], "is not in 1.."),
        (&["trace", "--duration", "18446744073709551615s"], "longer than ten years"),
        (&["trace", "--pid", "4294967296"], "is not in 1.."),
        (&["watch", "--hash", "md5"], "possible values: sha256, blake3"),
        (&["watch", "--hash-limit", "64MB"], "write it as 512, 64K, 64M or 1G"),
        (&["watch", "--hash-entries", "0"], "'--hash-entries <COUNT>'"),
        (&["watch", "--poll=1ms"], "at least 100ms"),
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
fn extreme_numbers_that_are_allowed_work() {
    let scratch = Scratch::new("extremes");
    let conf = scratch.file("conf", "1");
    for args in [
        &["-d", "0s", "--settle-max", "0s", "--hash-limit", "0", "--hash-entries", "1"][..],
        &[
            "--settle-max",
            "3650days",
            "--poll=3650days",
            "--poll-budget",
            "100%",
            "--stop-timeout",
            "3650days",
        ],
        &["--hash-limit", "18446744073709551615", "--hash-entries", "18446744073709551615"],
        &["--poll-budget", "1e-300%", "--validate", "true", "--validate-timeout", "3650days"],
        &["--health", "true", "--health-timeout", "3650days"],
    ] {
        let mut watch = Watch::start(args, &scratch.w(), &["true"]);
        fs::write(&conf, format!("{args:?}")).unwrap();
        watch.wait("a reload for the change", |line| line["type"] == "reload" && line["trigger"] == "change");
        watch.reload("done");
        let said = watch.end();
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_change_while_the_command_runs_is_said_once() {
    let scratch = Scratch::new("queued");
    let (conf, go) = (scratch.file("conf", "1"), scratch.0.join("go"));
    let script = scratch.script("run", &format!("while ! [ -e {} ]; do sleep 0.02; done", go.display()));
    let mut watch = Watch::start(&["-p"], &scratch.w(), &[&script]);
    fs::write(&conf, "2").unwrap();
    watch.reload("started");
    fs::write(&conf, "3").unwrap();
    watch.until_said("change queued: command still running (pid ");
    fs::write(&conf, "4").unwrap();
    watch.wait("the last change", |line| line["type"] == "change" && line["size"] == 1);
    fs::write(&go, "").unwrap();
    watch.reload("done");
    watch.reload("started");
    let said = watch.end();
    let told = said.lines().filter_map(|line| line.split_once("change queued: command still running (pid "));
    let mut pids: Vec<u32> = told
        .map(|(_, rest)| rest.strip_suffix("); use -r to restart it").expect("what to do").parse().unwrap())
        .collect();
    let all = pids.len();
    pids.dedup();
    assert_eq!(pids.len(), all, "once for each run: {said}");
}

#[test]
fn nobody_to_signal_is_said_at_the_start() {
    let scratch = Scratch::new("nobody");
    let file = scratch.0.join("pid");
    for (args, want) in [
        (["--pid-file", file.to_str().unwrap()], "No such file"),
        (["--comm", "no-such-task-1"], "none runs"),
        (["--unit", "no-such-unit-1.service"], "unit no-such-unit-1.service"),
    ] {
        let args: Vec<&str> = ["-s", "HUP"].into_iter().chain(args).collect();
        let watch = Watch::start(&args, &scratch.w(), &[]);
        watch.until_said("hotr looks for it again at each change");
        let said = watch.end();
        assert!(said.contains(want), "{args:?}: {said}");
    }
    let mut service = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(&file, service.id().to_string()).unwrap();
    let mut watch = Watch::start(&["-s", "CONT", "--pid-file", file.to_str().unwrap()], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    let said = watch.end();
    assert!(!said.contains("looks for it again"), "{said}");
    service.kill().unwrap();
    service.wait().unwrap();
}

#[test]
fn channels_that_cannot_run_are_said_without_json() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("impaired");
    scratch.file("conf", "1");
    let copy = scratch.0.join("hotr");
    fs::copy(HOTR, &copy).unwrap();
    let mut hotr = Command::new(copy);
    hotr.arg("watch").arg(scratch.w()).uid(65534).gid(65534).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = hotr.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let said = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("channel ebpf is off: ")));
    assert!(said.is_some(), "it ends without saying it");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_signal_ends_hotr_and_its_command() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
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
