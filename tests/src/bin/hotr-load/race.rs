//! The new-directory race: directories are made, and a file is written deep in them at once. A watcher that adds its
//! watches one directory after the other comes too late for some.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::Common;
use crate::figures::{Figures, median};
use crate::watcher::{self, Heard, PATIENCE, Watcher};

/// How many.
#[derive(Args)]
pub(crate) struct RaceArgs {
    #[command(flatten)]
    common: Common,
    /// Directories in a round
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Rounds
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

/// A watcher that has been silent for this long after the last change has said what it has to say.
const SILENCE: Duration = Duration::from_millis(500);
const MARK: &str = "end-of-round";

/// Starts a watcher on a folder.
type Start<'a> = &'a dyn Fn(&Path) -> Result<Watcher>;

/// Entry point of the benchmark.
pub(crate) fn run(args: &RaceArgs, out: &mut Figures) -> Result<()> {
    let hotr = &args.common.hotr;
    let subjects: [(&str, Start<'_>); 3] = [
        ("hotr", &|dir| watcher::hotr(hotr, &[], dir)),
        ("hotr-inotify", &|dir| watcher::hotr(hotr, &["--channels", "inotify"], dir)),
        ("inotifywait", &|dir| watcher::inotifywait(&["-r"], dir)),
    ];
    out.count("race/count", args.count as u64)?;
    out.count("race/rounds", args.rounds as u64)?;
    let mut found: [Vec<f64>; 3] = Default::default();
    for round in 0..args.rounds {
        for ((name, start), found) in subjects.iter().zip(&mut found) {
            let dir = args.common.dir.join(format!("race-{name}-{round}"));
            fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
            #[expect(clippy::cast_precision_loss, reason = "a round has some hundred files")]
            let reported = one(start(&dir)?, &dir, args.count)? as f64;
            found.push(reported);
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
    }
    for ((name, _), found) in subjects.iter().zip(&found) {
        out.value(format!("race/{name}/least"), found.iter().copied().fold(f64::INFINITY, f64::min))?;
        out.value(format!("race/{name}/median"), median(found))?;
        out.value(format!("race/{name}/most"), found.iter().copied().fold(0.0, f64::max))?;
    }
    Ok(())
}

/// How many of the files of one round were reported.
fn one(mut watcher: Watcher, dir: &Path, count: usize) -> Result<usize> {
    for index in 0..count {
        let folder = dir.join(format!("d{index:05}/a/b"));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let file = folder.join("f");
        fs::write(&file, b"x").with_context(|| format!("write {}", file.display()))?;
    }
    let mark = dir.join(MARK);
    fs::write(&mark, b"x").with_context(|| format!("write {}", mark.display()))?;
    let mut found = BTreeSet::new();
    watcher.expect(MARK, Instant::now() + PATIENCE, |line| found.extend(file_of(line)))?;
    while found.len() < count {
        match watcher.line(Instant::now() + SILENCE)? {
            Heard::Line(line) => found.extend(file_of(&line)),
            Heard::Late => break,
            Heard::End => bail!("the watcher ended while it was measured"),
        }
    }
    watcher.stop(|line| found.extend(file_of(line)))?;
    Ok(found.len())
}

/// The number of the file `d00001/a/b/f` in a line of hotr (`…/a/b/f"`) or inotifywait (`…/a/b/ CREATE f`).
fn file_of(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line).ok()?;
    let (before, after) = text.split_once("/a/b/")?;
    let file = after.starts_with("f\"") || after.ends_with(" f");
    if !file {
        return None;
    }
    before.rsplit_once("/d")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_the_lines_of_both() {
        let hotr = br#"{"type":"change","op":"create","path":"/x/race/d00017/a/b/f","ino":1}"#;
        assert_eq!(file_of(hotr), Some(17));
        assert_eq!(file_of(b"/x/race/d00003/a/b/ MODIFY f"), Some(3));
        assert_eq!(file_of(b"/x/race/d00003/a/ CREATE,ISDIR b"), None);
        assert_eq!(file_of(br#"{"type":"change","op":"create","path":"/x/race/d00017/a/b"}"#), None);
    }
}
