//! Adds and removes paths while a watch runs.
//!
//! In: paths of a program. Out: [`Edit`]s for the watch's thread, and its answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::watch_event::{Batch, WatchEvent};

/// Why a path cannot be added or removed. The watch continues as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path to add leads to nothing.
    #[error("watch {}: it does not exist; create it first", path.display())]
    #[non_exhaustive]
    Missing {
        /// The path, absolute.
        path: PathBuf,
    },
    /// A channel cannot watch the path to add.
    #[error("{cause}")]
    #[non_exhaustive]
    NotCovered {
        /// The path, absolute.
        path: PathBuf,
        /// One line: the operation, its object, the cause, and the next step.
        cause: String,
    },
    /// The path to add is one of the watched paths.
    #[error("watch {}: it is watched already; remove it first to forget its state", path.display())]
    #[non_exhaustive]
    AlreadyWatched {
        /// The path, absolute.
        path: PathBuf,
    },
    /// The path to remove is none of the watched paths, or was removed while it was being added.
    #[error("stop watching {}: it is not one of the watched paths; give a path that was added", path.display())]
    #[non_exhaustive]
    NotWatched {
        /// The path, absolute.
        path: PathBuf,
    },
    /// The watch has ended.
    #[error("change the watched paths: the watch has ended; start another")]
    Ended,
}

/// The answer to an [`Edit`].
pub(super) type Answer = Result<(), PathError>;

/// What a program wants.
#[derive(Debug)]
pub(super) enum Edit {
    /// Watch this path as well.
    Add(PathBuf, oneshot::Sender<Answer>),
    /// Watch it no longer.
    Remove(PathBuf, oneshot::Sender<Answer>),
}

/// Adds and removes paths of a running watch: [`Changes::handle`](super::Changes::handle) gives one. Clones are handles of
/// the same watch. It does not keep the watch alive.
///
/// ```
/// use hotr_user::watch::{Builder, PathError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::env::temp_dir().join(format!("hotr-handle-{}", std::process::id()));
/// # let (one, two) = (dir.join("one"), dir.join("two"));
/// # std::fs::create_dir_all(&one)?;
/// # std::fs::create_dir_all(&two)?;
/// let mut changes = Builder::new(&one).start().await?;
/// let handle = changes.handle();
///
/// handle.add_path(&two).await?;
/// let file = two.join("added.conf");
/// std::fs::write(&file, "1")?;
/// while let Some(event) = changes.next().await {
///     let Some(batch) = event?.into_batch() else { continue };
///     assert_eq!(batch[0].path, file);
///     break;
/// }
///
/// handle.remove_path(&two).await?;
/// assert!(matches!(handle.remove_path(&two).await, Err(PathError::NotWatched { .. })));
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WatchHandle {
    edits: UnboundedSender<Edit>,
}

impl WatchHandle {
    pub(super) fn new(edits: UnboundedSender<Edit>) -> Self {
        Self { edits }
    }

    /// Watches a directory with everything below it, or a file, as well. When this is ready, its present state is
    /// remembered, and every later change is reported; of a change made during the call it is not defined whether it is
    /// reported. For a large tree this takes as long as reading it. The options of the watch hold for the new path too. It
    /// may be inside a watched directory, or hold one: each is then watched until both are removed.
    ///
    /// A future that is dropped early does not undo the call.
    ///
    /// # Errors
    /// [`PathError::Missing`], [`PathError::AlreadyWatched`], [`PathError::NotCovered`]; [`PathError::NotWatched`] when it
    /// was removed meanwhile; [`PathError::Ended`].
    pub async fn add_path(&self, path: impl AsRef<Path>) -> Result<(), PathError> {
        self.order(path.as_ref(), Edit::Add)?.await.unwrap_or(Err(PathError::Ended))
    }

    /// Stops to watch a path, given as it was when it was added. When this is ready, nothing of it is reported any more:
    /// changes that wait for their batch are dropped, also from batches that were not taken yet. What another watched path
    /// covers stays. A watch without paths continues, and reports nothing until one is added.
    ///
    /// # Errors
    /// [`PathError::NotWatched`], [`PathError::Ended`].
    pub async fn remove_path(&self, path: impl AsRef<Path>) -> Result<(), PathError> {
        self.order(path.as_ref(), Edit::Remove)?.await.unwrap_or(Err(PathError::Ended))
    }

