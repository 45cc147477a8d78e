//! `hotr verify` is ended at random moments, and leaves nothing behind: no mount, loop device, process or file, and no changed setting.
//!
//! `HOTR_KILLS=50` makes more than a few, `HOTR_KILL_SEED` others. A test program of its own: it adopts all processes that a run leaves,
//! those of containers too, which are in no process group of the run.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

#[path = "verify/machine.rs"]
mod machine;
#[path = "verify/run.rs"]
#[expect(dead_code, reason = "the other test program uses the rest")]
mod run;

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

use self::machine::{Machine, leaves_nothing};
use self::run::{Running, root, until, verify};

/// Runs that are ended; more with HOTR_KILLS.
const KILLS: u64 = 5;
const SEED: u64 = 1;
/// A run is ended within this time: then some experiments are over, and one of all kinds is being made.
const LATEST_MS: u64 = 4_000;

/// Numbers by a fixed rule (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap();
            items.swap(last, other);
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// Children of this process: after a run, those that it left.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == own;
        parent.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    pids.filter_map(Pid::from_raw).collect()
}

/// Waits until every process that the run left has ended.
fn adopted_have_ended() {
    until("the end of all processes that the run left", || {
        let left = children();
        for pid in &left {
            waitpid(Some(*pid), WaitOptions::NOHANG).unwrap();
        }
        left.is_empty()
    });
}

/// That a process which leaves its session and its parent is found: otherwise this test would find nothing.
fn orphans_are_found() {
    let mut leave = Command::new("setsid");
    assert!(leave.args(["--fork", "sleep", "1000"]).status().unwrap().success());
    until("an adopted process", || !children().is_empty());
    let orphans = children();
    assert_eq!(orphans.len(), 1);
    kill_process(orphans[0], Signal::KILL).unwrap();
    adopted_have_ended();
}

/// Waits until the run has ended, or the moment is there.
fn wait_for(run: &Running, moment: Instant) {
    let left = Timespec::try_from(moment.saturating_duration_since(Instant::now())).unwrap();
    // Without an event to wait for, only its end is one.
    let stdout = run.lines.get_ref();
    poll(&mut [PollFd::new(stdout, PollFlags::empty())], Some(&left)).unwrap();
}

#[test]
fn after_random_kills() {
    if !root() {
        return;
    }
    let (seed, kills) = (number("HOTR_KILL_SEED", SEED), number("HOTR_KILLS", KILLS));
    set_child_subreaper(Some(getpid())).unwrap();
    orphans_are_found();
    let list = verify(&["--list", "--json"]).lines();
    let mut names: Vec<&str> = list.iter().map(|line| line["experiment"].as_str().unwrap()).collect();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let before = Machine::now();
    for kill in 1..=kills {
        random.shuffle(&mut names);
        let signal = if random.below(2) == 0 { Signal::KILL } else { Signal::INT };
        let moment = Duration::from_millis(random.below(LATEST_MS));
        let mut words = vec!["--json"];
        words.extend((random.below(2) == 0).then_some("--keep"));
        words.extend(&names);
        let described = format!(
            "HOTR_KILL_SEED={seed}, kill {kill} of {kills}: {signal:?} after {moment:?}, {}",
            words[..4].join(" ")
        );
        writeln!(std::io::stderr(), "{described}").unwrap();
        let mut run = Running::start(&words);
        let group = run.child.id();
        wait_for(&run, Instant::now() + moment);
        run.send(signal);
        let status = run.end();
        // SIGINT ends a run that has not yet asked for it like any program.
        assert!(matches!((signal, status), (_, None) | (Signal::INT, Some(0))), "{described}: {status:?}");
        adopted_have_ended();
        leaves_nothing(&before, group);
    }
}
