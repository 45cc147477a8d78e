//! Other named paths while a run is under way.
//!
//! In: the paths from now on. Out: channels that watch them, all or none of them.

use std::path::PathBuf;

use super::Engine;
use crate::error::Error;

impl Engine {
    /// Watches these paths from now on, and no others. Returns whether inotify's watches were made again.
    ///
    /// # Errors
    /// When a channel cannot watch a new path; then all continue with the former ones.
    pub(in crate::session) fn set_paths(&mut self, paths: Vec<PathBuf>) -> Result<bool, Error> {
        // What was made before is of the former paths.
        self.whole_turn()?;
        let former = self.options.paths.clone();
        let mut rebuilt = false;
        // inotify first, as at the start: what the programs then see was made while it listened.
        let all: Vec<PathBuf> =
            former.iter().chain(paths.iter().filter(|path| !former.contains(path))).cloned().collect();
        if let Some(inotify) = &mut self.inotify {
            let answer = inotify.set_paths(&all);
            rebuilt = *answer.as_ref().unwrap_or(&true);
            if rebuilt {
                self.renewed = true;
                if let Some(ebpf) = &mut self.ebpf {
                    ebpf.listen_to(inotify);
                }
            }
            answer?;
        }
        let root_of = |root: usize| paths.iter().position(|path| Some(path) == former.get(root));
        let registered = self.ebpf.as_mut().map_or(Ok(()), |ebpf| ebpf.set_paths(&paths, root_of));
        let now = if registered.is_ok() { &paths } else { &former };
        if let Some(inotify) = &mut self.inotify {
            inotify.set_paths(now)?;
        }
        registered?;
        self.subscription.set_paths(paths.clone());
        self.options.paths = paths;
        Ok(rebuilt)
    }
}
