//! Files that have lost their name in the watched tree, and are written to by who has them open, or by a name elsewhere: the name
//! is nobody's, or another file's, and no change of it is made.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, linkat, openat};
use serde_json::Value;

use super::place::Scratch;
use super::run::{Disturbed, Run, changes, ebpf, path_of, undisturbed, until_undisturbed};

/// An event of inotify that no record explains is reported by itself after less than this.
const ORPHANED: Duration = Duration::from_secs(2);

/// Goes on until what is only heard by inotify would have been told.
fn heard_alone(run: &mut Run, dir: &Path) -> Result<(), Disturbed> {
    let begun = Instant::now();
    for number in 0.. {
        let marker = dir.join(format!("marker{number}"));
        let is_last = begun.elapsed() > ORPHANED;
        File::create(&marker).unwrap();
        let is_it = |line: &Value| line["op"] == "create" && path_of(line) == marker;
        run.until_or_disturbed("a marker", |lines| lines.iter().any(is_it))?;
        if is_last {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

fn change(mut file: &File, mode: u32) {
    file.write_all(b"x").unwrap();
    fchmod(file, Mode::from_raw_mode(mode)).unwrap();
}

#[test]
fn what_is_done_to_a_file_that_lost_its_name_is_no_change_of_that_name() {
    if ebpf() {
        until_undisturbed(names_are_lost);
    }
}

fn names_are_lost() -> Result<(), Disturbed> {
    let leaves: [fn(&Path, &Path); 3] = [
        |name, _| fs::remove_file(name).unwrap(),
        |name, outside| {
            let new = outside.join("new");
            fs::write(&new, "another").unwrap();
            fs::rename(new, name).unwrap();
        },
        |name, outside| fs::rename(name, outside.join("moved")).unwrap(),
    ];
    for (way, is_linked) in [("ebpf", true), ("auto", true), ("auto", false)] {
        for (index, leave) in leaves.iter().enumerate() {
            let scratch = Scratch::new("lost-name");
            let (root, outside) = (scratch.dir("root"), scratch.dir("outside"));
            let (name, alias) = (root.join("f"), outside.join("alias"));
            fs::write(&name, "0").unwrap();
            if is_linked {
                fs::hard_link(&name, &alias).unwrap();
            }
            let open = |path: &Path| OpenOptions::new().append(true).open(path).unwrap();
            let (inside, by_alias) = (open(&name), is_linked.then(|| open(&alias)));
            let mut run = Run::start(&["--channels", way], &root);
            change(&inside, 0o600);
            let is_it = |line: &Value| line["op"] == "attrib" && path_of(line) == name;
            run.until_or_disturbed("its first change", |lines| lines.iter().any(is_it))?;
            leave(&name, &outside);
            for mode in [0o640, 0o644, 0o600] {
                change(&inside, mode);
                by_alias.iter().for_each(|file| change(file, mode | 0o001));
            }
            heard_alone(&mut run, &root)?;
            let lines = run.end();
            undisturbed(&lines)?;
            let of_name = changes(&lines).filter(|line| {
                path_of(line) == name || line["old_path"].as_str().is_some_and(|old| Path::new(old) == name)
            });
            let last = of_name.last().expect("its first change");
            let op = if index == 0 { "remove" } else { "rename" };
            assert_eq!(last["op"], op, "{way}, linked: {is_linked}: {last}");
            let wrong =
                changes(&lines).find(|line| line["missed_by"].as_array().is_some_and(|it| !it.is_empty()));
            assert_eq!(wrong, None, "{way}, linked: {is_linked}");
        }
    }
    Ok(())
}

#[test]
fn a_file_that_has_another_name_in_the_tree_is_told_by_that() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("other-name");
    let root = scratch.dir("root");
    let (lost, kept) = (root.join("lost"), root.join("kept"));
    fs::write(&lost, "0").unwrap();
    fs::hard_link(&lost, &kept).unwrap();
    let file = OpenOptions::new().append(true).open(&lost).unwrap();
    // The kernel knows a name that was looked up.
    fs::metadata(&kept).unwrap();
    let mut run = Run::start(&["--channels", "ebpf"], &root);
    fs::remove_file(&lost).unwrap();
    change(&file, 0o600);
    run.change("write", &kept);
    run.change("attrib", &kept);
    assert_eq!(changes(&run.end()).count(), 3);
}

/// What is counted before a file has a name, and what is counted after, are two counts: the first is of no name.
#[test]
fn what_is_written_after_a_file_got_its_name_is_told_by_that() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("named-later");
    let root = scratch.dir("root");
    let name = root.join("named");
    // Changes of a file without a name are recorded where inotify is notified of them as well.
    let mut run = Run::start(&[], &root);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, &root, flags, Mode::from_raw_mode(0o600)).unwrap());
    file.write_all(b"before").unwrap();
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, link, CWD, &name, AtFlags::SYMLINK_FOLLOW).unwrap();
    file.write_all(b"after").unwrap();
    run.change("create", &name);
    run.change("write", &name);
    let lines = run.end();
    let bytes: Vec<_> =
        changes(&lines).filter(|line| line["op"] == "write").map(|line| &line["bytes"]).collect();
    assert_eq!(bytes, [5], "{lines:#?}");
}
