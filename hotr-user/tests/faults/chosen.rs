//! What the options choose is reported, and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::cgroup::Cgroup;
use super::place::Scratch;
use super::run::{HOTR, Run, changes, ebpf, path_of, spawn, until};
use super::witness::store;

/// Options that need no privilege.
fn heard(options: &[&str], dir: &Path) -> Run {
    Run::start(&[&["--channels", "inotify"], options].concat(), dir)
}

/// Operations and names, in order, of all that was reported.
fn told(lines: &[Value], dir: &Path) -> Vec<(String, String)> {
    let name = |line: &Value| path_of(line).strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    changes(lines).map(|line| (line["op"].as_str().unwrap().to_owned(), name(line))).collect()
}

fn want(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(op, name)| ((*op).to_owned(), (*name).to_owned())).collect()
}

#[test]
fn only_these_operations() {
    let scratch = Scratch::new("ops");
    let dir = scratch.0.clone();
    let mut run = heard(&["--op", "rename,remove"], &dir);
    fs::write(dir.join("a"), "x").unwrap();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    fs::remove_file(dir.join("b")).unwrap();
    run.change("remove", &dir.join("b"));
    assert_eq!(told(&run.end(), &dir), want(&[("rename", "b"), ("remove", "b")]));
}

#[test]
fn paths_that_match_are_left_out() {
    let scratch = Scratch::new("exclude");
    let dir = scratch.0.clone();
    fs::create_dir(dir.join("skip")).unwrap();
    let mut run = heard(&["--op", "create", "--exclude", "skip", "--exclude", "*.tmp"], &dir);
    for name in ["skip/a", "b.tmp", "c.tmpx", "end"] {
        fs::write(dir.join(name), "").unwrap();
    }
    run.change("create", &dir.join("end"));
    assert_eq!(told(&run.end(), &dir), want(&[("create", "c.tmpx"), ("create", "end")]));
}

#[test]
fn files_are_chosen_as_in_watch() {
    let scratch = Scratch::new("names");
    let dir = scratch.0.clone();
    fs::create_dir(dir.join("sub")).unwrap();
    let args = ["-e", "conf,tar.gz", "-f", "/sub/*.x", "-i", "skip*", "--op", "create,delete"];
    let mut run = heard(&args, &dir);
    for name in ["a.conf", "b.gz", "c.tar.gz", "d.x", "sub/e.x", "skip.conf", "end.conf"] {
        fs::write(dir.join(name), "").unwrap();
    }
    fs::create_dir(dir.join("dir.conf")).unwrap();
    for name in ["b.gz", "end.conf"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    run.change("remove", &dir.join("end.conf"));
    let names = ["a.conf", "c.tar.gz", "sub/e.x", "end.conf"].map(|name| ("create", name));
    assert_eq!(told(&run.end(), &dir), want(&[&names[..], &[("remove", "end.conf")]].concat()));
}

#[test]
fn only_the_named_directory() {
    let scratch = Scratch::new("flat");
    let dir = scratch.0.clone();
    fs::create_dir(dir.join("sub")).unwrap();
    let mut run = heard(&["--op", "create", "--no-recursive"], &dir);
    fs::write(dir.join("sub/a"), "").unwrap();
    fs::create_dir(dir.join("new")).unwrap();
    fs::write(dir.join("new/a"), "").unwrap();
    fs::write(dir.join("end"), "").unwrap();
    run.change("create", &dir.join("end"));
    assert_eq!(told(&run.end(), &dir), want(&[("create", "new"), ("create", "end")]));
}

/// Who wrote is known by eBPF alone.
#[test]
fn only_these_writers() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("writers");
    let dir = scratch.0.clone();
    // Longer than what the kernel keeps of it.
    let other = dir.join("writer-of-a-long-name");
    fs::copy("/bin/cp", &other).unwrap();
    let touched = scratch.dir("d");
    let by_comm = ["--channels", "ebpf", "--op", "create", "--comm", "writer-of-a-long-name"];
    let own = std::process::id().to_string();
    let by_pid = ["--channels", "ebpf", "--op", "create", "--pid", &own];
    let mut runs = [Run::start(&by_comm, &touched), Run::start(&by_pid, &touched)];
    fs::write(touched.join("by-test"), "").unwrap();
    let status = Command::new(&other)
        .args([Path::new("/dev/null"), &touched.join("by-other")])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    fs::write(touched.join("by-test-2"), "").unwrap();
    runs[0].change("create", &touched.join("by-other"));
    runs[1].change("create", &touched.join("by-test-2"));
    let [by_comm, by_pid] = runs.map(|run| told(&run.end(), &touched));
    assert_eq!(by_comm, want(&[("create", "by-other")]));
    assert_eq!(by_pid, want(&[("create", "by-test"), ("create", "by-test-2")]));
}

