//! What is recorded is what was reported, whatever is in it; and nothing else is taken for a recording.

use hotr_events::LossReason;
use std::ffi::OsStr;
use std::io::{Cursor, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotr_common::tier::Tier;

use super::*;
use crate::diagnose::finding::{Finding, Proof, Severity, Target};
use crate::diagnose::live::{Mounted, Row, State, Summary, Use, Verdict};
use crate::diagnose::process::Kind;
use crate::output::diagnose::page::Page;
use hotr_events::Cause;
use hotr_events::{Actor, Change, Channel, FileId, FileType, Layer, Op, Written};

const HOSTILE: &[u8] = b"/srv/<script>alert(1)</script>\xff\n\xe2\x80\xae\"'&\\\x1b[2J";

fn path() -> PathBuf {
    PathBuf::from(OsStr::from_bytes(HOSTILE))
}

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_796_000_000, 123_456_789)
}

fn target() -> Target {
    Target {
        pid: Some(42),
        comm: b"a<b>\xfe".to_vec(),
        mechanism: Some(Kind::Inotify),
        fd: Some(3),
        wd: Some(1),
        uid: None,
        container: Some("0123".repeat(16)),
    }
}

fn machine() -> Machine {
    Machine {
        version: "1".to_owned(),
        time: time(),
        kernel: "6.12 <b>".to_owned(),
        btf: true,
        lockdown: None,
        max_user_watches: Some(8192),
        max_user_instances: None,
        max_queued_events: Some(16_384),
        mounts: vec![Mounted { path: path(), mount_point: path(), fs: "ext4".to_owned() }],
    }
}

fn change() -> Change {
    let mut change = Change::new(Op::Rename, path(), time());
    change.detail = vec!["rename".into(), "exchange".into()];
    change.old_path = Some(path());
    change.file_type = Some(FileType::File);
    change.id = Some(FileId { dev: 0, ino: 7, gen_: 9 });
    (change.size, change.written) = (Some(10), Written { writes: 2, bytes: 20 });
    change.layer = Some(Layer::Upper);
    change.actor = Some(Actor {
        pid: 1,
        tid: 2,
        uid: 3,
        comm: b"\xffsh".to_vec(),
        exe: Some(path().into()),
        cgroup: Some("/x".into()),
        origin: None,
    });
    change.seen_by = vec![Channel::Ebpf];
    change
}

fn verdict(change: u64, state: State) -> Verdict {
    let mut verdict = Verdict::new(change, time(), Op::Write, path(), target(), state);
    (verdict.events, verdict.queued_us, verdict.read_us) = (0x4000_000a, Some(-12), Some(340));
    verdict.queue = Some((3, 16_384));
    verdict.cause = Some(Cause::ReplacedFile);
    verdict.proof = Proof::Inferred;
    (verdict.watched_ino, verdict.path_ino, verdict.mask) = (Some(7), Some(8), Some(0x8400_0002));
    verdict.evidence = vec!["because <i>\u{202e}".to_owned()];
    verdict
}

fn finding() -> Finding {
    let mut finding = Finding::new(Severity::Lost, Cause::ReadEarly, Proof::Inferred, target());
    (finding.path, finding.path_in_target) = (Some(path()), Some(path()));
    finding.remedy = "do".to_owned();
    finding
}

fn summary() -> Summary {
    let mut summary =
        Summary { changes: 3, undecided: 1, took: Duration::from_millis(5), ..Summary::default() };
    summary.counts.insert(State::NeverSent, 1);
    [340, 90, 70_000].iter().for_each(|micros| summary.read_us.add(*micros));
    let row = Row { state: State::NeverSent, cause: Some(Cause::ReplacedFile), count: 1, example: path() };
    summary.rows = vec![row.clone(), Row { cause: None, ..row }];
    summary
}

