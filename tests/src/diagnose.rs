//! What a live diagnosis says of inotify instances of this process, in each of the situations that it can tell apart: which
//! are made here, and read, or not, when a case wants it.

mod live;
mod many;
mod marks;
mod usage;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::{WatchFlags, add_watch};
use serde_json::Value;

use crate::group::{Group, Report, Setting};
use live::{Live, NAME, Watched};

/// The cases.
pub const GROUP: Group = Group {
    place: "diagnose",
    names: || CASES.iter().map(|case| case.0).chain([marks::NAME]).collect(),
    make,
};

/// A directory of a watched tree that has no watch.
const TREE: &str = "live-new-subdirectory";
/// Changes of three writers among the cases.
const MANY: u64 = 1000;

/// A name, what is watched with which mask, and what happens.
type Case = (&'static str, fn(&Path) -> PathBuf, WatchFlags, fn(&mut Live, &Watched) -> Result<()>);

const SAVES: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::MOVED_TO);

const CASES: &[Case] = &[
    ("live-delivered", dir, WatchFlags::MODIFY, delivered),
    ("live-merged", dir, WatchFlags::MODIFY, merged),
    ("live-dropped", dir, WatchFlags::MODIFY, dropped),
    ("live-replaced-file", file, WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE), replaced),
    ("live-mask-of-a-rename", dir, WatchFlags::MODIFY, mask_of_a_rename),
    ("live-mask-of-a-write", dir, WatchFlags::MOVED_TO.union(WatchFlags::CREATE), mask_of_a_write),
    ("live-hard-link", dir, WatchFlags::MODIFY, hard_link),
    ("live-mapping", dir, WatchFlags::MODIFY, mapping),
    (usage::APPLICATION, dir, WatchFlags::MODIFY, usage::application),
    (usage::READ_EARLY, dir, WatchFlags::MODIFY, usage::read_early),
    (usage::RELOADED, dir, SAVES, usage::reloaded),
    (usage::WITHOUT_ATIME, dir, WatchFlags::MODIFY, usage::read_without_atime),
    (usage::RACE, file, WatchFlags::MODIFY, usage::rewatch_race),
    (usage::REWATCHED, file, WatchFlags::MODIFY, usage::rewatched),
    ("live-healthy", dir, SAVES, healthy),
    ("live-file-and-directory", file, WatchFlags::MODIFY, file_and_directory),
    ("live-three-writers", dir, many::MASK, three_writers),
    (TREE, dir, SAVES.union(WatchFlags::CREATE), new_subdirectory),
    ("live-unread", dir, WatchFlags::CREATE, unread),
];

/// The lines of a program, which a thread reads.
fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let stdout = child.stdout.take().context("take hotr's output")?;
    let (send, lines) = channel();
    let _reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

fn dir(dir: &Path) -> PathBuf {
    dir.to_owned()
}

fn file(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

fn make(report: &mut Report<'_>) {
    let setting = report.setting;
    // With a path, every change below it matters. One run a guest: starting takes the longest.
    let has_path = setting.tier != "kprobe";
    let all = CASES.iter().filter(|case| has_path || case.0 != TREE).map(|case| (case.0, case));
    let one = |live: &mut Live, case: &Case| {
        let at = CASES.iter().position(|other| other.0 == case.0).context("a case")?;
        let watched = live.watched.remove(at);
        let result = case.3(live, &watched);
        live.watched.insert(at, watched);
        result
    };
    report.cases(all, start(&setting, has_path), one, end);
    // By itself: where tracepoints are all there is, the kernel skips programs of one hotr while another starts.
    report.case(marks::NAME, || marks::marks(&setting));
}

fn base(setting: &Setting<'_>, name: &str) -> Result<PathBuf> {
    let base = std::env::temp_dir().join(format!("hotr-live-{name}-{}-{}", setting.tier, std::process::id()));
    fs::create_dir_all(&base)?;
    Ok(base.canonicalize()?)
}

/// The limit that an instance takes over when it is made.
const MAX_QUEUED: &str = "/proc/sys/fs/inotify/max_queued_events";
/// What it is for [`dropped`].
const FEW: u64 = 8;

fn start(setting: &Setting<'_>, has_path: bool) -> Result<Live> {
    let base = base(setting, "cases")?;
    let before = fs::read_to_string(MAX_QUEUED)?;
    let mut watched = Vec::new();
    for (name, path, mask, act) in CASES {
        let dir = base.join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(NAME), "1\n")?;
        let is_short = std::ptr::fn_addr_eq(*act, dropped as fn(&mut Live, &Watched) -> Result<()>);
        if is_short {
            fs::write(MAX_QUEUED, FEW.to_string())?;
        }
        let made = Watched::new(dir.clone(), &path(&dir), *mask);
        if is_short {
            fs::write(MAX_QUEUED, &before)?;
        }
        watched.push(made?);
    }
    let path = base.clone();
    let paths: &[&Path] = if has_path { &[&path] } else { &[] };
    Live::start(setting, paths, watched, base)
}

