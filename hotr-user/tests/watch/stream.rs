//! The library: a stream of confirmed changes, and a value that follows a file.

use std::fs;
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use hotr_events::{Channel, ChannelState};
use hotr_user::options::Channels;
use hotr_user::pipeline::confirm::{Evidence, HashKind, Kind};
use hotr_user::reload::Live;
use hotr_user::watch::{Batch, Builder, Changes, Polling, WatchEvent};

use super::run::{Scratch, next_tick};

#[tokio::test]
async fn a_value_follows_its_file_by_the_stream() {
    let scratch = Scratch::new("stream");
    let conf = scratch.file("conf.toml", "1");
    let file = conf.clone();
    let live = Live::new(move || -> Result<u32, String> {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| format!("{text} is not a number"))
    })
    .unwrap();
    let held = live.get();
    let weak = Arc::downgrade(&held);
    let mut changes = Builder::new(scratch.w()).add_extensions(["toml"]).start().await.unwrap();
    scratch.file("other.txt", "x");
    fs::write(&conf, "2").unwrap();
    let batch = loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut changes).poll_next(context));
        let event = tokio::time::timeout(Duration::from_secs(20), next).await.unwrap().unwrap().unwrap();
        if let WatchEvent::Batch(batch) = event {
            break batch;
        }
    };
    let told: Vec<_> = batch.iter().map(|change| (change.kind, change.path.clone())).collect();
    assert_eq!(told, [(Kind::Written, conf.clone())]);
    live.reload().unwrap();
    assert_eq!((*held, *live.get()), (1, 2));
    drop(held);
    assert!(weak.upgrade().is_none(), "the former value is gone with its last reader");
}

#[test]
fn the_stream_knows_what_the_command_line_knows() {
    let scratch = Scratch::new("builder");
    let conf = scratch.file("a.conf", "1");
    let large = scratch.file("large.conf", "12345678901");
    for name in ["other.txt", "skip/b.conf", "sub/c.conf", ".git/d.conf"] {
        scratch.file(name, "1");
    }
    next_tick();
    let mut changes = Builder::new(scratch.w())
        .add_only(["*.conf"])
        .add_ignore(["skip"])
        .recursive(false)
        .hash(HashKind::Blake3)
        .hash_limit(10)
        .debounce(Duration::from_millis(400))
        .settle_max(Duration::from_secs(20))
        .start_blocking()
        .unwrap();
    // What they were before may not be known at the first change.
    for round in 2..4 {
        for name in ["other.txt", "skip/b.conf", "sub/c.conf", ".git/d.conf", "a.conf"] {
            fs::write(scratch.w().join(name), round.to_string()).unwrap();
        }
        fs::write(&large, format!("{round}2345678901")).unwrap();
        let mut told = Vec::new();
        while told.len() < 2 {
            let event = changes.next_blocking().unwrap().unwrap();
            told.extend(
                event.into_batch().into_iter().flatten().map(|change| (change.path.clone(), change.by)),
            );
        }
        told.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!((&told[0].0, &told[1].0), (&conf, &large));
        if round == 3 {
            assert_eq!((told[0].1, told[1].1), (Evidence::Digest, Evidence::SizeAndTime));
        }
    }
    let error = Builder::new(scratch.w()).add_ignore(["a["]).start_blocking().unwrap_err().to_string();
    assert!(error.contains("read the pattern \"a[\": bad pattern: unclosed"), "{error}");
}

