//! What cannot be diagnosed is one line and an exit status.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::{HOTR, Program, Scratch, diagnose, finish, inotifywait, root, tool};

pub(crate) const NOBODY: u32 = 65534;

fn fails(words: &[&str], status: i32, starts: &str) {
    let said = diagnose(words);
    assert_eq!((said.status, said.lines.len()), (Some(status), 0), "{words:?}: {}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    assert!(said.stderr.starts_with(&format!("hotr: {starts}")), "{}", said.stderr);
}

/// By another process: a descriptor of this one, open for writing, could be in a child of another test for a moment, and
/// the copy could not be run.
fn copy_program(from: &Path, to: &Path) {
    tool("cp", &[from.as_os_str(), to.as_os_str()]);
}

/// The program where anybody may run it.
pub(crate) fn for_anybody(scratch: &Scratch) -> PathBuf {
    let copy = scratch.0.join("hotr");
    copy_program(HOTR.as_ref(), &copy);
    copy
}

#[test]
fn what_is_not_there() {
    // No pid is that large (PID_MAX_LIMIT is 2^22).
    fails(&["--pid", "4194305"], 1, "diagnose process 4194305: no such process");
    fails(&["--comm", "no-such-name"], 1, "diagnose command no-such-name: no process of it");
    fails(&["--unit", "no-such-unit"], 1, "diagnose unit no-such-unit: no process of it");
    fails(&["--container", "0123456789ab"], 1, "diagnose container 0123456789ab: no process of it");
    fails(&["/no/such/directory/file"], 1, "diagnose /no/such/directory/file: its directory does not exist");
}

#[test]
fn what_makes_no_sense() {
    for words in [
        &["--pid", "0"][..],
        &["--pid", "x"],
        &["--comm", ""],
        &["--container", "xyz"],
        &["--container", "1"],
        &["--duration", "1s"],
    ] {
        let said = diagnose(words);
        assert_eq!((said.status, said.stderr.lines().count()), (Some(2), 1), "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains("see hotr diagnose --help"), "{}", said.stderr);
    }
}

/// The id of one, when any is visible.
pub(crate) fn kernel_thread() -> Option<u32> {
    let is_one = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u32>().ok());
        flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
    };
    (2..500).find(is_one)
}

#[test]
fn a_kernel_thread() {
    match kernel_thread() {
        Some(pid) => {
            fails(&["--pid", &pid.to_string()], 1, &format!("diagnose process {pid}: it is a kernel thread"))
        }
        None => eprintln!("not run: no kernel thread is visible"),
    }
}

#[test]
fn a_process_without_an_instance_is_no_error() {
    let sleeper = Program::start(Command::new("sleep").arg("1000"), 0);
    let said = diagnose(&["--pid", &sleeper.pid().to_string()]);
    assert_eq!(said.status, Some(0));
    assert_eq!(said.lines.last().unwrap()["instances"], 0);
    let page = Command::new(HOTR).args(["diagnose", "--pid", &sleeper.pid().to_string()]).output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("watches nothing"), "{page}");
}

#[test]
fn a_name_of_several_processes_means_all_of_them() {
    let scratch = Scratch::new("several");
    let name = scratch.0.join("hotr-two");
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join("inotifywait")).find(|path| path.exists());
    copy_program(&found.unwrap(), &name);
    let start = || Program::start(Command::new(&name).args(["-m", "-q"]).arg(&scratch.0), 1);
    let watchers = [start(), start()];
    let said = diagnose(&["--comm", "hotr-two"]);
    let pids = watchers.each_ref().map(|watcher| watcher.pid().to_string()).join(", ");
    assert_eq!(said.stderr, format!("hotr: 2 processes are named hotr-two: {pids}\n"));
    assert_eq!((said.status, &said.lines.last().unwrap()["processes"]), (Some(0), &serde_json::json!(2)));
}

#[test]
fn a_process_of_another_user_without_privileges() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("nobody");
    let hotr = for_anybody(&scratch);
    let watcher = inotifywait(&[&scratch.0], 1);
    let pid = watcher.pid().to_string();
    let mut command = Command::new(&hotr);
    command.args(["diagnose", "--json", "--pid", &pid]).uid(NOBODY).gid(NOBODY);
    let said = finish(&mut command);
    assert_eq!((said.status, said.lines.len()), (Some(1), 0), "{}", said.stderr);
    assert_eq!(
        said.stderr,
        format!(
            "hotr: diagnose process {pid}: permission denied; run as root, or as the user of that process\n"
        )
    );
    // Of the whole machine, what may be seen is said, and that there is more.
    let mut command = Command::new(&hotr);
    let said = finish(command.args(["diagnose", "--json"]).uid(NOBODY).gid(NOBODY));
    let summary = said.lines.last().unwrap();
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(summary["unreadable_processes"].as_u64().unwrap() > 0, "{summary}");
}

#[test]
fn an_own_process_without_privileges() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("own");
    let hotr = for_anybody(&scratch);
    let mut command = Command::new("inotifywait");
    let file = scratch.file("f");
    let watcher = Program::start(command.args(["-m", "-q"]).arg(&file).uid(NOBODY).gid(NOBODY), 1);
    let mut command = Command::new(&hotr);
    command.args(["diagnose", "--json", "--pid", &watcher.pid().to_string()]).uid(NOBODY).gid(NOBODY);
    let said = finish(&mut command);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let instance = said.lines.iter().find(|line| line["type"] == "instance").expect("its instance");
    assert_eq!((&instance["watches"], &said.lines.last().unwrap()["watches"]), (&1.into(), &1.into()));
    // No handle can be opened; the command line names the file.
    assert_eq!(said.kinds(watcher.pid(), None), [("at-risk", "replaced-file")]);
    assert_eq!(said.of(watcher.pid(), None)[0]["path"], serde_json::json!(file));
}

#[test]
fn a_proc_that_hides_processes_is_named() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("hidepid");
    let hotr = for_anybody(&scratch);
    let watcher = inotifywait(&[&scratch.0], 1);
    let script = "mount -t proc -o hidepid=2 proc /proc && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$1\" diagnose --json --pid \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&hotr).arg(watcher.pid().to_string());
    let said = finish(&mut command);
    assert_eq!(said.status, Some(1), "{}", said.stderr);
    assert!(
        said.stderr.contains("no such process that you may see (/proc is mounted with hidepid)"),
        "{}",
        said.stderr
    );
}
