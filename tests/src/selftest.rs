//! Every operation without hotr: do its system calls work here, does inotify receive what the operation says it
//! receives, and does the table of exceptions know where either is not so?

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

use crate::exceptions::{Exception, Exceptions, Instead, Word};
use crate::expect::Expect;
use crate::ops::{OpError, Operation};
use crate::place::Place;
use crate::run::prepare;

/// What inotify reports of changes; opening and closing are none.
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE);

/// Performs the operations and prints one line for each that is not plain; returns how many of them are not as
/// the table of exceptions says.
///
/// # Errors
/// inotify cannot be used.
pub fn selftest(
    kernel: &str,
    place: &Place,
    operations: &[&Operation],
    exceptions: &Exceptions,
) -> Result<usize> {
    let mut wrong = 0;
    for operation in operations {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).context("start inotify")?;
        let mut expect = Vec::new();
        let result = prepare(place, operation).and_then(|prepared| {
            expect = prepared.expect;
            prepared.before.map_or(Ok(()), |act| act())?;
            watch(&inotify, &place.traced().join(operation.id))?;
            (prepared.act)()
        });
        let listed = exceptions.find(kernel, place.fs(), "tracepoint", operation.id);
        let problem = match &result {
            Err(error) => refused(error, listed),
            Ok(()) => heard_as_expected(heard(&inotify), expect, listed),
        };
        if let Some(problem) = &problem {
            println!("{} {}: {problem}", place.fs(), operation.id);
        }
        wrong += usize::from(problem.is_some());
    }
    println!("{}: {} operations, {wrong} not as the table says", place.fs(), operations.len());
    Ok(wrong)
}

fn refused(error: &OpError, listed: Option<&Exception>) -> Option<String> {
    let known = listed.is_some_and(|entry| entry.expect == Instead::Word(Word::Unsupported));
    (!known || !error.is_unsupported()).then(|| format!("failed: {}", error.what))
}

/// Compares what inotify said with `seen_by`: for a cell without lines, and for each of the tiers alike.
fn heard_as_expected(heard: bool, expect: Vec<Expect>, listed: Option<&Exception>) -> Option<String> {
    let expect = match listed.map(|entry| &entry.expect) {
        Some(Instead::Word(Word::Unsupported)) => {
            return Some("works, and is listed as unsupported".to_owned());
        }
        Some(Instead::Fields(fields)) => match fields.apply(&expect) {
            Ok(expect) => expect,
            Err(error) => return Some(error.to_string()),
        },
        _ => expect,
    };
    // Some calls that change no name still make inotify speak, for instance of a file that has lost its name.
    if expect.is_empty() {
        return None;
    }
    let expected = expect.iter().any(|line| line.seen_by.iter().any(|channel| channel == "inotify"));
    (heard != expected).then(|| format!("inotify: expected {expected}, heard {heard}"))
}

/// Watches a directory and everything below it.
fn watch(inotify: &OwnedFd, dir: &Path) -> Result<(), OpError> {
    add_watch(inotify, dir, CHANGES)?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            watch(inotify, &entry.path())?;
        }
    }
    Ok(())
}

/// Whether an event is there. Notification happens inside the system call, so there is nothing to wait for.
fn heard(inotify: &OwnedFd) -> bool {
    Reader::new(inotify, &mut [MaybeUninit::uninit(); 4096]).next().is_ok()
}
