//! Which changes are kept.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::{Filter, Group};
use crate::options::patterns;
use hotr_events::{Actor, Cause, Change, Channel, FileType, Missed, Op};

fn everything() -> Filter {
    Filter {
        ops: vec![],
        pids: vec![],
        comms: vec![],
        uids: vec![],
        groups: vec![],
        missed: false,
        exts: vec![],
        only: None,
        exclude: GlobSet::empty(),
        recursive: true,
    }
}

fn excluding(glob: &str) -> Filter {
    let exclude = GlobSetBuilder::new().add(Glob::new(glob).unwrap()).build().unwrap();
    Filter { exclude, ..everything() }
}

fn change(op: Op, path: &str) -> Change {
    Change { seen_by: vec![Channel::Ebpf], ..Change::new(op, PathBuf::from(path), SystemTime::UNIX_EPOCH) }
}

fn by(pid: u32, comm: &str) -> Change {
    let actor = Actor {
        pid,
        tid: pid + 1,
        uid: 0,
        comm: comm.as_bytes().to_vec(),
        exe: None,
        cgroup: None,
        origin: None,
    };
    Change { actor: Some(actor), ..change(Op::Write, "/r/f") }
}

fn of_cgroup(path: &str) -> Change {
    let mut change = by(7, "sh");
    change.actor.as_mut().unwrap().cgroup = Some(path.into());
    change
}

fn missed() -> Change {
    let missed = Missed { channel: Channel::Inotify, cause: Cause::Mmap, why: "".into() };
    Change { missed_by: vec![missed], ..change(Op::Write, "/r/f") }
}

fn dir(change: Change) -> Change {
    Change { file_type: Some(FileType::Dir), ..change }
}

fn renamed(from: &str, to: &str) -> Change {
    Change { old_path: Some(PathBuf::from(from)), ..change(Op::Rename, to) }
}

#[test]
fn each_condition_keeps_what_it_says() {
    let flat = Filter { recursive: false, ..everything() };
    let writes = Filter { ops: vec![Op::Write], ..everything() };
    let pid = Filter { pids: vec![7], ..everything() };
    let comm = Filter { comms: vec![b"vim".to_vec()], pids: vec![7], ..everything() };
    let root = Filter { uids: vec![0], ..everything() };
    let other = Filter { uids: vec![1, 2], ..everything() };
    let conf = Filter { exts: vec!["conf".into()], ..everything() };
    let in_d = Filter { only: Some(patterns(["d"]).unwrap()), ..everything() };
    let moved_out = Change { detail: vec!["moved-out".into()], ..dir(change(Op::Remove, "/r/a")) };
    let of = |group| Filter { groups: vec![group], ..everything() };
    let (unit, group) = (of(Group::Unit("app".into())), of(Group::Cgroup("/system.slice".into())));
    let container = of(Group::Container("0123".into()));
    let only_missed = Filter { missed: true, ..everything() };
    let cases: &[(&str, &Filter, Change, bool)] = &[
        ("no condition", &everything(), change(Op::Create, "/r/a/b"), true),
        ("outside the root", &everything(), change(Op::Create, "/rr/a"), false),
        ("the asked operation", &writes, change(Op::Write, "/r/a"), true),
        ("another operation", &writes, change(Op::Attrib, "/r/a"), false),
        ("the asked process", &pid, by(7, "sh"), true),
        ("another process", &pid, by(8, "sh"), false),
        ("a thread id is no process id", &pid, by(6, "sh"), false),
        ("nobody knows who", &pid, change(Op::Write, "/r/f"), false),
        ("process and name", &comm, by(7, "vim"), true),
        ("process without the name", &comm, by(7, "sh"), false),
        ("the asked user", &root, by(7, "sh"), true),
        ("another user", &other, by(7, "sh"), false),
        ("nobody knows which user", &root, change(Op::Write, "/r/f"), false),
        ("the asked unit", &unit, of_cgroup("/system.slice/app.service/worker"), true),
        ("another unit", &unit, of_cgroup("/system.slice/apps.service"), false),
        ("nobody knows which unit", &unit, by(7, "sh"), false),
        ("below the asked cgroup", &group, of_cgroup("/system.slice/app.service"), true),
        ("beside the asked cgroup", &group, of_cgroup("/user.slice"), false),
        ("the asked container", &container, of_cgroup("/docker/0123456789ab"), true),
        ("another container", &container, of_cgroup("/docker/0023456789ab"), false),
        ("one that a channel missed", &only_missed, missed(), true),
        ("one that none missed", &only_missed, change(Op::Write, "/r/f"), false),
        ("flat: an entry of the root", &flat, change(Op::Write, "/r/a"), true),
        ("flat: the root itself", &flat, change(Op::Attrib, "/r"), true),
        ("flat: deeper", &flat, change(Op::Write, "/r/a/b"), false),
        ("flat: moved up into the root", &flat, renamed("/r/a/b", "/r/b"), true),
        ("the asked extension", &conf, change(Op::Write, "/r/a/b.conf"), true),
        ("another extension", &conf, change(Op::Write, "/r/a.conf/b"), false),
        ("renamed to the asked extension", &conf, renamed("/r/a.tmp", "/r/a.conf"), true),
        ("the root, whatever it is called", &conf, change(Op::Attrib, "/r"), true),
        ("a directory has no extension", &conf, dir(change(Op::Create, "/r/a.conf")), false),
        ("a renamed directory takes its files along", &conf, dir(renamed("/r/a", "/r/b")), true),
        ("and so does one that leaves", &conf, moved_out, true),
        ("below what matches", &in_d, change(Op::Write, "/r/d/e/f"), true),
        ("a directory that matches", &in_d, dir(change(Op::Create, "/r/d")), true),
        ("a directory that does not", &in_d, dir(change(Op::Create, "/r/e")), false),
        ("excluded", &excluding("*.tmp"), change(Op::Write, "/r/a.tmp"), false),
        ("below an excluded directory", &excluding("target"), change(Op::Write, "/r/target/x/y"), false),
        ("not excluded", &excluding("target"), change(Op::Write, "/r/targets"), true),
        ("a glob does not reach above the root", &excluding("r"), change(Op::Write, "/r/f"), true),
        ("renamed from an excluded name", &excluding("*.tmp"), renamed("/r/a.tmp", "/r/a"), true),
        ("renamed between excluded names", &excluding("*.tmp"), renamed("/r/a.tmp", "/r/b.tmp"), false),
    ];
    for (name, filter, change, kept) in cases {
        assert_eq!(filter.keep(change, Path::new("/r")), *kept, "{name}");
    }
}
