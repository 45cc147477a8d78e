//! Every type of line, to the byte; and every line reads back.

use hotr_events::LossReason;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::output::samples;
use hotr_events::{Alias, ChannelState, Raw, ReloadState, Root};
use hotr_events::{Channel, FileId, FileType, Layer, Op, Refusal};

/// The longest of all writes, and all that was written.
#[derive(Default)]
struct Writes(usize, Vec<u8>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.max(bytes.len());
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_about_many_files_is_written_in_parts() {
    let mut reload = samples::reload(ReloadState::Started);
    let one = reload.changes.as_ref().unwrap()[0].clone();
    reload.changes = Some(vec![one; 20_000]);
    let report = Report::Reload(Box::new(reload));
    let expected = line(&report);
    let mut printer = JsonPrinter::new(Writes::default());
    printer.print(&report).unwrap();
    printer.flush().unwrap();
    let Writes(longest, all) = printer.out.out;
    assert_eq!(String::from_utf8(all).unwrap().trim_end(), expected);
    assert!(longest < 2 * Buffered::<Writes>::FULL, "{longest} of {} bytes at once", expected.len());
}

fn line(report: &Report) -> String {
    let mut printer = JsonPrinter::new(Vec::new());
    printer.print(report).unwrap();
    printer.flush().unwrap();
    let text = String::from_utf8(printer.out.out).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    // What it is read as is written as the same line.
    let back: Line<'_> = serde_json::from_str(&text).expect(&text);
    let mut again = Vec::new();
    json::append(&mut again, &back).unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), text.trim_end());
    text.trim_end().to_owned()
}

#[test]
fn a_change_with_everything_known() {
    assert_eq!(
        line(&Report::Change(Box::new(samples::full_change()))),
        concat!(
            r#"{"type":"change","seq":1,"time":"2026-01-02T03:04:05.123456789Z","op":"rename","#,
            r#""detail":["rename","whiteout"],"path":"/srv/a","old_path":"/srv/b","file_type":"file","#,
            r#""ino":12,"gen":7,"size":5,"writes":3,"bytes":4096,"layer":"upper","#,
            r#""actor":{"pid":10,"tid":11,"uid":1000,"comm":"vim","exe":"/usr/bin/vim","cgroup":"/user.slice"},"#,
            r#""seen_by":["ebpf"],"#,
            r#""missed_by":[{"channel":"inotify","cause":"layer-bypass","why":"the \"upper\" layer"}]}"#
        )
    );
}

#[test]
fn a_writer_with_everything_known() {
    let mut change = samples::bare_change("/srv/a");
    change.actor = Some(samples::known_actor());
    let text = line(&Report::Change(Box::new(change)));
    let actor = concat!(
        r#""actor":{"pid":10,"tid":11,"uid":0,"comm":"vim","exe":"/usr/bin/vim","cgroup":"/user.slice","#,
        r#""user":"root","login_uid":1000,"login_user":"deploy","parent":{"pid":7,"comm":"sudo"},"#,
        r#""container":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","#,
        r#""unit":"session-3.scope"}"#
    );
    assert!(text.contains(actor), "{text}");
    let mut reload = samples::reload(ReloadState::Started);
    reload.actors = vec![samples::known_actor()];
    let text = line(&Report::Reload(Box::new(reload)));
    assert!(text.ends_with(&format!("}}],{}]}}", actor.replace("\"actor\":", "\"actors\":["))), "{text}");
}

#[test]
fn a_missed_change_is_announced_or_not() {
    assert_eq!(
        line(&Report::Relay(Box::new(samples::relay(None)))),
        concat!(
            r#"{"type":"relay","time":"2026-01-02T03:04:05.123456789Z","path":"/srv/a","#,
            r#""for":{"pid":10,"comm":"app","fd":5,"wd":1},"cause":"mmap","event":"IN_CLOSE_WRITE","#,
            r#""announced_us":512,"arrived":true,"proof":"proved"}"#
        )
    );
    assert_eq!(
        line(&Report::Relay(Box::new(samples::relay(Some(Refusal::Refused))))),
        concat!(
            r#"{"type":"relay","time":"2026-01-02T03:04:05.123456789Z","path":"/srv/a","#,
            r#""for":{"pid":10,"comm":"app","fd":5,"wd":1},"cause":"mmap","#,
            r#""refused":"refused","why":"open for writing: Text file busy"}"#
        )
    );
}