/// By number and by name.
#[test]
fn only_these_users() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("users");
    let dir = scratch.dir("d");
    let mut runs = ["0", "root,1", "12345"]
        .map(|users| Run::start(&["--channels", "ebpf", "--op", "create", "--uid", users], &dir));
    let by_other = |name: &str| {
        let mut command = Command::new("touch");
        let status = command.arg(dir.join(name)).uid(12345).stdin(Stdio::null()).status().unwrap();
        assert!(status.success());
    };
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(scratch.0.as_path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("by-root"), "").unwrap();
    by_other("by-other");
    fs::write(dir.join("by-root-2"), "").unwrap();
    by_other("by-other-2");
    runs[0].change("create", &dir.join("by-root-2"));
    runs[1].change("create", &dir.join("by-root-2"));
    runs[2].change("create", &dir.join("by-other-2"));
    let [by_number, by_name, by_other] = runs.map(|run| told(&run.end(), &dir));
    assert_eq!(by_number, want(&[("create", "by-root"), ("create", "by-root-2")]));
    assert_eq!(by_name, by_number);
    assert_eq!(by_other, want(&[("create", "by-other"), ("create", "by-other-2")]));
}

/// By its unit, its container, and a cgroup above it.
#[test]
fn only_these_groups() {
    if !ebpf() {
        return;
    }
    let unit = format!("hotr-test-{}", std::process::id());
    let Some(cgroup) = Cgroup::new(&format!("{unit}.service/0123456789abcdef")) else { return };
    let scratch = Scratch::new("groups");
    let dir = scratch.dir("d");
    let above = format!("/{unit}.service");
    let groups = [["--unit", &unit], ["--container", "01234567"], ["--cgroup", &above]];
    let other = ["--cgroup", "/hotr-tes"];
    // A unit without a process would be named on stderr.
    let _held = cgroup.hold();
    let start =
        |[kind, name]: [&str; 2]| Run::start(&["--channels", "ebpf", "--op", "create", kind, name], &dir);
    let mut runs = groups.map(start);
    let unrelated = start(other);
    fs::write(dir.join("by-test"), "").unwrap();
    cgroup.run(Command::new("touch").arg(dir.join("by-unit")));
    runs.iter_mut().for_each(|run| drop(run.change("create", &dir.join("by-unit"))));
    for run in runs {
        assert_eq!(told(&run.end(), &dir), want(&[("create", "by-unit")]));
    }
    assert_eq!(told(&unrelated.end(), &dir), want(&[]));
}

#[test]
fn only_what_a_channel_missed() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("missed");
    let dir = scratch.0.clone();
    fs::File::create(dir.join("mapped")).unwrap().set_len(4096).unwrap();
    let mut run = Run::start(&["--missed"], &dir);
    fs::write(dir.join("notified"), "x").unwrap();
    store(&dir.join("mapped"));
    fs::write(dir.join("notified"), "y").unwrap();
    let line = run.change("write", &dir.join("mapped"));
    assert_eq!(line["missed_by"][0]["cause"], "mmap", "{line}");
    assert_eq!(told(&run.end(), &dir), want(&[("write", "mapped")]));
}

#[test]
fn the_first_change_is_enough() {
    let scratch = Scratch::new("once");
    let dir = scratch.0.clone();
    for (args, kind) in [(&["--once"][..], "change"), (&["--once", "--raw"], "raw")] {
        let run = heard(args, &dir);
        for name in ["first", "second"] {
            fs::create_dir(dir.join(format!("{name}-{kind}"))).unwrap();
        }
        let lines = run.ended();
        let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["ready", kind, "summary"]);
        assert!(path_of(&lines[1]).ends_with(format!("first-{kind}")) || kind == "raw", "{}", lines[1]);
    }
}

