//! Commands, services and signals.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::run::{Scratch, Watch, until};

fn text(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_change_during_a_reload_is_not_forgotten() {
    let scratch = Scratch::new("queue");
    let conf = scratch.file("conf", "1");
    let gate = scratch.0.join("gate");
    let script = scratch.script("run", &format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    let mut watch = Watch::start(&["-p"], &scratch.w(), &[&script]);
    fs::write(&conf, "2").unwrap();
    watch.reload("started");
    fs::write(&conf, "3").unwrap();
    fs::write(scratch.w().join("second"), "x").unwrap();
    watch.wait("the change is heard", |line| line["type"] == "change" && line["op"] == "create");
    fs::write(&gate, "").unwrap();
    watch.reload("done");
    // A second write within the settling time of the first is reported at its end: it may take a further reload.
    let mut names = Vec::new();
    while names.len() < 2 {
        let line = watch.reload("started");
        names.extend(watch.names(&line));
        watch.reload("done");
    }
    names.sort();
    assert_eq!(names, ["conf", "second"]);
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn busy_policies() {
    for (policy, want) in [("restart", "replaced"), ("signal", "failed")] {
        let scratch = Scratch::new(policy);
        let conf = scratch.file("conf", "1");
        let script = scratch.script("run", "[ -e ../w/stop ] && exit 0; echo up; exec sleep 1000");
        let args =
            ["-p", "-o", policy, "--workdir", scratch.0.join("w").to_str().unwrap()].map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut watch = Watch::start(&args, &scratch.w(), &[&script]);
        fs::write(&conf, "2").unwrap();
        watch.until_said("up");
        fs::write(scratch.w().join("stop"), "x").unwrap();
        watch.reload(want);
        if policy == "restart" {
            let line = watch.reload("started");
            assert_eq!(watch.names(&line), ["stop"]);
            watch.reload("done");
        }
        watch.end();
    }
}

#[test]
fn a_service_is_started_anew_and_ends_with_hotr() {
    let scratch = Scratch::new("service");
    let conf = scratch.file("conf", "1");
    let pids = scratch.0.join("pids");
    // Two processes: both must go.
    let script = scratch.script("serve", &format!("sleep 1000 & echo $$ $! >> {}; wait", pids.display()));
    let mut watch = Watch::start(&["-r"], &scratch.w(), &[&script]);
    watch.reload("done");
    until("it runs", || text(&pids).lines().count() == 1);
    fs::write(&conf, "2").unwrap();
    watch.reload("done");
    until("it runs anew", || text(&pids).lines().count() == 2);
    let all: Vec<String> = text(&pids).split_whitespace().map(str::to_owned).collect();
    let runs = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z")
    };
    assert!(!runs(&all[0]) && !runs(&all[1]) && runs(&all[2]) && runs(&all[3]), "{all:?}");
    watch.end();
    until("all of it has gone", || !all.iter().any(runs));
}

#[test]
fn a_command_learns_what_changed() {
    for (emit, print) in [
        ("env", "echo $WATCHEXEC_COMMON_PATH $WATCHEXEC_WRITTEN_PATH"),
        ("stdin", "cat"),
        ("file", "cat $HOTR_CHANGES_FILE"),
    ] {
        let scratch = Scratch::new(emit);
        let conf = scratch.file("conf", "1");
        let out = scratch.0.join("out");
        let script = scratch.script("run", &format!("{{ {print}; }} > {}", out.display()));
        let mut watch = Watch::start(&["-p", "--emit", emit], &scratch.w(), &[&script]);
        fs::write(&conf, "2").unwrap();
        watch.reload("done");
        let got = text(&out);
        if emit == "env" {
            assert_eq!(got, format!("{} conf\n", scratch.w().display()));
        } else {
            let line: serde_json::Value = serde_json::from_str(&got).expect(&got);
            assert_eq!((&line["kind"], &line["path"]), (&"written".into(), &conf.to_str().unwrap().into()));
        }
        watch.end();
    }
}

#[test]
fn a_running_service_gets_a_signal() {
    let scratch = Scratch::new("signal");
    let conf = scratch.file("conf", "1");
    let (pid_file, got) = (scratch.0.join("pid"), scratch.0.join("got"));
    let body = format!(
        "trap 'echo told >> {}' USR1; echo $$ > {}; while :; do sleep 0.02; done",
        got.display(),
        pid_file.display()
    );
    // Longer than what the kernel keeps of it.
    let name = "hotr-svc-of-a-long-name";
    let script = scratch.script(name, &body);
    // Not by HUP: under nohup a shell cannot trap it.
    let mut service = Command::new(&script).stdin(Stdio::null()).spawn().unwrap();
    until("it runs", || !text(&pid_file).is_empty());
    let pid = service.id().to_string();
    let by_file = pid_file.to_str().unwrap();
    // By its name last: a child of the shell has that name too until it is `sleep`, and may be hit as well.
    for target in [["--pid-file", by_file], ["--pid", &pid], ["--comm", name]] {
        let before = text(&got).lines().count();
        let mut watch = Watch::start(&["-s", "USR1", target[0], target[1]], &scratch.w(), &[]);
        fs::write(&conf, format!("for {target:?}")).unwrap();
        watch.reload("done");
        until("it got the signal", || text(&got).lines().count() > before);
        watch.end();
    }
    service.kill().unwrap();
    service.wait().unwrap();
}

#[test]
fn a_command_that_triggers_itself_is_slowed_down_and_a_real_edit_is_not() {
    let scratch = Scratch::new("loop");
    let (stamp, other) = (scratch.file("stamps/stamp", ""), scratch.file("src/main", "1"));
    let script = scratch.script("run", &format!("echo >> {}", stamp.display()));
    let mut watch = Watch::start(&["-d", "10ms"], &scratch.w(), &[&script]);
    watch.until_said(&format!("3 reloads in a row were for {}", stamp.display()));
    // Until two starts are more than a second apart by hotr's own clock: the loop is slow.
    let mut starts: Vec<std::time::Instant> = Vec::new();
    while starts.len() < 2
        || starts[starts.len() - 1] - starts[starts.len() - 2] < std::time::Duration::from_secs(1)
    {
        assert!(starts.len() < 20, "it is not slowed down");
        watch.reload("started");
        starts.push(std::time::Instant::now());
    }
    // The next is held for longer still.
    watch.reload("done");
    let edited = std::time::Instant::now();
    fs::write(&other, "2").unwrap();
    let line = watch.wait("a reload for the edit", |line| {
        line["type"] == "reload" && line["state"] == "started" && line.to_string().contains("src/main")
    });
    let took = edited.elapsed();
    assert!(took < std::time::Duration::from_millis(1_500), "{took:?}: {line}");
    let said = watch.end();
    assert_eq!(said.matches("reloads in a row").count(), 1, "{said}");
}

#[test]
fn sigusr1_asks_for_a_reload() {
    let scratch = Scratch::new("usr1");
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    watch.send(Signal::USR1);
    let line = watch.reload("started");
    assert_eq!(line["trigger"], "request");
    watch.reload("done");
    watch.end();
}

#[test]
fn without_json_stdout_is_the_commands() {
    let scratch = Scratch::new("plain");
    let out = scratch.0.join("out");
    let mut hotr = Command::new(super::run::HOTR);
    hotr.arg("watch").arg(scratch.w()).args(["--shell", "--", "echo", "hello"]);
    let mut child = hotr.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    until("its output", || text(&out) == "hello\n");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(text(&out), "hello\n");
}

#[test]
fn the_first_reload_for_a_change_is_enough() {
    for (end, state, status) in [("exit 0", "done", 0), ("exit 7", "failed", 1)] {
        let scratch = Scratch::new("once");
        let conf = scratch.file("conf", "1");
        let script = scratch.script("run", end);
        let mut watch = Watch::start(&["--once", "--channels", "inotify"], &scratch.w(), &[&script]);
        // The run at the start does not count.
        watch.wait("its end", |line| line["trigger"] == "start" && line["state"] == state);
        fs::write(&conf, "2").unwrap();
        let line = watch.reload(state);
        assert_eq!((&line["trigger"], &line["seq"]), (&"change".into(), &2.into()), "{line}");
        watch.wait("the summary", |line| line["type"] == "summary");
        assert_eq!(watch.ended(), Some(status), "{}", watch.said());
    }
}

#[test]
fn lines_have_colour_and_time_when_asked() {
    let scratch = Scratch::new("look");
    let conf = scratch.file("conf", "1");
    let mut hotr = Command::new(super::run::HOTR);
    hotr.args(["watch", "--once", "-p", "-v", "--channels", "inotify", "--color", "always", "--timestamps"]);
    let said = scratch.0.join("said");
    hotr.arg(scratch.w()).args(["--", "false"]).env("TZ", "UTC").stderr(fs::File::create(&said).unwrap());
    let mut child = hotr.stdin(Stdio::null()).spawn().unwrap();
    until("it knows the files", || text(&said).contains("initial state recorded"));
    fs::write(&conf, "2").unwrap();
    let mut status = None;
    until("the end of hotr", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let said = text(&said);
    let failed = said.lines().find(|line| line.contains("reload #1: failed")).expect(&said);
    let (time, rest) = failed.strip_prefix("\x1b[2m").unwrap().split_once("\x1b[0m  ").unwrap();
    let digits = time.split([':', '.']).map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
    assert_eq!((digits.len(), time.len()), (4, 12), "{time}");
    assert_eq!(rest, "hotr: \x1b[31mreload #1: failed, exit status 1\x1b[0m");
}