fn states(lines: &[Value]) -> Vec<(&str, &str)> {
    let word = |line: &'_ Value, key: &str| line[key].as_str().map(str::to_owned).unwrap_or_default();
    lines
        .iter()
        .map(|line| {
            let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
            (leak(word(line, "state")), leak(word(line, "cause")))
        })
        .collect()
}

fn expect(lines: &[Value], want: &[(&str, &str)]) -> Result<()> {
    ensure!(states(lines) == want, "expected {want:?}: {lines:#?}");
    Ok(())
}

fn delivered(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.append(&watched.file())?;
    ensure!(watched.read() == 1, "the event was not there");
    let lines = live.about(Some(watched), &watched.file(), 1)?;
    expect(&lines, &[("delivered", "")])?;
    ensure!(lines[0]["events"][0] == "IN_MODIFY" && lines[0]["read_us"].is_u64(), "{}", lines[0]);
    Ok(())
}

fn merged(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.append(&watched.file())?;
    watched.append(&watched.file())?;
    if live.is_inferred() {
        // Known once the queue is empty.
        ensure!(watched.read() == 1, "two equal events are one");
        let lines = live.about(Some(watched), &watched.file(), 2)?;
        return expect(&lines, &[("delivered", ""), ("merged", "merged")]);
    }
    let lines = live.about(Some(watched), &watched.file(), 1)?;
    expect(&lines, &[("merged", "merged")])?;
    ensure!(watched.read() == 1, "two equal events are one");
    expect(&live.about(Some(watched), &watched.file(), 2)?, &[("merged", "merged"), ("delivered", "")])
}

fn dropped(live: &mut Live, watched: &Watched) -> Result<()> {
    let other = watched.dir.join("other");
    fs::write(&other, "")?;
    // Never two equal events one after the other.
    for _ in 0..FEW {
        watched.append(&watched.file())?;
        watched.append(&other)?;
    }
    // The first half is queued, and one place is the overflow event's.
    if live.is_inferred() {
        let read = watched.read();
        ensure!(read == FEW as usize + 1, "{read} events were queued");
        let lines = live.about(Some(watched), &watched.file(), FEW as usize)?;
        let half = FEW as usize / 2;
        let want: Vec<_> =
            [("delivered", ""); 4].into_iter().chain([("dropped", "queue-overflow"); 4]).collect();
        ensure!(want.len() == 2 * half);
        return expect(&lines, &want);
    }
    let lines = live.about(Some(watched), &watched.file(), FEW as usize / 2)?;
    ensure!(lines.iter().all(|line| line["state"] == "dropped"), "{lines:#?}");
    ensure!(lines[0]["cause"] == "queue-overflow" && lines[0]["queue_limit"] == FEW, "{}", lines[0]);
    let read = watched.read();
    ensure!(read == FEW as usize + 1, "{read} events were queued");
    let lines = live.about(Some(watched), &watched.file(), FEW as usize)?;
    let count = lines.iter().filter(|line| line["state"] == "delivered").count();
    ensure!(count == FEW as usize / 2, "{lines:#?}");
    Ok(())
}

