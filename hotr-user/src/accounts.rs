//! Users and groups of this machine, by name and by number.
//!
//! In: names or numbers. Out: entries. A name that the user gave is looked up once, at the start, where whatever the machine's
//! name service does may take its time. The names of writers are looked up while changes wait: in `/etc/passwd` only.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

#[cfg(any(test, target_feature = "crt-static"))]
mod files;
mod lines;
#[cfg(not(target_feature = "crt-static"))]
mod name_service;
mod user_names;

#[cfg(target_feature = "crt-static")]
pub(crate) use files::{group, groups_of, user};
#[cfg(not(target_feature = "crt-static"))]
pub(crate) use name_service::{group, groups_of, user};
pub(crate) use user_names::UserNames;

/// A user's entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: OsString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: OsString,
    pub(crate) shell: OsString,
}

/// An id; the highest means "leave as it is" to the kernel.
pub(crate) fn number(text: &OsStr) -> Option<u32> {
    let digits = text.as_bytes().iter().all(u8::is_ascii_digit);
    text.to_str().filter(|_| digits)?.parse().ok().filter(|id| *id != u32::MAX)
}
