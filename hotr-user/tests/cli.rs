//! The command as a user calls it: exact messages and statuses, without any privilege.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const HOTR: &str = env!("CARGO_BIN_EXE_hotr");

fn hotr(args: &[&str]) -> Output {
    Command::new(HOTR).args(args).stdin(Stdio::null()).output().expect("hotr runs")
}

/// Status, stdout and stderr.
fn said(args: &[&str]) -> (i32, String, String) {
    let output = hotr(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit status"), text(output.stdout), text(output.stderr))
}

fn fails(args: &[&str], status: i32, message: &str) {
    assert_eq!(said(args), (status, String::new(), format!("{message}\n")), "{args:?}");
}

/// A directory that is removed at the end of a test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a scratch directory");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_status_2() {
    let channel = "is not a channel; write auto, ebpf, inotify or ebpf,inotify; see hotr trace --help";
    for (args, message) in [
        (
            &["trace", "--jso"][..],
            "hotr: unexpected argument '--jso' found; a similar argument exists: '--json'; see hotr trace --help",
        ),
        (&["--wrong"], "hotr: unexpected argument '--wrong' found; see hotr --help"),
        (
            &["trcae"],
            "hotr: unrecognized subcommand 'trcae'; a similar subcommand exists: 'trace'; see hotr --help",
        ),
        (
            &["trace", "--duration", "10"],
            "hotr: invalid value '10' for '--duration <TIME>': a unit is needed, as in 10s; see hotr trace --help",
        ),
        (
            &["trace", "--duration", "10parsecs"],
            "hotr: invalid value '10parsecs' for '--duration <TIME>': unknown time unit \"parsecs\", supported \
             units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations); write it \
             as 10s, 5m or 1h30m; see hotr trace --help",
        ),
        (
            &["trace", "--exclude", "a["],
            "hotr: invalid value 'a[' for '--exclude <GLOB>': bad pattern: unclosed character class; missing \
             ']'; see hotr trace --help",
        ),
        (
            &["trace", "--channels", "poll"],
            &format!("hotr: invalid value 'poll' for '--channels <LIST>': 'poll' {channel}"),
        ),
        (
            &["trace", "--op", "write,open"],
            "hotr: invalid value 'open' for '--op <OP>' [possible values: create, write, attrib, rename, \
             remove]; see hotr trace --help",
        ),
        (
            &["trace", "--tier", "lsm"],
            "hotr: invalid value 'lsm' for '--tier <TIER>' [possible values: auto, fentry, kprobe, \
             tracepoint]; see hotr trace --help",
        ),
        (
            &["trace", "--pid", "0"],
            "hotr: invalid value '0' for '--pid <PID>': 0 is not in 1..=4294967295; see hotr trace --help",
        ),
        (
            &["trace", "--uid", "no such user"],
            "hotr: invalid value 'no such user' for '--uid <USER>': there is no such user; name one, or a number; see \
             hotr trace --help",
        ),
        (
            &["trace", "--channels", "inotify", "--missed"],
            "hotr: --missed compares two channels, and --channels leaves one out; see hotr trace --help",
        ),
        (
            &["trace", "--channels", "inotify", "--unit", "app"],
            "hotr: --unit, --cgroup and --container choose writers, which only ebpf knows, and --channels leaves it out; see \
             hotr trace --help",
        ),
        (
            &["trace", "--container", "xyz"],
            "hotr: invalid value 'xyz' for '--container <ID>': a container's id is hexadecimal; give at least 4 digits of it; \
             see hotr trace --help",
        ),
        (
            &["trace", "--format", "{pth}"],
            "hotr: invalid value '{pth}' for '--format <TEMPLATE>': {pth} is not known; the nearest is {path}; see hotr trace \
             --help",
        ),
        (
            &["trace", "--format", "{path"],
            "hotr: invalid value '{path' for '--format <TEMPLATE>': a brace is not closed, or not opened; write {{ or }} for the \
             brace itself; see hotr trace --help",
        ),
        (
            &["trace", "--format", "{path}", "--json"],
            "hotr: the argument '--format <TEMPLATE>' cannot be used with '--json'; see hotr trace --help",
        ),
        (
            &["trace", "--raw", "-e", "conf"],
            "hotr: --exts and --filter choose changes, and --raw prints records; see hotr trace --help",
        ),
        (
            &["trace", "--channels", "inotify", "--tier", "kprobe"],
            "hotr: --tier chooses eBPF programs, and --channels leaves ebpf out; see hotr trace --help",
        ),
        (
            &["trace", ""],
            "hotr: a value is required for '[PATH]...' but none was supplied; see hotr trace --help",
        ),
        (
            &["completions"],
            "hotr: the following required arguments were not provided: <SHELL>; see hotr completions --help",
        ),
    ] {
        fails(args, 2, message);
    }
}

