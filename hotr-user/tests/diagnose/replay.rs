//! A recorded run: what is printed of it, and files that are none.
//!
//! `run.jsonl` is the recording of a real run in a guest: `tail -f` on a file that `sed -i` replaced.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::run::{HOTR, Scratch, root};

/// The recording.
pub(crate) const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/diagnose/run.jsonl");

fn hotr(words: &[&str]) -> Output {
    Command::new(HOTR).arg("diagnose").args(words).stdin(Stdio::null()).env("TZ", "UTC").output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One line on stderr that starts so, and nothing else.
#[track_caller]
fn refuses(output: &Output, status: i32, starts: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.starts_with(&format!("hotr: {starts}")) && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn it_prints_what_the_run_printed() {
    let output = hotr(&["--replay", RUN]);
    assert_eq!(output.status.code(), Some(3), "changes were lost");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), include_str!("run.txt"));
    // The lines of --json are those of the recording without its header.
    let output = hotr(&["--replay", RUN, "--json"]);
    let recorded = fs::read_to_string(RUN).unwrap();
    let (_, lines) = recorded.split_once('\n').unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stdout).unwrap()),
        (Some(3), lines.to_owned())
    );
}

#[test]
fn what_is_no_whole_recording_is_one_line() {
    let scratch = Scratch::new("replay");
    let whole = fs::read_to_string(RUN).unwrap();
    let cut = whole.split_inclusive('\n').take(4).collect::<String>();
    for (content, why) in [
        (cut.clone(), "line 5: the recording ends without a summary"),
        (cut[..cut.len() - 9].to_owned(), "line 4: the line has no end"),
        (whole.replace("\"pid\":240", "\"pid\":\"240\""), "line 2: not as hotr wrote it"),
        (whole.replace("\"format\":1", "\"format\":7"), "line 1: a recording of format 7"),
        ("{\"type\":\"change\"}\n".to_owned(), "line 1: not a recording"),
        (String::new(), "line 1: the file is empty"),
    ] {
        let file = scratch.file("damaged");
        fs::write(&file, content).unwrap();
        refuses(&hotr(&["--replay", text(&file)]), 1, &format!("replay {}: {why}", file.display()));
    }
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let scratch = Scratch::new("replay-kinds");
    let fifo = scratch.0.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let link = scratch.0.join("link");
    symlink(RUN, &link).unwrap();
    // Of a terabyte, and without a line.
    let huge = scratch.file("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    for (path, why) in [
        (&fifo, "it is not a regular file"),
        (&link, "it is a symbolic link"),
        (&scratch.0, "it is not a regular file"),
        (&huge, "line 1: not a recording"),
        (&scratch.0.join("absent"), "No such file"),
    ] {
        refuses(&hotr(&["--replay", text(path)]), 1, &format!("replay {}: {why}", path.display()));
    }
}

#[test]
fn a_page_takes_the_place_of_a_file_and_of_nothing_else() {
    let scratch = Scratch::new("report");
    let page = scratch.file("page.html");
    let output = hotr(&["--replay", RUN, "--report", text(&page)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(fs::read_to_string(&page).unwrap().ends_with("</html>\n"));
    assert_eq!(fs::metadata(&page).unwrap().permissions().mode() & 0o777, 0o600);
    let other = scratch.file("other");
    let link = scratch.0.join("link");
    symlink(&other, &link).unwrap();
    for (path, why) in
        [(&link, "what is there is not a regular file"), (&scratch.0.join("no/page"), "No such file")]
    {
        let output = hotr(&["--replay", RUN, "--report", text(path)]);
        refuses(&output, 1, &format!("report {}: {why}", path.display()));
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "1\n");
    // Nothing is left of those that were not completed.
    let damaged = scratch.file("damaged");
    hotr(&["--replay", text(&damaged), "--report", text(&scratch.0.join("never"))]);
    let mut names: Vec<_> =
        fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["damaged", "link", "other", "page.html"]);
}

#[test]
fn a_recording_replaces_nothing_and_an_empty_one_does_not_stay() {
    let scratch = Scratch::new("record");
    let there = scratch.file("there");
    let me = std::process::id().to_string();
    let output = hotr(&["--live", "--pid", &me, "--record", text(&there)]);
    refuses(&output, 1, &format!("record {}: it is there already", there.display()));
    assert_eq!(fs::read_to_string(&there).unwrap(), "1\n");
    let link = scratch.0.join("dangling");
    symlink("/nonexistent-target", &link).unwrap();
    let output = hotr(&["--live", "--pid", &me, "--record", text(&link)]);
    refuses(&output, 1, &format!("record {}: it is there already", link.display()));
    // A process that cannot be followed.
    let new = scratch.0.join("new");
    let page = scratch.0.join("page");
    let words = ["--live", "--pid", "4194305", "--record", text(&new), "--report", text(&page)];
    refuses(&hotr(&words), 1, "diagnose process 4194305");
    assert!(!new.exists() && !page.exists() && fs::read_dir(&scratch.0).unwrap().count() == 2);
}

#[test]
fn a_link_that_another_user_made_does_not_lead() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("record-link");
    let there = scratch.dir("there");
    let link = scratch.0.join("link");
    symlink(&there, &link).unwrap();
    let record = link.join("run.jsonl");
    let words = ["--live", "--pid", "4194305", "--record", text(&record)];
    refuses(&hotr(&words), 1, "diagnose process 4194305");
    std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
    refuses(&hotr(&words), 1, &format!("record {}: user 65534 made the symbolic link", record.display()));
}

#[test]
fn options_that_do_not_belong_together() {
    for words in [
        &["--record", "/x"][..],
        &["--report", "/x"],
        &["--replay", RUN, "--live"],
        &["--replay", RUN, "--pid", "1"],
        &["--replay", RUN, "--record", "/x"],
        &["--replay", RUN, "/srv"],
    ] {
        let output = hotr(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{words:?}: {stderr}");
    }
}
