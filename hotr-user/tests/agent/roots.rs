//! Directories that move, disappear, and are taken back.

use std::fs::{self, File};
use std::os::fd::AsFd;

use super::run::{Bare, ONE, Scratch, agent, can_run, subscribe};

#[test]
fn a_moved_directory_stays_and_a_deleted_one_is_said() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("moved");
    let dir = scratch.dir("w/d", 0o755, 0);
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &dir);
    let moved = scratch.w("e");
    fs::rename(&dir, &moved).unwrap();
    fs::write(moved.join("f"), "x").unwrap();
    subscriber.change("write", "f");
    fs::remove_dir_all(&moved).unwrap();
    subscriber.wait("gone", |line| line["type"] == "gone");
    let (status, said) = subscriber.end();
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("it was deleted"), "{said}");
}

#[test]
fn a_directory_that_is_given_back_is_reported_no_more() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("back");
    let (one, other) = (scratch.dir("w/one", 0o755, 0), scratch.dir("w/other", 0o755, 0));
    let _agent = agent(&scratch);
    let mut bare = Bare::greeted(&scratch);
    assert_eq!(bare.add(1, &[File::open(&one).unwrap().as_fd()])["type"], "added");
    assert_eq!(bare.add(2, &[File::open(&other).unwrap().as_fd()])["type"], "added");
    bare.send(r#"{"type":"remove","root":1}"#, &[]);
    assert_eq!(bare.next().unwrap()["type"], "removed");
    fs::write(one.join("f"), "x").unwrap();
    fs::write(other.join("f"), "x").unwrap();
    let change = bare.next().unwrap();
    assert_eq!((&change["root"], &change["path"]), (&2.into(), &"f".into()), "{change}");
    assert_eq!(bare.add(1, &[File::open(&one).unwrap().as_fd()])["type"], "added", "its number is free");
}