#[test]
fn nothing_asked_is_answered_with_the_help_on_stderr() {
    let (status, stdout, stderr) = said(&[]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    assert!(stderr.contains("Usage: hotr <COMMAND>"), "{stderr}");
}

#[test]
fn a_path_that_cannot_be_traced_is_one_line_and_status_1() {
    let scratch = Scratch::new("paths");
    let (missing, link, looped) = (scratch.path("missing"), scratch.path("link"), scratch.path("loop"));
    let under = scratch.path("file/x");
    std::fs::write(scratch.path("file"), "").expect("a file");
    std::os::unix::fs::symlink("nowhere", &link).expect("a link");
    std::os::unix::fs::symlink("loop", &looped).expect("a link");
    let kernel_values = "where values change without a write that could be seen; read it periodically \
                         instead, or name a path on another filesystem";
    for (path, message) in [
        (
            &missing,
            "no such file or directory; create it first, or name the directory in which it will appear",
        ),
        (&link, "a symbolic link to nowhere, which does not exist; create its target, or name another path"),
        (&looped, "too many symbolic links, probably a loop; correct the links"),
        (&under, "a part of the path is not a directory; correct the path"),
        (&"/proc/sys".to_owned(), &format!("it is on procfs, {kernel_values}")),
        (&"/sys".to_owned(), &format!("it is on sysfs, {kernel_values}")),
    ] {
        fails(&["trace", path], 1, &format!("hotr: trace {path}: {message}"));
    }
    fails(
        &["trace", "/no\nsuch\x1b[31m"],
        1,
        "hotr: trace /no\\nsuch\\x1b[31m: no such file or directory; create it first, or name the directory \
         in which it will appear",
    );
    for (command, verb) in [("trace", "trace"), ("doctor", "check"), ("watch", "watch")] {
        let long = format!("/{}", "n".repeat(256));
        fails(
            &[command, &long],
            1,
            &format!(
                "hotr: {verb} {long}: the path is too long (4095 bytes, 255 for each name); change to a \
                 directory on the way and name the rest"
            ),
        );
    }
}

#[test]
fn a_directory_that_does_not_exist_any_more_cannot_be_the_default() {
    let scratch = Scratch::new("gone");
    let output = Command::new("/bin/sh")
        .args(["-c", "cd \"$1\" && rmdir \"$1\" && exec \"$2\" trace", "sh"])
        .args([&scratch.path(""), HOTR])
        .output()
        .expect("a shell runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(
        message,
        "hotr: trace .: no such file or directory; create it first, or name the directory in which it will \
         appear\n"
    );
}

#[test]
fn roots_inside_each_other_are_merged_with_a_note() {
    let scratch = Scratch::new("merge");
    let (above, inside) = (scratch.path("a"), scratch.path("a/b"));
    std::fs::create_dir_all(&inside).expect("directories");
    let run =
        |args: &[&str]| said(&[&["trace", "--channels", "inotify", "--duration", "0s"], args].concat()).2;
    let note = format!("hotr: note: {inside} is inside {above}; traced once, as a part of {above}\n");
    assert!(run(&[&inside, &above]).starts_with(&note));
    assert!(!run(&["--no-recursive", &inside, &above]).contains("hotr: note:"));
}

#[test]
fn help_of_every_command_is_on_stdout() {
    for (args, parts) in [
        (&["--help"][..], &["Usage: hotr <COMMAND>", "trace", "doctor", "completions", "man"][..]),
        (
            &["trace", "--help"],
            &[
                "Usage: hotr trace [OPTIONS] [PATH]...",
                "--json",
                "--channels <LIST>",
                "--tier <TIER>",
                "--duration <TIME>",
                "--op <OP>",
                "--pid <PID>",
                "--comm <NAME>",
                "--uid <USER>",
                "--missed",
                "--once",
                "--exclude <GLOB>",
                "--format <TEMPLATE>",
                "--verbose",
                "--output <FILE>",
                "--unit <UNIT>",
                "--cgroup <PATH>",
                "--container <ID>",
                "--exts <EXT>",
                "--filter <GLOB>",
                "--no-recursive",
                "--raw",
                "--color <WHEN>",
                "Examples:\n  hotr trace /srv",
            ],
        ),
        (&["doctor", "--help"], &["Usage: hotr doctor [OPTIONS] [PATH]...", "--json", "Examples:\n"]),
        (&["completions", "--help"], &["Usage: hotr completions <SHELL>", "bash", "zsh", "fish"]),
        (&["man", "--help"], &["Usage: hotr man", "Example:\n  hotr man >"]),
    ] {
        let (status, stdout, stderr) = said(args);
        assert_eq!((status, stderr.as_str()), (0, ""), "{args:?}");
        for part in parts {
            assert!(stdout.contains(part), "{args:?} has no {part:?}:\n{stdout}");
        }
    }
    let version = format!("hotr {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&["--version"]), (0, version, String::new()));
}

#[test]
fn completions_know_the_options_and_read_as_scripts() {
    for (shell, first) in [("bash", "_hotr() {"), ("zsh", "#compdef hotr"), ("fish", "# Print an optspec")] {
        let (status, script, stderr) = said(&["completions", shell]);
        assert_eq!((status, stderr.as_str()), (0, ""), "{shell}");
        assert!(script.starts_with(first), "{shell}: {}", script.lines().next().unwrap_or_default());
        assert!(script.contains("no-recursive"), "{shell}");
    }
    let (_, script, _) = said(&["completions", "bash"]);
    let check = Command::new("/bin/bash").args(["-n", "-c", &script]).status().expect("bash runs");
    assert!(check.success());
}

#[test]
fn the_manual_page_is_one_page() {
    let (status, page, stderr) = said(&["man"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(page.starts_with(".TH hotr 1"), "{page}");
    for part in [".TH", ".SH SYNOPSIS\n", ".SH HOTR TRACE\n", ".SH HOTR DOCTOR\n", ".SH EXIT STATUS\n"] {
        assert_eq!(page.matches(part).count(), 1, "{part:?}:\n{page}");
    }
    assert!(page.contains(".TP\n\\fB\\-\\-no\\-recursive\\fR\n"), "{page}");
    assert!(page.contains(".nf\nExamples:\n  hotr trace /srv "), "{page}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for args in [&["doctor", "--json"][..], &["completions", "bash"], &["man"], &["trace", "--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = Command::new(HOTR).args(args).stdout(writer).stderr(Stdio::piped()).spawn();
        let output = child.expect("hotr runs").wait_with_output().expect("hotr ends");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

fn doctor_lines(args: &[&str]) -> (i32, Vec<serde_json::Value>) {
    let (status, stdout, stderr) = said(&[&["doctor", "--json"], args].concat());
    assert_eq!(stderr, "");
    (status, stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
}

#[test]
fn doctor_looks_at_the_machine() {
    let (status, lines) = doctor_lines(&[]);
    assert_eq!(status, 0, "without a path there is none that cannot be covered");
    assert!(lines.iter().all(|line| line["type"] == "doctor"));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert_eq!(lines[0]["section"], "kernel");
    assert_eq!(lines[0]["release"], release.trim());
    assert_eq!(lines[0]["btf"], Path::new("/sys/kernel/btf/vmlinux").exists());
    let names: Vec<_> =
        lines.iter().filter(|line| line["section"] == "capability").map(|line| &line["name"]).collect();
    assert_eq!(names, ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_RESOURCE"]);
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").expect("inotify");
    let inotify = lines.iter().find(|line| line["section"] == "inotify").expect("a line of inotify");
    assert_eq!(inotify["max_user_watches"].to_string(), limit.trim());
}

#[test]
fn doctor_finds_a_path_that_cannot_be_covered() {
    let (status, lines) = doctor_lines(&["/proc"]);
    assert_eq!(status, 3);
    let path = lines.last().expect("a line");
    assert_eq!(
        (path["section"].as_str(), path["path"].as_str(), path["fs"].as_str(), path["covered"].as_bool()),
        (Some("path"), Some("/proc"), Some("proc"), Some(false))
    );
    assert_eq!(path["gaps"][0]["cause"], "pseudo-fs");
    let (status, page, _) = said(&["doctor", "/proc"]);
    assert_eq!(status, 3);
    assert!(page.contains("  ✗ /proc  proc mounted at /proc; cannot be covered\n"), "{page}");
}

#[test]
fn doctor_counts_the_watches_of_a_process() {
    let scratch = Scratch::new("watches");
    let flags = rustix::fs::inotify::CreateFlags::CLOEXEC;
    let inotify = rustix::fs::inotify::init(flags).expect("an instance");
    for n in 0..3 {
        let dir = scratch.path(&n.to_string());
        std::fs::create_dir(&dir).expect("a directory");
        let events = rustix::fs::inotify::WatchFlags::CREATE;
        rustix::fs::inotify::add_watch(&inotify, &dir, events).expect("a watch");
    }
    let (_, lines) = doctor_lines(&[]);
    let mine = lines
        .iter()
        .find(|line| line["section"] == "inotify-user" && line["pid"] == std::process::id())
        .expect("this process is among the users");
    assert_eq!((mine["instances"].as_u64(), mine["watches"].as_u64()), (Some(1), Some(3)));
}

#[test]
fn colour_follows_the_choice_and_never_a_pipe() {
    let escapes = |args: &[&str]| said(args).1.contains('\x1b');
    assert!(!escapes(&["doctor"]));
    assert!(escapes(&["doctor", "--color", "always"]));
    assert!(!escapes(&["doctor", "--color", "never"]));
}

/// What a terminal would act on: an escape, C1 controls, marks of direction, a line's end.
const ODD: &str = "a\u{1b}[31m\u{9b}2J\u{202e}b\u{2066}c\u{200f}\u{61c}\u{85}\nd\r\u{7f}e";

fn is_tame(text: &str) -> bool {
    let is_odd = |c: char| c != '\n' && (c.is_control() || ODD.contains(c) && !c.is_ascii());
    !text.contains(is_odd)
}

#[test]
fn no_message_commands_the_terminal() {
    let scratch = Scratch::new("odd-names");
    let path = scratch.0.join(ODD);
    std::fs::create_dir(&path).expect("a directory");
    let (path, absent) = (path.to_str().expect("UTF-8"), path.join("absent"));
    let absent = absent.to_str().expect("UTF-8");
    for args in [
        &["trace", absent][..],
        &["watch", absent],
        &["watch", path, "--backup-dir", absent],
        &["watch", path, "-s", "HUP", "--pid-file", absent, "--duration"],
        &["watch", path, ODD],
        &["watch", path, "--user", ODD],
        &["watch", path, "-f", &format!("[{ODD}")],
        &["watch", path, "--validate", &format!("'{ODD}")],
        &["trace", "--tier", ODD],
        &["trace", &format!("--{ODD}")],
        &["trace", path, "--duration", ODD],
        &[ODD],
        &["doctor", absent],
        &["doctor", path],
    ] {
        let (_, stdout, stderr) = said(args);
        assert!(is_tame(&stdout) && is_tame(&stderr), "{args:?}: {stdout:?} {stderr:?}");
        assert!(stderr.lines().count() <= 1, "{args:?}: {stderr:?}");
    }
    let (_, stdout, _) = said(&["doctor", "--json", path]);
    assert!(is_tame(&stdout), "{stdout:?}");
    let lines = stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    assert!(lines.filter(|line| line["section"] == "path").all(|line| line["path"] == path));
}

/// `cargo install` and `cargo build` alone make such a program.
#[test]
fn a_program_without_its_kernel_side_says_that() {
    if !cfg!(hotr_without_ebpf) {
        return;
    }
    let words = "this hotr was built without it";
    let (status, _, stderr) = said(&["trace", "--channels", "ebpf", "/tmp"]);
    assert!(status == 1 && stderr.contains(words) && !stderr.contains("kernel allows"), "{stderr}");
    assert!(said(&["doctor"]).1.contains(words));
    let (_, lines) = doctor_lines(&[]);
    assert!(
        lines.iter().any(|line| line["why"].as_str().is_some_and(|why| why.contains(words))),
        "{lines:?}"
    );
}