/// A change as the user wants to see it: exact in a pipe, and who made it by name.
#[test]
fn lines_of_the_users_own() {
    let scratch = Scratch::new("format");
    let dir = scratch.0.clone();
    let channel = if ebpf() { "ebpf" } else { "inotify" };
    let mut command = Command::new(HOTR);
    let format = r"{kind}\t{path}\t{pid}\t{user}\t{missed_by}.";
    command.args(["trace", "--channels", channel, "--op", "create", "--once", "--format", format]).arg(&dir);
    let (mut child, mut stdout) = spawn(command);
    let name = "a\x1b[2J";
    // Nothing says that it is ready: until it prints something.
    let made = std::thread::spawn(move || {
        let mut line = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut line).unwrap();
        line
    });
    until("a line", || {
        let _ = fs::remove_file(dir.join(name));
        fs::write(dir.join(name), "").unwrap();
        made.is_finished()
    });
    assert_eq!(child.wait(), Some(0));
    let line = made.join().unwrap();
    let who = if channel == "ebpf" { format!("{}\troot", std::process::id()) } else { "\t".to_owned() };
    assert_eq!(line, format!("create\t{}\t{who}\t.\n", scratch.0.join(name).display()));
}

/// What is known of a writer beside its number: of one that is there, and of one that has exited.
#[test]
fn writers_are_known_by_where_they_belong() {
    if !ebpf() {
        return;
    }
    let unit = format!("hotr-origin-{}.service", std::process::id());
    let Some(cgroup) = Cgroup::new(&format!("{unit}/{}", "0123456789abcdef".repeat(4))) else { return };
    let scratch = Scratch::new("origin");
    let dir = scratch.dir("d");
    let mut run = Run::start(&["--channels", "ebpf", "--op", "create"], &dir);
    fs::write(dir.join("by-test"), "").unwrap();
    let here = run.change("create", &dir.join("by-test"));
    let parent = std::os::unix::process::parent_id();
    let comm = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    let actor = &here["actor"];
    assert_eq!((&actor["user"], &actor["parent"]["pid"]), (&"root".into(), &parent.into()), "{here}");
    assert_eq!(actor["parent"]["comm"], comm.trim_end(), "{here}");
    let login =
        fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    assert_eq!(actor["login_uid"].as_u64(), login.filter(|uid| *uid != u32::MAX).map(u64::from), "{here}");
    // Stopped, hotr looks only after it has exited.
    run.send(Signal::STOP);
    until("hotr has stopped", || {
        fs::read_to_string(format!("/proc/{}/stat", run.pid())).unwrap().contains(") T ")
    });
    let gone = cgroup.run(Command::new("touch").arg(dir.join("by-gone")));
    run.send(Signal::CONT);
    let line = run.change("create", &dir.join("by-gone"));
    let actor = &line["actor"];
    assert_eq!((&actor["pid"], &actor["user"]), (&gone.into(), &"root".into()), "{line}");
    assert_eq!(
        (&actor["unit"], &actor["container"]),
        (&unit.into(), &"0123456789abcdef".repeat(4).into()),
        "{line}"
    );
    for absent in ["parent", "login_uid", "login_user", "exe"] {
        assert!(actor.get(absent).is_none(), "{absent}: {line}");
    }
    run.end();
}

/// A login, which stays whatever user it becomes.
#[test]
fn a_login_is_known() {
    if !ebpf() || !fs::exists("/proc/self/loginuid").unwrap() {
        return;
    }
    let scratch = Scratch::new("login");
    let dir = scratch.dir("d");
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(scratch.0.as_path(), Permissions::from_mode(0o755)).unwrap();
    let mut run = Run::start(&["--channels", "ebpf", "--op", "create"], &dir);
    let script = "echo 12345 > /proc/self/loginuid && : > \"$0\" && read -r end";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(dir.join("by-login")).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let line = run.change("create", &dir.join("by-login"));
    drop(child.stdin.take());
    child.wait().unwrap();
    let actor = &line["actor"];
    assert_eq!((&actor["uid"], &actor["login_uid"]), (&0.into(), &12345.into()), "{line}");
    assert_eq!(actor["parent"]["pid"], std::process::id(), "{line}");
    run.end();
}
