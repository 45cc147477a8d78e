//! Each subscriber learns what it may read, and nothing else.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::run::{Bare, ONE, OTHER, Program, Scratch, agent, can_run, knows_processes, subscribe};

fn mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn two_users_with_different_rights_get_different_changes_of_one_tree() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("rights");
    scratch.dir("w/open", 0o755, 0);
    scratch.dir("w/own", 0o700, ONE);
    scratch.dir("w/secret", 0o700, 0);
    scratch.dir("w/search/in", 0o755, 0);
    scratch.dir("w/search", 0o711, 0);
    scratch.dir("w/secret/in", 0o755, 0);
    let _agent = agent(&scratch);
    let mut all: Vec<_> = [0, ONE, OTHER].map(|user| subscribe(&scratch, user, &scratch.w(""))).into();
    for name in
        ["own/of-one", "secret/hidden", "search/unlisted", "secret/in/below", "search/in/listed", "open/f"]
    {
        fs::write(scratch.w(name), "x").unwrap();
    }
    fs::remove_file(scratch.w("secret/hidden")).unwrap();
    fs::remove_file(scratch.w("open/f")).unwrap();
    fs::write(scratch.w("open/last"), "x").unwrap();
    for subscriber in &mut all {
        subscriber.change("write", "open/last");
    }
    let has = |subscriber: &Program, path: &str| subscriber.text().contains(&format!("\"path\":\"{path}\""));
    for (path, by) in [
        ("open/f", [true, true, true]),
        ("search/in/listed", [true, true, true]),
        ("own/of-one", [knows_processes(), true, false]),
        ("search/unlisted", [true, false, false]),
        ("secret/hidden", [true, false, false]),
        ("secret/in/below", [true, false, false]),
    ] {
        for (subscriber, wanted) in all.iter().zip(by) {
            assert_eq!(has(subscriber, path), wanted, "{path}: {}", subscriber.text());
        }
    }
    let removals = all.iter().map(|one| one.text().matches("\"op\":\"remove\"").count());
    assert_eq!(removals.collect::<Vec<_>>(), [2, 1, 1]);
    let uncovered = all.iter().map(|one| one.text().matches("\"type\":\"uncovered\"").count());
    assert_eq!(
        uncovered.collect::<Vec<_>>(),
        [u8::from(!knows_processes()).into(), 1, 1],
        "once for those who may not read all"
    );
    assert!(!all[2].text().contains("secret") && !all[2].text().contains("own"), "{}", all[2].text());
}

#[test]
fn rights_that_change_count_from_then_on() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("chmod");
    let dir = scratch.dir("w/d", 0o755, 0);
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    fs::write(dir.join("before"), "x").unwrap();
    subscriber.change("write", "d/before");
    mode(&dir, 0o700);
    subscriber.change("attrib", "d");
    subscriber.wait("uncovered", |line| line["type"] == "uncovered");
    for number in 0..50 {
        // The last right comes before anybody can have asked.
        fs::write(dir.join(format!("hidden-{number}")), "x").unwrap();
        fs::remove_file(dir.join(format!("hidden-{number}"))).unwrap();
        fs::write(dir.join(format!("hidden-too-{number}")), "x").unwrap();
        mode(&dir, 0o755);
        mode(&dir, 0o700);
    }
    mode(&dir, 0o755);
    fs::write(scratch.w("top"), "x").unwrap();
    subscriber.change("write", "top");
    fs::write(dir.join("after"), "x").unwrap();
    subscriber.change("write", "d/after");
    assert!(!subscriber.text().contains("hidden"), "{}", subscriber.text());
    // Of the root itself.
    mode(&scratch.w(""), 0o700);
    subscriber.change("attrib", "");
    fs::write(scratch.w("hidden"), "x").unwrap();
    mode(&scratch.w(""), 0o755);
    fs::write(scratch.w("last"), "x").unwrap();
    fs::write(scratch.w("d/last"), "x").unwrap();
    subscriber.change("write", "d/last");
    assert!(!subscriber.text().contains("\"path\":\"hidden\""), "{}", subscriber.text());
}

#[test]
fn each_end_of_a_rename_has_its_own_permission() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("ends");
    scratch.dir("w/open", 0o755, 0);
    scratch.dir("w/secret", 0o700, 0);
    fs::write(scratch.w("open/leaves"), "x").unwrap();
    fs::write(scratch.w("secret/classified"), "x").unwrap();
    fs::write(scratch.w("open/stays"), "x").unwrap();
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    let rename = |from: &str, to: &str| fs::rename(scratch.w(from), scratch.w(to)).unwrap();
    rename("open/leaves", "secret/leaves-for-this");
    let left = subscriber.change("remove", "open/leaves");
    assert_eq!(left["detail"].as_array().unwrap().last().unwrap(), "moved-out");
    rename("secret/classified", "open/comes");
    let came = subscriber.change("create", "open/comes");
    assert_eq!(came["detail"].as_array().unwrap().last().unwrap(), "moved-in");
    rename("secret/leaves-for-this", "secret/and-again");
    rename("open/stays", "open/renamed");
    let renamed = subscriber.change("rename", "open/renamed");
    assert_eq!(renamed["old_path"], "open/stays");
    for hidden in ["secret", "classified", "leaves-for-this", "and-again"] {
        assert!(!subscriber.text().contains(hidden), "{hidden}: {}", subscriber.text());
    }
}

