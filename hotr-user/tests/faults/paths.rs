//! Where named paths lead: several into one directory, by links, to a file that is mounted by itself, and elsewhere.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::place::Scratch;
use super::run::{Run, channels, ebpf, path_of};

/// A mount that is gone at the end of a test.
struct Bind(PathBuf);

impl Bind {
    fn new(from: &Path, to: &Path) -> Self {
        mount_bind(from, to).unwrap();
        Self(to.to_path_buf())
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn append(path: &Path) {
    fs::File::options().append(true).open(path).unwrap().write_all(b"more\n").unwrap();
}

/// Waits for a write that this channel saw.
fn written(run: &mut Run, path: &Path, channel: &str) {
    run.wait(&format!("{channel}: a write to {}", path.display()), |line| {
        line["op"] == "write"
            && path_of(line) == path
            && line["seen_by"].as_array().is_some_and(|seen| seen.iter().any(|seen| seen == channel))
    });
}

/// Makes files in `dir` until one is reported under `shown` by this channel.
fn taken_up(run: &mut Run, dir: &Path, shown: &Path, channel: &str) {
    let mut number = 0;
    loop {
        let line = run.until_heard(|_| {
            number += 1;
            let name = format!("new{number}");
            fs::write(dir.join(&name), "x").unwrap();
            shown.join(name)
        });
        if line["seen_by"].as_array().unwrap().iter().any(|seen| seen == channel) {
            return;
        }
    }
}

#[test]
fn every_file_that_is_named_in_one_directory_is_heard() {
    for channel in channels() {
        let scratch = Scratch::new("several");
        let files = ["a", "b", "c"].map(|name| scratch.0.join(name));
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        let others = [files[0].to_str().unwrap(), files[1].to_str().unwrap()];
        let mut run = Run::start(&["--channels", channel, others[0], others[1]], &files[2]);
        fs::write(scratch.0.join("unnamed"), "x").unwrap();
        for file in &files {
            append(file);
            written(&mut run, file, channel);
        }
        assert!(run.end().iter().all(|line| !path_of(line).ends_with("unnamed")), "{channel}");
    }
}

#[test]
fn a_file_is_heard_behind_links_and_where_they_lead_later() {
    for channel in channels() {
        let scratch = Scratch::new("behind");
        let (etc, store) = (scratch.dir("etc"), scratch.dir("store"));
        let (one, two) = (store.join("one"), scratch.dir("other").join("two"));
        fs::write(&one, "").unwrap();
        fs::write(&two, "").unwrap();
        symlink("one", store.join("link")).unwrap();
        let named = etc.join("conf");
        symlink("../store/link", &named).unwrap();
        let mut run = Run::start(&["--channels", channel], &named);
        for file in [&one, &named] {
            append(file);
            written(&mut run, &named, channel);
        }
        // The second link of the way is switched, there and back.
        for (target, file) in [("../other/two", &two), ("one", &one), ("../other/two", &two)] {
            symlink(target, store.join("next")).unwrap();
            fs::rename(store.join("next"), store.join("link")).unwrap();
            run.until_heard(|_| {
                append(file);
                named.clone()
            });
            append(file);
            written(&mut run, &named, channel);
        }
        run.end();
    }
}

#[test]
fn a_file_that_is_mounted_by_itself_is_heard_by_either_name() {
    if !ebpf() {
        return;
    }
    for is_named in [true, false] {
        let scratch = Scratch::new("mounted-file");
        let (w, host) = (scratch.dir("w"), scratch.dir("host"));
        let (source, target) = (host.join("conf"), w.join("conf"));
        fs::write(&source, "").unwrap();
        fs::write(&target, "").unwrap();
        let bind = Bind::new(&source, &target);
        let mut run = Run::start(&["--channels", "ebpf"], if is_named { &target } else { &w });
        for file in [&source, &target, &source] {
            append(file);
            written(&mut run, &target, "ebpf");
        }
        fs::write(host.join("beside"), "x").unwrap();
        drop(bind);
        run.until_heard(|_| {
            append(&target);
            target.clone()
        });
        // Mounted while it is traced.
        let bind = Bind::new(&source, &target);
        run.until_heard(|_| {
            append(&source);
            target.clone()
        });
        assert!(run.end().iter().all(|line| !path_of(line).ends_with("beside")));
        drop(bind);
    }
}

#[test]
fn what_a_path_leads_to_is_traced_when_a_directory_above_is_replaced() {
    for channel in channels() {
        let scratch = Scratch::new("above");
        let (p, root) = (scratch.0.join("p"), scratch.0.join("p/app"));
        scratch.dir("p/app");
        let mut run = Run::start(&["--channels", channel], &root);
        for round in 0..3 {
            let old = scratch.0.join(format!("old{round}"));
            scratch.dir("new/app");
            fs::rename(&p, &old).unwrap();
            fs::rename(scratch.0.join("new"), &p).unwrap();
            taken_up(&mut run, &root, &root, channel);
            fs::write(old.join("app/stale"), "x").unwrap();
        }
        append(&{
            fs::write(root.join("last"), "").unwrap();
            root.join("last")
        });
        run.change("create", &root.join("last"));
        let lines = run.end();
        assert!(lines.iter().any(|line| line["type"] == "loss" && line["channel"] == channel), "{channel}");
        assert!(
            lines.iter().all(|line| !path_of(line).ends_with("stale")),
            "{channel}: what is elsewhere is reported"
        );
    }
}
