//! Which paths a reload depends on, as the options say.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::run::{HOTR, Scratch, Watch, next_tick};

#[test]
fn several_paths_are_watched() {
    let scratch = Scratch::new("several");
    let other = Scratch::new("other");
    let option = other.w();
    let mut watch = Watch::start(&["-p", "-w", option.to_str().unwrap()], &scratch.w(), &["true"]);
    for place in [&scratch, &other] {
        let path = place.file("conf", "x");
        let line = watch.reload("started");
        assert_eq!(line["changes"][0]["path"], path.to_str().unwrap(), "{line}");
        watch.reload("done");
    }
    watch.end();
}

#[test]
fn only_the_named_directory_when_asked() {
    for channels in ["auto", "inotify"] {
        let scratch = Scratch::new("flat");
        scratch.file("sub/deep", "1");
        let mut watch =
            Watch::start(&["-p", "--no-recursive", "--channels", channels], &scratch.w(), &["true"]);
        scratch.file("sub/deep", "2");
        scratch.file("sub/new", "2");
        scratch.file("sub/made/deeper", "2");
        watch.nothing_but_a_marker();
        watch.end();
    }
}

#[test]
fn what_is_left_out_by_default_can_be_had() {
    let rules = ["-p", "--no-vcs-ignore"];
    for (args, name) in [
        (&rules[..], "ignored"),
        (&rules, ".git/HEAD"),
        (&["-p", "--no-default-ignore"], "conf~"),
        (&["-p", "--no-default-ignore"], "..data_tmp"),
    ] {
        let scratch = Scratch::new("left-out");
        scratch.file(".gitignore", "ignored\n");
        fs::create_dir(scratch.w().join(".git")).unwrap();
        let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
        scratch.file(name, "1");
        watch.nothing_but_a_marker();
        watch.end();
        let mut watch = Watch::start(args, &scratch.w(), &["true"]);
        scratch.file(name, "2");
        let line = watch.reload("started");
        assert_eq!(watch.names(&line), [name], "{line}");
        watch.reload("done");
        watch.end();
    }
}

#[test]
fn a_named_directory_is_watched_though_the_repository_ignores_it() {
    for rule in ["dist/", "dist/*", "*"] {
        let scratch = Scratch::new("named-dist");
        let w = scratch.w();
        assert!(Command::new("git").args(["init", "-q"]).arg(&w).status().unwrap().success());
        scratch.file(".gitignore", &format!("{rule}\n*.log\n"));
        scratch.file("dist/app.js", "1");
        let mut watch = Watch::start(&["-p"], &w.join("dist"), &["true"]);
        scratch.file("dist/app.log", "2");
        scratch.file("dist/app.js", "2");
        let line = watch.reload("started");
        assert_eq!(line["changes"].as_array().unwrap().len(), 1, "{rule}: {line}");
        assert_eq!(line["changes"][0]["path"], w.join("dist/app.js").to_str().unwrap(), "{rule}: {line}");
        watch.reload("done");
        watch.end();
    }
}

/// A pipe would be waited for, a large file take as much memory.
#[test]
fn rules_that_cannot_be_read_are_said_and_nothing_waits() {
    let scratch = Scratch::new("odd-rules");
    fs::create_dir(scratch.w().join("sub")).unwrap();
    let pipe = scratch.w().join("sub/.gitignore");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::File::create(scratch.w().join(".gitignore")).unwrap().set_len(4 << 30).unwrap();
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    let path = scratch.file("sub/conf", "x");
    let line = watch.reload("started");
    assert_eq!(line["changes"][0]["path"], path.to_str().unwrap(), "{line}");
    watch.reload("done");
    let peak = fs::read_to_string(format!("/proc/{}/status", watch.pid())).unwrap();
    let peak =
        peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 500_000, "{peak} kB");
    let said = watch.end();
    for why in ["sub/.gitignore: it is not a regular file", ".gitignore: it is larger than 256 KiB"] {
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_list_of_extensions_some_with_dots() {
    let scratch = Scratch::new("exts");
    let mut watch = Watch::start(&["-p", "-e", "toml,.tar.gz"], &scratch.w(), &["true"]);
    watch.at_once(|| {
        for name in ["a.toml", "b.tar.gz", "c.gz", "toml", ".toml", "d.atoml"] {
            scratch.file(name, "x");
        }
    });
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["a.toml", "b.tar.gz"], "{line}");
    watch.reload("done");
    watch.end();
}

