//! What a command is given: variables, a folder, a shell, a clean terminal.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::run::{HOTR, Scratch, Watch, until};
use super::screen::Screen;

/// Runs a script for one change, and gives what it wrote to its stdout.
fn wrote(name: &str, args: &[&str], command: &[&str]) -> (Scratch, String) {
    let scratch = Scratch::new(name);
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::start(&[&["-p"], args].concat(), &scratch.w(), command);
    fs::write(&conf, "2").unwrap();
    watch.reload("done");
    // With `--json` the command's stdout is hotr's stderr.
    watch.until_said("its end");
    (scratch, watch.end())
}

#[test]
fn variables_are_added_to_those_hotr_has() {
    let script = r#"echo "one=$ONE two=$TWO path=${PATH:+set}, its end""#;
    let (_scratch, said) = wrote("env", &["-E", "ONE=1", "--env", "TWO=a=b"], &["sh", "-c", script]);
    assert!(said.contains("one=1 two=a=b path=set"), "{said}");
}

#[test]
fn a_variable_may_hold_any_bytes() {
    let scratch = Scratch::new("env-bytes");
    let mut hotr = Command::new(HOTR);
    hotr.args(["watch", "--json", "-E"]).arg(OsString::from_vec(b"A=\xff".to_vec())).arg(scratch.w());
    hotr.args(["--", "sh", "-c", r#"printf '%s' "$A" | od -An -tx1"#]);
    let mut watch = Watch::spawn(hotr, &scratch.w());
    watch.reload("done");
    watch.until_said("ff");
    watch.end();
}

#[test]
fn a_command_runs_where_it_is_told_to() {
    let place = Scratch::new("place");
    let at = place.0.to_str().unwrap();
    let (_scratch, said) = wrote("workdir", &["--workdir", at], &["sh", "-c", "pwd; echo its end"]);
    assert!(said.contains(&format!("{at}\n")), "{said}");
}

#[test]
fn a_shell_is_used_only_when_it_is_asked_for() {
    let words = &["echo", "$((1 + 2)),", "its end"][..];
    for (args, want) in [
        (&["--shell"][..], "3, its end"),
        (&["--shell=bash"], "3, its end"),
        (&[], "$((1 + 2)), its end"),
        (&["-n"], "$((1 + 2)), its end"),
    ] {
        let (_scratch, said) = wrote("shell", args, words);
        assert!(said.contains(want), "{args:?}: {said}");
    }
    // Only bash knows this.
    let (_scratch, said) = wrote("bash", &["--shell=bash"], &["[[ a == a* ]] && echo its end"]);
    assert!(said.contains("its end"), "{said}");
}

#[test]
fn a_command_need_not_learn_what_changed() {
    let script = "env | grep -c -e WATCHEXEC -e HOTR_CHANGES; echo its end";
    let (_scratch, said) = wrote("emit-none", &["--emit", "none"], &["sh", "-c", script]);
    assert!(said.contains("0\nits end"), "{said}");
}

/// hotr on a terminal, and what ends it.
fn on_a_terminal(scratch: &Scratch, args: &str) -> (Screen, impl FnOnce(Screen)) {
    let pid_file = scratch.0.join("pid");
    // The shell becomes hotr.
    let line = format!("echo $$ > {}; exec {HOTR} watch {args}", pid_file.display());
    let end = move |screen: Screen| {
        let mut pid = None;
        until("its number", || {
            pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::TERM).unwrap();
        screen.end();
    };
    (Screen::of(&line, &scratch.0), end)
}

#[test]
fn the_terminal_is_cleared_before_each_run() {
    let scratch = Scratch::new("clear");
    let conf = scratch.file("conf", "1");
    let (mut screen, end) = on_a_terminal(&scratch, "-q -c w -- echo ran");
    for number in 2..4 {
        screen.until_shows("\x1bc");
        screen.until_shows("ran");
        fs::write(&conf, number.to_string()).unwrap();
    }
    screen.until_shows("\x1bc");
    screen.until_shows("ran");
    end(screen);
}

/// With so small a share of a core, a look at these files takes longer than a test may.
#[test]
fn a_long_look_is_shown_on_a_terminal() {
    let scratch = Scratch::new("progress");
    for number in 0..3000 {
        scratch.file(&format!("{number}"), "");
    }
    let (mut screen, end) = on_a_terminal(&scratch, "--poll=100ms --poll-budget 0.01% w");
    screen.until_shows("watching ");
    screen.until_shows("hotr: checking all files ");
    screen.until_shows("of 3,001");
    end(screen);
}
