//! What a run may cost, and how soon it ends, whatever others do in the traced trees.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::process::Signal;
use serde_json::Value;

use super::place::Scratch;
use super::run::{HOTR, Run, Started, channels, spawn, until};

/// A run may take this much more than at its begin, in KiB.
const MORE: u64 = 100 * 1024;
/// A signal ends a run within a second. The rest is for a machine that is busy with other tests, and a program that is
/// not optimised.
const SOON: Duration = Duration::from_secs(1 + 2);

fn runs() -> Vec<(&'static str, &'static str)> {
    let channels = channels();
    channels.iter().flat_map(|channel| [("trace", *channel), ("watch", *channel)]).collect()
}

fn command(name: &str, channel: &str, path: &Path) -> Command {
    let mut command = Command::new(HOTR);
    command.args([name, "--json", "--channels", channel]).arg(path);
    command
}

fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// A chain of directories with the longest names, made step by step; removed the same way.
struct Chain<'a>(&'a Path);

impl<'a> Chain<'a> {
    fn make(top: &'a Path, levels: usize) -> Self {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at: OwnedFd = openat(CWD, top, flags, Mode::empty()).unwrap();
        for level in 0..levels {
            let name = format!("{level:0>255}");
            mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        Self(top)
    }
}

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        let first = |dir: &Path| Some(fs::read_dir(dir).ok()?.next()?.ok()?.path());
        let Some(mut upper) = first(self.0) else { return };
        for number in 0.. {
            let Some(lower) = first(&upper) else { break };
            let next = self.0.join(format!("next{number}"));
            if fs::rename(lower, &next).and_then(|()| fs::remove_dir(&upper)).is_err() {
                break;
            }
            upper = next;
        }
    }
}

#[test]
fn a_tree_that_no_path_can_name_costs_little_and_is_said() {
    for (name, channel) in runs() {
        let scratch = Scratch::new("endless");
        let top = scratch.0.join("top");
        fs::create_dir(&top).unwrap();
        let mut run = Run::spawn(command(name, channel, &top));
        let quiet = peak(run.pid());
        let chain = Chain::make(&top, 3000);
        let is_said = |line: &Value| match channel {
            "inotify" => line["name"] == "inotify" && line["why"].to_string().contains("8192 bytes"),
            _ => line["type"] == "loss" && line["reason"] == "oversize",
        };
        // Who looks at all files beside the channels says what they do not see otherwise.
        if name == "trace" || channel == "ebpf" {
            run.wait("that there is more", is_said);
        }
        let after = top.join("after");
        File::create(&after).unwrap();
        if name == "trace" {
            run.change("create", &after);
        }
        let more = peak(run.pid()).saturating_sub(quiet);
        assert!(more <= MORE, "{name} {channel}: {more} KiB more");
        let begin = Instant::now();
        run.send(Signal::INT);
        let took = run.dies(begin);
        assert!(took <= SOON, "{name} {channel}: {took:?}");
        drop(chain);
    }
}

/// Ends a storm when a test ends, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes files and writes to them for as long as a test takes, so many in a directory.
fn storm(top: &Path, in_each: u32, over: &AtomicBool, made: &AtomicU64) {
    for number in 0.. {
        let dir = top.join(format!("{number:0>100}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..in_each {
            if over.load(Ordering::Relaxed) {
                return;
            }
            fs::write(dir.join(format!("f{file}")), "x").unwrap();
            made.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_signal_ends_a_run_in_the_midst_of_a_storm_whether_its_reader_reads_or_not() {
    // Each new directory is a watch and a walk for inotify.
    let (deep, wide) = ((5_000, 1000), (15_000, 9));
    let storms = [
        (Signal::INT, true, deep),
        (Signal::TERM, true, deep),
        (Signal::INT, false, deep),
        (Signal::INT, true, wide),
    ];
    for (name, channel) in runs() {
        for (signal, reads, (files, in_each)) in storms {
            let scratch = Scratch::new("storm-end");
            let (child, stdout) = spawn(command(name, channel, &scratch.0));
            let mut stdout = BufReader::with_capacity(4096, stdout);
            let mut ready = String::new();
            stdout.read_line(&mut ready).unwrap();
            let quiet = peak(child.pid());
            let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
            let what = format!("{name} {channel}, {signal:?}, {in_each} in each, the reader reads: {reads}");
            let (scratch, over, made, stdout) = (&scratch, &over, &made, &mut stdout);
            std::thread::scope(move |scope| {
                // Ended whatever happens, or the threads would be waited for in vain.
                let (mut child, end) = (child, Over(over));
                scope.spawn(move || storm(&scratch.0, in_each, over, made));
                let reader = scope.spawn(move || {
                    let mut text = String::new();
                    if reads {
                        stdout.read_to_string(&mut text).unwrap();
                    }
                    text
                });
                until("a storm", || made.load(Ordering::Relaxed) >= files);
                let more = peak(child.pid()).saturating_sub(quiet);
                child.send(signal);
                let begin = Instant::now();
                let status = child.wait();
                let took = begin.elapsed();
                drop(end);
                assert!(status == Some(0) && took <= SOON, "{what}: {status:?}, {took:?}");
                assert!(more <= MORE, "{what}: {more} KiB more");
                let text = reader.join().unwrap();
                if reads {
                    let last = text.lines().last().unwrap_or_default();
                    assert!(last.contains(r#""type":"summary""#), "{what}: {last}");
                }
            });
        }
    }
}

#[test]
fn a_signal_ends_a_run_that_is_still_looking_at_a_large_tree() {
    let scratch = Scratch::new("large");
    let dirs: Vec<PathBuf> = (0..15_000).map(|number| scratch.0.join(number.to_string())).collect();
    dirs.iter().for_each(|dir| fs::create_dir_all(dir.join("below")).unwrap());
    for (name, channel) in runs() {
        let mut child =
            Started::new(command(name, channel, &scratch.0).stdout(Stdio::null()).stderr(Stdio::null()));
        until("the signal is handled", || {
            let status = fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (libc::SIGINT - 1) != 0
        });
        child.send(Signal::INT);
        let begin = Instant::now();
        let status = child.wait();
        let took = begin.elapsed();
        assert!(status == Some(0) && took <= SOON, "{name} {channel}: {status:?}, {took:?}");
    }
}
