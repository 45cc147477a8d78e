//! Who watches a path, and what they would receive.

use std::fs;
use std::path::Path;

use rustix::fs::inotify::WatchFlags;
use serde_json::{Value, json};

use super::run::{Instance, Scratch, diagnose, inotifywait, of_pid, root};

/// What an instance of this process would receive of a path: by, write, replace, create.
fn answer(instance: &Instance, path: &Path) -> Option<(Value, String)> {
    let said = diagnose(&[path]);
    let line = said.lines.iter().find(|line| {
        line["type"] == "watcher"
            && line["target"]["fd"] == instance.fd()
            && line["target"]["pid"] == std::process::id()
    })?;
    let words = ["write", "replace", "create"].map(|what| {
        let cause = line[what]["cause"].as_str().map(|cause| format!(":{cause}")).unwrap_or_default();
        format!("{}{cause}", line[what]["receives"].as_str().unwrap())
    });
    Some((line["by"].clone(), words.join(" ")))
}

#[test]
fn each_way_to_watch_a_file() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("who");
    let dir = scratch.dir("a");
    let file = scratch.file("a/app.conf");
    fs::create_dir(dir.join("b")).unwrap();
    let names = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    for (on, mask, by, want) in [
        (&file, WatchFlags::MODIFY, "file", "yes once:replaced-file no:never-watched"),
        (&file, WatchFlags::DELETE_SELF, "file", "no:mask-mismatch once:replaced-file no:never-watched"),
        (&dir, names | WatchFlags::CLOSE_WRITE, "directory", "yes yes yes"),
        (&dir, names, "directory", "no:mask-mismatch yes yes"),
        (&dir, WatchFlags::MODIFY, "directory", "yes no:mask-mismatch no:mask-mismatch"),
        (&scratch.0, names, "above", "no:never-watched no:never-watched no:never-watched"),
    ] {
        let instance = Instance::on(on, mask);
        let (found, words) = answer(&instance, &file).expect("an answer");
        assert_eq!((found, words.as_str()), (json!([by]), want), "{mask:?} on {}", on.display());
    }
    let other = Instance::on(&dir.join("b"), names);
    assert_eq!(answer(&other, &file), None);
    let former = Instance::on(&file, WatchFlags::MODIFY);
    let _held = fs::File::open(&file).unwrap();
    fs::rename(scratch.file("new"), &file).unwrap();
    let (by, words) = answer(&former, &file).expect("an answer");
    assert_eq!(
        (by, words.as_str()),
        (json!(["former-file"]), "no:replaced-file no:replaced-file no:replaced-file")
    );
}

#[test]
fn a_file_that_does_not_exist_yet() {
    let scratch = Scratch::new("absent");
    let file = scratch.0.join("later.conf");
    let said = diagnose(&[&file]);
    assert_eq!(said.status, Some(0));
    assert!(said.lines.iter().all(|line| line["type"] != "watcher"), "nobody watches it");
    let path = file.display();
    assert_eq!(said.stderr, format!("hotr: {path} does not exist, and no process watches its directory\n"));
    let page = || {
        let output =
            std::process::Command::new(super::run::HOTR).arg("diagnose").arg(&file).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(page(), format!("{path}  does not exist, and no process watches its directory"));
    let watcher = inotifywait(&[&scratch.0], 1);
    let said = diagnose(&[&file]);
    let line = said.watcher(watcher.pid());
    assert_eq!((&line["create"]["receives"], line.get("path_ino")), (&json!("yes"), None));
    let who = format!("inotifywait[{}]", watcher.pid());
    assert_eq!(said.stderr, format!("hotr: {path} does not exist; {who} watches its directory\n"));
    assert_eq!(page(), format!("{path}  does not exist; {who} watches its directory"));
    // A path that exists is not said to be absent.
    scratch.file("later.conf");
    assert_eq!(diagnose(&[&file]).stderr, "");
}

#[test]
fn a_chosen_process_that_does_not_watch_the_path_says_so() {
    let scratch = Scratch::new("chosen");
    let watcher = inotifywait(&[&scratch.0], 1);
    let said = diagnose(&["--pid", &watcher.pid().to_string(), "/etc/passwd"]);
    let line = said.watcher(watcher.pid());
    assert_eq!((&line["by"], &line["write"]["cause"]), (&json!(["nothing"]), &json!("never-watched")));
}

#[test]
fn marks_of_fanotify() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("fanotify");
    let file = scratch.file("f");
    // SAFETY: plain system calls on a new descriptor.
    let fd =
        unsafe { libc::fanotify_init(libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK, 0) };
    if fd < 0 {
        eprintln!("not run: the kernel has no fanotify");
        return;
    }
    let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let mask = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
    // SAFETY: the path is a C string that lives until the call returns.
    let marked = unsafe { libc::fanotify_mark(fd, libc::FAN_MARK_ADD, mask, libc::AT_FDCWD, path.as_ptr()) };
    assert_eq!(marked, 0);
    let me = std::process::id();
    let said = diagnose(&[&file]);
    let line =
        said.lines.iter().find(|line| line["type"] == "watcher" && line["target"]["fd"] == fd).unwrap();
    assert_eq!((&line["target"]["mechanism"], &line["by"]), (&json!("fanotify"), &json!(["file"])));
    assert_eq!(
        (&line["write"]["receives"], &line["mask"]),
        (&json!("yes"), &json!(["FAN_MODIFY", "FAN_CLOSE_WRITE"]))
    );
    assert_eq!(line["replace"]["receives"], "no");
    assert_eq!(of_pid(me).kinds(me, Some(fd)), []);
    // SAFETY: the descriptor is this test's own.
    unsafe { libc::close(fd) };
}