fn replaced(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.replace()?;
    watched.append(&watched.file())?;
    let lines = live.about(Some(watched), &watched.file(), 2)?;
    expect(&lines, &[("never-sent", "replaced-file"), ("never-sent", "replaced-file")])?;
    let line = &lines[1];
    ensure!(line["proof"] == live.proof() && line["watched_ino"] != line["path_ino"], "{line}");
    Ok(())
}

fn mask_of_a_rename(live: &mut Live, watched: &Watched) -> Result<()> {
    // Written where nobody looks.
    let aside = live.base.join("aside");
    fs::write(&aside, "4\n")?;
    fs::rename(&aside, watched.file())?;
    expect(&live.about(Some(watched), &watched.file(), 1)?, &[("never-sent", "mask-mismatch")])
}

/// Told at the end: until then the file may be renamed into place.
fn mask_of_a_write(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.append(&watched.file())?;
    // This one arrives, by its new name.
    watched.replace()?;
    ensure!(watched.read() == 2, "the new file and its rename");
    let lines = live.about(Some(watched), &watched.file(), 1)?;
    expect(&lines, &[("delivered", "")])
}

fn hard_link(live: &mut Live, watched: &Watched) -> Result<()> {
    // Outside of what is traced, on the same filesystem.
    let outside = live.base.with_extension("outside");
    fs::create_dir_all(&outside)?;
    let other = outside.join("hard-link");
    fs::hard_link(watched.file(), &other)?;
    watched.append(&other)?;
    let lines = live.about(Some(watched), &watched.file(), 1)?;
    fs::remove_dir_all(&outside)?;
    expect(&lines, &[("never-sent", "hardlink-alias")])
}

fn mapping(live: &mut Live, watched: &Watched) -> Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let file = OpenOptions::new().read(true).write(true).open(watched.file())?;
    // SAFETY: a new mapping of a file that this function alone changes; it is not used after it is unmapped.
    unsafe {
        let at =
            mmap(std::ptr::null_mut(), 1, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)?;
        at.cast::<u8>().write_volatile(b'5');
        munmap(at, 1)?;
    }
    if live.is_inferred() && is_in_memory(&watched.dir)? {
        // No tracepoint sees such a store there: nothing may be said of it.
        watched.append(&watched.file())?;
        watched.read();
        return expect(&live.about(Some(watched), &watched.file(), 1)?, &[("delivered", "")]);
    }
    expect(&live.about(Some(watched), &watched.file(), 1)?, &[("never-sent", "mmap")])
}

/// Whether a directory is on tmpfs or ramfs.
fn is_in_memory(dir: &Path) -> Result<bool> {
    let magic = rustix::fs::statfs(dir)?.f_type.cast_unsigned() as u32;
    Ok([0x0102_1994, 0x8584_58f6].contains(&magic))
}

fn healthy(live: &mut Live, watched: &Watched) -> Result<()> {
    for _ in 0..50 {
        watched.append(&watched.file())?;
        watched.read();
        watched.replace()?;
        watched.read();
    }
    let lines = live.about(Some(watched), &watched.file(), 100)?;
    ensure!(lines.iter().all(|line| line["state"] == "delivered"), "{lines:#?}");
    Ok(())
}

/// A program that watches a file, and its directory beside it, is told by the directory.
fn file_and_directory(live: &mut Live, watched: &Watched) -> Result<()> {
    add_watch(&watched.instance, &watched.dir, SAVES)?;
    watched.replace()?;
    watched.read();
    watched.append(&watched.file())?;
    watched.read();
    let lines = live.about(Some(watched), &watched.file(), 2)?;
    ensure!(lines.iter().all(|line| line["state"] == "delivered"), "{lines:#?}");
    Ok(())
}

