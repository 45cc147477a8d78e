//! What the names of a change may have led to, before or after it.
//!
//! In: a change. Out: which kinds of file each of its names must be checked for. A change carries the type of one file,
//! but an exchange is of two, and what a system call renamed may be gone before anybody could look at it.

use std::path::PathBuf;

use super::filter::PathFilter;
use hotr_events::{Change, FileType, Op};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// A directory: what it holds appeared or disappeared with the name.
    pub(super) dir: bool,
    /// Something that has a state of its own.
    pub(super) file: bool,
    /// A symbolic link.
    pub(super) link: bool,
    /// Not known: only what was there before shows whether it was a directory.
    pub(super) unknown: bool,
    /// Two names changed their files.
    pub(super) exchanged: bool,
}

impl Names {
    /// Of both names of this change.
    pub(super) fn of(change: &Change) -> Self {
        let exchanged = change.op == Op::Rename && change.detail.iter().any(|word| word == "exchange");
        let is_dir = change.file_type == Some(FileType::Dir);
        // A directory that appeared or disappeared is nothing but the files it brought or took.
        let came_or_went = is_dir && matches!(change.op, Op::Create | Op::Remove);
        Self {
            dir: is_dir || exchanged,
            file: !came_or_went,
            link: change.file_type == Some(FileType::Symlink) || exchanged,
            unknown: change.op == Op::Rename && change.file_type.is_none() && !exchanged,
            exchanged,
        }
    }

    /// Whether one of these names is of something that a reload may depend on.
    pub(super) fn are_wanted(self, change: &Change, filter: &mut PathFilter) -> bool {
        [Some(&change.path), change.old_path.as_ref()].into_iter().flatten().any(|path| {
            (self.dir || self.link) && filter.wants(path, true) || self.file && filter.wants(path, false)
        })
    }
}

/// Names of an audit that are compared by themselves; of more, no list is kept.
pub(super) const MOST_COMPARED: usize = 16_384;

/// Names that an audit found to be other ones, though the channels had reported them: to be compared with what was
/// confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportedNames {
    pub(super) files: Vec<PathBuf>,
    /// Directories that moved with all they hold.
    pub(super) dirs: Vec<PathBuf>,
    /// There were more: every known name is to be compared, these as well.
    pub(super) is_cut: bool,
}

impl ReportedNames {
    /// Adds those of a difference.
    pub(super) fn add(&mut self, change: Change) {
        if self.files.len() + self.dirs.len() > MOST_COMPARED {
            *self = Self { is_cut: true, ..Self::default() };
        }
        if self.is_cut {
            return;
        }
        let names = Names::of(&change);
        let paths = [Some(change.path), change.old_path].into_iter().flatten();
        if !names.dir {
            self.files.extend(paths);
        } else if change.op == Op::Rename {
            // For one that appeared or disappeared an audit reports each file.
            self.dirs.extend(paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn names(op: Op, file_type: Option<FileType>, detail: &[&'static str]) -> Names {
        Names::of(&Change {
            detail: detail.iter().map(|word| (*word).into()).collect(),
            old_path: Some("/b".into()),
            file_type,
            ..Change::new(op, "/a".into(), SystemTime::UNIX_EPOCH)
        })
    }

    #[test]
    fn of_an_exchange_either_name_may_be_anything() {
        for file_type in [None, Some(FileType::File), Some(FileType::Dir), Some(FileType::Symlink)] {
            let names = names(Op::Rename, file_type, &["rename", "exchange"]);
            assert!(names.dir && names.file && names.link && names.exchanged && !names.unknown);
        }
    }

    #[test]
    fn of_other_changes_the_type_decides() {
        let file = names(Op::Rename, Some(FileType::File), &["rename"]);
        assert!(file.file && !file.dir && !file.link && !file.unknown);
        let dir = names(Op::Create, Some(FileType::Dir), &["mkdir"]);
        assert!(dir.dir && !dir.file && !dir.unknown);
        let gone = names(Op::Rename, None, &["rename"]);
        assert!(gone.unknown && gone.file && !gone.dir);
        assert!(!names(Op::Remove, None, &["unlink"]).unknown);
    }
}
