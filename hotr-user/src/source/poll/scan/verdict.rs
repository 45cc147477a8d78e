//! A record of a file against what the file is now.

use std::ffi::CStr;

use rustix::fs::Statx;

use super::OpenDirectory;
use crate::source::difference::Kind;
use crate::source::poll::attr::{self, Attr};
use crate::source::poll::moves::difference;

/// How a known name is now.
pub(in crate::source::poll) enum Verdict {
    Same(Attr),
    Modified(Attr, Kind),
    Replaced(Attr),
}

impl OpenDirectory<'_> {
    /// See [`judge`]; `now` is of `stat`.
    pub(super) fn judge(&self, old: &Attr, now: Attr, stat: &Statx, name: &CStr) -> Verdict {
        judge(old, now, || attr::ident(self.source, self.fd, name, stat))
    }
}

/// Compares a record with what the file is now, but for `ident`, which is asked only when it can matter.
pub(in crate::source::poll) fn judge(old: &Attr, now: Attr, ident: impl FnOnce() -> u32) -> Verdict {
    let mut attr = Attr { ident: old.ident, ..now };
    if attr == *old && !old.racy {
        return Verdict::Same(attr);
    }
    if old.racy || attr.ctime != old.ctime || !attr.is_same(old) {
        attr.ident = ident();
    }
    if !attr.is_same(old) {
        return Verdict::Replaced(attr);
    }
    match difference(old, &attr, true) {
        Some(kind) => Verdict::Modified(attr, kind),
        None => Verdict::Same(attr),
    }
}