    /// As [`Self::add_path`], for a thread that may block.
    ///
    /// # Errors
    /// As [`Self::add_path`].
    pub fn add_path_blocking(&self, path: impl AsRef<Path>) -> Result<(), PathError> {
        self.order(path.as_ref(), Edit::Add)?.blocking_recv().unwrap_or(Err(PathError::Ended))
    }

    /// As [`Self::remove_path`], for a thread that may block.
    ///
    /// # Errors
    /// As [`Self::remove_path`].
    pub fn remove_path_blocking(&self, path: impl AsRef<Path>) -> Result<(), PathError> {
        self.order(path.as_ref(), Edit::Remove)?.blocking_recv().unwrap_or(Err(PathError::Ended))
    }

    fn order(
        &self,
        path: &Path,
        edit: impl FnOnce(PathBuf, oneshot::Sender<Answer>) -> Edit,
    ) -> Result<oneshot::Receiver<Answer>, PathError> {
        let (done, answer) = oneshot::channel();
        self.edits.send(edit(absolute(path), done)).map_err(|_| PathError::Ended)?;
        Ok(answer)
    }
}

/// A path of the current directory, if it is relative.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a path is one of these, or below one as far as that is watched.
pub(super) fn covers(roots: &[PathBuf], recursive: bool, path: &Path) -> bool {
    roots.iter().any(|root| path == root || covers_below(root, recursive, path))
}

fn covers_below(root: &Path, recursive: bool, path: &Path) -> bool {
    path.strip_prefix(root).is_ok_and(|rest| recursive || rest.components().count() <= 1)
}

/// Paths that were removed while batches with changes of them may wait to be taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Removals(Arc<Mutex<Vec<Removal>>>);

/// One of them.
#[derive(Debug)]
struct Removal {
    /// Events sent before this many removals are older.
    number: u64,
    path: PathBuf,
    /// What is watched since.
    rest: Vec<PathBuf>,
    recursive: bool,
}

impl Removals {
    /// A path is not watched any more; the rest is.
    pub(super) fn add(&self, number: u64, path: PathBuf, rest: Vec<PathBuf>, recursive: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Removal { number, path, rest, recursive });
    }

    /// What may still be reported of an event that was sent after this many removals. Events are taken in the order in which
    /// they were sent.
    pub(super) fn filter(&self, sent: u64, event: WatchEvent) -> Option<WatchEvent> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|removal| removal.number > sent);
        if all.is_empty() {
            return Some(event);
        }
        let is_gone = |path: &Path| {
            all.iter().any(|Removal { path: root, rest, recursive, .. }| {
                path.starts_with(root) && !covers(rest, *recursive, path)
            })
        };
        match event {
            WatchEvent::Batch(batch) => {
                let changes = batch.into_iter().filter(|change| !is_gone(&change.path)).collect();
                Batch::new(changes).map(WatchEvent::Batch)
            }
            WatchEvent::Loss { path: Some(path), .. } if is_gone(&path) => None,
            event => Some(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::confirm::{Confirmed, Evidence, Kind, State};

    #[test]
    fn a_batch_that_waits_loses_what_is_removed_meanwhile() {
        let event = |paths: &[&str]| {
            let of = |path: &&str| {
                Confirmed::new(Kind::Written, path.into(), Evidence::Digest, Vec::new(), State::Dir)
            };
            WatchEvent::Batch(Batch::new(paths.iter().map(of).collect()).unwrap())
        };
        let removals = Removals::default();
        removals.add(1, "/a".into(), vec!["/a/kept".into(), "/b".into()], true);
        let waited = removals.filter(0, event(&["/a/f", "/a/kept/f", "/ab", "/b/f"]));
        assert_eq!(waited, Some(event(&["/a/kept/f", "/ab", "/b/f"])));
        assert_eq!(removals.filter(0, event(&["/a/f"])), None);
        // It was added again since.
        assert_eq!(removals.filter(1, event(&["/a/f"])), Some(event(&["/a/f"])));
        assert!(removals.0.lock().unwrap().is_empty(), "nothing older can come");
    }
}
