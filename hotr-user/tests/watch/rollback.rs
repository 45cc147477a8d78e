//! The last good content is restored, and nothing else is touched.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::run::{Scratch, Watch, root};

/// Health is: no file below the watched directory says `bad`, but those that hotr keeps.
fn health(scratch: &Scratch) -> String {
    scratch.script("health", &format!("! grep -rqs --exclude='.hotr-*' bad {}", scratch.w().display()))
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
    assert!(!said.contains("left alone") && said.contains("the last good content is restored"), "{said}");
    let left: Vec<_> = fs::read_dir(scratch.w()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
    for name in [".hotr-bad-one", ".hotr-bad-three"] {
        assert_eq!(fs::read_to_string(scratch.w().join(name)).unwrap(), "bad");
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn what_changed_since_is_left_alone() {
    let scratch = Scratch::new("since");
    let conf = scratch.file("conf", "good");
    // Somebody repairs it while the service is asked.
    let next = scratch.0.join("next");
    let repair = format!("echo repaired > {0} && mv {0} {1}; exit 1", next.display(), conf.display());
    let health = scratch.script("health", &repair);
    let args = ["-p", "--health", &health, "--health-timeout", "5s", "--rollback"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::write(&conf, "bad").unwrap();
    watch.reload("unhealthy");
    watch.until_said("it has changed since; left alone");
    watch.until_said("of 0 of 1 files is restored");
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

/// The link itself goes back, by its target: no copy of a directory takes its name, and nothing is written behind it.
#[test]
fn a_link_to_a_directory_goes_back_as_a_link() {
    for (good, bad) in [("../out1", "../out2"), ("in1", "in2"), ("../out1", "in1"), ("in1", "")] {
        let scratch = Scratch::new("back-dir-link");
        let dirs = ["out1", "out2", "w/in1", "w/in2"].map(|dir| scratch.0.join(dir));
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("f"), dir.to_str().unwrap()).unwrap();
        }
        let link = scratch.w().join("l");
        symlink(good, &link).unwrap();
        let args = ["-p", "--health", "false", "--health-timeout", "20ms", "--rollback"];
        let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
        if bad.is_empty() {
            fs::remove_file(&link).unwrap();
        } else {
            symlink(bad, scratch.0.join("next")).unwrap();
            fs::rename(scratch.0.join("next"), &link).unwrap();
        }
        watch.wait("a rollback", |line| line["trigger"] == "rollback" && line["state"] == "started");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(good), "{bad}: {}", watch.said());
        let kept = fs::read_link(scratch.w().join(".hotr-bad-l")).ok();
        assert_eq!(kept.as_deref(), Some(Path::new(bad)).filter(|bad| !bad.as_os_str().is_empty()));
        for dir in &dirs {
            assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), dir.to_str().unwrap());
            assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "{}", dir.display());
        }
        watch.end();
    }
}

#[test]
fn what_is_behind_a_link_to_a_directory_is_left_alone_and_said() {
    let scratch = Scratch::new("behind-dir-link");
    let (outside, link) = (scratch.0.join("out"), scratch.w().join("l"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "good").unwrap();
    symlink(&outside, &link).unwrap();
    let args = ["-p", "--health", "false", "--health-timeout", "20ms", "--rollback"];
    let watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::write(outside.join("f"), "bad").unwrap();
    watch.until_said("/l/f: it is behind a symbolic link; left alone");
    watch.until_said("the last good content of 0 of");
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "bad");
    assert_eq!(fs::read_link(&link).unwrap(), outside);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    watch.end();
}

/// A directory took the place of a link: it is not taken away, nor written to.
#[test]
fn a_directory_in_the_place_of_a_link_stays() {
    let scratch = Scratch::new("dir-for-link");
    let (outside, link) = (scratch.0.join("out"), scratch.w().join("l"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "good").unwrap();
    symlink(&outside, &link).unwrap();
    let args = ["-p", "--health", "false", "--health-timeout", "20ms", "--rollback"];
    let watch = Watch::start(&args, &scratch.w(), &["true"]);
    watch.at_once(|| {
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        fs::write(link.join("f"), "bad").unwrap();
    });
    watch.until_said("/l: a directory has its name now; repair it by hand");
    watch.until_said("the last good content of 0 of");
    assert_eq!(fs::read_to_string(link.join("f")).unwrap(), "bad");
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "good");
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
    watch.until_said("its directory no longer exists");
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
    assert_eq!(watch.said().matches("a rollback cannot restore it").count(), 5, "{}", watch.said());
    fs::write(&conf, "small").unwrap();
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
    unmount(&small, UnmountFlags::DETACH).unwrap();
}
