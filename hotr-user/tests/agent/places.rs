//! Subscribers that make a directory of theirs seem to hold another's: the agent compares paths to find who else has a change,
//! and whoever arranges paths must gain nothing by it.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use super::run::{Bare, ONE, OTHER, Program, Scratch, agent, can_run, subscribe};

/// Connects, and only then changes its root directory: all paths that its `/proc` shows begin there.
const CHROOTED: &str = r#"
import json, os, socket, struct, sys
agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
agent.connect(sys.argv[1])
def send(message, descriptors=()):
    body = json.dumps(message).encode()
    socket.send_fds(agent, [struct.pack("<I", len(body)) + body], descriptors)
send({"type": "hello", "version": 1})
os.chroot(sys.argv[2])
os.chdir("/")
send({"type": "add", "root": 0}, [os.open("/", os.O_RDONLY | os.O_DIRECTORY)])
stream = agent.makefile("rb")
while head := stream.read(4):
    print(stream.read(struct.unpack("<I", head)[0]).decode(), flush=True)
"#;

#[test]
fn who_changes_its_root_directory_takes_no_names_of_a_private_one() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("chroot");
    let at = scratch.dir("m", 0o755, 0);
    // Where the paths say that the subscriber's directory lies.
    let forged = format!("w{}", at.display());
    scratch.dir(&forged, 0o700, OTHER);
    let private = scratch.0.join(&forged);
    let _agent = agent(&scratch);
    let mut owner = subscribe(&scratch, 0, &private);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount --bind \"$1\" \"$2\" && exec python3 -c \"$4\" \"$3\" \"$2\"").arg("sh");
    command.args([&scratch.w(""), &at, &scratch.socket()]).arg(CHROOTED).uid(ONE).gid(ONE);
    let mut attacker = Program::start(command);
    let answer = attacker.wait("an answer", |line| line["type"] == "added" || line["type"] == "refused");
    for number in 0..20 {
        let file = private.join(format!("classified-{number}"));
        fs::write(&file, "x").unwrap();
        fs::remove_file(&file).unwrap();
        owner.change("remove", &format!("classified-{number}"));
    }
    fs::write(scratch.w("last"), "x").unwrap();
    if answer["type"] == "added" {
        attacker.change("write", "last");
    }
    assert!(!attacker.text().contains("classified"), "{}", attacker.text());
}

#[test]
fn who_moves_directories_that_nobody_watches_takes_no_names_of_a_private_one() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("swapped");
    for dir in ["u", "u/x", "u/y"] {
        scratch.dir(dir, 0o755, ONE);
    }
    let own = scratch.dir("u/x/p", 0o755, ONE);
    scratch.dir("u/y/p", 0o700, OTHER);
    scratch.dir("u/y/p/in", 0o755, OTHER);
    let _agent = agent(&scratch);
    let mut attacker = subscribe(&scratch, ONE, &own);
    let rename = |from: &str, to: &str| fs::rename(scratch.0.join(from), scratch.0.join(to)).unwrap();
    rename("u/x", "u/z");
    rename("u/y", "u/x");
    let moved = scratch.0.join("u/z/p");
    // The private directory has the path now that the agent knows of the other one.
    let mut owner = subscribe(&scratch, OTHER, &own);
    let mut inner = Bare::greeted(&scratch);
    let held = File::open(own.join("in")).unwrap();
    let (top, flags) = (File::open(&own).unwrap(), OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC);
    assert_eq!(inner.add(0, &[held.as_fd()])["type"], "added");
    for number in 0..20 {
        for file in [format!("classified-{number}"), format!("in/classified-{number}")] {
            // By a descriptor: so the kernel says where it is at each tier.
            let made = openat(top.as_fd(), file.as_str(), flags, Mode::RUSR).unwrap();
            rustix::io::write(&made, b"x").unwrap();
            unlinkat(top.as_fd(), file.as_str(), AtFlags::empty()).unwrap();
            owner.change("remove", &file);
        }
    }
    fs::write(moved.join("last"), "x").unwrap();
    attacker.change("write", "last");
    assert!(!attacker.text().contains("classified"), "{}", attacker.text());
}

#[test]
fn a_directory_below_another_has_its_changes_from_it_though_both_move() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("both");
    let below = scratch.dir("w/a/b/c", 0o755, 0);
    let _agent = agent(&scratch);
    let mut above = subscribe(&scratch, ONE, &scratch.w(""));
    // What the programs remember of the directory is of the time before it was a root.
    fs::write(below.join("first"), "x").unwrap();
    above.change("write", "a/b/c/first");
    let mut inner = subscribe(&scratch, OTHER, &below);
    fs::write(below.join("f"), "x").unwrap();
    above.change("write", "a/b/c/f");
    inner.change("write", "f");
    fs::set_permissions(&below, fs::Permissions::from_mode(0o775)).unwrap();
    above.change("attrib", "a/b/c");
    inner.change("attrib", "");
    fs::rename(scratch.w("a/b"), scratch.w("d")).unwrap();
    above.change("rename", "d");
    fs::write(scratch.w("d/c/g"), "x").unwrap();
    above.change("write", "d/c/g");
    inner.change("write", "g");
}
