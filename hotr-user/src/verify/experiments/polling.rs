//! What a comparison of one attribute overlooks.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::verify::bench::{During, holds, old_file, overwrite, set_old};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::verdict::Ruling;

const BOTH: &[Listener] = &[Listener::Inotify, Listener::Poll];

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "mtime-set-back",
        group: Group::Polling,
        claim: "A poller that compares only mtime overlooks a write after which the old time is set again.",
        source: "rsync(1): the quick check; tools that keep times",
        method: "Write to a file, set its former mtime, and compare; inotify listens too.",
        rests_on: BOTH,
        run: |bench| {
            let path = bench.dir("d")?.join("f");
            old_file(&path, b"1\n")?;
            bench.watch("f", &path)?;
            bench.operate(|_| {
                overwrite(&path, b"22\n")?;
                set_old(&path)
            })?;
            bench.done(holds(&path, b"22\n"));
            Ok(())
        },
        decide: |evidence| overlooks(evidence, "f", "mtime"),
    },
    Experiment {
        name: "size-swap",
        group: Group::Polling,
        claim: "A poller that compares only sizes overlooks an exchange of two files of one size.",
        source: "pollers that compare sizes only",
        method: "Exchange the names of two files of the same size, and compare; inotify listens too.",
        rests_on: BOTH,
        run: |bench| {
            let dir = bench.dir("d")?;
            let (a, b) = (dir.join("a"), dir.join("b"));
            old_file(&a, b"a\n")?;
            old_file(&b, b"b\n")?;
            bench.inotify_watch("a", &dir, rustix::fs::inotify::WatchFlags::MOVE)?;
            bench.compare("a", &a);
            bench.operate(|_| {
                let spare = dir.join("spare");
                fs::rename(&a, &spare).during("rename a file")?;
                fs::rename(&b, &a).during("rename a file")?;
                fs::rename(&spare, &b).during("rename a file")
            })?;
            bench.done(holds(&a, b"b\n"));
            Ok(())
        },
        decide: |evidence| overlooks(evidence, "a", "size"),
    },
    Experiment {
        name: "clock-step",
        group: Group::Polling,
        claim: "A poller that asks for an mtime later than the last one overlooks a write with an earlier clock.",
        source: "pollers that compare with `newer than`",
        method: "Write to a file and set its mtime an hour before the former one, as a clock that was set back does.",
        rests_on: BOTH,
        run: |bench| {
            let path = bench.dir("d")?.join("f");
            old_file(&path, b"1\n")?;
            let before = fs::metadata(&path).during("look at a file")?.modified()?;
            bench.watch("f", &path)?;
            bench.operate(|_| {
                overwrite(&path, b"22\n")?;
                set_earlier(&path, before)
            })?;
            let after = fs::metadata(&path).during("look at a file")?.modified()?;
            bench.fact("is_newer", u64::from(after > before));
            bench.done(holds(&path, b"22\n"));
            Ok(())
        },
        decide: |evidence| match (evidence.fact("is_newer"), evidence.differs("f", "mtime")) {
            (0, true) => Ruling::confirmed("the new mtime differs, and is earlier"),
            (0, false) => Ruling::confirmed("the new mtime is the former one"),
            _ => Ruling::refuted("the new mtime is later"),
        },
    },
];

fn set_earlier(path: &std::path::Path, before: SystemTime) -> Result<(), crate::verify::bench::Stop> {
    let earlier = before - Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(path).during("open a file")?;
    file.set_modified(earlier).during("set a file's times")
}

/// Of a claim that a comparison of one attribute overlooks a change that inotify received.
fn overlooks(evidence: &Evidence, at: &'static str, attribute: &str) -> Ruling {
    let others: Vec<&str> =
        ["size", "mtime", "ctime", "ino"].into_iter().filter(|word| evidence.differs(at, word)).collect();
    if others.contains(&attribute) {
        return Ruling::refuted(format!("{attribute} differs"));
    }
    match (others.is_empty(), evidence.heard_any(at)) {
        (true, _) => Ruling::confirmed(format!("{attribute} is the same, and so are all other attributes")),
        (false, 0) => Ruling::partly(format!("{} differ, and inotify received nothing", others.join(", "))),
        _ => Ruling::confirmed(format!("{attribute} is the same; {} differ", others.join(", "))),
    }
}
