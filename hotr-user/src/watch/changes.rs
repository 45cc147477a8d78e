//! The running watch of a program: a stream of [`WatchEvent`]s.
//!
//! In: [`WatchOptions`]. Out: [`Changes`]. The channels run on a thread of their own, so any executor can poll the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::feed::Feed;
use super::watch_event::WatchEvent;
use super::{WatchOptions, no_thread};
use crate::error::Error;

/// Events that wait to be taken before hotr looks at the next batch.
const QUEUE: usize = 64;

type Event = Result<WatchEvent, Error>;

/// What happens to the watched paths, event by event; dropping it ends the watch.
#[derive(Debug)]
pub struct Changes {
    events: Receiver<Event>,
}

impl Changes {
    /// Starts the thread, which calls `started` once.
    pub(super) fn start(
        options: WatchOptions,
        started: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, events) = channel(QUEUE);
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(options, sender, started)),
            Err(source) => started(Err(no_thread(source))),
        };
        std::thread::Builder::new().name("hotr-watch".to_owned()).spawn(run).map_err(no_thread)?;
        Ok(Self { events })
    }

    /// The next event; `None` after an error.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// As [`Self::next`], for a thread that may block.
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}

impl Stream for Changes {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

/// Until the receiver is dropped, or the watch fails.
async fn run(options: WatchOptions, events: Sender<Event>, started: impl FnOnce(Result<(), Error>)) {
    let polls = options.polling.enabled;
    let feed = tokio::select! {
        feed = Feed::start(options, None) => feed,
        // Nobody waits for it any longer.
        () = events.closed() => return,
    };
    match feed {
        Ok(feed) => {
            started(Ok(()));
            serve(feed, polls, &events).await;
        }
        Err(error) => started(Err(error)),
    }
}

async fn serve(mut feed: Feed, polls: bool, events: &Sender<Event>) {
    let mut waiting: VecDeque<WatchEvent> = VecDeque::new();
    loop {
        let fed = tokio::select! {
            permit = events.reserve(), if !waiting.is_empty() => {
                let (Ok(permit), Some(event)) = (permit, waiting.pop_front()) else { return };
                permit.send(Ok(event));
                continue;
            }
            fed = feed.next(), if waiting.is_empty() => fed,
            () = events.closed() => return,
        };
        match fed {
            Ok(output) => waiting.extend(WatchEvent::of(output, polls)),
            Err(error) => return drop(events.send(Err(error)).await),
        }
    }
}
