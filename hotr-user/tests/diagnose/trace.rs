//! `hotr trace --watcher`: the marks of a trace are those of another process, on this machine by its best tier and by
//! tracepoints.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::inotify::WatchFlags;
use serde_json::{Value, json};

use super::bad_input::{NOBODY, for_anybody, kernel_thread};
use super::live::{Live, TIERS};
use super::run::{HOTR, Instance, Program, Scratch, inotifywait, root, tool};

fn trace(tier: &str, pid: u32, words: &[&std::ffi::OsStr]) -> Live {
    let mut command = Command::new(HOTR);
    command.args(["trace", "--json", "--duration", "60s", "--tier", tier, "--watcher"]);
    Live::run(command.arg(pid.to_string()).args(words))
}

/// A program that asks for the content of a file, and not for the end of the file that it watches.
fn of_content(file: &Path) -> Program {
    inotifywait(&["-e".as_ref(), "modify,close_write".as_ref(), file.as_os_str()], 1)
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"2\n").unwrap();
}

fn of<'a>(op: &'a str, path: &'a Path) -> impl Fn(&Value) -> bool + 'a {
    move |line| line["type"] == "change" && line["op"] == op && line["path"] == json!(path)
}

fn missed_for(line: &Value) -> Option<&str> {
    line["missed_by"].as_array()?.iter().find(|one| one["channel"] == "inotify")?["cause"].as_str()
}

fn is_received(line: &Value) -> bool {
    line["seen_by"].as_array().is_some_and(|seen| seen.contains(&"inotify".into()))
}

fn changes(live: &Live) -> Vec<&Value> {
    live.said.iter().filter(|line| line["type"] == "change").collect()
}

#[test]
fn it_marks_what_a_process_received_and_what_it_lost_with_a_replaced_file() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("marks");
        let file = scratch.file("app.conf");
        let watcher = of_content(&file);
        let mut live = trace(tier, watcher.pid(), &[scratch.0.as_os_str()]);
        let channel = &live.said[0]["channels"]["inotify"];
        assert_eq!((&channel["watches"], &channel["watcher"]["pid"]), (&1.into(), &watcher.pid().into()));
        let proof = if channel["tier"] == "tracepoint" { "inferred" } else { "proved" };
        append(&file);
        let line = live.until("write", of("write", &file));
        let who = &line["watcher"];
        assert_eq!((&who["state"], &who["fd"], is_received(&line)), (&"delivered".into(), &3.into(), true));
        assert_eq!((&who["comm"], &who["proof"]), (&"inotifywait".into(), &proof.into()), "{line}");
        assert_eq!(missed_for(&line), None, "{line}");
        fs::write(scratch.0.join("new"), "3\n").unwrap();
        fs::rename(scratch.0.join("new"), &file).unwrap();
        append(&file);
        let line = live.until("rename", of("rename", &file));
        assert_eq!((missed_for(&line), is_received(&line)), (Some("replaced-file"), false), "{line}");
        let line = live.until("lost write", of("write", &file));
        assert_eq!((missed_for(&line), &line["watcher"]["proof"]), (Some("replaced-file"), &proof.into()));
        let why = line["missed_by"][0]["why"].as_str().unwrap();
        assert!(why.contains(&super::run::ino(&file).to_string()), "{why}");
        let other = changes(&live).into_iter().find(|line| line["op"] == "create").unwrap();
        assert_eq!(missed_for(other), Some("never-watched"), "{other}");
        assert_eq!(live.end(), (Some(0), String::new()), "{tier}");
    }
}

#[test]
fn without_a_path_it_traces_what_the_process_watches_and_with_missed_only_what_it_missed() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("missed");
        let file = scratch.file("app.conf");
        let watcher = of_content(&file);
        let mut live = trace(tier, watcher.pid(), &["--missed".as_ref()]);
        append(&file);
        // No watch has to do with this one.
        fs::write(scratch.0.join("new"), "3\n").unwrap();
        fs::rename(scratch.0.join("new"), &file).unwrap();
        append(&file);
        live.until("lost write", of("write", &file));
        let lines: Vec<_> =
            changes(&live).into_iter().map(|line| (line["op"].clone(), missed_for(line))).collect();
        let lost = Some("replaced-file");
        assert_eq!(lines, [("rename".into(), lost), ("write".into(), lost)], "{tier}");
        assert_eq!(live.end().0, Some(0));
    }
}

