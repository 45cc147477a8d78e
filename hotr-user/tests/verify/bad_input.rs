//! What cannot be verified is one line and an exit status, or a verdict that says why.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::run::{HOTR, MACHINE, Scratch, finish, in_user_namespace, root, verify};

const NOBODY: u32 = 65534;

fn fails(words: &[&str], status: i32, starts: &str) {
    let said = verify(words);
    assert_eq!((said.status, said.stdout.as_str()), (Some(status), ""), "{words:?}: {}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    assert!(said.stderr.starts_with(&format!("hotr: {starts}")), "{}", said.stderr);
}

#[test]
fn usage() {
    fails(
        &["overlay-uper-write"],
        2,
        "'overlay-uper-write' is not an experiment; did you mean overlay-upper-write?",
    );
    fails(&["splice", ""], 2, "'' is not an experiment");
    fails(&["--repeat", "0"], 2, "invalid value '0'");
    fails(&["--list", "splice"], 2, "the argument '--list' cannot be used with");
    fails(&["--mute", "nobody"], 2, "invalid value 'nobody'");
}

#[test]
fn a_saved_run_that_is_none() {
    let scratch = Scratch::new("saved");
    let file = scratch.path().join("f");
    let expect = file.to_str().unwrap();
    fails(&["--expect", expect], 1, &format!("read {expect}: No such file"));
    fails(&["--expect", "/"], 1, "read /: Is a directory");
    fs::write(&file, "\n").unwrap();
    fails(&["--expect", expect], 1, &format!("read {expect}: it has no verdict"));
    fs::write(&file, b"\xff\x00").unwrap();
    fails(&["--expect", expect], 1, &format!("read {expect}: line 1 is not an object"));
}

#[test]
fn the_list_needs_no_privileges() {
    let human = verify(&["--list"]);
    let json = verify(&["--list", "--json"]);
    assert_eq!((human.status, json.status), (Some(0), Some(0)));
    let lines = json.lines();
    assert!(lines.len() >= 45, "{}", lines.len());
    for line in &lines {
        assert_eq!(line["type"], "experiment");
        let name = line["experiment"].as_str().unwrap();
        assert!(human.stdout.contains(&format!("\n  {name} ")), "{name}");
    }
}

#[test]
fn without_root() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("nobody");
    let copy = scratch.path().join("hotr");
    // By another process: a descriptor of this one, open for writing, could be in a child of another test for a moment.
    assert!(Command::new("cp").arg(HOTR).arg(&copy).status().unwrap().success());
    let said = finish(Command::new(&copy).arg("verify").uid(NOBODY).gid(NOBODY));
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        said.stderr,
        "hotr: verify claims: it mounts filesystems and loads eBPF programs; run it as root\n"
    );
}

#[test]
fn a_missing_mkfs_is_named_with_its_package() {
    if !root() {
        return;
    }
    let _others = MACHINE.read().unwrap();
    let words = ["verify", "--json", "inode-reuse-ext4", "inode-reuse-xfs", "inode-reuse-btrfs", "splice"];
    let said = finish(Command::new(HOTR).args(words).env("PATH", "/nonexistent"));
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    for (experiment, package) in [
        ("inode-reuse-ext4", "e2fsprogs"),
        ("inode-reuse-xfs", "xfsprogs"),
        ("inode-reuse-btrfs", "btrfs-progs"),
    ] {
        let line = said.of(experiment);
        assert_eq!(line["verdict"], "not-testable");
        assert!(
            line["why"].as_str().unwrap().ends_with(&format!("install Debian's package {package}")),
            "{line}"
        );
    }
    assert_eq!(said.of("splice")["verdict"], "confirmed");
}

#[test]
fn in_a_user_namespace_only_disks_and_ebpf_are_out_of_reach() {
    let Some(said) = in_user_namespace(&["rename-exchange", "mmap-store-ebpf"]) else { return };
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let names = said.of("rename-exchange");
    assert_eq!(
        (&names["verdict"], &names["channels"]["ebpf"]["state"]),
        (&"confirmed".into(), &"off".into())
    );
    assert_eq!(said.of("mmap-store-ebpf")["verdict"], "not-testable");
}
