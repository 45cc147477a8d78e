//! `--strace`: the listener's system calls.

use std::process::Command;

use super::run::{HOTR, MACHINE, finish, root, verify};

#[test]
fn the_calls_of_the_listener_stand_beside_the_events() {
    if !root() {
        return;
    }
    if Command::new("strace").arg("--version").output().is_err() {
        eprintln!("not run: strace is not installed");
        return;
    }
    let said = verify(&["--json", "--strace", "oneshot", "second-add-watch"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let calls = |experiment: &str| -> Vec<String> {
        let line = said.of(experiment);
        let calls = line["system_calls"].as_array().unwrap_or_else(|| panic!("{line}"));
        calls.iter().map(|call| call.as_str().unwrap().to_owned()).collect()
    };
    let oneshot = calls("oneshot");
    assert!(oneshot.iter().any(|call| call.starts_with("read(") && call.contains("inotify>")), "{oneshot:?}");
    assert!(!oneshot.iter().any(|call| call.starts_with("inotify_add_watch")), "{oneshot:?}");
    // Only this one adds a watch as its operation.
    let second = calls("second-add-watch");
    let added = |call: &&String| call.starts_with("inotify_add_watch") && call.contains("IN_ATTRIB");
    assert_eq!(second.iter().filter(added).count(), 1, "{second:?}");
    assert_eq!(
        (&said.of("oneshot")["verdict"], &said.of("second-add-watch")["verdict"]),
        (&"confirmed".into(), &"confirmed".into())
    );
    let human = verify(&["--strace", "--color", "never", "oneshot"]);
    assert!(human.stdout.contains("\n  strace     "), "{}", human.stdout);
}

#[test]
fn without_strace_its_package_is_named() {
    if !root() {
        return;
    }
    let _others = MACHINE.read().unwrap();
    let said = finish(Command::new(HOTR).args(["verify", "--strace", "splice"]).env("PATH", "/nonexistent"));
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        said.stderr,
        "hotr: start strace: strace is not installed; install Debian's package strace; or leave out --strace\n"
    );
}
