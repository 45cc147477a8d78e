//! Looks at all files: the next one finds what was received but not understood, and what no channel received, whatever
//! name it has afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::inject::Held;
use super::run::{Scratch, Watch, root};

/// The next reload has these names.
fn reloads(watch: &mut Watch, names: &[&str]) {
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), names, "{line}\nsaid {}", watch.said());
    watch.reload("done");
}

/// hotr, which no longer receives anything.
fn deaf(args: &[&str], path: &Path) -> Watch {
    let watch = Watch::start(args, path, &["true"]);
    let held = Held::hold(watch.pid());
    held.detach_programs();
    held.drop_watches();
    drop(held);
    watch
}

/// By the time its record is read at the tracepoint tier, a directory's new name leads to a file of another origin.
#[test]
fn what_was_heard_and_not_understood_is_found_by_the_next_look() {
    if cfg!(hotr_without_ebpf) || !root() {
        return;
    }
    let scratch = Scratch::new("heard");
    let w = scratch.w();
    scratch.file("d/sub/a", "a");
    let args = ["-p", "--channels", "ebpf", "--poll=200ms", "--poll-budget", "50%"];
    let mut watch = Watch::start(&args, &w, &["true"]);
    fs::write(scratch.0.join("file"), "").unwrap();
    watch.at_once(|| {
        fs::rename(w.join("d"), w.join("e")).unwrap();
        fs::rename(w.join("e"), scratch.0.join("away")).unwrap();
        fs::rename(scratch.0.join("file"), w.join("e")).unwrap();
    });
    let mut told = Vec::new();
    while !["d/sub/a", "e"].iter().all(|name| told.iter().any(|told| told == name)) {
        let line = watch.reload("started");
        told.extend(watch.names(&line));
    }
    watch.end();
}

#[test]
fn a_file_that_gets_a_name_of_no_interest_is_found_by_a_look() {
    if cfg!(hotr_without_ebpf) || !root() {
        return;
    }
    let scratch = Scratch::new("unwanted");
    let file = scratch.file("a.yaml", "a");
    let mut watch = deaf(&["-p", "-e", "yaml"], &scratch.w());
    fs::rename(&file, scratch.w().join("a.bak")).unwrap();
    reloads(&mut watch, &["a.yaml"]);
    watch.end();
}

#[test]
fn a_switched_link_to_chosen_files_is_found_by_a_look() {
    if cfg!(hotr_without_ebpf) || !root() {
        return;
    }
    let scratch = Scratch::new("looked-at-volume");
    let w = scratch.w();
    scratch.file("..2026_01_01/app.yaml", "one");
    scratch.file("..2026_01_02/app.yaml", "two");
    symlink("..2026_01_01", w.join("..data")).unwrap();
    symlink("..data/app.yaml", w.join("app.yaml")).unwrap();
    let mut watch = deaf(&["-p", "-e", "yaml"], &w);
    symlink("..2026_01_02", w.join("..data_tmp")).unwrap();
    fs::rename(w.join("..data_tmp"), w.join("..data")).unwrap();
    reloads(&mut watch, &["app.yaml"]);
    watch.end();
}
