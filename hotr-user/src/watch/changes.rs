//! The running watch of a program: a stream of [`WatchEvent`]s.
//!
//! In: [`WatchOptions`]. Out: [`Changes`]. The channels run on a thread of their own, so any executor can poll the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};

use super::feed::Feed;
use super::handle::{Edit, Removals, WatchHandle};
use super::watch_event::WatchEvent;
use super::{WatchOptions, no_thread};
use crate::error::Error;

/// Events that wait to be taken before hotr looks at the next batch.
const QUEUE: usize = 64;

type Event = Result<WatchEvent, Error>;

/// An event on its way, and after how many removals of paths it was sent.
#[derive(Debug)]
struct Sent {
    removals: u64,
    event: Event,
}

/// What happens to the watched paths, event by event; dropping it ends the watch.
#[derive(Debug)]
pub struct Changes {
    events: Receiver<Sent>,
    edits: UnboundedSender<Edit>,
    removals: Removals,
}

impl Changes {
    /// Starts the thread, which calls `started` once.
    pub(super) fn start(
        options: WatchOptions,
        started: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, events) = channel(QUEUE);
        let (edits, inbox) = unbounded_channel();
        let removals = Removals::default();
        let output = Output { events: sender, removals: removals.clone() };
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(options, output, inbox, started)),
            Err(source) => started(Err(no_thread(source))),
        };
        std::thread::Builder::new().name("hotr-watch".to_owned()).spawn(run).map_err(no_thread)?;
        Ok(Self { events, edits, removals })
    }

    /// Adds and removes paths of this watch.
    #[must_use]
    pub fn handle(&self) -> WatchHandle {
        WatchHandle::new(self.edits.clone())
    }

    /// The next event; `None` after an error.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let sent = self.events.recv().await?;
            if let Some(event) = self.taken(sent) {
                return Some(event);
            }
        }
    }

    /// As [`Self::next`], for a thread that may block.
    pub fn next_blocking(&mut self) -> Option<Event> {
        loop {
            let sent = self.events.blocking_recv()?;
            if let Some(event) = self.taken(sent) {
                return Some(event);
            }
        }
    }

    /// The event without what was removed since it was sent.
    fn taken(&self, Sent { removals, event }: Sent) -> Option<Event> {
        match event {
            Ok(event) => self.removals.filter(removals, event).map(Ok),
            error => Some(error),
        }
    }
}

impl Stream for Changes {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(sent) = std::task::ready!(self.events.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            if let Some(event) = self.taken(sent) {
                return Poll::Ready(Some(event));
            }
        }
    }
}

/// Where events go.
struct Output {
    events: Sender<Sent>,
    removals: Removals,
}

/// Until the receiver is dropped, or the watch fails.
async fn run(
    options: WatchOptions,
    output: Output,
    edits: UnboundedReceiver<Edit>,
    started: impl FnOnce(Result<(), Error>),
) {
    let polls = options.polling.enabled;
    let recursive = options.trace.recursive;
    let feed = tokio::select! {
        feed = Feed::start(options, None) => feed,
        // Nobody waits for it any longer.
        () = output.events.closed() => return,
    };
    match feed {
        Ok(feed) => {
            started(Ok(()));
            serve(feed, (polls, recursive), output, edits).await;
        }
        Err(error) => started(Err(error)),
    }
}

async fn serve(
    mut feed: Feed,
    (polls, recursive): (bool, bool),
    output: Output,
    mut edits: UnboundedReceiver<Edit>,
) {
    let Output { events, removals } = output;
    // Each with the number of removals before it was given.
    let mut waiting: VecDeque<(u64, WatchEvent)> = VecDeque::new();
    let mut removed = 0;
    loop {
        let fed = tokio::select! {
            permit = events.reserve(), if !waiting.is_empty() => {
                let (Ok(permit), Some((removals, event))) = (permit, waiting.pop_front()) else { return };
                permit.send(Sent { removals, event: Ok(event) });
                continue;
            }
            // Whoever waits for a path to be added may take no events meanwhile.
            fed = feed.next(), if waiting.is_empty() || feed.is_adding() => fed,
            Some(edit) = edits.recv() => {
                match edit {
                    Edit::Add(path, done) => feed.add_path(path, done),
                    Edit::Remove(path, done) => {
                        let answer = feed.remove_path(&path).map(|rest| {
                            removed += 1;
                            removals.add(removed, path, rest, recursive);
                        });
                        // Who asked may have gone.
                        let _ = done.send(answer);
                    }
                }
                continue;
            }
            () = events.closed() => return,
        };
        match fed {
            Ok(output) => {
                waiting.extend(WatchEvent::of(output, polls).into_iter().map(|event| (removed, event)))
            }
            Err(error) => return drop(events.send(Sent { removals: removed, event: Err(error) }).await),
        }
    }
}
