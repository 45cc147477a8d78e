//! What hotr says of inotify and eBPF, beside a reader of its own that was notified of the same changes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions, create_dir, rename};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use serde_json::Value;

use super::place::Scratch;
use super::run::{Run, changes, ebpf, path_of};

const WRITERS: usize = 3;
const ROUNDS: usize = 150;
/// The reader ends with this name.
const LAST: &str = "last";

/// Events for each name and operation.
type Notified = BTreeMap<(String, &'static str), u64>;

/// Reads what is queued until the last name is created.
fn listen(inotify: &OwnedFd) -> Notified {
    let kinds = [
        (ReadFlags::CREATE, "create"),
        (ReadFlags::MODIFY, "write"),
        (ReadFlags::ATTRIB, "attrib"),
        (ReadFlags::MOVED_TO, "rename"),
        (ReadFlags::DELETE, "remove"),
    ];
    let mut notified = Notified::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify, &mut buffer);
    loop {
        let event = reader.next().unwrap();
        assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "the reader is too slow");
        let Some(name) = event.file_name() else { continue };
        let name = name.to_str().unwrap().to_owned();
        for (kind, op) in kinds.into_iter().filter(|(kind, _)| event.events().contains(*kind)) {
            if name == LAST && kind == ReadFlags::CREATE {
                return notified;
            }
            *notified.entry((name.clone(), op)).or_default() += 1;
        }
    }
}

/// What every writer does at the same time: two files in turn, and saves of one file by the same temporary name.
fn write(dir: &Path) {
    let append = |name| OpenOptions::new().append(true).open(dir.join(name)).unwrap();
    let mut files = ["a", "b"].map(append);
    for round in 0..ROUNDS {
        for file in &mut files {
            file.write_all(b"x").unwrap();
        }
        let temporary = dir.join("saved.tmp");
        File::create(&temporary).unwrap().write_all(b"x").unwrap();
        // Another writer may have been faster.
        let _ = rename(&temporary, dir.join(format!("saved{round}")));
        std::fs::set_permissions(dir.join("c"), Permissions::from_mode(0o600 + round as u32 % 2)).unwrap();
    }
}

/// Stores that send no notification.
pub(crate) fn store(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping of one page, of a file of that size; it is gone before the function returns.
    unsafe {
        let page = mmap(std::ptr::null_mut(), 4096, protection, MapFlags::SHARED, &file, 0).unwrap();
        page.cast::<u8>().write_volatile(1);
        msync(page, 4096, MsyncFlags::SYNC).unwrap();
        munmap(page, 4096).unwrap();
    }
}

fn missed<'a>(line: &'a Value, channel: &'a str) -> impl Iterator<Item = &'a Value> {
    line["missed_by"].as_array().unwrap().iter().filter(move |missed| missed["channel"] == channel)
}

#[test]
fn nobody_is_said_to_miss_what_another_reader_was_notified_of() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("witness");
    let dir = scratch.dir("watched");
    for name in ["a", "b", "c"] {
        File::create(dir.join(name)).unwrap();
    }
    File::create(dir.join("mapped")).unwrap().set_len(4096).unwrap();
    let mut run = Run::start(&[], &dir);
    let inotify = init(CreateFlags::CLOEXEC).unwrap();
    let kinds = WatchFlags::CREATE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE;
    add_watch(&inotify, &dir, kinds).unwrap();
    let notified = std::thread::scope(|scope| {
        let listening = scope.spawn(|| listen(&inotify));
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(|| write(&dir))).collect();
        store(&dir.join("mapped"));
        for writer in writers {
            writer.join().unwrap();
        }
        create_dir(dir.join(LAST)).unwrap();
        listening.join().unwrap()
    });
    // An event without a record is reported once it was held for 1.5 s.
    let over = Instant::now() + Duration::from_secs(2);
    run.change("create", &dir.join(LAST));
    while Instant::now() < over {
        std::thread::park_timeout(over.saturating_duration_since(Instant::now()));
    }
    let lines = run.end();
    assert!(lines.iter().all(|line| line["type"] != "loss"), "nothing is lost");
    let mut seen = BTreeMap::new();
    for line in changes(&lines) {
        let name = path_of(line).file_name().unwrap().to_str().unwrap().to_owned();
        let op = line["op"].as_str().unwrap();
        let was = notified.iter().any(|((known, kind), _)| *known == name && *kind == op);
        assert_eq!(missed(line, "ebpf").count(), 0, "every change was made by a call: {line}");
        assert!(!was || missed(line, "inotify").count() == 0, "the reader was notified: {line}");
        let by = seen.entry((name, op.to_owned())).or_insert((false, 0));
        by.0 |= line["seen_by"].as_array().unwrap().iter().any(|channel| channel == "inotify");
        by.1 += line["writes"].as_u64().unwrap_or(0);
    }
    let of = |name: &str, op: &str| seen.get(&(name.to_owned(), op.to_owned())).copied();
    for (name, op) in notified.keys().filter(|(name, op)| !name.starts_with("saved") || *op != "write") {
        assert_eq!(of(name, op).map(|by| by.0), Some(true), "the reader was notified: {op} {name}");
    }
    for name in ["a", "b"] {
        assert_eq!(of(name, "write").map(|by| by.1), Some((WRITERS * ROUNDS) as u64), "{name}");
    }
    let is_mapped = |line: &&Value| path_of(line).ends_with("mapped");
    let mapped: Vec<_> = changes(&lines).filter(is_mapped).collect();
    assert!(!notified.contains_key(&("mapped".to_owned(), "write")), "stores notify nobody");
    assert!(
        !mapped.is_empty() && mapped.iter().all(|line| missed(line, "inotify").count() == 1),
        "{mapped:?}"
    );
}
