//! The lines of `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! In: the content of the file. Out: the fields of its entries.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::number;

/// Lines of `N` fields. Comments, and the lines by which NIS adds and removes accounts, are not entries.
pub(super) fn entries<const N: usize>(content: &[u8]) -> impl Iterator<Item = [&[u8]; N]> {
    content
        .split(|&byte| byte == b'\n')
        .filter(|line| !matches!(line.first(), None | Some(b'#' | b'+' | b'-' | b':')))
        .filter_map(|line| line.split(|&byte| byte == b':').collect::<Vec<_>>().try_into().ok())
}

/// A field that is an id.
pub(super) fn id(digits: &[u8]) -> Option<u32> {
    Some(digits).filter(|digits| !digits.is_empty()).and_then(|digits| number(OsStr::from_bytes(digits)))
}

/// The number and the name of each user, in the order of the file; of those whose name is text.
pub(super) fn user_names(content: &[u8]) -> impl Iterator<Item = (u32, &str)> {
    entries::<7>(content).filter_map(|entry| Some((id(entry[2])?, std::str::from_utf8(entry[0]).ok()?)))
}