fn three_writers(live: &mut Live, watched: &Watched) -> Result<()> {
    many::measure(live, watched, MANY)?.check()
}

/// Told at the end.
fn unread(_: &mut Live, watched: &Watched) -> Result<()> {
    fs::write(watched.dir.join("unread"), "").context("create")
}

fn end(mut live: Live) -> Result<()> {
    let status = live.end()?;
    let at = |name: &str| CASES.iter().position(|case| case.0 == name).context("a case");
    let is_made =
        |name: &str| live.said.iter().any(|line| line["path"].as_str().is_some_and(|p| p.contains(name)));
    for (name, file, want) in [
        ("live-mask-of-a-write", NAME, ("never-sent", "mask-mismatch")),
        ("live-unread", "unread", ("unread", "unread")),
    ] {
        if is_made(name) {
            let watched = &live.watched[at(name)?];
            let path = watched.dir.join(file);
            let found = states(
                &live
                    .said
                    .iter()
                    .filter(|line| line["path"] == *path.to_string_lossy())
                    .cloned()
                    .collect::<Vec<_>>(),
            )
            .into_iter()
            .any(|state| state == want);
            ensure!(found, "{name}: no {want:?} in {:#?}", live.said);
        }
    }
    let healthy =
        live.said.iter().filter(|line| line["path"].as_str().is_some_and(|path| path.contains("healthy")));
    for line in healthy {
        ensure!(line["state"] == "delivered", "a false finding: {line}");
    }
    usage::end(&live)?;
    let unknown = live.said.iter().find(|line| line["state"] == "never-sent" && line["cause"].is_null());
    ensure!(unknown.is_none(), "without a cause: {unknown:?}");
    let summary = live.summary.as_ref().context("a summary")?;
    // Where programs may be preempted, the kernel skips some of those on functions, and hotr says so.
    ensure!(summary["records_lost"] == live.lost, "told of {}: {summary}", live.lost);
    ensure!(live.lost == 0 || live.tier == "fentry", "{summary}");
    let lost = live.said.iter().any(|line| line["state"] == "dropped" || line["state"] == "never-sent");
    let want = if lost { 3 } else { 0 };
    ensure!(status == Some(want), "exit status {status:?}, expected {want}: {summary}");
    Ok(())
}

/// Follows as many changes of three writers, and prints what became of them.
///
/// # Errors
/// When a verdict is false or missing, or hotr says that it lost records.
pub fn deliveries(setting: &Setting<'_>, changes: u64) -> Result<()> {
    let base = base(setting, "many")?;
    let watched = Watched::new(base.join("many"), &base.join("many"), many::MASK)?;
    let mut live = Live::start(setting, &[], vec![], base)?;
    let began = Instant::now();
    let figures = many::measure(&mut live, &watched, changes)?;
    let took = began.elapsed();
    let status = live.end()?;
    println!("{} in {:.1} s: {}", setting.tier, took.as_secs_f64(), figures.line());
    let summary = live.summary.as_ref().context("a summary")?;
    println!("{summary}");
    figures.check()?;
    ensure!(status == Some(0) && summary["records_lost"] == 0 && summary["undecided"] == 0, "{summary}");
    Ok(())
}

fn new_subdirectory(live: &mut Live, watched: &Watched) -> Result<()> {
    let sub = watched.dir.join("sub");
    fs::create_dir(&sub)?;
    fs::write(sub.join("new"), "1\n")?;
    watched.read();
    expect(&live.about(Some(watched), &sub, 1)?, &[("delivered", "")])?;
    let lines = live.about(None, &sub.join("new"), 2)?;
    expect(&lines, &[("never-sent", "never-watched"); 2])?;
    // From now on it has one.
    add_watch(&watched.instance, &sub, SAVES)?;
    watched.append(&sub.join("new"))?;
    watched.read();
    expect(&live.about(Some(watched), &sub.join("new"), 1)?, &[("delivered", "")])
}
