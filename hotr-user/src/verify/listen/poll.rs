//! A comparison of attributes before and after, as a program makes it that asks stat(2) now and then.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use crate::verify::evidence::{Account, Event, Listener, State};

/// The paths that are compared.
pub(in crate::verify) struct Poll {
    paths: Vec<(&'static str, PathBuf, Option<Look>)>,
    events: Vec<Event>,
}

/// What a look at a file shows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    ino: u64,
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let stat: Statx = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok()?;
        Some(Self {
            size: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            ino: stat.stx_ino,
        })
    }

    /// The attributes that differ.
    fn differences(self, other: Self) -> Vec<String> {
        let all = [
            ("size", self.size != other.size),
            ("mtime", self.mtime != other.mtime),
            ("ctime", self.ctime != other.ctime),
            ("ino", self.ino != other.ino),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word.to_owned()).collect()
    }
}

impl Poll {
    pub(in crate::verify) const fn new() -> Self {
        Self { paths: Vec::new(), events: Vec::new() }
    }

    /// Compares this path as well.
    pub(in crate::verify) fn add(&mut self, at: &'static str, path: &Path) {
        self.paths.push((at, path.to_path_buf(), None));
    }

    /// The look before the operation.
    pub(in crate::verify) fn look(&mut self) {
        for (_, path, look) in &mut self.paths {
            *look = Look::at(path);
        }
    }

    /// The look after it.
    pub(in crate::verify) fn compare(&mut self) {
        for (at, path, before) in &self.paths {
            let what = match (*before, Look::at(path)) {
                (None, None) => Vec::new(),
                (None, Some(_)) => vec!["appeared".to_owned()],
                (Some(_), None) => vec!["disappeared".to_owned()],
                (Some(before), Some(after)) => before.differences(after),
            };
            if !what.is_empty() {
                self.events.push(Event { at, what, name: None, cookie: 0, count: 1 });
            }
        }
    }

    /// What the comparison showed.
    pub(in crate::verify) fn account(&self) -> Account {
        Account { listener: Listener::Poll, state: State::Listening, events: self.events.clone() }
    }
}