#[test]
fn a_reload_begins_and_ends() {
    assert_eq!(
        line(&Report::Reload(Box::new(samples::reload(ReloadState::Started)))),
        concat!(
            r#"{"type":"reload","seq":2,"time":"2026-01-02T03:04:05.123456789Z","state":"started","#,
            r#""trigger":"change","changes":[{"kind":"written","path":"/srv/a","by":"digest","size":5,"#,
            r#""seen_by":["ebpf"]},{"kind":"written","path":"/srv/b","by":"size-mtime","size":5,"#,
            r#""seen_by":["ebpf"]}]}"#
        )
    );
    assert_eq!(
        line(&Report::Reload(Box::new(samples::reload(ReloadState::Failed)))),
        concat!(
            r#"{"type":"reload","seq":2,"time":"2026-01-02T03:04:05.123456789Z","state":"failed","#,
            r#""trigger":"change","status":1,"duration_ms":7,"why":"no answer"}"#
        )
    );
}

#[test]
fn a_change_of_which_little_is_known_has_no_nulls() {
    assert_eq!(
        line(&Report::Change(Box::new(samples::bare_change("/srv/a")))),
        concat!(
            r#"{"type":"change","seq":1,"time":"2026-01-02T03:04:05.123456789Z","op":"create","#,
            r#""detail":[],"path":"/srv/a","seen_by":[],"missed_by":[]}"#
        )
    );
}

#[test]
fn names_that_are_not_utf_8_are_also_given_exactly() {
    let name = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let mut change = samples::full_change();
    change.path = name(b"/srv/\xff\n\"");
    change.old_path = Some(name(b"/srv/\xfe"));
    change.detail.truncate(1);
    change.layer = None;
    change.missed_by.clear();
    let actor = change.actor.as_mut().unwrap();
    actor.exe = Some(name(b"/\xc3").into());
    actor.cgroup = None;
    actor.comm = b"a\xffb".to_vec();
    assert_eq!(
        line(&Report::Change(Box::new(change))),
        concat!(
            r#"{"type":"change","seq":1,"time":"2026-01-02T03:04:05.123456789Z","op":"rename","#,
            r#""detail":["rename"],"path":"/srv/�\n\"","path_b64":"L3Nydi//CiI=","#,
            r#""old_path":"/srv/�","old_path_b64":"L3Nydi/+","file_type":"file","ino":12,"gen":7,"size":5,"#,
            r#""writes":3,"bytes":4096,"actor":{"pid":10,"tid":11,"uid":1000,"comm":"a�b","comm_b64":"Yf9i","exe":"/�","#,
            r#""exe_b64":"L8M="},"seen_by":["ebpf"],"missed_by":[]}"#
        )
    );
}

#[test]
fn ready() {
    assert_eq!(
        line(&samples::ready()),
        concat!(
            r#"{"type":"ready","version":""#,
            env!("CARGO_PKG_VERSION"),
            r#"","roots":[{"path":"/srv","fs":"overlay","#,
            r#""aliases":[{"path":"/data/upper","layer":"upper"}]},{"path":"/tmp","fs":"tmpfs","aliases":[]}],"#,
            r#""channels":{"ebpf":{"state":"active","tier":"fentry"},"#,
            r#""inotify":{"state":"degraded","watches":12,"uncovered":3,"why":"limit"},"#,
            r#""poll":{"state":"idle","interval_ms":1000}}}"#
        )
    );
}

