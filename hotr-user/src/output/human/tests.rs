//! The readable lines, to the byte.

use hotr_events::LossReason;
use std::path::PathBuf;

use super::*;
use crate::output::samples;
use hotr_events::{Channel, FileType, Op};
use hotr_events::{ChannelState, Refusal, ReloadState};

fn text(color: bool, columns: fn() -> Option<usize>, report: &Report) -> String {
    let mut printer = HumanPrinter::new(Vec::new(), color, columns, clock::Clock::utc());
    printer.print(report).unwrap();
    printer.flush().unwrap();
    String::from_utf8(printer.out.out).unwrap()
}

fn plain(report: &Report) -> String {
    text(false, || None, report)
}

#[test]
fn reloads() {
    let text = |state| plain(&Report::Reload(Box::new(samples::reload(state))));
    assert_eq!(
        text(ReloadState::Started),
        "reload #2: 2 files changed (a and 1 more); 1 judged by size and time, not by content\n"
    );
    assert_eq!(text(ReloadState::Invalid), "reload #2: invalid, exit status 1: no answer\n");
}

#[test]
fn who_caused_a_reload() {
    let mut reload = samples::reload(ReloadState::Started);
    let by = |pid: u32| Actor { pid, ..samples::known_actor() };
    let text = |reload: &hotr_events::Reload| plain(&Report::Reload(Box::new(reload.clone())));
    let begin = "reload #2: 2 files changed (a and 1 more)";
    let end = "; 1 judged by size and time, not by content\n";
    reload.actors = vec![by(10)];
    assert_eq!(text(&reload), format!("{begin}, by vim[10] (root, login deploy){end}"));
    reload.actors = vec![by(10), Actor { origin: None, ..by(11) }, by(12)];
    assert_eq!(
        text(&reload),
        format!("{begin}, by vim[10] (root, login deploy), vim[11] (uid 0) and 1 more{end}")
    );
}

#[test]
fn where_a_writer_belongs() {
    let mut change = samples::bare_change("/srv/a");
    change.actor = Some(samples::known_actor());
    assert_eq!(
        plain(&Report::Change(Box::new(change))),
        "03:04:05.123  create  /srv/a  vim[10] uid 0 (root, login deploy) parent sudo[7] unit session-3.scope \
         container 0123456789ab\n"
    );
}

#[test]
fn relays() {
    let text = |refused, arrived| {
        let relay = samples::relay(refused);
        let arrived = relay.event.and(arrived);
        plain(&Report::Relay(Box::new(Relay { arrived, ..relay })))
    };
    let start = "03:04:05.123  relay   /srv/a  mmap  → app[10] fd 5 wd 1  ";
    for (refused, arrived, rest) in [
        (None, Some(true), "● IN_CLOSE_WRITE"),
        (None, Some(false), "○ IN_CLOSE_WRITE did not arrive"),
        (None, None, "◌ IN_CLOSE_WRITE, not known whether it arrived"),
        (Some(Refusal::Refused), None, "not announced: refused  open for writing: Text file busy"),
    ] {
        assert_eq!(text(refused, arrived), format!("{start}{rest}\n"));
    }
}

#[test]
fn changes() {
    assert_eq!(
        plain(&Report::Change(Box::new(samples::full_change()))),
        "03:04:05.123  rename  /srv/b → /srv/a  rename,whiteout ×3  +4.0 KiB  size 5 B  via upper  \
         vim[10] uid 1000  ● ebpf ○ inotify layer-bypass\n"
    );
    let mut change = samples::bare_change("/srv/d");
    change.file_type = Some(FileType::Dir);
    change.detail = vec!["mkdir".into()];
    change.seen_by = vec![Channel::Ebpf, Channel::Inotify];
    assert_eq!(
        plain(&Report::Change(Box::new(change))),
        "03:04:05.123  create  /srv/d/  mkdir  ● ebpf ● inotify\n"
    );
    let mut change = samples::bare_change("/srv/d");
    change.op = Op::Rename;
    change.old_path = Some(PathBuf::from("/srv/e"));
    change.detail = vec!["exchange".into()];
    assert_eq!(plain(&Report::Change(Box::new(change))), "03:04:05.123  rename  /srv/e ↔ /srv/d  exchange\n");
}

