//! The library: a stream of confirmed changes, and a value that follows a file.

use std::fs;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use hotr_user::pipeline::confirm::Kind;
use hotr_user::reload::Live;
use hotr_user::watch::Builder;

use super::run::Scratch;

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
