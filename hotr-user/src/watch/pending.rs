//! What was told and not looked at yet: the next batch.
//!
//! In: changes that matter, one by one. Out: a [`Pending`], which goes to the thread that reads files (`content`), and
//! comes back when it has to wait.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::time::Instant;

use crate::event::{Change, Channel, Op};

/// What is known of a path of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// The first that was told is that the name appeared.
    pub(super) born: bool,
    /// Its name before.
    pub(super) old: Option<PathBuf>,
    /// Who told.
    pub(super) seen_by: Vec<Channel>,
}

impl Touched {
    fn hear(&mut self, channels: &[Channel]) {
        for channel in channels {
            if !self.seen_by.contains(channel) {
                self.seen_by.push(*channel);
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) touched: BTreeMap<PathBuf, Touched>,
    /// Directories that appeared, went or got another name.
    pub(super) dirs: Vec<PathBuf>,
    /// Named paths that lead elsewhere now.
    pub(super) relinked: Vec<PathBuf>,
    /// When the first of it was told.
    pub(super) first: Option<Instant>,
}

impl Pending {
    /// A change of a path: its own (`is_new_name`), or the one that a renamed file had before.
    pub(super) fn touch(&mut self, path: &PathBuf, change: &Change, is_new_name: bool) {
        let is_new = !self.touched.contains_key(path);
        let touched = self.touched.entry(path.clone()).or_default();
        touched.born |= is_new && is_new_name && change.op == Op::Create;
        touched.old = change.old_path.clone().filter(|_| is_new_name && change.op == Op::Rename);
        touched.hear(&change.seen_by);
    }

    /// Puts what was told earlier before what came since.
    pub(super) fn put_before(&mut self, earlier: Self) {
        for (path, before) in earlier.touched {
            let touched = self.touched.entry(path).or_default();
            touched.born = before.born;
            touched.old = touched.old.take().or(before.old);
            touched.hear(&before.seen_by);
        }
        self.dirs.extend(earlier.dirs);
        self.relinked.extend(earlier.relinked);
        self.first = [earlier.first, self.first].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_comes_back_is_the_begin_of_the_next_batch() {
        let (a, b, c) = (PathBuf::from("/a"), PathBuf::from("/b"), PathBuf::from("/c"));
        let begin = Instant::now();
        let touched = |born, seen_by: &[Channel]| Touched { born, old: None, seen_by: seen_by.to_vec() };
        let earlier = Pending {
            touched: [
                (a.clone(), touched(true, &[Channel::Ebpf])),
                (b.clone(), touched(false, &[Channel::Ebpf])),
            ]
            .into(),
            dirs: vec![c.clone()],
            relinked: Vec::new(),
            first: Some(begin),
        };
        let mut pending = Pending {
            touched: [
                (b.clone(), touched(true, &[Channel::Inotify, Channel::Ebpf])),
                (c.clone(), touched(true, &[Channel::Inotify])),
            ]
            .into(),
            first: Some(begin + Duration::from_secs(1)),
            ..Pending::default()
        };
        pending.put_before(earlier);
        let expected = BTreeMap::from([
            (a, touched(true, &[Channel::Ebpf])),
            // It was there before it was removed and made again.
            (b, touched(false, &[Channel::Inotify, Channel::Ebpf])),
            (c.clone(), touched(true, &[Channel::Inotify])),
        ]);
        assert_eq!(pending.touched, expected);
        assert_eq!((pending.dirs, pending.first), (vec![c], Some(begin)));
    }
}
