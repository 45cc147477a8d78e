//! A subscription that outlasts its agent: when the agent ends or is killed, it is sought until there is one again, and what changed
//! meanwhile is found by comparing the directories with what they were.
//!
//! In: open directories. Out: [`Update`]s: events of the agent, and differences that no agent reported. The comparison is hotr's poller,
//! with the rights of this process and by its own descriptors.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotr_events::{Change, Channel};
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::comparison::{Comparison, News};
use super::error::ClientError;
use super::known::Reported;
use super::wire::Event;
use crate::source::difference::{Difference, Kind};

/// The first pause before an agent is sought again; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Updates that wait for whoever takes them.
const WAITING: usize = 64;

/// What a subscription has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Update {
    /// The directories were read: what changes from now on while there is no agent will be found.
    Baseline,
    /// The agent has ended, or does not take this subscriber. It is sought until there is one; said once for each reason.
    Disconnected {
        /// A sentence.
        why: String,
    },
    /// There is an agent again, and changes are reported; what changed meanwhile follows.
    Reconnected,
    /// A difference that no agent has reported. One that was made shortly before the agent ended, or after it was there again, may have
    /// been reported as well.
    #[serde(rename = "change")]
    Found {
        /// The directory's number.
        root: u32,
        /// The change, with a path relative to the directory; only the channel `poll` has seen it.
        #[serde(flatten)]
        change: Box<Change>,
    },
    /// The directories were compared: all that was found has been said.
    Compared {
        /// How many differences were found.
        found: u64,
        /// All of the directories that this process may read were compared with what they were.
        complete: bool,
    },
    /// What an agent says. Numbers of directories are their places in the list.
    #[serde(untagged)]
    Event(Event),
}

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    updates: Receiver<Result<Update, ClientError>>,
    task: JoinHandle<()>,
}

impl Subscription {
    /// Subscribes to directories that are open for reading. They stay open as long as it lasts, and are read once, in the background, to
    /// have something to compare with. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no agent at the socket.
    pub async fn connect(socket: &Path, directories: Vec<OwnedFd>) -> Result<Self, ClientError> {
        let client = join(socket, &directories).await?;
        let (sender, updates) = channel(WAITING);
        let work = Work {
            socket: socket.to_owned(),
            directories,
            out: sender,
            comparison: None,
            reported: Reported::default(),
            was_without: false,
            was_unknown: false,
            found: 0,
        };
        Ok(Self { updates, task: tokio::spawn(work.run(client)) })
    }

