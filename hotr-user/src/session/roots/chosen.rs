//! The named paths of a run that is under way: some are added, others are removed.
//!
//! In: the paths from now on. Out: registered inodes; those of paths that stay are registered all along.

use std::path::PathBuf;

use super::{Roots, Watched, channel_error};
use crate::error::Error;
use crate::source::ebpf::EbpfSource;

impl Roots {
    /// Watches these paths from now on, and no others.
    ///
    /// # Errors
    /// When a new path leads nowhere, or cannot be registered; then the former ones are watched.
    pub(in crate::session) fn set_paths(
        &mut self,
        paths: &[PathBuf],
        source: &mut EbpfSource,
    ) -> Result<(), Error> {
        let known = |path: &PathBuf| self.watched.iter().find(|watched| watched.path == *path).cloned();
        let watched: Vec<Watched> = paths
            .iter()
            .map(|path| known(path).map_or_else(|| Watched::look_up(path, &self.table), Ok))
            .collect::<Result<_, Error>>()?;
        let former = std::mem::replace(&mut self.watched, watched);
        // What is mounted below a new path, or was below a former one, did not come or go.
        let remounted = std::mem::take(&mut self.remounted);
        let mut answer = self.rebase(&[], source).and_then(|()| self.plan(source));
        if answer.is_err() {
            self.watched = former;
            let undone = self.rebase(&[], source).and_then(|()| self.plan(source));
            answer = answer.and(undone);
        }
        self.remounted = remounted;
        answer.map_err(|error| channel_error(&error))
    }

    /// Whether these are the paths, in this order.
    pub(in crate::session) fn are_of(&self, paths: &[PathBuf]) -> bool {
        self.watched.iter().map(|watched| &watched.path).eq(paths)
    }
}
