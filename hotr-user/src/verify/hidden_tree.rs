//! A tree of directories that no path leads to: hotr's own channel need not report so many.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, mkdirat};
use rustix::mount::MountAttrFlags;

use super::stop::{During, Stop};
use crate::private_mount::private_mount;

/// See the module; it disappears with this.
pub(super) struct HiddenTree {
    /// Its root.
    pub(super) root: OwnedFd,
    /// The paths of all its directories below the root, that of the root first.
    pub(super) dirs: Vec<String>,
}

impl HiddenTree {
    /// A tree of so many levels of so many directories in each directory; of at most so many together, the deepest ones first.
    pub(super) fn new(levels: u32, width: u64, most: u64) -> Result<Self, Stop> {
        let root =
            private_mount("tmpfs", MountAttrFlags::empty()).during("mount a tmpfs that nobody sees")?;
        let mut dirs = vec![".".to_owned()];
        let mut unfilled = vec![(".".to_owned(), levels)];
        while let Some((parent, below)) = unfilled.pop() {
            for number in 0..if below == 0 { 0 } else { width } {
                if dirs.len() as u64 >= most {
                    return Ok(Self { root, dirs });
                }
                let dir = format!("{parent}/{number}");
                mkdirat(root.as_fd(), &dir, Mode::RWXU).during("make a directory")?;
                dirs.push(dir.clone());
                unfilled.push((dir, below - 1));
            }
        }
        Ok(Self { root, dirs })
    }
}
