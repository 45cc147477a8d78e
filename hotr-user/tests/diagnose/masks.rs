//! Masks that leave out what usual programs do, and trees with directories that have no watch.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::inotify::WatchFlags;
use serde_json::json;

use super::run::{Instance, Scratch, of_self, root};

#[test]
fn masks_of_directories_and_files() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("masks");
    let (dir, file) = (scratch.dir("dir"), scratch.file("file"));
    const NAMES: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO);
    let whole = NAMES | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::MOVED_FROM;
    for (path, mask, want) in [
        (&dir, whole, &[][..]),
        (&dir, WatchFlags::DELETE | WatchFlags::DELETE_SELF, &[]),
        (&dir, WatchFlags::MODIFY, &[("at-risk", "mask-mismatch")]),
        (&dir, WatchFlags::CREATE | WatchFlags::CLOSE_WRITE, &[("at-risk", "mask-mismatch")]),
        (&dir, NAMES, &[("note", "mask-mismatch")]),
        (&dir, WatchFlags::CREATE, &[("at-risk", "mask-mismatch"), ("note", "mask-mismatch")]),
        (&dir, whole | WatchFlags::ONESHOT, &[("at-risk", "mark-gone")]),
        (&dir, whole | WatchFlags::EXCL_UNLINK, &[("note", "mark-gone")]),
        (&file, WatchFlags::MODIFY, &[("at-risk", "replaced-file")]),
        (&file, WatchFlags::ATTRIB | WatchFlags::DELETE_SELF, &[]),
    ] {
        let instance = Instance::on(path, mask);
        assert_eq!(instance.kinds(), want, "{mask:?} on {}", path.display());
    }
}

#[test]
fn equal_faults_of_an_instance_are_one_finding() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("many");
    let instance = Instance::new();
    for n in 0..5 {
        instance.add(&scratch.file(&n.to_string()), WatchFlags::MODIFY);
    }
    let finding = instance.finding();
    assert_eq!((&finding["watches"], &finding["target"]["wd"]), (&json!(5), &json!(null)));
    assert_eq!(finding["mask"], json!(["IN_MODIFY"]));
}

#[test]
fn a_directory_of_a_tree_without_a_watch() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("tree");
    let mask = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    let watched = ["", "a", "a/b", "c", "c/d", "c/e"];
    for dir in watched {
        scratch.dir(dir);
    }
    let quiet = Instance::new();
    for dir in watched {
        quiet.add(&scratch.0.join(dir), mask);
    }
    for left_out in [".git", "node_modules", "a/b/target"] {
        scratch.dir(left_out);
    }
    assert_eq!(quiet.kinds(), [], "what watchers leave out, and what is new");
    let missed = scratch.dir("a/missed");
    until_aged(&missed);
    let finding = quiet.finding();
    assert_eq!(
        (&finding["severity"], &finding["cause"], &finding["proof"]),
        (&json!("at-risk"), &json!("never-watched"), &json!("inferred"))
    );
    assert_eq!((&finding["path"], &finding["watches"]), (&json!(missed), &json!(1)));
}

/// Waits until a directory is so old that its watcher must have had time.
fn until_aged(dir: &std::path::Path) {
    super::run::until("a directory is some seconds old", || {
        let changed = fs::metadata(dir).unwrap().ctime();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() > changed + 3
    });
}

#[test]
fn a_tree_whose_watches_would_report_a_listing_is_counted_only() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("count");
    let all = WatchFlags::from_bits_retain(0xfff);
    for dir in ["a", "b", "c", ".git", "node_modules"] {
        scratch.dir(dir);
    }
    let instance = Instance::on(&scratch.0, all);
    for dir in ["a", "b"] {
        instance.add(&scratch.0.join(dir), all);
    }
    until_aged(&scratch.0);
    let before = instance.unread();
    let said = of_self();
    assert_eq!(instance.unread(), before, "hotr caused an event");
    let found = said.of(std::process::id(), Some(instance.fd()));
    let missing = found.iter().find(|line| line["cause"] == "never-watched").expect("a finding");
    assert_eq!((&missing["path"], &missing["watches"]), (&json!(scratch.0), &json!(1)));
}
