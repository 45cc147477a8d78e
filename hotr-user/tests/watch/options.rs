//! Options that change when a reload happens, what it hits, and how much is said.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::run::{HOTR, Scratch, Watch, root, until};

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn what_changes_during_a_command_may_be_dropped() {
    let scratch = Scratch::new("do-nothing");
    let (conf, gate) = (scratch.file("conf", "1"), scratch.0.join("gate"));
    let script = scratch.script("run", &format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    let mut watch = Watch::start(&["-p", "-o", "do-nothing"], &scratch.w(), &[&script]);
    fs::write(&conf, "2").unwrap();
    watch.reload("started");
    scratch.file("during", "x");
    watch.until_said("a change came while the command was running: dropped");
    fs::write(&gate, "").unwrap();
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn what_changes_during_a_command_may_signal_it() {
    let scratch = Scratch::new("busy-signal");
    let conf = scratch.file("conf", "1");
    let script =
        scratch.script("run", "trap 'echo told; exit 0' USR1; echo up; while :; do sleep 0.02; done");
    let args = ["-p", "-o", "signal", "--stop-signal", "USR1"];
    let mut watch = Watch::start(&args, &scratch.w(), &[&script]);
    fs::write(&conf, "2").unwrap();
    watch.until_said("up");
    fs::write(&conf, "3").unwrap();
    watch.reload("done");
    watch.until_said("told");
    watch.end();
}

#[test]
fn a_unit_is_asked_for_its_main_process() {
    let scratch = Scratch::new("unit");
    let conf = scratch.file("conf", "1");
    let (pid_file, got) = (scratch.0.join("pid"), scratch.0.join("got"));
    let body = format!(
        "trap 'echo told >> {}' USR1; echo $$ > {}; while :; do sleep 0.02; done",
        got.display(),
        pid_file.display()
    );
    let mut service = Command::new(scratch.script("svc", &body)).stdin(Stdio::null()).spawn().unwrap();
    until("it runs", || lines(&pid_file) == 1);
    // Answers as systemctl does for this one question, and for no other.
    let want = "show -p MainPID --value -- app.service";
    scratch.script("systemctl", &format!("[ \"$*\" = '{want}' ] || exit 1; cat {}", pid_file.display()));
    let path = format!("{}:{}", scratch.0.display(), std::env::var("PATH").unwrap());
    let mut hotr = Command::new(HOTR);
    hotr.env("PATH", path).args(["watch", "--json", "-s", "USR1", "--unit", "app.service"]).arg(scratch.w());
    let mut watch = Watch::spawn(hotr, &scratch.w());
    fs::write(&conf, "2").unwrap();
    watch.reload("done");
    until("it got the signal", || lines(&got) == 1);
    fs::write(&pid_file, "0\n").unwrap();
    fs::write(&conf, "3").unwrap();
    let line = watch.reload("failed");
    assert!(line["why"].as_str().unwrap().contains("it has no main process"), "{line}");
    watch.end();
    service.kill().unwrap();
    service.wait().unwrap();
}

/// systemctl waits for a service manager that does not answer.
#[test]
fn a_unit_that_is_waited_for_holds_nothing_back() {
    let scratch = Scratch::new("slow-unit");
    let (conf, gate) = (scratch.file("conf", "1"), scratch.0.join("gate"));
    scratch.script(
        "systemctl",
        &format!("while [ ! -e {} ]; do sleep 0.02; done; echo no bus >&2", gate.display()),
    );
    let path = format!("{}:{}", scratch.0.display(), std::env::var("PATH").unwrap());
    let mut hotr = Command::new(HOTR);
    hotr.env("PATH", path).args(["watch", "--json", "-v", "-s", "USR1", "--unit", "app"]).arg(scratch.w());
    let mut watch = Watch::spawn(hotr, &scratch.w());
    fs::write(&conf, "2").unwrap();
    watch.reload("started");
    scratch.file("during", "x");
    watch.wait("it is heard", |line| line["type"] == "change" && line["op"] == "create");
    fs::write(&gate, "").unwrap();
    let line = watch.reload("failed");
    assert!(line["why"].as_str().unwrap().contains("systemctl said: no bus"), "{line}");
    watch.end();
}

#[test]
fn quiet_says_nothing_but_what_went_wrong() {
    let scratch = Scratch::new("quiet");
    let (conf, ran, said) = (scratch.file("conf", "1"), scratch.0.join("ran"), scratch.0.join("said"));
    let script = scratch
        .script("run", &format!("echo >> {}; [ \"$(cat {})\" != bad ]", ran.display(), conf.display()));
    let mut hotr = Command::new(HOTR);
    hotr.args(["watch", "-q"]).arg(scratch.w()).args(["--", &script]);
    let mut hotr = hotr.stdin(Stdio::null()).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    until("the run at the start", || lines(&ran) == 1);
    fs::write(&conf, "2").unwrap();
    until("the run for a change", || lines(&ran) == 2);
    fs::write(&conf, "bad").unwrap();
    until("the run that fails is told", || lines(&said) == 1);
    kill_process(Pid::from_child(&hotr), Signal::TERM).unwrap();
    assert_eq!(hotr.wait().unwrap().code(), Some(0));
    let said = fs::read_to_string(&said).unwrap();
    assert!(said.lines().count() == 1 && said.contains("failed"), "{said}");
}

#[test]
fn a_run_may_be_delayed() {
    let scratch = Scratch::new("delay");
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::start(&["-p", "--delay-run", "400ms"], &scratch.w(), &["true"]);
    fs::write(&conf, "2").unwrap();
    watch.reload("started");
    // What comes during the delay is the next reload.
    scratch.file("during", "x");
    let line = watch.reload("done");
    assert!(line["duration_ms"].as_u64().unwrap() >= 400, "{line}");
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["during"], "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn only_paths_that_match() {
    let scratch = Scratch::new("only");
    let mut watch = Watch::start(&["-p", "-f", "*.conf", "-f", "sub/*"], &scratch.w(), &["true"]);
    watch.at_once(|| {
        for name in ["a.txt", "a.conf", "sub/x.txt", "other/y.txt"] {
            scratch.file(name, "x");
        }
    });
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["a.conf", "sub/x.txt"], "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn a_forgotten_content_counts_as_changed() {
    let scratch = Scratch::new("entries");
    let files = [scratch.file("a", "one"), scratch.file("b", "two")];
    let mut watch = Watch::start(&["-p", "--hash-entries", "1"], &scratch.w(), &["true"]);
    // Only one of the two was remembered.
    watch.at_once(|| {
        fs::write(&files[0], "one").unwrap();
        fs::write(&files[1], "two").unwrap();
    });
    let line = watch.reload("started");
    let changes = line["changes"].as_array().unwrap();
    assert!(!changes.is_empty(), "{line}");
    assert!(changes.iter().all(|change| change["by"] == "unknown-before"), "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn writers_are_found_without_leases() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("no-lease");
    let conf = scratch.file("conf", "old");
    // Neither its owner nor one with CAP_LEASE may take a lease on it.
    std::os::unix::fs::chown(&conf, Some(12), None).unwrap();
    let mut hotr = Command::new("setpriv");
    hotr.args(["--bounding-set", "-lease", HOTR, "watch", "--json", "-v", "-p", "-d", "10ms"]);
    hotr.arg(scratch.w()).args(["--", "true"]);
    let watch = Watch::spawn(hotr, &scratch.w());
    let capabilities = fs::read_to_string(format!("/proc/{}/status", watch.pid())).unwrap();
    let effective = capabilities.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    assert_eq!(effective >> 28 & 1, 0, "CAP_LEASE is gone: {effective:x}");
    watch.reloads_when_written(&conf);
}

/// How long a turn on the processor a process has, in nanoseconds; 0 from kernels that do not show it.
fn turn(pid: u32) -> u64 {
    // SAFETY: plain integers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: a pointer to a live structure of the size that is named.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut attributes, size, 0) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    attributes.sched_runtime
}

#[test]
fn hotr_asks_for_short_turns_and_its_commands_have_what_it_was_started_with() {
    let scratch = Scratch::new("turns");
    let mut hotr = Command::new(HOTR);
    hotr.args(["watch", "--json", "-r"]).arg(scratch.w());
    hotr.args(["--", "sh", "-c", "echo pid=$$.; exec sleep 1000"]);
    let watch = Watch::spawn(hotr, &scratch.w());
    watch.until_said(".\n");
    let said = watch.said();
    let command = said.lines().find_map(|line| line.strip_prefix("pid=")?.strip_suffix('.')).unwrap();
    let usual = turn(std::process::id());
    assert_eq!(turn(command.parse().unwrap()), usual);
    let stat = fs::read_to_string(format!("/proc/{}/stat", watch.pid())).unwrap();
    // Where it preempts nobody, short turns are of no use.
    let asks = policy(&stat) == libc::SCHED_OTHER && usual != 0;
    assert_eq!(turn(watch.pid()), if asks { 100_000 } else { usual });
    watch.end();
}

/// `kernel/sched`: field 41 of stat, counted behind the name in brackets.
fn policy(stat: &str) -> i32 {
    stat.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap().trim().parse().unwrap()
}

#[test]
fn commands_have_the_scheduling_policy_hotr_was_started_with() {
    for start in [libc::SCHED_OTHER, libc::SCHED_BATCH] {
        let scratch = Scratch::new("policy");
        let mut hotr = Command::new(HOTR);
        hotr.args(["watch", "--json"]).arg(scratch.w()).args(["--", "cat", "/proc/self/stat"]);
        let set = move || {
            let priority = libc::sched_param { sched_priority: 0 };
            // SAFETY: one system call between fork and exec, with a pointer to a live structure.
            match unsafe { libc::sched_setscheduler(0, start, &raw const priority) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: as above.
        unsafe { hotr.pre_exec(set) };
        let mut watch = Watch::spawn(hotr, &scratch.w());
        watch.reload("done");
        watch.until_said("(cat) ");
        until("the whole line", || watch.said().lines().any(|line| line.contains("(cat) ")));
        let said = watch.said();
        let cat = said.lines().find(|line| line.contains("(cat) ")).unwrap();
        assert_eq!(policy(cat), start, "{said}");
        let own = policy(&fs::read_to_string(format!("/proc/{}/stat", watch.pid())).unwrap());
        // It leaves the normal policy where its programs can be preempted; the kernel may say that nothing can.
        let ebpf = &watch.heard[0]["channels"]["ebpf"];
        let may_leave = ebpf["state"] == "active" && ebpf["tier"] != "kprobe" && start == libc::SCHED_OTHER;
        assert!(own == start || may_leave && own == libc::SCHED_BATCH, "{own}, {ebpf}");
        if may_leave && ebpf["tier"] == "fentry" && !Path::new("/sys/kernel/debug/sched/preempt").exists() {
            assert_eq!(own, libc::SCHED_BATCH, "hotr itself has another");
        }
        watch.end();
    }
}
