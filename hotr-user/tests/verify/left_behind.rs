//! However a run ends, the machine is as before: mounts, loop devices, processes, files, limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::run::{MACHINE, Running, root, until};

/// Where a laboratory may be.
const PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/mnt"];

/// What a run could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: BTreeSet<String>,
    loops: BTreeSet<String>,
    limits: Vec<String>,
    files: BTreeSet<String>,
}

impl Machine {
    fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap();
        // Others on this machine mount as well: what is in the places of a laboratory, or has its name.
        let is_place = |line: &&str| {
            let point = line.split(' ').nth(4).unwrap_or_default();
            line.contains("hotr-verify") || PLACES.iter().any(|place| Path::new(point).starts_with(place))
        };
        let mounts = read("/proc/self/mountinfo").lines().filter(is_place).map(str::to_owned).collect();
        let devices = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path());
        let files = devices.filter_map(|path| fs::read_to_string(path.join("loop/backing_file")).ok());
        let is_own = |file: &String| file.contains("/images/") || file.contains("/d/backing");
        let loops = files.filter(is_own).collect();
        let limits = ["max_queued_events", "max_user_instances", "max_user_watches"];
        let limits = limits.map(|name| read(&format!("/proc/sys/fs/inotify/{name}"))).into();
        let files = PLACES.into_iter().flat_map(names).collect();
        Self { mounts, loops, limits, files }
    }
}

/// Names of this program in a directory; other programs have theirs there as well.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_own = |name: &String| {
        ["overlay-", "inode-reuse", "images", "barriers", "ext4", "xfs", "btrfs", "rename-", "mmap-"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    names.filter(is_own).map(|name| format!("{folder}/{name}")).collect()
}

/// Processes of a group.
fn members(group: u32) -> Vec<String> {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let of_group = |stat: &String| {
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().nth(2) == Some(group.to_string().as_str())
    };
    stats.filter(of_group).collect()
}

fn leaves_nothing(before: &Machine, group: u32) {
    until("the end of all processes of the run", || members(group).is_empty());
    until("the machine as before", || Machine::now() == *before);
}

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
