//! What the experiments find on this kernel.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;

use super::run::{MACHINE, Running, root, verify, whole};

/// What holds on every kernel that hotr supports.
const SURE: [(&str, &str); 22] = [
    ("overlay-upper-write", "confirmed"),
    ("overlay-lower-write", "confirmed"),
    ("overlay-workdir-write", "refuted"),
    ("rename-pairs-tmpfs", "confirmed"),
    ("rename-exchange", "confirmed"),
    ("hardlink-alias", "confirmed"),
    ("replaced-file", "confirmed"),
    ("replaced-file-held-open", "refuted"),
    ("data-swap", "refuted"),
    ("queue-overflow", "confirmed"),
    ("merged-events", "confirmed"),
    ("oneshot", "confirmed"),
    ("second-add-watch", "confirmed"),
    ("recursive-watch", "refuted"),
    ("overlay-redirect-dir", "refuted"),
    ("overlay-upper-shared", "refuted"),
    ("renames-ext4-ordered", "refuted"),
    ("watch-limit", "confirmed"),
    ("watch-limit-descriptors", "refuted"),
    ("watch-limit-freed", "refuted"),
    ("namespace-private-tmpfs", "confirmed"),
    ("mtime-set-back", "confirmed"),
];

#[test]
fn two_runs_give_the_same_verdicts() {
    if !root() {
        return;
    }
    let first = whole();
    let second = verify(&["--json"]);
    assert_eq!(first.verdicts(), second.verdicts());
    let verdicts = first.verdicts();
    for (experiment, verdict) in SURE {
        assert_eq!(verdicts.get(experiment).map(String::as_str), Some(verdict), "{}", first.of(experiment));
    }
    let lines = first.lines();
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["experiments"]), (&"summary".into(), &verdicts.len().into()));
    for line in &lines[..lines.len() - 1] {
        assert!(line["duration_ms"].as_u64().unwrap() < 10_000, "{line}");
        for channel in ["inotify", "fanotify", "ebpf", "poll"] {
            assert!(line["channels"][channel]["count"].is_u64(), "{line}");
        }
    }
}

#[test]
fn the_evidence_is_what_was_received() {
    if !root() {
        return;
    }
    let write = whole().of("overlay-merged-write");
    let events = &write["channels"]["inotify"]["events"];
    assert_eq!(events[0], "upper: MODIFY f", "{write}");
    let queue = whole().of("queue-overflow");
    let limit: u64 =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    assert_eq!(queue["channels"]["inotify"]["count"], limit + 1, "{queue}");
    let tree = whole().of("recursive-watch");
    assert_eq!((&tree["facts"]["watches"], &tree["facts"]["new_descriptors"]), (&585.into(), &0.into()));
}

/// Every channel is observed: three receive nothing of the change and do receive the next one, the fourth sees it.
#[test]
fn a_change_behind_a_fuse_mount_is_only_polled() {
    if !root() {
        return;
    }
    if fs::File::open("/dev/fuse").is_err() {
        eprintln!("not run: the kernel has no FUSE");
        return;
    }
    let whole = whole();
    let wanted = [
        ("fuse-behind", "confirmed"),
        ("fuse-cached", "confirmed"),
        ("fuse-invalidate", "refuted"),
        ("fuse-notify-delete", "partly"),
    ];
    for (experiment, verdict) in wanted {
        assert_eq!(whole.of(experiment)["verdict"], verdict, "{}", whole.of(experiment));
    }
    let behind = whole.of("fuse-behind");
    assert_eq!(behind["filesystems"], serde_json::json!(["tmpfs", "fuse"]));
    assert_eq!(behind["channels"]["poll"]["events"][1], "m/f: size|mtime|ctime", "{behind}");
    let elsewhere = whole.of("fuse-elsewhere");
    if elsewhere["channels"]["ebpf"]["state"] != "listening" {
        eprintln!("not run: eBPF is off here, or hotr was built without its object");
        return;
    }
    assert_eq!(elsewhere["verdict"], "confirmed", "{elsewhere}");
    for control in ["control", "control_fanotify", "control_ebpf"] {
        assert_eq!(elsewhere["facts"][control], 1, "{elsewhere}");
    }
    let seen = &whole.of("fuse-behind-ebpf")["channels"]["ebpf"]["events"];
    assert_eq!(seen, &serde_json::json!(["write backing/f"]));
}

