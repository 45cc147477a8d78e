//! The last good content is put back, and nothing else is touched.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::run::{Scratch, Watch, root};

/// Health is: no file below the watched directory says `bad`.
fn health(scratch: &Scratch) -> String {
    scratch.script("health", &format!("! grep -rqs bad {}", scratch.w().display()))
}

#[test]
fn bad_content_goes_and_the_good_comes_back_whole() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("back");
    let (one, two) = (scratch.file("one", "good 1"), scratch.file("two", "good 2"));
    fs::set_permissions(&one, fs::Permissions::from_mode(0o640)).unwrap();
    chown(&one, Some(12), Some(34)).unwrap();
    setxattr(&one, "trusted.hotr", b"x", XattrFlags::empty()).unwrap();
    let before = fs::metadata(&one).unwrap();
    let health = health(&scratch);
    let args = ["-p", "--health", &health, "--health-timeout", "5s", "--rollback"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::write(&two, "good 3").unwrap();
    watch.reload("done");
    // By another file, so that nothing of the former is left; and one more that was not there.
    watch.at_once(|| {
        fs::write(scratch.0.join("new"), "bad").unwrap();
        fs::rename(scratch.0.join("new"), &one).unwrap();
        fs::write(scratch.w().join("three"), "bad").unwrap();
        fs::remove_file(&two).unwrap();
    });
    watch.reload("unhealthy");
    let line = watch.reload("started");
    assert_eq!(line["trigger"], "rollback", "{line}");
    assert_eq!(watch.names(&line), ["one", "three", "two"], "{line}");
    watch.reload("done");
    assert_eq!(fs::read_to_string(&one).unwrap(), "good 1");
    assert_eq!(fs::read_to_string(&two).unwrap(), "good 3");
    assert!(!scratch.w().join("three").exists());
    let after = fs::metadata(&one).unwrap();
    let of = |data: &fs::Metadata| (data.mode(), data.uid(), data.gid(), data.mtime(), data.mtime_nsec());
    assert_eq!(of(&after), of(&before));
    let mut value = [0_u8; 8];
    assert_eq!(getxattr(&one, "trusted.hotr", &mut value[..]), Ok(1));
    watch.nothing_but_a_marker();
    let said = watch.end();
    assert!(!said.contains("left alone"), "{said}");
    let left: Vec<_> = fs::read_dir(scratch.w()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn what_changed_since_is_left_alone() {
    let scratch = Scratch::new("since");
    let conf = scratch.file("conf", "good");
    // Somebody repairs it while the service is asked.
    let health = scratch.script("health", &format!("echo repaired > {}; exit 1", conf.display()));
    let args = ["-p", "--health", &health, "--health-timeout", "20ms", "--rollback"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::write(&conf, "bad").unwrap();
    watch.reload("unhealthy");
    watch.until_said("it has changed since; left alone");
    assert_eq!(fs::read_to_string(&conf).unwrap(), "repaired\n");
    watch.end();
}

fn goes_back(watch: &mut Watch, file: &Path, good: &str) {
    fs::write(file, "bad").unwrap();
    watch.wait("a rollback", |line| line["trigger"] == "rollback" && line["state"] == "done");
    assert_eq!(fs::read_to_string(file).unwrap(), good);
}

#[test]
fn behind_a_named_link_the_file_goes_back_and_the_link_stays() {
    let scratch = Scratch::new("back-link");
    let (one, two) = (scratch.file("one", "good 1"), scratch.file("two", "good 2"));
    let link = scratch.0.join("link");
    symlink("w/one", &link).unwrap();
    let health = scratch.script("health", &format!("! grep -qs bad {}", link.display()));
    let args = ["-p", "--health", &health, "--health-timeout", "5s", "--rollback"];
    let mut watch = Watch::start(&args, &link, &["true"]);
    goes_back(&mut watch, &one, "good 1");
    // It leads to another file: what the former one held is not put there.
    symlink("w/two", scratch.0.join("next")).unwrap();
    fs::rename(scratch.0.join("next"), &link).unwrap();
    watch.wait("the link", |line| line["changes"][0]["kind"] == "link");
    watch.reload("done");
    goes_back(&mut watch, &two, "good 2");
    assert_eq!(fs::read_to_string(&one).unwrap(), "good 1");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("w/two"));
    watch.end();
}

#[test]
fn without_a_place_for_good_content_nothing_starts() {
    let scratch = Scratch::new("no-place");
    let args = ["watch", "--health", "true", "--rollback", "--backup-dir", "/no/such/place"];
    let hotr = std::process::Command::new(super::run::HOTR)
        .args(args)
        .arg(scratch.w())
        .args(["--", "true"])
        .output();
    let hotr = hotr.unwrap();
    let said = String::from_utf8(hotr.stderr).unwrap();
    assert_eq!((hotr.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let cause = "No such file or directory (os error 2)";
    assert!(
        said.contains(&format!("/no/such/place: {cause}; name another place with --backup-dir")),
        "{said}"
    );
    assert_eq!(said.matches(cause).count(), 1, "{said}");
}

#[test]
fn a_vanished_directory_is_said() {
    let scratch = Scratch::new("vanished");
    scratch.file("d/conf", "good");
    let args = ["-p", "--health", "false", "--health-timeout", "20ms", "--rollback"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::remove_dir_all(scratch.w().join("d")).unwrap();
    watch.reload("unhealthy");
    watch.until_said("its directory is gone");
    watch.end();
}

#[test]
fn a_full_disk_costs_the_rollback_only() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("full");
    let small = scratch.0.join("small");
    fs::create_dir(&small).unwrap();
    let target = CString::new(small.as_os_str().as_bytes()).unwrap();
    mount(c"hotr-watch", &target, c"tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    let conf = scratch.file("conf", &"good".repeat(100_000));
    for number in 1..30 {
        scratch.file(&format!("conf-{number}"), &"good".repeat(100_000));
    }
    let args = ["-p", "--health", "true", "--rollback", "--backup-dir", small.to_str().unwrap()];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    watch.until_said("No space left on device");
    watch.until_said("25 more files could not be kept; they cannot be rolled back either");
    assert_eq!(watch.said().matches("it cannot be rolled back").count(), 5, "{}", watch.said());
    fs::write(&conf, "small").unwrap();
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
    unmount(&small, UnmountFlags::DETACH).unwrap();
}