#[test]
fn a_process_of_another_pid_namespace_has_no_name() {
    if !can_run() {
        return;
    }
    if !knows_processes() {
        return eprintln!("not run: the kernel gives no descriptor of who has connected");
    }
    let scratch = Scratch::new("pids");
    let _agent = agent(&scratch);
    let socket = scratch.socket();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(scratch.0.join("hotr"));
    command.args(["subscribe", "--json", "--socket", socket.to_str().unwrap()]).arg(scratch.w(""));
    let mut inside = Program::start(command);
    inside.wait("added", |line| line["type"] == "added");
    let mut beside = subscribe(&scratch, ONE, &scratch.w(""));
    fs::write(scratch.w("f"), "x").unwrap();
    let named = beside.change("write", "f");
    assert_eq!((&named["actor"]["pid"], &named["actor"]["uid"]), (&std::process::id().into(), &0.into()));
    assert!(named["actor"].get("exe").is_none() && named.get("outside").is_none(), "{named}");
    let unnamed = inside.change("write", "f");
    assert_eq!((unnamed.get("actor"), &unnamed["outside"]), (None, &true.into()), "{unnamed}");
}

#[test]
fn a_subscriber_below_another_takes_no_change_from_it() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("nested");
    let below = scratch.dir("w/a/b", 0o755, 0);
    let _agent = agent(&scratch);
    let mut above = subscribe(&scratch, OTHER, &scratch.w(""));
    let mut inner = subscribe(&scratch, ONE, &below);
    fs::write(below.join("f"), "x").unwrap();
    above.change("write", "a/b/f");
    inner.change("write", "f");
    fs::rename(scratch.w("a"), scratch.w("c")).unwrap();
    above.change("rename", "c");
    fs::write(scratch.w("c/b/g"), "x").unwrap();
    above.change("write", "c/b/g");
    inner.change("write", "g");
    // A name that is given from above is one of both.
    let status = Command::new("touch").arg("c/b/h").current_dir(scratch.w("")).uid(0).status().unwrap();
    assert!(status.success());
    above.change("create", "c/b/h");
    inner.change("create", "h");
    inner.send(rustix::process::Signal::TERM);
    assert_eq!(inner.end().0, Some(0));
    fs::write(scratch.w("c/b/i"), "x").unwrap();
    above.change("write", "c/b/i");
}

#[test]
fn who_comes_and_goes_below_another_takes_no_change_along() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("churn");
    let below = scratch.dir("w/a", 0o755, 0);
    let _agent = agent(&scratch);
    let mut above = subscribe(&scratch, ONE, &scratch.w(""));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let mut bare = Bare::greeted(&scratch);
                let held = fs::File::open(&below).unwrap();
                assert_eq!(bare.add(0, &[held.as_fd()])["type"], "added");
            }
        });
        for number in 0..300 {
            fs::write(below.join(format!("f{number}")), "x").unwrap();
            let path = format!("a/f{number}");
            let found = above.wait(&path, |line| {
                line["type"] == "loss" || line["op"] == "write" && line["path"] == path.as_str()
            });
            assert!(found["type"] == "change" || found["reason"] == "unplaced", "{found}");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_container_with_its_own_users_and_mounts_gets_its_own_changes() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("container");
    let at = scratch.dir("m", 0o755, 0);
    let _agent = agent(&scratch);
    let socket = scratch.socket();
    // A filesystem that only it sees; and a directory of the host that its root may not read.
    let fifo = scratch.0.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let script = "mount -t tmpfs none \"$1\" && \"$0\" subscribe --json --socket \"$2\" \"$1\" \"$3\" & \
        while read -r _ < \"$4\"; do echo x > \"$1/own\"; done";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        script,
    ]);
    command.arg(scratch.0.join("hotr")).args([&at, &socket, &scratch.w(""), &fifo]).uid(ONE).gid(ONE);
    scratch.dir("w/secret", 0o700, 0);
    let mut inside = Program::start(command);
    inside.wait("both are added", |line| line["type"] == "added" && line["root"] == 1);
    fs::write(&fifo, "go\n").unwrap();
    let own = inside.wait("its own change", |line| line["root"] == 0 && line["path"] == "own");
    assert_eq!((own.get("actor"), &own["outside"]), (None, &true.into()), "{own}");
    fs::write(scratch.w("secret/hidden"), "x").unwrap();
    fs::write(scratch.w("open"), "x").unwrap();
    inside.wait("a change of the host", |line| line["root"] == 1 && line["path"] == "open");
    assert!(!inside.text().contains("hidden"), "{}", inside.text());
}