#[test]
fn a_container_and_the_remedies() {
    if !root() {
        return;
    }
    let wanted = [
        ("container-write", "refuted"),
        ("container-fanotify", "confirmed"),
        ("container-host-write", "refuted"),
        ("container-bind", "confirmed"),
        ("container-socket", "confirmed"),
    ];
    let is_there = Command::new("crun").arg("--version").output().is_ok();
    for (experiment, verdict) in wanted {
        let found = whole().of(experiment);
        if is_there {
            assert_eq!(found["verdict"], verdict, "{found}");
        } else {
            assert_eq!(found["why"], "crun is not installed; install Debian's package crun", "{found}");
        }
    }
    if is_there {
        let written = whole().of("container-write");
        assert_eq!(written["channels"]["inotify"]["events"], serde_json::json!(["merged/app: MODIFY f"]));
        // `MODIFY f` and the end of the line.
        assert_eq!(whole().of("container-socket")["facts"]["told_bytes"], 9);
    }
}

#[test]
fn recursive_watches_are_measured() {
    if !root() {
        return;
    }
    let tree = whole().of("recursive-memory");
    let facts = &tree["facts"];
    let number = |name: &str| facts[name].as_u64().unwrap();
    assert_eq!((number("watches_5x3"), number("descriptors_8x5")), (364, 0), "{tree}");
    if number("limit") == 8000 {
        assert_eq!((number("watches_6x4"), number("refused_6x4")), (5461, 0), "{tree}");
        assert_eq!((number("watches_8x5"), number("refused_8x5")), (8000, 200), "{tree}");
    }
    assert_eq!(number("events"), 3, "{tree}");
    if tree["verdict"] != "not-testable" {
        // A mark and its connector cannot be smaller than their pointers.
        assert!(number("bytes_8x5") > number("watches_8x5") * 64, "{tree}");
    }
}

#[test]
fn a_page_has_a_line_of_each_channel_and_a_table() {
    if !root() {
        return;
    }
    let said = verify(&["--repeat", "3", "--color", "never", "rename-exchange", "mask-mismatch"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], "CONFIRMED    rename-exchange");
    for (line, key) in lines[1..7].iter().zip(["claim", "because", "inotify", "fanotify", "ebpf", "poll"]) {
        assert!(line.starts_with(&format!("  {key}")), "{line}");
    }
    assert!(said.stdout.contains("\nCONFIRMED      2\nREFUTED        0\n"), "{}", said.stdout);
}

#[test]
fn two_runs_at_once_do_not_disturb_each_other() {
    if !root() {
        return;
    }
    let names = ["--json", "mmap-store", "inode-reuse-ext4", "loop-device-write"];
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| verify(&names));
        (verify(&names), other.join().unwrap())
    });
    assert_eq!(one.verdicts(), other.verdicts());
    assert_eq!(one.verdicts().len(), 3);
}

#[test]
fn what_is_kept_can_be_looked_at() {
    if !root() {
        return;
    }
    let _others = MACHINE.read().unwrap();
    let mut run = Running::start(&["--json", "--keep", "overlay-upper-write"]);
    run.read(2);
    let merged = format!("/proc/{}/root/tmp/overlay-upper-write-0/merged/f", run.child.id());
    // The last write is the one that the watch had to receive.
    assert_eq!(fs::read(&merged).unwrap(), b"3\n\n");
    let pid = run.child.id();
    let mut said = String::new();
    BufReader::new(run.child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let wanted = format!(
        "hotr: files and mounts stay in /tmp of process {pid} until Ctrl-C; look at them with: nsenter -t {pid} -m ls /tmp\n"
    );
    assert_eq!(said, wanted);
    run.send(rustix::process::Signal::INT);
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
}
