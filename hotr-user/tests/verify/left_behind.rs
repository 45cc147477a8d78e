//! However a run ends, the machine is as before: mounts, loop devices, processes, files, limits.

use rustix::process::Signal;

use super::machine::{Machine, leaves_nothing};
use super::run::{MACHINE, Running, root};

#[test]
fn after_a_signal() {
    if !root() {
        return;
    }
    let _alone = MACHINE.write().unwrap();
    let before = Machine::now();
    for (signal, lines) in [(Signal::INT, 9), (Signal::TERM, 1)] {
        let mut run = Running::start(&["--json"]);
        run.read(lines);
        run.send(signal);
        let group = run.child.id();
        // The rest of the lines must be read: the run may be in the middle of one.
        let status = run.end();
        assert_eq!(status, Some(0), "{signal:?}");
        leaves_nothing(&before, group);
    }
}

#[test]
fn after_being_killed_anywhere() {
    if !root() {
        return;
    }
    let _alone = MACHINE.write().unwrap();
    let before = Machine::now();
    // Before anything was said, among overlays, while ext4, btrfs, a loop device and xfs are made, in another process, and after all.
    for lines in [0, 5, 10, 14, 32, 38, 41, 52, 64, 70] {
        let mut run = Running::start(&["--json", "--keep"]);
        run.read(lines);
        run.send(Signal::KILL);
        let group = run.child.id();
        assert_eq!(run.end(), None);
        leaves_nothing(&before, group);
    }
}

#[test]
fn after_a_usual_end() {
    if !root() {
        return;
    }
    let _alone = MACHINE.write().unwrap();
    let before = Machine::now();
    let mut run =
        Running::start(&["--json", "mmap-store", "inode-reuse-xfs", "inode-reuse-btrfs", "overlay-whiteout"]);
    let group = run.child.id();
    assert_eq!(run.end(), Some(0));
    leaves_nothing(&before, group);
}