    /// The next update; `None` after an error. A future that is dropped before it is ready has lost nothing.
    ///
    /// An error ends it: the first agent did not take this subscriber, or what answers is no agent.
    pub async fn next(&mut self) -> Option<Result<Update, ClientError>> {
        self.updates.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(socket: &Path, directories: &[OwnedFd]) -> Result<Client, ClientError> {
    let mut client = Client::connect(socket).await?;
    for directory in directories {
        client.add(directory.as_fd()).await?;
    }
    Ok(client)
}

/// How a connection goes on.
enum Step {
    Event(Result<Event, ClientError>),
    News(News),
    /// Nobody takes updates.
    Unwanted,
}

struct Work {
    socket: PathBuf,
    directories: Vec<OwnedFd>,
    out: Sender<Result<Update, ClientError>>,
    /// None until the first agent watches.
    comparison: Option<Comparison>,
    reported: Reported,
    /// There was no agent for some time.
    was_without: bool,
    /// It ended before all was known that the directories are compared with.
    was_unknown: bool,
    /// Differences that were said since the last [`Update::Compared`].
    found: u64,
}

impl Work {
    async fn run(mut self, mut client: Client) {
        let mut is_first = true;
        loop {
            let Some(error) = self.follow(&mut client).await else { return };
            let is_taken = self.comparison.is_some();
            if matches!(error, ClientError::Protocol(_)) || is_first && !is_taken {
                let _ = self.out.send(Err(error)).await;
                return;
            }
            is_first = false;
            self.was_without = true;
            self.reported.ended(SystemTime::now());
            let why = match error {
                ClientError::Gone => "the agent has ended".to_owned(),
                error => error.to_string(),
            };
            let Some(next) = self.seek(why).await else { return };
            client = next;
        }
    }

    async fn say(&self, update: Update) -> Option<()> {
        self.out.send(Ok(update)).await.ok()
    }

    /// Seeks an agent until there is one; none when nobody wants to know.
    async fn seek(&self, mut why: String) -> Option<Client> {
        self.say(Update::Disconnected { why: why.clone() }).await?;
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.out.closed() => return None,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match timeout(PATIENCE, self.try_again()).await {
                Ok(Ok((client, events))) => {
                    self.say(Update::Reconnected).await?;
                    for event in events {
                        self.say(Update::Event(event)).await?;
                    }
                    return Some(client);
                }
                // It is said once that there is none.
                Ok(Err(ClientError::Connect { .. } | ClientError::Gone)) | Err(_) => {}
                Ok(Err(error)) => {
                    let new = error.to_string();
                    if new != why {
                        why = new;
                        self.say(Update::Disconnected { why: why.clone() }).await?;
                    }
                }
            }
        }
    }

    /// One attempt: up to the answers to all directories. Returns what else was said.
    async fn try_again(&self) -> Result<(Client, Vec<Event>), ClientError> {
        let mut client = join(&self.socket, &self.directories).await?;
        let (mut events, mut left) = (Vec::new(), self.directories.len());
        while left > 0 {
            let event = client.next().await.ok_or(ClientError::Gone)??;
            left -= usize::from(matches!(event, Event::Added { .. } | Event::Refused { .. }));
            events.push(event);
        }
        Ok((client, events))
    }

    /// Passes on what an agent says until it ends; none when nobody wants to know.
    async fn follow(&mut self, client: &mut Client) -> Option<ClientError> {
        let mut left = match self.comparison {
            Some(_) => 0,
            None => self.directories.len(),
        };
        // After a reconnection all is reported from now on: what is different now was not.
        self.comparison.iter_mut().for_each(Comparison::ask);
        loop {
            let step = tokio::select! {
                biased;
                () = self.out.closed() => Step::Unwanted,
                event = client.next() => Step::Event(event.unwrap_or(Err(ClientError::Gone))),
                news = news(&mut self.comparison) => Step::News(news),
            };
            match step {
                Step::Unwanted => return None,
                Step::Event(Err(error)) => return Some(error),
                Step::Event(Ok(event)) => {
                    let is_answer = matches!(event, Event::Added { .. } | Event::Refused { .. });
                    if let Event::Change { root, change, .. } = &event {
                        self.reported.take(*root, change, SystemTime::now());
                    }
                    if is_answer && self.comparison.is_none() {
                        left = left.saturating_sub(1);
                        if left == 0 {
                            self.comparison = Some(self.begin());
                        }
                    }
                    self.say(Update::Event(event)).await?;
                }
                Step::News(news) => self.compared(news).await?,
            }
        }
    }

    fn begin(&self) -> Comparison {
        // By the descriptors, wherever the directories are by then.
        let root = |directory: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        Comparison::begin(self.directories.iter().map(root).collect())
    }

    /// Reports what was found, if there was no agent meanwhile.
    async fn compared(&mut self, news: News) -> Option<()> {
        if !self.was_without {
            return self.say(Update::Baseline).await;
        }
        let now = SystemTime::now();
        for difference in news.differences {
            let Some((root, difference)) = self.relative(difference) else { continue };
            if self.reported.explains(root, &difference) {
                continue;
            }
            self.found += 1;
            let change = Box::new(difference.into_change(Channel::Poll, now));
            self.say(Update::Found { root, change }).await?;
        }
        if !news.is_answer {
            self.was_unknown = true;
            return Some(());
        }
        self.reported.compared();
        let complete = news.is_complete && !std::mem::take(&mut self.was_unknown);
        let found = std::mem::take(&mut self.found);
        self.say(Update::Compared { found, complete }).await
    }

    /// A difference with paths relative to its directory.
    fn relative(&self, mut difference: Difference) -> Option<(u32, Difference)> {
        let roots = self.comparison.as_ref()?.roots();
        let (number, root) = (0..).zip(roots).find(|(_, root)| difference.path.starts_with(root))?;
        difference.path = difference.path.strip_prefix(root).ok()?.to_path_buf();
        if let Kind::Renamed { old } = &difference.kind {
            difference.kind = match old.strip_prefix(root) {
                Ok(old) => Kind::Renamed { old: old.to_path_buf() },
                // From another of the directories.
                Err(_) => Kind::Created,
            };
        }
        Some((number, difference))
    }
}

/// What the comparison has to say; never without one.
async fn news(comparison: &mut Option<Comparison>) -> News {
    match comparison {
        Some(comparison) => comparison.next().await,
        None => std::future::pending().await,
    }
}
