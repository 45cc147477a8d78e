//! Reports for the printers' tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotr_events::Cause;
use hotr_events::KernelTotals;
use hotr_events::{
    Actor, Change, Channel, ConfirmedChange, Evidence, FileId, FileType, Kind, Layer, Missed, Op, Origin,
    Parent, Written,
};
use hotr_events::{Alias, ChannelInfo, ChannelState, Reload, ReloadState, Report, Root, Trigger};
use hotr_events::{Proof, Refusal, Relay, RelayEvent, RelayTarget};

/// 2026-01-02T03:04:05.123456789Z.
pub(super) fn time() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_767_323_045, 123_456_789)
}

pub(super) fn bare_change(path: &str) -> Change {
    Change::new(Op::Create, PathBuf::from(path), time())
}

pub(super) fn full_change() -> Change {
    Change {
        op: Op::Rename,
        detail: vec!["rename".into(), "whiteout".into()],
        old_path: Some(PathBuf::from("/srv/b")),
        file_type: Some(FileType::File),
        id: Some(FileId { dev: 9, ino: 12, gen_: 7 }),
        size: Some(5),
        written: Written { writes: 3, bytes: 4096 },
        layer: Some(Layer::Upper),
        actor: Some(Actor {
            pid: 10,
            tid: 11,
            uid: 1000,
            comm: b"vim".to_vec(),
            exe: Some(Path::new("/usr/bin/vim").into()),
            cgroup: Some("/user.slice".into()),
            origin: None,
        }),
        seen_by: vec![Channel::Ebpf],
        missed_by: vec![Missed {
            channel: Channel::Inotify,
            cause: Cause::LayerBypass,
            why: "the \"upper\" layer".into(),
        }],
        ..bare_change("/srv/a")
    }
}

/// The writer of [`full_change`], with all that can be known of it.
pub(super) fn known_actor() -> Actor {
    let mut origin = Origin::default();
    (origin.user, origin.login_user) = (Some("root".into()), Some("deploy".into()));
    origin.login_uid = Some(1000);
    origin.parent = Some(Parent { pid: 7, comm: b"sudo".to_vec() });
    origin.container = Some("0123456789abcdef".repeat(4).into());
    origin.unit = Some("session-3.scope".into());
    Actor { uid: 0, origin: Some(origin.into()), ..full_change().actor.expect("it has one") }
}

pub(super) fn relay(refused: Option<Refusal>) -> Relay {
    let is_announced = refused.is_none();
    Relay {
        time: time(),
        path: PathBuf::from("/srv/a"),
        to: RelayTarget { pid: 10, comm: b"app".to_vec(), fd: 5, wd: 1, container: None },
        cause: Cause::Mmap,
        event: is_announced.then_some(RelayEvent::CloseWrite),
        announced_us: is_announced.then_some(512),
        arrived: is_announced.then_some(true),
        proof: is_announced.then_some(Proof::Proved),
        refused,
        why: refused.map(|_| "open for writing: Text file busy".to_owned()),
    }
}

pub(super) fn ready() -> Report {
    let info = |channel, state| ChannelInfo {
        channel,
        state,
        tier: None,
        watches: None,
        uncovered: None,
        interval_ms: None,
        why: None,
        watcher: None,
    };
    Report::Ready {
        roots: vec![
            Root {
                path: PathBuf::from("/srv"),
                fs: "overlay".to_owned(),
                aliases: vec![Alias { path: PathBuf::from("/data/upper"), layer: Layer::Upper }],
            },
            Root { path: PathBuf::from("/tmp"), fs: "tmpfs".to_owned(), aliases: Vec::new() },
        ],
        channels: vec![
            ChannelInfo { tier: Some("fentry".into()), ..info(Channel::Ebpf, ChannelState::Active) },
            ChannelInfo {
                watches: Some(12),
                uncovered: Some(3),
                why: Some("limit".to_owned()),
                ..info(Channel::Inotify, ChannelState::Degraded)
            },
            ChannelInfo { interval_ms: Some(1000), ..info(Channel::Poll, ChannelState::Idle) },
        ],
    }
}

pub(super) fn reload(state: ReloadState) -> Reload {
    let change = |path: &str, by| {
        Arc::new(ConfirmedChange {
            kind: Kind::Written,
            path: PathBuf::from(path),
            by,
            size: Some(5),
            seen_by: vec![Channel::Ebpf],
        })
    };
    let is_end = state != ReloadState::Started;
    Reload {
        seq: 2,
        time: time(),
        state,
        trigger: Trigger::Change,
        changes: (!is_end)
            .then(|| vec![change("/srv/a", Evidence::Digest), change("/srv/b", Evidence::SizeAndTime)]),
        actors: Vec::new(),
        status: is_end.then_some(1),
        duration: is_end.then_some(Duration::from_millis(7)),
        why: is_end.then(|| "no answer".to_owned()),
    }
}

pub(super) fn summary() -> Report {
    Report::Summary {
        changes: 4,
        kernel: Some(KernelTotals {
            seen: 21,
            submitted: 1,
            coalesced: 2,
            filtered: 3,
            ring_full: 4,
            oversize: 5,
            recursion_misses: 6,
        }),
        duration: Duration::from_millis(1500),
    }
}
