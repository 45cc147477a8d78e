//! What changes nothing reloads nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::run::{Scratch, Watch, until};

#[test]
fn no_reload_without_another_content() {
    for (hash, channels) in [("sha256", "auto"), ("blake3", "inotify")] {
        let scratch = Scratch::new("nothing");
        let (a, b) = (scratch.file("a", "one"), scratch.file("b", "two"));
        let mut watch =
            Watch::start(&["-p", "--hash", hash, "--channels", channels], &scratch.w(), &["true"]);
        File::options().write(true).open(&a).unwrap().set_modified(SystemTime::now()).unwrap();
        watch.nothing_but_a_marker();
        fs::write(&a, "one").unwrap();
        watch.nothing_but_a_marker();
        // What takes several steps is nothing only as a whole: a busy machine could put a reload between them.
        watch.at_once(|| {
            for _ in 0..2 {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        watch.nothing_but_a_marker();
        watch.at_once(|| {
            fs::remove_file(&a).unwrap();
            fs::write(&a, "one").unwrap();
        });
        watch.nothing_but_a_marker();
        watch.at_once(|| {
            fs::write(scratch.w().join("new"), "x").unwrap();
            fs::remove_file(scratch.w().join("new")).unwrap();
        });
        watch.nothing_but_a_marker();
        // And a swap that stays is one.
        renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
        let line = watch.reload("started");
        assert_eq!(watch.names(&line), ["a", "b"]);
        watch.reload("done");
        watch.end();
    }
}

#[test]
fn only_what_was_asked_for() {
    let scratch = Scratch::new("filters");
    for name in ["keep.toml", "a.txt", "gone.toml", "target/x.toml", ".git/x.toml"] {
        scratch.file(name, "one");
    }
    scratch.file(".gitignore", "target/\n");
    let args = ["-p", "-e", "toml", "-i", "gone*"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    for name in ["a.txt", "gone.toml", "target/x.toml", ".git/x.toml", ".gitignore"] {
        fs::write(scratch.w().join(name), if name == ".gitignore" { "target/\n#\n" } else { "two" }).unwrap();
    }
    fs::write(scratch.w().join("keep.toml"), "two").unwrap();
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["keep.toml"], "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn a_file_is_waited_for_while_it_is_written() {
    let scratch = Scratch::new("writer");
    let path = scratch.file("conf", "old");
    let watch = Watch::start(&["-p", "-d", "10ms"], &scratch.w(), &["true"]);
    watch.reloads_when_written(&path);
}

#[test]
fn a_writer_that_never_closes_is_waited_for_no_longer_than_said() {
    let scratch = Scratch::new("settle-max");
    let path = scratch.file("conf", "old");
    let mut watch = Watch::start(&["-p", "--settle-max", "300ms"], &scratch.w(), &["true"]);
    let mut file = File::create(&path).unwrap();
    file.write_all(b"half").unwrap();
    let line = watch.reload("started");
    assert_eq!(line["changes"][0]["size"], 4, "{line}");
    watch.until_said("still open for writing after 300ms");
    watch.reload("done");
    watch.end();
}

#[test]
fn large_and_sparse_files_are_compared_by_size_and_time() {
    let scratch = Scratch::new("large");
    let path = scratch.file("big", "");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    drop(file);
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    File::options().write(true).open(&path).unwrap().set_len((1 << 40) + 1).unwrap();
    let line = watch.reload("started");
    assert_eq!(line["changes"][0]["by"], "size-mtime", "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn an_empty_directory_is_watched() {
    let scratch = Scratch::new("empty");
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    watch.nothing_but_a_marker();
    watch.end();
    until("hotr leaves nothing", || fs::read_dir(scratch.w()).unwrap().count() == 1);
}

/// The file `path`, of this name to whoever reads a reload.
fn becomes_a_directory_and_back(watch: &mut Watch, path: &Path, name: &str) {
    let mut reloads_for = |kind: &str| {
        let line = watch.reload("started");
        assert_eq!((watch.names(&line), &line["changes"][0]["kind"]), (vec![name.to_owned()], &kind.into()));
        watch.reload("done");
    };
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    reloads_for("removed");
    fs::remove_dir(path).unwrap();
    fs::write(path, "two").unwrap();
    reloads_for("created");
    fs::write(path, "three").unwrap();
    reloads_for("written");
}

#[test]
fn a_file_becomes_a_directory_and_back() {
    let scratch = Scratch::new("turns");
    let path = scratch.file("conf", "one");
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    becomes_a_directory_and_back(&mut watch, &path, "conf");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn a_named_file_becomes_a_directory_and_back() {
    let scratch = Scratch::new("named-turns");
    let path = scratch.file("conf", "one");
    let mut watch = Watch::start(&["-p"], &path, &["true"]);
    becomes_a_directory_and_back(&mut watch, &path, "");
    // Its neighbours are of no interest, before and after.
    scratch.file("other", "x");
    fs::write(&path, "four").unwrap();
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), [""], "{line}");
    watch.end();
}
