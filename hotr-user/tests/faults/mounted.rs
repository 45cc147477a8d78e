//! What is mounted in a watched tree while it is replaced where it is mounted from, or moved where it is mounted: a file that is
//! mounted by itself is the file it was mounted as, and a mount is where its directory is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use super::place::{Bind, Scratch};
use super::run::{Disturbed, HOTR, Run, changes, ebpf, path_of, root, undisturbed, until_undisturbed};

/// `hotr trace` of these paths.
fn trace(way: &str, roots: &[PathBuf]) -> Run {
    let mut command = Command::new(HOTR);
    command.args(["trace", "--json", "--channels", way]).args(roots);
    Run::spawn(command)
}

fn open(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// Writes, and waits until so many writes of `path` are reported, and no more.
fn written(run: &mut Run, mut file: &File, path: &Path, number: u64) -> Result<(), Disturbed> {
    file.write_all(b"x").unwrap();
    let writes = |lines: &[Value]| -> u64 {
        let of_it = changes(lines).filter(|line| line["op"] == "write" && path_of(line) == path);
        // What a look after a loss found has no number.
        of_it.filter_map(|line| line["writes"].as_u64()).sum()
    };
    run.until_or_disturbed(&format!("write {number} of {}", path.display()), |lines| {
        writes(lines) >= number
    })?;
    assert_eq!(writes(&run.heard), number, "{}", path.display());
    Ok(())
}

/// Waits for a change.
fn told(run: &mut Run, op: &str, path: &Path) -> Result<(), Disturbed> {
    let is_it = |line: &Value| line["op"] == op && path_of(line) == path;
    run.until_or_disturbed(&format!("{op} {}", path.display()), |lines| lines.iter().any(is_it))
}

/// Waits for the line on an unmount.
fn unmounted(run: &mut Run, path: &Path) -> Result<(), Disturbed> {
    let is_it = |line: &Value| line["reason"] == "unmounted" && path_of(line) == path;
    run.until_or_disturbed("an unmount", |lines| lines.iter().any(is_it))
}

/// Whether only writes of this file are told, inotify misses them for the true cause, and no root is said to be lost.
fn only_writes(lines: &[Value], file: &Path) -> Result<(), Disturbed> {
    undisturbed(lines)?;
    for line in changes(lines) {
        assert!(line["op"] == "write" && path_of(line) == file, "{line}");
        let missed = line["missed_by"].as_array().unwrap();
        assert!(missed.iter().all(|it| it["channel"] == "inotify" && it["cause"] == "file-mount"), "{line}");
    }
    let of_roots = lines.iter().find(|line| line["type"] == "loss" && !line["path"].is_null());
    assert_eq!(of_roots, None);
    Ok(())
}

/// A directory `w` with the file `dst`, on which another file is mounted.
struct Place {
    // The mounts go before the directory.
    mounts: Vec<Bind>,
    scratch: Scratch,
}

impl Place {
    fn new(source: &str) -> Self {
        let mut place = Self { mounts: Vec::new(), scratch: Scratch::new("mounted") };
        let source = place.at(source);
        fs::create_dir_all(source.parent().unwrap()).unwrap();
        fs::create_dir_all(place.at("w")).unwrap();
        fs::write(&source, "0").unwrap();
        place.mount(&source, "w/dst");
        place
    }

    fn mount(&mut self, source: &Path, target: &str) {
        let target = self.at(target);
        fs::write(&target, "").unwrap();
        self.mounts.push(Bind::new(source, &target));
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }
}

fn new_beside(source: &Path) -> PathBuf {
    let new = source.with_extension("new");
    fs::write(&new, "new").unwrap();
    new
}

/// Each way in which a file loses the name that it was mounted from.
const LEAVES: [fn(&Path); 5] = [
    |source| fs::rename(new_beside(source), source).unwrap(),
    |source| fs::remove_file(source).unwrap(),
    |source| {
        fs::remove_file(source).unwrap();
        fs::write(source, "new").unwrap();
        fs::set_permissions(source, Permissions::from_mode(0o640)).unwrap();
    },
    |source| fs::rename(source, source.with_extension("moved")).unwrap(),
    |source| renameat_with(CWD, new_beside(source), CWD, source, RenameFlags::EXCHANGE).unwrap(),
];

#[test]
fn a_mounted_file_stays_itself_whatever_becomes_of_its_name() {
    if ebpf() {
        until_undisturbed(mounted_file_loses_its_name);
    }
}

fn mounted_file_loses_its_name() -> Result<(), Disturbed> {
    for leave in LEAVES {
        for (way, root) in [("ebpf", "w/dst"), ("auto", "w/dst"), ("ebpf", "w"), ("ebpf", "link")] {
            let place = Place::new("host/src");
            let (source, dst) = (place.at("host/src"), place.at("w/dst"));
            symlink("w/dst", place.at("link")).unwrap();
            let shown = if root == "link" { place.at(root) } else { dst.clone() };
            let (outside, inside) = (open(&source), open(&dst));
            let mut run = trace(way, &[place.at(root)]);
            written(&mut run, &outside, &shown, 1)?;
            leave(&source);
            written(&mut run, &outside, &shown, 2)?;
            written(&mut run, &inside, &shown, 3)?;
            if source.exists() {
                // Another file.
                open(&source).write_all(b"x").unwrap();
            }
            written(&mut run, &inside, &shown, 4)?;
            only_writes(&run.end(), &shown)?;
        }
    }
    Ok(())
}

#[test]
fn the_name_is_followed_where_a_directory_above_it_is_renamed_and_another_file_gets_it() {
    if ebpf() {
        until_undisturbed(another_file_gets_the_name);
    }
}

fn another_file_gets_the_name() -> Result<(), Disturbed> {
    let place = Place::new("host/src");
    let dst = place.at("w/dst");
    let marks = place.scratch.dir("marks");
    let mut run = trace("ebpf", &[dst.clone(), marks.clone()]);
    let of_mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let attribs = |lines: &[Value]| changes(lines).filter(|line| line["op"] == "attrib").count();
    of_mode(&place.at("host/src"), 0o600);
    run.until_or_disturbed("the first", |lines| attribs(lines) == 1)?;
    fs::rename(place.at("host"), place.at("moved")).unwrap();
    fs::create_dir(place.at("host")).unwrap();
    fs::write(place.at("host/src"), "").unwrap();
    of_mode(&place.at("host/src"), 0o640);
    File::create(marks.join("mark")).unwrap();
    told(&mut run, "create", &marks.join("mark"))?;
    assert_eq!(attribs(&run.heard), 1);
    // By its name: at the tracepoint tier the mount table says which file that is.
    let mut mode = 0o600;
    run.until_heard(|_| {
        mode ^= 0o040;
        of_mode(&place.at("moved/src"), mode);
        dst.clone()
    });
    let inode = fs::metadata(&dst).unwrap();
    for line in changes(&run.end()).filter(|line| line["op"] != "create") {
        assert_eq!((path_of(line), &line["op"]), (dst.clone(), &Value::from("attrib")), "{line}");
        assert_eq!(line["ino"], std::os::unix::fs::MetadataExt::ino(&inode), "{line}");
    }
    Ok(())
}

#[test]
fn the_other_file_of_that_name_is_told_where_it_is_watched() {
    if ebpf() {
        until_undisturbed(both_are_watched);
    }
}

fn both_are_watched() -> Result<(), Disturbed> {
    for way in ["ebpf", "auto"] {
        let place = Place::new("host/src");
        let (source, dst) = (place.at("host/src"), place.at("w/dst"));
        let old = open(&source);
        let mut run = trace(way, &[dst.clone(), place.at("host")]);
        let new = place.at("host/new");
        File::create(&new).unwrap();
        fs::rename(&new, &source).unwrap();
        told(&mut run, "rename", &source)?;
        written(&mut run, &old, &dst, 1)?;
        written(&mut run, &open(&source), &source, 1)?;
        for line in changes(&run.end()).filter(|line| path_of(line) == dst) {
            assert_eq!(line["op"], "write", "{line}");
        }
    }
    Ok(())
}

#[test]
fn a_file_from_within_the_tree_is_told_by_the_name_that_was_given() {
    if ebpf() {
        until_undisturbed(mounted_from_within);
    }
}

fn mounted_from_within() -> Result<(), Disturbed> {
    for source in ["w/src", "w/sub/src"] {
        let place = Place::new(source);
        let (source, dst) = (place.at(source), place.at("w/dst"));
        let (outside, inside) = (open(&source), open(&dst));
        let mut run = trace("auto", std::slice::from_ref(&dst));
        written(&mut run, &outside, &dst, 1)?;
        written(&mut run, &inside, &dst, 2)?;
        fs::remove_file(&source).unwrap();
        written(&mut run, &inside, &dst, 3)?;
        only_writes(&run.end(), &dst)?;
    }
    // With its directory it has its first name, as long as it has one.
    let place = Place::new("w/sub/src");
    let (source, dst) = (place.at("w/sub/src"), place.at("w/dst"));
    let inside = open(&dst);
    let mut run = trace("ebpf", &[place.at("w")]);
    written(&mut run, &inside, &source, 1)?;
    fs::remove_file(&source).unwrap();
    told(&mut run, "remove", &source)?;
    written(&mut run, &inside, &dst, 1)?;
    let lines = run.end();
    undisturbed(&lines)?;
    assert_eq!(changes(&lines).count(), 3);
    Ok(())
}

#[test]
fn a_file_that_is_mounted_twice_is_told_where_it_is_watched_and_where_it_is_left() {
    if ebpf() {
        until_undisturbed(mounted_twice);
    }
}

fn mounted_twice() -> Result<(), Disturbed> {
    for which in 0..3 {
        let mut place = Place::new("host/src");
        place.mount(&place.at("host/src"), "w/dst2");
        let source = open(&place.at("host/src"));
        let both = [place.at("w/dst"), place.at("w/dst2")];
        if which == 2 {
            let mut run = trace("auto", &both[1..]);
            written(&mut run, &source, &both[1], 1)?;
            written(&mut run, &open(&both[0]), &both[1], 2)?;
            only_writes(&run.end(), &both[1])?;
            continue;
        }
        let mut run = trace("ebpf", &both);
        assert_eq!(place.mounts.remove(which).unmount(), Ok(()));
        unmounted(&mut run, &both[which])?;
        written(&mut run, &source, &both[1 - which], 1)?;
        run.end();
    }
    Ok(())
}

#[test]
fn the_end_of_a_removed_file_that_is_mounted_is_told_once_as_an_unmount() {
    if ebpf() {
        until_undisturbed(removed_and_unmounted);
    }
}

fn removed_and_unmounted() -> Result<(), Disturbed> {
    for way in ["ebpf", "auto"] {
        let mut place = Place::new("host/src");
        let dst = place.at("w/dst");
        let mut run = trace(way, std::slice::from_ref(&dst));
        fs::remove_file(place.at("host/src")).unwrap();
        assert_eq!(place.mounts.remove(0).unmount(), Ok(()), "hotr holds it");
        unmounted(&mut run, &dst)?;
        run.until_heard(|_| {
            open(&dst).write_all(b"x").unwrap();
            dst.clone()
        });
        let lines = run.end();
        assert_eq!(lines.iter().filter(|line| line["type"] == "loss" && !line["path"].is_null()).count(), 1);
    }
    Ok(())
}

#[test]
fn what_is_mounted_is_told_where_its_directory_is() {
    if !ebpf() {
        return;
    }
    for (way, is_file) in [("ebpf", false), ("auto", false), ("ebpf", true), ("auto", true)] {
        let scratch = Scratch::new("carried");
        let at = |name: &str| scratch.0.join(name);
        let (source, name) = if is_file { (at("host/src"), "") } else { (at("host"), "src") };
        fs::create_dir_all(at("host")).unwrap();
        fs::create_dir_all(at("w/a")).unwrap();
        fs::create_dir_all(at("out")).unwrap();
        fs::write(at("host/src"), "").unwrap();
        if is_file {
            fs::write(at("w/a/m"), "").unwrap()
        } else {
            fs::create_dir(at("w/a/m")).unwrap()
        }
        let mut mount = Bind::new(&source, &at("w/a/m"));
        let file = open(&at("host/src"));
        let its = |dir: &str| {
            let mounted = at(dir).join("m");
            if is_file { mounted } else { mounted.join(name) }
        };
        let mut run = trace(way, &[at("w")]);
        let mut go = |run: &mut Run, from: &str, to: &str| {
            fs::rename(at(from), at(to)).unwrap();
            mount.moved(&at(to).join("m"));
            if to == "out/a" {
                (&file).write_all(b"x").unwrap();
                run.change("rename", &at(to));
                return;
            }
            // Files are told by the new name at once, and also after the mounts were looked at.
            for _ in 0..2 {
                run.until_heard(|_| {
                    (&file).write_all(b"x").unwrap();
                    its(to)
                });
                run.until_heard(|number| {
                    let made = at("w").join(format!("{to}-{number}").replace('/', "-"));
                    let _ = fs::remove_file(&made);
                    File::create(&made).unwrap();
                    made
                });
            }
        };
        go(&mut run, "w/a", "w/b");
        fs::create_dir(at("w/deep")).unwrap();
        go(&mut run, "w/b", "w/deep/c");
        go(&mut run, "w/deep/c", "out/a");
        go(&mut run, "out/a", "w/d");
        let lines = run.end();
        let writes = changes(&lines).filter(|line| line["op"] == "write" && line["size"] != 0);
        let places: Vec<_> = ["w/b", "w/deep/c", "w/d"].map(its).into();
        for line in writes {
            assert!(places.contains(&path_of(line)), "{way}: {line}");
        }
    }
}

#[test]
fn what_is_mounted_is_told_where_its_directory_is_after_an_exchange_and_a_move_of_the_root() {
    if ebpf() {
        until_undisturbed(carried_by_an_exchange_and_a_move);
    }
}

fn carried_by_an_exchange_and_a_move() -> Result<(), Disturbed> {
    let scratch = Scratch::new("carried-exchange");
    let at = |name: &str| scratch.0.join(name);
    for dir in ["host", "w/a/m", "w/b"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("host/src"), "").unwrap();
    let mut mount = Bind::new(&at("host"), &at("w/a/m"));
    let file = open(&at("host/src"));
    let mut run = trace("ebpf", &[at("w")]);
    renameat_with(CWD, at("w/b"), CWD, at("w/a"), RenameFlags::EXCHANGE).unwrap();
    mount.moved(&at("w/b/m"));
    written(&mut run, &file, &at("w/b/m/src"), 1)?;
    fs::rename(at("w"), at("v")).unwrap();
    mount.moved(&at("v/b/m"));
    run.wait("the move", |line| line["reason"] == "root-moved");
    written(&mut run, &file, &at("w/b/m/src"), 2)?;
    fs::rename(at("v/b"), at("v/c")).unwrap();
    mount.moved(&at("v/c/m"));
    written(&mut run, &file, &at("w/c/m/src"), 1)?;
    run.end();
    Ok(())
}

#[test]
fn inotify_by_itself_notices_what_is_mounted_on_a_file_and_unmounted() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("over-file");
    let [one, two, other] = ["w/one", "w/two", "other"].map(|name| scratch.0.join(name));
    scratch.dir("w");
    for file in [&one, &two, &other] {
        fs::write(file, "0").unwrap();
    }
    let mut run = trace("inotify", &[one.clone(), two.clone()]);
    let mount = Bind::new(&other, &two);
    run.wait("the mount", |line| line["reason"] == "mounted-over" && path_of(line) == two);
    assert_eq!(mount.unmount(), Ok(()));
    run.wait("the unmount", |line| line["reason"] == "root-moved" && path_of(line) == two);
    for file in [&one, &two] {
        run.until_heard(|_| {
            fs::write(file, "1").unwrap();
            file.clone()
        });
    }
    // A file that is replaced is no mount.
    fs::rename(&other, &two).unwrap();
    run.change("rename", &two);
    let lines = run.end();
    assert_eq!(lines.iter().filter(|line| line["type"] == "loss").count(), 2);
}