#[test]
fn a_write_in_the_upper_directory_of_an_overlay() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("upper");
    tool(
        "mount",
        &["-t", "tmpfs", "tmpfs"]
            .map(AsRef::as_ref)
            .into_iter()
            .chain([scratch.0.as_os_str()])
            .collect::<Vec<_>>(),
    );
    struct Unmounted(Vec<PathBuf>);
    impl Drop for Unmounted {
        fn drop(&mut self) {
            for path in &self.0 {
                let _ = Command::new("umount").arg("-l").arg(path).status();
            }
        }
    }
    let mut mounts = Unmounted(vec![scratch.0.clone()]);
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scratch.dir(name));
    for name in ["app.conf", "other.conf"] {
        fs::write(upper.join(name), "1\n").unwrap();
    }
    let [lower, upper_text, work] = [&lower, &upper, &work].map(|path| path.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper_text},workdir={work}");
    let words: [&std::ffi::OsStr; 6] = [
        "-t".as_ref(),
        "overlay".as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        "overlay".as_ref(),
        merged.as_ref(),
    ];
    tool("mount", &words);
    mounts.0.insert(0, merged.clone());
    for tier in TIERS {
        let watcher = inotifywait(&[&merged], 1);
        let mut live = trace(tier, watcher.pid(), &[merged.as_os_str()]);
        let file = merged.join("app.conf");
        append(&file);
        let line = live.until("write", of("write", &file));
        assert_eq!((missed_for(&line), is_received(&line)), (None, true), "{tier}: {line}");
        append(&upper.join("other.conf"));
        let other = merged.join("other.conf");
        let line = live.until("write by the upper directory", of("write", &other));
        assert_eq!((missed_for(&line), is_received(&line)), (Some("layer-bypass"), false), "{tier}: {line}");
        assert_eq!(live.end().0, Some(0));
    }
}

/// Changes that a healthy watcher of a directory receives: some hundred of two writers at once.
#[test]
fn a_healthy_process_misses_nothing() {
    if !root() {
        return;
    }
    const EACH: usize = 150;
    for tier in TIERS {
        let scratch = Scratch::new("healthy");
        let watcher = inotifywait(&[&scratch.0], 1);
        let mut live = trace(tier, watcher.pid(), &[scratch.0.as_os_str()]);
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let dir = &scratch.0;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let (new, file) =
                            (dir.join(format!("{name}-new")), dir.join(format!("{name}-{}", n % 7)));
                        fs::write(&new, "1\n").unwrap();
                        fs::rename(&new, &file).unwrap();
                        append(&file);
                    }
                });
            }
        });
        let last = scratch.file("last");
        live.until("last write", of("write", &last));
        let lines = changes(&live);
        let missed: Vec<_> = lines.iter().filter(|line| missed_for(line).is_some()).collect();
        assert!(missed.is_empty(), "{tier}: {missed:#?}");
        // A rename is never merged with another one, and a write of the content of each file is counted.
        let renames: Vec<_> = lines.iter().filter(|line| line["op"] == "rename").collect();
        assert_eq!(renames.len(), 2 * EACH, "{tier}");
        let unknown = lines.iter().filter(|line| !is_received(line)).count();
        assert!(unknown <= lines.len() / 50, "{tier}: {unknown} of {} are not known", lines.len());
        let writes: u64 = lines.iter().filter_map(|line| line["writes"].as_u64()).sum();
        assert_eq!(live.end().0, Some(0));
        assert!(writes >= 2 * 2 * EACH as u64, "{tier}: {writes}");
    }
}

#[test]
fn an_instance_and_a_watch_that_come_later_are_followed_and_one_that_receives_is_enough() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("later");
        let [first, second] = ["first", "second"].map(|name| scratch.dir(name));
        let one = Instance::on(&first, WatchFlags::MODIFY);
        let mut live = trace(tier, std::process::id(), &[scratch.0.as_os_str()]);
        // It asks for nothing that a write sends.
        let other = Instance::on(&second, WatchFlags::DELETE);
        one.add(&second, WatchFlags::MODIFY);
        let file = second.join("f");
        // Until hotr has seen them.
        loop {
            fs::write(&file, "").unwrap();
            append(&file);
            one.drain();
            let line = live.until("write", |line| {
                line["type"] == "change" && line["path"] == json!(file) && line["op"] == "write"
            });
            assert!(missed_for(&line).is_none_or(|cause| cause == "never-watched"), "{tier}: {line}");
            if line["watcher"]["state"] == "delivered" {
                assert_eq!(line["watcher"]["fd"], one.fd(), "{tier}: {line}");
                break;
            }
        }
        fs::remove_file(&file).unwrap();
        other.drain();
        let line = live.until("remove", of("remove", &file));
        assert_eq!(
            (&line["watcher"]["state"], &line["watcher"]["fd"]),
            (&"delivered".into(), &other.fd().into()),
            "{tier}: {line}"
        );
        assert_eq!(live.end().0, Some(0));
    }
}

