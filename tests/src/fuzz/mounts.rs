//! Mounts over directories of the traced tree, made between rounds.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::random::Random;
use crate::session::Session;

/// The directory in the root that is mounted over. No writer moves it: hotr looks for mounts when the mount table changes,
/// and the rename of a directory above one does not change that.
pub(super) const POINT: &str = "mnt";
/// How long hotr may take to see that the mounts are others.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to be reported.
const AGAIN: Duration = Duration::from_millis(50);

/// What is mounted in the tree.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Number of probes so far.
    probes: u64,
    /// Something is mounted.
    over: bool,
}

impl Mounts {
    /// Mounts something over a directory, or unmounts what is mounted.
    ///
    /// # Errors
    /// The kernel refuses, or hotr does not follow.
    pub fn switch(
        &mut self,
        session: &mut Session,
        random: &mut Random,
        root: &Path,
        source: &Path,
    ) -> Result<()> {
        self.change(random, root, source)?;
        self.heard(session, &root.join(POINT))
    }

    /// The same without waiting for hotr; says what was done.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn change(&mut self, random: &mut Random, root: &Path, source: &Path) -> Result<&'static str> {
        let path = root.join(POINT);
        if std::mem::take(&mut self.over) {
            unmount(&path, UnmountFlags::empty()).with_context(|| format!("unmount {}", path.display()))?;
            return Ok("unmounted");
        }
        let bound = random.percent(50);
        if bound {
            mount_bind(source, &path).with_context(|| format!("mount over {}", path.display()))?;
        } else {
            mount("fuzz", &path, "tmpfs", MountFlags::empty(), None)
                .with_context(|| format!("mount over {}", path.display()))?;
        }
        self.over = true;
        Ok(if bound { "mounted what is outside" } else { "mounted an empty tmpfs" })
    }

    /// Makes files in a directory until hotr reports one: then it follows the mounts as they are.
    fn heard(&mut self, session: &mut Session, dir: &Path) -> Result<()> {
        let over = Instant::now() + PATIENCE;
        let mut made = Vec::new();
        loop {
            ensure!(Instant::now() < over, "nothing made in {} is reported: {made:?}", dir.display());
            let path = dir.join(format!(".barrier-mount-{}", self.probes));
            self.probes += 1;
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .with_context(|| format!("make {}", path.display()))?;
            made.push(path);
            let is_heard = |session: &Session| session.seen.iter().any(|line| made.contains(&line.path));
            if session.read_for(AGAIN, is_heard)? {
                break;
            }
        }
        for path in &made {
            std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }
}