/// The next batch, whatever is said of the channels before it.
fn next_batch(changes: &mut Changes) -> Batch {
    loop {
        if let Some(batch) = changes.next_blocking().unwrap().unwrap().into_batch() {
            return batch;
        }
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_batch_says_who_changed_each_file_where_ebpf_says_it() {
    let ebpf = Channels { ebpf: true, inotify: false, required: true };
    let inotify = Channels { ebpf: false, inotify: true, required: true };
    for channels in [Channels::AUTO, ebpf, inotify] {
        let scratch = Scratch::new("who");
        let (one, two) = (scratch.file("one", "1"), scratch.file("two", "1"));
        next_tick();
        let settle = Duration::from_millis(700);
        let builder = Builder::new(scratch.w()).channels(channels).debounce(settle);
        let mut changes = match builder.start_blocking() {
            Ok(changes) => changes,
            // Not root, or a kernel without eBPF: what there is, is checked.
            Err(error) => {
                assert!(channels.ebpf && !channels.inotify, "{error}");
                continue;
            }
        };
        let by_shell = |script| {
            let mut shell = Command::new("sh").args(["-c", script]).current_dir(scratch.w()).spawn().unwrap();
            assert!(shell.wait().unwrap().success());
            shell.id()
        };
        let writers = [by_shell("echo 2 > one; exec chmod 600 two"), by_shell("echo 2 > two")];
        let mut told: Vec<_> = next_batch(&mut changes).into_iter().collect();
        while told.len() < 2 {
            told.extend(next_batch(&mut changes));
        }
        told.sort_by(|one, other| one.path.cmp(&other.path));
        assert_eq!(told.iter().map(|change| &change.path).collect::<Vec<_>>(), [&one, &two]);
        for (change, expected) in told.iter().zip(writers) {
            assert!(!change.seen_by.is_empty() && change.seen_by.iter().all(|it| *it != Channel::Poll));
            let pids: Vec<u32> = change.actors.iter().map(|actor| actor.pid).collect();
            if change.seen_by.contains(&Channel::Ebpf) {
                assert_eq!(
                    pids,
                    [expected],
                    "the shell's chmod is no change of the content of {:?}",
                    change.path
                );
            } else {
                assert!(pids.is_empty(), "inotify does not say who: {pids:?}");
            }
        }
    }
}

#[test]
fn what_happens_to_channels_is_told() {
    let scratch = Scratch::new("channels");
    let conf = scratch.file("a", "1");
    let inotify = Channels { ebpf: false, inotify: true, required: true };
    let mut changes =
        Builder::new(&conf).channels(inotify).polling(Polling::default()).start_blocking().unwrap();
    fs::remove_file(&conf).unwrap();
    let (mut is_lost, mut is_degraded, mut is_removed) = (false, false, false);
    while !(is_lost && is_degraded && is_removed) {
        match changes.next_blocking().unwrap().unwrap() {
            WatchEvent::Loss { channel: Channel::Inotify, path, .. } => is_lost |= path == Some(conf.clone()),
            WatchEvent::Degraded { channel: Channel::Inotify, state, .. } => {
                is_degraded |= state == ChannelState::Degraded;
            }
            WatchEvent::Batch(batch) => is_removed |= batch[0].kind == Kind::Removed,
            WatchEvent::Recovered { .. } => panic!("nothing is there yet"),
            _ => {}
        }
    }
    scratch.file("a", "2");
    loop {
        let event = changes.next_blocking().unwrap().unwrap();
        if matches!(event, WatchEvent::Recovered { channel: Channel::Inotify, .. }) {
            break;
        }
    }
}

#[test]
fn a_start_does_not_block_and_what_is_dropped_ends_its_thread() {
    let scratch = Scratch::new("dropped");
    let polling = Polling::default();
    let scanning = Arc::clone(&polling.scanning);
    // The thread, and all that it started, share this.
    let is_over = || Arc::strong_count(&scanning) == 1;
    let mut start = Box::pin(Builder::new(scratch.w()).polling(polling.clone()).start());
    assert!(pin!(&mut start).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop((start, polling));
    until("the thread of a dropped start goes on", is_over);

    let mut polling = Polling::default();
    polling.scanning = Arc::clone(&scanning);
    let changes = Builder::new(scratch.w()).polling(polling).start_blocking().unwrap();
    assert!(!is_over());
    drop(changes);
    until("the thread of a dropped stream goes on", is_over);
}