/// Everything that a run can report, in order.
fn all(tell: &mut dyn FnMut(LiveReport<'_>)) {
    tell(LiveReport::Ready {
        tier: Tier::Kprobe,
        instances: vec![(target(), 2)],
        paths: vec![path(), "/a".into()],
    });
    tell(LiveReport::Note("a remark".to_owned()));
    tell(LiveReport::Lost { reason: LossReason::DeliveriesSkipped, count: 3 });
    tell(LiveReport::Change(&change()));
    let bare = Change::new(Op::Create, "/a/b".into(), time());
    tell(LiveReport::Change(&crate::output::diagnose::live::as_printed(&bare)));
    for state in State::ALL {
        tell(LiveReport::Verdict(&verdict(1, state)));
    }
    tell(LiveReport::Used(&Use { change: 1, pid: 42, opened_us: Some(5), file_read_us: None }));
    tell(LiveReport::Finding(&finding()));
    tell(LiveReport::Summary(&summary()));
}

fn recorded() -> Vec<u8> {
    let file = rustix::fs::memfd_create("recording", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(file);
    let mut recorder = Recorder::new(file.try_clone().unwrap());
    recorder.begin(&machine()).unwrap();
    all(&mut |told| recorder.take(&told).unwrap());
    recorder.finish().unwrap();
    let mut text = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut text).unwrap();
    text
}

fn read(text: &[u8]) -> Result<Vec<String>, Damaged> {
    let mut reader = Reader::new(Cursor::new(text))?;
    assert_eq!(reader.machine, machine());
    let mut said = Vec::new();
    while reader.next(|told| {
        said.push(format!("{told:?}"));
        Ok::<_, Damaged>(())
    })? {}
    Ok(said)
}

#[test]
fn everything_comes_back() {
    let mut said = Vec::new();
    all(&mut |told| said.push(format!("{told:?}")));
    assert_eq!(read(&recorded()).unwrap(), said);
}

#[test]
fn whatever_is_cut_or_changed_is_named_by_its_line() {
    let whole = recorded();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for end in 0..whole.len() {
        let damaged = read(&whole[..end]).unwrap_err();
        let line = whole[..end].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        assert_eq!(damaged.line, line, "{damaged}");
    }
    for number in 0..lines.len() {
        let mut edited: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        edited[number].insert(1, b' ');
        assert_eq!(read(&edited.concat()).unwrap_err().line, number as u64 + 1);
        let mut flipped: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        flipped[number][3] ^= 0x80;
        assert_eq!(read(&flipped.concat()).unwrap_err().line, number as u64 + 1);
    }
    let twice = [whole.clone(), whole.clone()].concat();
    assert_eq!(read(&twice).unwrap_err().line, lines.len() as u64 + 1);
    // A change is missing.
    let fewer: Vec<u8> =
        lines.iter().enumerate().filter(|(n, _)| *n != 4).flat_map(|(_, line)| line.to_vec()).collect();
    assert_eq!(read(&fewer).unwrap_err().line, 5);
}

#[test]
fn other_files_and_other_formats_are_refused() {
    let newer = String::from_utf8_lossy(&recorded()).replacen("\"format\":1", "\"format\":2", 1).into_bytes();
    for (text, why) in [
        (&b""[..], "empty"),
        (b"\x7fELF\x02\x01", "not a recording"),
        (b"{\"type\":\"ready\"}\n", "not a recording"),
        (&newer, "format 2"),
    ] {
        let damaged = read(text).unwrap_err();
        assert!(damaged.line == 1 && damaged.why.contains(why), "{damaged}");
    }
    let long = [recorded(), vec![b'x'; MOST_LINE + 9]].concat();
    assert!(read(&long).unwrap_err().why.contains("8 MiB"));
    let endless = Reader::new(io::BufReader::new(io::repeat(0)));
    assert!(endless.unwrap_err().why.contains("not a recording"));
}

/// On a filesystem of one page, of which nobody but this process knows.
#[test]
fn a_full_disk_leaves_whole_lines() {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: root is needed");
    }
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&fs, "size", "4k").unwrap();
    fsconfig_create(&fs).unwrap();
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE;
    let file = rustix::fs::openat(&mount, "recording", flags, rustix::fs::Mode::RUSR).unwrap();
    let mut file = File::from(file);
    let mut recorder = Recorder::new(file.try_clone().unwrap());
    recorder.begin(&machine()).unwrap();
    let error = std::iter::repeat_with(|| recorder.take(&LiveReport::Change(&change())))
        .find_map(Result::err)
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let mut text = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut text).unwrap();
    assert!(text.ends_with(b"}\n"), "half a line is left");
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let damaged = read(&text).unwrap_err();
    assert!(lines > 1 && damaged.line == lines + 1 && damaged.why.contains("without a summary"), "{damaged}");
}

fn page(many: u64) -> String {
    let mut page = Page::default();
    page.begin(machine());
    all(&mut |told| page.take(&told));
    for number in 0..many {
        page.take(&LiveReport::Change(&change()));
        page.take(&LiveReport::Verdict(&verdict(number + 3, State::ALL[number as usize % 5])));
        page.take(&LiveReport::Finding(&finding()));
        page.take(&LiveReport::Note("n".repeat(10_000)));
    }
    String::from_utf8(page.html()).unwrap()
}

#[test]
fn a_page_has_no_markup_and_nothing_invisible_of_anybody() {
    let html = page(0);
    assert!(!html.contains("<script") && !html.contains("<b>\u{fe}") && !html.contains("<i>"), "{html}");
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\xff\\n\\u{202e}&quot;&#39;&amp;"),
        "{html}"
    );
    assert!(!html.chars().any(|c| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c)));
}

#[test]
fn a_page_is_bounded_and_says_what_it_leaves_out() {
    let (some, more) = (page(20_000), page(40_000));
    assert!(some.len() < 1 << 20, "{} bytes", some.len());
    assert!(more.len().abs_diff(some.len()) < 4096, "{} and {}", some.len(), more.len());
    for what in ["answers about changes", "findings", "notes"] {
        let sentence = format!(" more {what} are left out here.</p>");
        assert!(some.contains(&sentence), "{what}");
    }
    assert!(some.contains(">19941 more findings"));
}