#[test]
fn loss_channel_and_summary() {
    let loss =
        Report::Loss { channel: Channel::Inotify, reason: LossReason::QueueOverflow, count: 1, path: None };
    assert_eq!(
        line(&loss),
        r#"{"type":"loss","channel":"inotify","reason":"queue-overflow","count":1,"why":"the kernel's queue was full; hotr rebuilds all watches"}"#
    );
    let loss = Report::Loss {
        channel: Channel::Ebpf,
        reason: LossReason::Unmounted,
        count: 1,
        path: Some(PathBuf::from("/srv")),
    };
    assert_eq!(
        line(&loss),
        r#"{"type":"loss","channel":"ebpf","reason":"unmounted","count":1,"path":"/srv","why":"its filesystem was unmounted; what its path leads to now is watched"}"#
    );
    let channel = Report::Channel {
        channel: Channel::Ebpf,
        state: ChannelState::Degraded,
        why: "no \"BTF\"".to_owned(),
    };
    assert_eq!(line(&channel), r#"{"type":"channel","name":"ebpf","state":"degraded","why":"no \"BTF\""}"#);
    assert_eq!(
        line(&samples::summary()),
        concat!(
            r#"{"type":"summary","changes":4,"kernel":{"seen":21,"submitted":1,"coalesced":2,"filtered":3,"#,
            r#""ring_full":4,"oversize":5,"recursion_misses":6},"duration_ms":1500}"#
        )
    );
    let unprivileged = Report::Summary { changes: 0, kernel: None, duration: Duration::from_micros(1999) };
    assert_eq!(line(&unprivileged), r#"{"type":"summary","changes":0,"duration_ms":1}"#);
}

#[test]
fn raw_records() {
    let raw = Raw::Inotify {
        time: samples::time(),
        path: PathBuf::from("/srv/a"),
        mask: 0x4000_0080,
        cookie: 7,
        wd: -1,
        name: Some(b"a".to_vec()),
    };
    assert_eq!(
        line(&Report::Raw(raw)),
        concat!(
            r#"{"type":"raw","channel":"inotify","path":"/srv/a","mask":["IN_MOVED_TO","IN_ISDIR"],"cookie":7,"#,
            r#""wd":-1,"time":"2026-01-02T03:04:05.123456789Z","name":"a"}"#
        )
    );
    let mut change = samples::bare_change("/srv/a");
    change.op = Op::Write;
    change.detail = vec!["write".into()];
    change.file_type = Some(FileType::File);
    change.id = Some(FileId { dev: 1, ino: 2, gen_: 0 });
    change.written.writes = 1;
    let raw = Raw::Ebpf {
        time: samples::time(),
        made_ns: 0,
        hook: "vfs_write".into(),
        tier: "fentry".into(),
        change: Box::new(change),
    };
    assert_eq!(
        line(&Report::Raw(raw)),
        concat!(
            r#"{"type":"raw","channel":"ebpf","hook":"vfs_write","tier":"fentry","op":"write","path":"/srv/a","#,
            r#""time":"2026-01-02T03:04:05.123456789Z","detail":["write"],"file_type":"file","ino":2,"#,
            r#""writes":1,"bytes":0}"#
        )
    );
}

#[test]
fn seq_counts_change_lines_only() {
    let mut printer = JsonPrinter::new(Vec::new());
    for report in [
        samples::ready(),
        Report::Change(Box::new(samples::bare_change("/1"))),
        samples::summary(),
        Report::Change(Box::new(samples::bare_change("/2"))),
    ] {
        printer.print(&report).unwrap();
    }
    printer.flush().unwrap();
    let seqs: Vec<_> = String::from_utf8(printer.out.out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64())
        .collect();
    assert_eq!(seqs, [None, Some(1), None, Some(2)]);
}

#[test]
fn nothing_is_written_before_a_flush_and_a_storm_is_bounded() {
    let mut printer = JsonPrinter::new(Vec::new());
    let report = Report::Change(Box::new(samples::bare_change("/srv/a")));
    printer.print(&report).unwrap();
    assert!(printer.out.out.is_empty());
    for _ in 0..10_000 {
        printer.print(&report).unwrap();
        assert!(printer.out.bytes.len() <= Buffered::<Vec<u8>>::FULL);
    }
    printer.flush().unwrap();
    assert_eq!(printer.out.out.iter().filter(|&&byte| byte == b'\n').count(), 10_001);
}

#[test]
fn aliases_keep_their_layer_words() {
    for (layer, word) in
        [(Layer::Upper, "upper"), (Layer::Lower, "lower"), (Layer::Bind, "bind"), (Layer::Mount, "mount")]
    {
        let root = Root {
            path: PathBuf::from("/r"),
            fs: "xfs".to_owned(),
            aliases: vec![Alias { path: PathBuf::from("/a"), layer }],
        };
        let text = line(&Report::Ready { roots: vec![root], channels: Vec::new() });
        assert!(text.contains(&format!(r#"{{"path":"/a","layer":"{word}"}}"#)), "{text}");
    }
    assert_eq!(samples::time(), UNIX_EPOCH + Duration::new(1_767_323_045, 123_456_789));
}
