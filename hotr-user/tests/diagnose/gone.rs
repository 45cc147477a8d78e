//! Watches whose path leads to another inode now.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use rustix::fs::inotify::WatchFlags;
use serde_json::json;

use super::run::{Instance, Scratch, diagnose, ino, inotifywait, of_pid, of_self, root, tool, until};

const FILE: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE).union(WatchFlags::DELETE_SELF);

#[test]
fn a_file_replaced_by_sed_leaves_inotifywait_deaf() {
    let scratch = Scratch::new("sed");
    let file = scratch.file("app.conf");
    let watcher = inotifywait(&[&file], 1);
    assert_eq!(of_pid(watcher.pid()).kinds(watcher.pid(), None), [("at-risk", "replaced-file")]);
    tool("sed", &["-i".as_ref(), "s/1/2/".as_ref(), file.as_os_str()]);
    until("the watch goes with the file", || watcher.watches() == 0 && watcher.is_asleep());
    let said = of_pid(watcher.pid());
    assert_eq!(said.kinds(watcher.pid(), None), [("deaf", "replaced-file")]);
    assert_eq!(said.status, Some(3));
    let finding = said.of(watcher.pid(), None)[0];
    assert_eq!(finding["proof"], "inferred");
    assert_eq!(finding["path"], file.to_str().unwrap());
    assert_eq!(finding["path_ino"], ino(&file));
    // The same, asked by the path.
    let said = diagnose(&[&file]);
    assert_eq!(said.status, Some(3));
    let answer = said.watcher(watcher.pid());
    assert_eq!(
        (answer["write"]["receives"].as_str(), answer["write"]["cause"].as_str()),
        (Some("no"), Some("replaced-file"))
    );
}

#[test]
fn a_replaced_file_that_is_held_is_deaf_with_both_inode_numbers() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("held");
    let file = scratch.file("app.conf");
    let old = ino(&file);
    let watcher = inotifywait(&[&file], 1);
    let _held = File::open(&file).unwrap();
    fs::rename(scratch.file("new"), &file).unwrap();
    let said = of_pid(watcher.pid());
    assert_eq!(said.kinds(watcher.pid(), None), [("deaf", "replaced-file")]);
    let finding = said.of(watcher.pid(), None)[0];
    let numbers = (finding["watched_ino"].as_u64(), finding["path_ino"].as_u64());
    assert_eq!(numbers, (Some(old), Some(ino(&file))));
    assert_ne!(numbers.0, numbers.1);
    assert_eq!((&finding["path"], &finding["proof"]), (&json!(file), &json!("inferred")));
}

#[test]
fn a_deleted_file_that_is_held_is_deaf() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("deleted");
    let file = scratch.file("app.conf");
    let instance = Instance::on(&file, FILE);
    let _held = File::open(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let finding = instance.finding();
    assert_eq!((&finding["severity"], &finding["cause"]), (&json!("deaf"), &json!("mark-gone")));
    assert_eq!(finding["path"], json!(file));
    assert_eq!(finding.get("path_ino"), None, "nothing has that name");
}

#[test]
fn a_program_that_watches_the_directory_too_is_not_deaf() {
    let scratch = Scratch::new("both");
    let file = scratch.file("app.conf");
    let instance = Instance::on(&file, FILE);
    instance.add(&scratch.0, WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::CLOSE_WRITE);
    let _held = File::open(&file).unwrap();
    fs::rename(scratch.file("new"), &file).unwrap();
    assert_eq!(instance.kinds(), []);
}

#[test]
fn a_backup_by_renaming_takes_the_watch_with_it() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("backup");
    for (name, backup) in [("app.conf", "app.conf~"), ("other.conf", "other.conf.bak")] {
        let file = scratch.file(name);
        let old = ino(&file);
        let watcher = inotifywait(&[&file], 1);
        fs::rename(&file, scratch.0.join(backup)).unwrap();
        scratch.file(name);
        let said = of_pid(watcher.pid());
        let deaf: Vec<_> =
            said.of(watcher.pid(), None).into_iter().filter(|line| line["severity"] == "deaf").collect();
        assert_eq!(deaf.len(), 1, "{backup}: {:?}", said.lines);
        assert_eq!((&deaf[0]["cause"], &deaf[0]["proof"]), (&json!("replaced-file"), &json!("inferred")));
        assert_eq!((&deaf[0]["watched_ino"], &deaf[0]["path_ino"]), (&json!(old), &json!(ino(&file))));
        assert_eq!(deaf[0]["path"], json!(file));
    }
}

#[test]
fn a_link_that_was_switched() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("switch");
    for release in ["1", "2"] {
        scratch.dir(&format!("releases/{release}"));
        scratch.file(&format!("releases/{release}/app.conf"));
    }
    let current = scratch.0.join("current");
    symlink("releases/1", &current).unwrap();
    let file = inotifywait(&[current.join("app.conf")], 1);
    let dir = inotifywait(&[&current], 1);
    let healthy = of_pid(dir.pid());
    assert_eq!(healthy.kinds(dir.pid(), None), []);
    symlink("releases/2", scratch.0.join("next")).unwrap();
    fs::rename(scratch.0.join("next"), &current).unwrap();
    for (watcher, named, leads) in [
        (&file, current.join("app.conf"), scratch.0.join("releases/2/app.conf")),
        (&dir, current.clone(), scratch.0.join("releases/2")),
    ] {
        let said = of_pid(watcher.pid());
        let deaf = said.of(watcher.pid(), None).into_iter().find(|line| line["severity"] == "deaf");
        let deaf = deaf.unwrap_or_else(|| panic!("{:?}", said.lines));
        assert_eq!((&deaf["cause"], &deaf["proof"]), (&json!("symlink-swap"), &json!("inferred")));
        assert_eq!((&deaf["path_in_target"], &deaf["path_ino"]), (&json!(named), &json!(ino(&leads))));
    }
}

#[test]
fn a_switched_data_link_of_a_volume() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("data");
    for version in ["..2026_1", "..2026_2"] {
        scratch.dir(version);
        scratch.file(&format!("{version}/app.conf"));
    }
    let data = scratch.0.join("..data");
    symlink("..2026_1", &data).unwrap();
    symlink("..data/app.conf", scratch.0.join("app.conf")).unwrap();
    let naive = Instance::on(&scratch.0.join("app.conf"), FILE);
    let aware = Instance::on(&scratch.0.join("app.conf"), FILE);
    aware.add(&scratch.0, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE);
    assert!(naive.kinds().iter().all(|(severity, _)| *severity != "deaf"));
    symlink("..2026_2", scratch.0.join("..data_tmp")).unwrap();
    fs::rename(scratch.0.join("..data_tmp"), &data).unwrap();
    let said = of_self();
    let of = |instance: &Instance| {
        let found = said.of(std::process::id(), Some(instance.fd()));
        found.into_iter().find(|line| line["severity"] == "deaf").cloned()
    };
    // One process watches the directory by its other instance, and so received it.
    assert_eq!(of(&naive), None);
    drop(aware);
    let said = of_self();
    let found = said.of(std::process::id(), Some(naive.fd()));
    let deaf = found.into_iter().find(|line| line["severity"] == "deaf").expect("deaf");
    assert_eq!(deaf["cause"], "symlink-swap");
    assert_eq!(deaf["path_ino"], json!(ino(&scratch.0.join("..2026_2/app.conf"))));
    assert_eq!(deaf["watched_ino"], json!(ino(&scratch.0.join("..2026_1/app.conf"))));
}