#[test]
fn marks_of_another_process() {
    use hotr_events::{Cause, Missed, Watcher, WatcherId};
    let mark = |state, seen: bool, missed: Option<Cause>, fd| {
        let id = WatcherId { pid: 7, comm: b"a\x1bpp".to_vec() };
        let mut change = samples::bare_change("/srv/d");
        change.seen_by = if seen { vec![Channel::Ebpf, Channel::Inotify] } else { vec![Channel::Ebpf] };
        let missed = missed.map(|cause| Missed { channel: Channel::Inotify, cause, why: "…".into() });
        change.missed_by = missed.into_iter().collect();
        change.watcher = Some(Box::new(Watcher { id, state, fd, wd: None, proof: None }));
        let line = plain(&Report::Change(Box::new(change)));
        line.split_once("● ebpf ").unwrap().1.trim_end().to_owned()
    };
    assert_eq!(mark(WatcherState::Delivered, true, None, Some(3)), "● a\\x1bpp[7] fd 3");
    assert_eq!(mark(WatcherState::Merged, true, None, Some(3)), "● a\\x1bpp[7] fd 3 merged");
    assert_eq!(
        mark(WatcherState::NeverSent, false, Some(Cause::ReplacedFile), None),
        "○ a\\x1bpp[7] replaced-file"
    );
    assert_eq!(mark(WatcherState::Unread, false, None, Some(3)), "◌ a\\x1bpp[7] fd 3 unread");
    assert_eq!(mark(WatcherState::Unknown, false, None, None), "◌ a\\x1bpp[7] unknown");
}

#[test]
fn names_stay_on_their_line() {
    let mut change = samples::bare_change("/srv/a\nb\x1b[2J");
    change.old_path = Some(PathBuf::from("/srv/\r"));
    change.actor = samples::full_change().actor;
    change.actor.as_mut().unwrap().comm = b"e\x1bvil".to_vec();
    assert_eq!(
        plain(&Report::Change(Box::new(change))),
        "03:04:05.123  create  /srv/\\r → /srv/a\\nb\\x1b[2J  e\\x1bvil[10] uid 1000\n"
    );
}

#[test]
fn colour_is_only_around_the_parts() {
    let mut change = samples::bare_change("/a");
    change.op = Op::Write;
    change.seen_by = vec![Channel::Ebpf];
    assert_eq!(
        text(true, || None, &Report::Change(Box::new(change))),
        "\x1b[2m03:04:05.123\x1b[0m  \x1b[33mwrite\x1b[0m   \x1b[1m/a\x1b[0m  \x1b[32m● ebpf\x1b[0m\n"
    );
}

#[test]
fn a_line_that_does_not_fit_goes_on_below_its_path() {
    let mut change = samples::bare_change("/srv/0123456789");
    change.detail = vec!["open".into()];
    change.seen_by = vec![Channel::Ebpf];
    let report = Report::Change(Box::new(change));
    let one = "03:04:05.123  create  /srv/0123456789  open  ● ebpf\n";
    assert_eq!(one.trim_end().chars().count(), 51);
    assert_eq!(text(true, || Some(51), &report).lines().count(), 1);
    assert_eq!(text(false, || Some(51), &report), one);
    assert_eq!(
        text(false, || Some(50), &report),
        "03:04:05.123  create  /srv/0123456789\n                      open  ● ebpf\n"
    );
}

#[test]
fn ready_loss_channel_and_summary() {
    assert_eq!(
        plain(&samples::ready()),
        "tracing /srv (overlay, upper /data/upper), /tmp (tmpfs) · ebpf fentry · \
         inotify degraded, 12 watches, 3 directories uncovered (limit) · poll idle, every 1000 ms\n"
    );
    let loss = Report::Loss {
        channel: Channel::Inotify,
        reason: LossReason::QueueOverflow,
        count: 1,
        path: Some(PathBuf::from("/srv")),
    };
    assert_eq!(
        plain(&loss),
        "loss  inotify  queue-overflow ×1  /srv  the kernel's queue was full; hotr rebuilds all watches\n"
    );
    assert_eq!(
        text(true, || None, &loss),
        "\x1b[31mloss  inotify  queue-overflow ×1\x1b[0m  /srv  the kernel's queue was full; hotr rebuilds all watches\n"
    );
    let channel =
        Report::Channel { channel: Channel::Ebpf, state: ChannelState::Off, why: "no BTF".to_owned() };
    assert_eq!(plain(&channel), "channel  ebpf off  no BTF\n");
    assert_eq!(
        plain(&samples::summary()),
        "4 changes in 1.5 s · kernel: 21 seen, 1 submitted, 2 coalesced, 3 filtered, 15 lost\n"
    );
    let quiet = Report::Summary { changes: 1, kernel: None, duration: std::time::Duration::ZERO };
    assert_eq!(plain(&quiet), "1 change in 0.0 s\n");
}

#[test]
fn raw_records() {
    let raw = Raw::Inotify {
        time: samples::time(),
        path: PathBuf::from("/srv/a"),
        mask: 0x4000_0080,
        cookie: 7,
        wd: 1,
        name: Some(b"a\n".to_vec()),
    };
    assert_eq!(
        plain(&Report::Raw(raw)),
        "03:04:05.123  inotify /srv/a  IN_MOVED_TO|IN_ISDIR  wd 1  cookie 7  name a\\n\n"
    );
    let raw = Raw::Ebpf {
        made_ns: 0,
        time: samples::time(),
        hook: "vfs_mkdir".into(),
        tier: "fentry".into(),
        change: Box::new(samples::bare_change("/srv/a")),
    };
    assert_eq!(plain(&Report::Raw(raw)), "03:04:05.123  create  /srv/a  fentry:vfs_mkdir\n");
}