#[test]
fn what_a_stopped_process_has_not_read_is_neither_received_nor_missed_and_holds_nothing_up() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("stopped");
        let file = scratch.file("app.conf");
        let watcher = of_content(&file);
        watcher.send(rustix::process::Signal::STOP);
        let mut live = trace(tier, watcher.pid(), &[scratch.0.as_os_str()]);
        append(&file);
        let line = live.until("write", of("write", &file));
        assert_eq!(line["watcher"]["state"], "unread", "{tier}: {line}");
        assert_eq!((missed_for(&line), is_received(&line)), (None, false), "{tier}: {line}");
        watcher.send(rustix::process::Signal::CONT);
        super::run::until("it reads", || watcher.is_asleep());
        append(&file);
        let received = |line: &Value| of("write", &file)(line) && line["watcher"]["state"] == "delivered";
        live.until("write that is read", received);
        assert_eq!(live.end().0, Some(0));
    }
}

#[test]
fn it_ends_with_the_process_and_says_so() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("trace-exits");
        let file = scratch.file("app.conf");
        let watcher = inotifywait(&[&scratch.0], 1);
        let pid = watcher.pid();
        let mut live = trace(tier, pid, &[scratch.0.as_os_str()]);
        append(&file);
        live.until("write", of("write", &file));
        drop(watcher);
        let want = format!("hotr: note: process {pid} has exited: it is followed no longer\n");
        assert_eq!(live.ended(), (Some(0), want), "{tier}");
    }
}

#[test]
fn people_read_the_process_and_the_cause() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("people");
    let file = scratch.file("app.conf");
    let watcher = of_content(&file);
    let mut command = Command::new(HOTR);
    command.args(["trace", "--color", "never", "--missed", "--once", "--op", "rename", "--watcher"]);
    command.arg(watcher.pid().to_string()).arg(&scratch.0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut lines, &mut ready).unwrap();
    let name = format!("inotifywait[{}]", watcher.pid());
    assert!(ready.contains(&format!("1 watch of {name}")), "{ready}");
    fs::write(scratch.0.join("new"), "3\n").unwrap();
    fs::rename(scratch.0.join("new"), &file).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(rest.contains(&format!("● ebpf ○ {name} fd 3 replaced-file\n")), "{rest}");
}

/// One line, and a status.
fn fails(command: &mut Command, status: i32, starts: &str) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(status), 1), "{said}");
    assert!(said.starts_with(&format!("hotr: {starts}")), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_cannot_be_traced_so() {
    let trace = |words: &[&str]| {
        let mut command = Command::new(HOTR);
        command.args(["trace", "--watcher"]).args(words);
        command
    };
    fails(&mut trace(&["4194305"]), 1, "trace --watcher 4194305: no such process");
    fails(&mut trace(&["0"]), 2, "");
    fails(&mut trace(&["1", "--raw"]), 2, "");
    fails(&mut trace(&["1", "--channels", "inotify"]), 2, "--watcher needs eBPF programs");
    if let Some(pid) = kernel_thread() {
        fails(&mut trace(&[&pid.to_string()]), 1, &format!("trace --watcher {pid}: it is a kernel thread"));
    }
    if !root() {
        return;
    }
    let sleeper = Program::start(Command::new("sleep").arg("1000"), 0);
    let pid = sleeper.pid().to_string();
    fails(&mut trace(&[&pid]), 1, &format!("trace --watcher {pid}: the process has no inotify instance"));
    let scratch = Scratch::new("trace-nobody");
    let hotr = for_anybody(&scratch);
    let watcher = inotifywait(&[&scratch.0], 1);
    let pid = watcher.pid().to_string();
    let mut command = Command::new(hotr);
    command.args(["trace", "--watcher", &pid]).arg(&scratch.0).uid(NOBODY).gid(NOBODY);
    fails(&mut command, 1, &format!("trace --watcher {pid}: permission denied; run as root"));
}
