//! What the machine has that a run could leave behind or change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::run::{until, until_said};

/// Where a laboratory may be.
const PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/mnt"];

/// What a run could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    mounts: BTreeSet<String>,
    loops: BTreeSet<String>,
    sysctls: BTreeMap<PathBuf, Vec<u8>>,
    files: BTreeSet<String>,
}

impl Machine {
    /// What is not the same now.
    fn differences(&self, now: &Self) -> Vec<String> {
        let sets = [(&self.mounts, &now.mounts), (&self.loops, &now.loops), (&self.files, &now.files)];
        let sets = sets.into_iter().flat_map(|(one, other)| one.symmetric_difference(other).cloned());
        let is_other = |(path, value): &(&PathBuf, &Vec<u8>)| self.sysctls.get(*path) != Some(value);
        let sysctls = now.sysctls.iter().filter(is_other);
        let text =
            |value: Option<&Vec<u8>>| value.map(|value| String::from_utf8_lossy(value).trim().to_owned());
        let sysctls = sysctls.map(|(path, value)| {
            format!("{} is {:?}, was {:?}", path.display(), text(Some(value)), text(self.sysctls.get(path)))
        });
        sets.chain(sysctls).collect()
    }

    pub(crate) fn now() -> Self {
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
        let sysctls = ["fs", "kernel", "user", "vm"]
            .into_iter()
            .flat_map(|folder| sysctls(&Path::new("/proc/sys").join(folder)));
        let files = PLACES.into_iter().flat_map(names).collect();
        Self { mounts, loops, sysctls: sysctls.collect(), files }
    }
}

/// The settings below a directory of /proc/sys; what only counts is none.
fn sysctls(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    const COUNTERS: [&str; 11] = [
        "dentry-state",
        "file-nr",
        "inode-nr",
        "inode-state",
        "aio-nr",
        "ns_last_pid",
        "quota",
        "random",
        "pty",
        "stat_refresh",
        // Written by renames-ext4-pressure; it has no value.
        "drop_caches",
    ];
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if COUNTERS.iter().any(|counter| entry.file_name() == *counter) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(sysctls(&entry.path())),
            _ => all.extend(fs::read(entry.path()).ok().map(|value| (entry.path(), value))),
        }
    }
    all
}

/// Names of this program in a directory; other programs have theirs there as well.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_own = |name: &String| {
        [
            "overlay-",
            "inode-reuse",
            "images",
            "barriers",
            "ext4",
            "xfs",
            "btrfs",
            "rename-",
            "mmap-",
            "fuse-",
            "container-",
            "recursive-",
        ]
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

pub(crate) fn leaves_nothing(before: &Machine, group: u32) {
    until("the end of all processes of the run", || members(group).is_empty());
    until_said("the machine as before", || {
        let differences = before.differences(&Machine::now());
        (differences.is_empty(), differences.join(", "))
    });
}
