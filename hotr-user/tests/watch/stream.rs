//! The library: a stream of confirmed changes, and a value that follows a file.

use std::fs;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use hotr_user::pipeline::confirm::{Evidence, HashKind, Kind};
use hotr_user::reload::Live;
use hotr_user::watch::Builder;

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
    let weak = std::sync::Arc::downgrade(&held);
    let mut changes = Builder::new(scratch.w()).extensions(["toml"]).start().unwrap();
    scratch.file("other.txt", "x");
    fs::write(&conf, "2").unwrap();
    let next = std::future::poll_fn(|context| Pin::new(&mut changes).poll_next(context));
    let batch = tokio::time::timeout(Duration::from_secs(20), next).await.unwrap().unwrap().unwrap();
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
        .only(["*.conf"])
        .ignore(["skip"])
        .recursive(false)
        .hash(HashKind::Blake3)
        .hash_limit(10)
        .debounce(Duration::from_millis(400))
        .settle_max(Duration::from_secs(20))
        .start()
        .unwrap();
    // What they were before may not be known at the first change.
    for round in 2..4 {
        for name in ["other.txt", "skip/b.conf", "sub/c.conf", ".git/d.conf", "a.conf"] {
            fs::write(scratch.w().join(name), round.to_string()).unwrap();
        }
        fs::write(&large, format!("{round}2345678901")).unwrap();
        let mut told = Vec::new();
        while told.len() < 2 {
            let batch = changes.next_blocking().unwrap().unwrap();
            told.extend(batch.into_iter().map(|change| (change.path, change.by)));
        }
        told.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!((&told[0].0, &told[1].0), (&conf, &large));
        if round == 3 {
            assert_eq!((told[0].1, told[1].1), (Evidence::Digest, Evidence::SizeAndTime));
        }
    }
    let error = Builder::new(scratch.w()).ignore(["a["]).start().unwrap_err().to_string();
    assert!(error.contains("read the pattern \"a[\": bad pattern: unclosed"), "{error}");
}
