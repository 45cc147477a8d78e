//! Ends of a run: signals, a kill, and an output that lies in what is traced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd};
use rustix::process::Signal;
use serde_json::Value;

use super::place::Scratch;
use super::run::{Run, Started, changes, check, command, ebpf, path_of, until};

#[test]
fn an_interrupt_ends_a_run_well() {
    let scratch = Scratch::new("interrupt");
    let mut run = Run::start(&[], &scratch.0);
    fs::write(scratch.0.join("f"), "x").unwrap();
    run.change("create", &scratch.0.join("f"));
    let lines = run.end_by(Signal::INT);
    assert!(lines.last().unwrap()["changes"].as_u64() >= Some(1));
}

#[test]
fn a_duration_ends_a_run_well() {
    let scratch = Scratch::new("duration");
    let lines = Run::start(&["--duration", "200ms"], &scratch.0).ended();
    assert!(lines.last().unwrap()["duration_ms"].as_u64() >= Some(200), "{lines:?}");
}

/// Ids of the programs a process holds descriptors of.
fn held_programs(pid: u32) -> BTreeSet<u32> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = infos.filter_map(|info| fs::read_to_string(info.ok()?.path()).ok());
    let ids = texts
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()));
    ids.collect()
}

/// Ids of the programs the kernel has loaded.
fn loaded_programs() -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    // SAFETY: all members of the union are numbers, of which zero is one.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the attributes live as long as the call, which writes within the size given with them.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_PROG_GET_NEXT_ID, &raw mut attr, size_of_val(&attr))
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return ids;
        }
        // SAFETY: both are numbers; the kernel has written the next one.
        let next = unsafe { attr.__bindgen_anon_6.next_id };
        ids.insert(next);
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = next;
    }
}

#[test]
fn a_kill_leaves_no_program_behind() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("kill");
    let run = Run::start(&["--channels", "ebpf"], &scratch.0);
    let ours = held_programs(run.pid());
    assert!(!ours.is_empty() && ours.is_subset(&loaded_programs()), "{ours:?}");
    // The end of the variable kills it.
    drop(run);
    until("the kernel has unloaded the programs", || ours.is_disjoint(&loaded_programs()));
}

fn lines_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    // The last may be half written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn an_output_in_the_traced_directory_does_not_feed_itself() {
    for args in [&[][..], &["--raw"], &["--channels", "inotify"], &["--channels", "inotify", "--raw"]] {
        let scratch = Scratch::new("feed");
        let out = scratch.0.join("out.json");
        let file = File::create(&out).unwrap();
        let mut child = Started::new(command(args, &scratch.0).stdout(file));
        let has = |what: &str, test: &dyn Fn(&Value) -> bool| until(what, || lines_of(&out).iter().any(test));
        has("ready", &|line| line["type"] == "ready");
        for number in 0..5 {
            let file = scratch.0.join(format!("f{number}"));
            fs::write(&file, "x").unwrap();
            has("the change", &|line| path_of(line) == file);
        }
        child.send(Signal::TERM);
        assert_eq!(child.wait(), Some(0));
        let lines = lines_of(&out);
        check(&lines);
        let own = lines.iter().filter(|line| path_of(line) == out).count();
        assert_eq!(own, 0, "{args:?}: of {} lines, {} changes", lines.len(), changes(&lines).count());
    }
}
