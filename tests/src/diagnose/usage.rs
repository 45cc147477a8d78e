//! What a program does with a file after its event, or after it was replaced: cases in which it does too little, and in
//! which nothing is lost.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::expect;
use super::live::{Live, NAME, Watched};

/// The program reads the event and does nothing.
pub(super) const APPLICATION: &str = "live-application";
/// It reads the file before the last write.
pub(super) const READ_EARLY: &str = "live-read-early";
/// It does what it should.
pub(super) const RELOADED: &str = "live-reloaded";
/// The file is replaced, and the program sets its watch again too late.
pub(super) const RACE: &str = "live-rewatch-race";
/// The same, and it reads the file then.
pub(super) const REWATCHED: &str = "live-rewatched";
/// It reads the file in a way that hotr may not see.
pub(super) const WITHOUT_ATIME: &str = "live-read-without-atime";
/// Longer than hotr leaves a program to act.
const PATIENCE: Duration = Duration::from_millis(1100);

/// A save that is missed because the watch is set after it.
pub(super) fn rewatch_race(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.replace()?;
    watched.append(&watched.file())?;
    add_watch(&watched.instance, watched.file(), WatchFlags::MODIFY)?;
    // From here on it arrives.
    watched.append(&watched.file())?;
    watched.read();
    let lines = live.about(Some(watched), &watched.file(), 3)?;
    let of = |state: &str| lines.iter().filter(|line| line["state"] == state).collect::<Vec<_>>();
    ensure!(of("delivered").len() == 1 && of("never-sent").len() == 2, "{lines:#?}");
    for line in of("never-sent") {
        ensure!(line["cause"] == "rewatch-race" && line["proof"] == live.proof(), "{line}");
        let evidence = line["evidence"].to_string();
        ensure!(evidence.contains("set after the change, at most "), "no window: {evidence}");
    }
    Ok(())
}

/// Nothing is lost: the file is read when the watch is there. What hotr does not say is looked for at the end.
pub(super) fn rewatched(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.replace()?;
    watched.append(&watched.file())?;
    add_watch(&watched.instance, watched.file(), WatchFlags::MODIFY)?;
    fs::read(watched.file())?;
    live.until = Instant::now() + PATIENCE;
    live.reread = 2;
    Ok(())
}

/// What the program did with the file is said at the end.
pub(super) fn application(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.appended(&watched.file())?;
    ensure!(watched.read() == 1, "the event was not there");
    live.until = Instant::now() + PATIENCE;
    expect(&live.about(Some(watched), &watched.file(), 1)?, &[("delivered", "")])
}

pub(super) fn read_early(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.appended(&watched.file())?;
    ensure!(watched.read() == 1, "the event was not there");
    fs::read(watched.file())?;
    watched.appended(&watched.file())?;
    ensure!(watched.read() == 1, "the second event was not there");
    live.until = Instant::now() + PATIENCE;
    expect(&live.about(Some(watched), &watched.file(), 2)?, &[("delivered", ""); 2])
}

pub(super) fn reloaded(live: &mut Live, watched: &Watched) -> Result<()> {
    watched.appended(&watched.file())?;
    ensure!(watched.read() == 1, "the event was not there");
    fs::read(watched.file())?;
    live.until = Instant::now() + PATIENCE;
    expect(&live.about(Some(watched), &watched.file(), 1)?, &[("delivered", "")])
}

/// The file was opened before the change, so its reading alone would show that it was used: nothing may be said.
pub(super) fn read_without_atime(live: &mut Live, watched: &Watched) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    let file = rustix::fs::open(watched.file(), flags, Mode::empty()).context("open without atime")?;
    watched.appended(&watched.file())?;
    ensure!(watched.read() == 1, "the event was not there");
    rustix::io::pread(&file, &mut [0_u8; 16], 0).context("read")?;
    live.until = Instant::now() + PATIENCE;
    expect(&live.about(Some(watched), &watched.file(), 1)?, &[("delivered", "")])
}

/// What is said at the end, and of whom nothing may be.
pub(super) fn end(live: &Live) -> Result<()> {
    let about = |name: &str, line: &Value| line["path"].as_str().is_some_and(|path| path.contains(name));
    for (name, cause) in [(APPLICATION, "application"), (READ_EARLY, "read-early")] {
        if live.said.iter().any(|line| about(name, line)) {
            let found = live.findings.iter().find(|line| about(name, line));
            let found = found.with_context(|| format!("{name}: no finding in {:#?}", live.findings))?;
            ensure!(found["cause"] == cause && found["proof"] == "inferred", "{found}");
        }
    }
    let mut others = live.findings.iter();
    let others = others.find(|line| ![APPLICATION, READ_EARLY].iter().any(|name| about(name, line)));
    ensure!(others.is_none(), "a false finding: {others:?}");
    let is_file = |line: &&Value| line["path"].as_str().is_some_and(|path| path.ends_with(NAME));
    let false_loss = live.said.iter().filter(is_file).find(|line| about(REWATCHED, line));
    ensure!(false_loss.is_none(), "it was read: {false_loss:?}");
    let reread = &live.summary.as_ref().context("a summary")?["reread"];
    ensure!(*reread == live.reread, "{reread} changes were read again, of {}", live.reread);
    Ok(())
}