/// Where not every state is remembered, a name that is not known may have been a file.
#[test]
fn an_empty_directory_that_goes_is_none() {
    let scratch = Scratch::new("empty-dir");
    scratch.file("a", "1");
    scratch.file("b", "1");
    fs::create_dir(scratch.w().join("empty")).unwrap();
    let mut watch = Watch::start(&["-p", "--hash-entries", "1"], &scratch.w(), &["true"]);
    fs::remove_dir(scratch.w().join("empty")).unwrap();
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn a_reload_waits_for_as_long_a_quiet_as_told() {
    for option in ["-d", "--debounce", "--settle"] {
        let scratch = Scratch::new("quiet");
        let mut watch = Watch::start(&["-p", option, "700ms"], &scratch.w(), &["true"]);
        let begun = Instant::now();
        scratch.file("conf", "x");
        watch.reload("started");
        assert!(begun.elapsed() >= Duration::from_millis(700), "{option}: {:?}", begun.elapsed());
        watch.reload("done");
        watch.end();
    }
}

#[test]
fn the_interval_of_the_looks_is_as_told() {
    for (args, state, interval) in [
        (&["--poll=7s"][..], "idle", Some(7000)),
        (&["--poll"], "idle", Some(30_000)),
        (&[], "idle", Some(30_000)),
        (&["--no-poll"], "off", None),
    ] {
        let scratch = Scratch::new("poll");
        let mut hotr = Command::new(HOTR);
        hotr.args(["watch", "--json", "--channels", "inotify"]).args(args).arg(scratch.w());
        let watch = Watch::spawn(hotr, &scratch.w());
        let poll = &watch.heard[0]["channels"]["poll"];
        assert_eq!((&poll["state"], poll["interval_ms"].as_u64()), (&state.into(), interval), "{args:?}");
        watch.end();
    }
}

/// A write through another name, in a directory without a watch, is reported by no inotify.
#[test]
fn what_no_channel_tells_is_found_by_the_next_look() {
    let scratch = Scratch::new("look");
    let (conf, alias) = (scratch.file("conf", "1"), scratch.0.join("alias"));
    let args = ["-p", "--channels", "inotify", "--poll=200ms", "--poll-budget", "50%"];
    let mut watch = Watch::start(&args, &scratch.w(), &["true"]);
    // The trees may still be read for the first time.
    next_tick();
    let begun = Instant::now();
    // Of a name outside the tree that was not there at the start, no channel knows.
    watch.at_once(|| {
        fs::hard_link(&conf, &alias).unwrap();
        fs::write(&alias, "2").unwrap();
    });
    let line = watch.wait("the change", |line| line["type"] == "change");
    assert_eq!((&line["detail"][0], &line["seen_by"][0]), (&"audit".into(), &"poll".into()), "{line}");
    assert_eq!(line["missed_by"][0]["cause"], "no-event", "{line}");
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["conf"], "{line}");
    assert!(begun.elapsed() < Duration::from_secs(25), "the first look by itself would come after 30 s");
    watch.reload("done");
    watch.end();
}

#[test]
fn only_the_kinds_of_changes_that_are_asked_for() {
    let scratch = Scratch::new("kinds");
    let old = scratch.file("old", "1");
    let mut watch =
        Watch::start(&["-p", "--on", "create,delete", "--channels", "inotify"], &scratch.w(), &["true"]);
    fs::write(&old, "2").unwrap();
    watch.until_said("no reload: 1 file changed as --on leaves out");
    // Together with what is asked for, it is not listed.
    watch.at_once(|| {
        fs::write(&old, "3").unwrap();
        scratch.file("new", "1");
    });
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["new"], "{line}");
    watch.reload("done");
    fs::remove_file(&old).unwrap();
    let line = watch.reload("started");
    assert_eq!(
        (watch.names(&line), &line["changes"][0]["kind"]),
        (vec!["old".to_owned()], &"removed".into())
    );
    watch.reload("done");
    watch.end();
}
