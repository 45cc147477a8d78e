//! Accounts, from whatever name service the C library is set up for (nsswitch.conf(5)).

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr::null_mut;

use super::{User, number};

/// Most bytes of a user's or a group's entry; a group may have many members.
const ENTRY: usize = 1 << 20;
/// Most groups of a user (include/uapi/linux/limits.h `NGROUPS_MAX`).
const GROUPS: usize = 65_536;

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| format!("run commands as {}: no such name", text.display()))
}

/// The entry of a user, by name or, if there is none of that name, by number.
pub(crate) fn user(named: &OsStr) -> Result<Option<User>, String> {
    let name = c_string(named)?;
    let mut buffer = vec![0 as c_char; ENTRY];
    // SAFETY: a structure of integers and pointers; the calls fill it in.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = null_mut();
    // SAFETY: the strings and the buffer live over the call, which gets the buffer's size.
    let mut error = unsafe {
        libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), ENTRY, &raw mut found)
    };
    if found.is_null()
        && let Some(uid) = number(named)
    {
        // SAFETY: as above.
        error = unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), ENTRY, &raw mut found) };
    }
    if found.is_null() {
        return unknown("user", named, error).map(|()| None);
    }
    // SAFETY: the entry was found: its pointers are of strings in the buffer.
    let text = |pointer: *const c_char| unsafe { CStr::from_ptr(pointer) }.to_bytes().to_vec();
    Ok(Some(User {
        name: OsString::from_vec(text(entry.pw_name)),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: OsString::from_vec(text(entry.pw_dir)),
        shell: OsString::from_vec(text(entry.pw_shell)),
    }))
}

/// The id of a group, by name.
pub(crate) fn group(named: &OsStr) -> Result<Option<u32>, String> {
    let name = c_string(named)?;
    let mut buffer = vec![0 as c_char; ENTRY];
    // SAFETY: a structure of integers and pointers; the call fills it in.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::group = null_mut();
    // SAFETY: the strings and the buffer live over the call, which gets the buffer's size.
    let error = unsafe {
        libc::getgrnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), ENTRY, &raw mut found)
    };
    if !found.is_null() {
        return Ok(Some(entry.gr_gid));
    }
    unknown("group", named, error).map(|()| None)
}

/// No entry was found; these answers mean that there is none (getpwnam(3)).
fn unknown(kind: &str, named: &OsStr, error: c_int) -> Result<(), String> {
    if matches!(error, 0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM) {
        return Ok(());
    }
    let why = std::io::Error::from_raw_os_error(error);
    Err(format!("look up {kind} {}: {why}; name a number", named.display()))
}

/// As initgroups(3) would set them.
pub(crate) fn groups_of(name: &OsStr, gid: u32) -> Option<Vec<u32>> {
    let name = c_string(name).ok()?;
    let mut groups = vec![0; 64];
    loop {
        let mut count = c_int::try_from(groups.len()).ok()?;
        // SAFETY: the name lives, and the list has the given length.
        let all = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if all >= 0 {
            groups.truncate(usize::try_from(count).ok()?);
            return Some(groups);
        }
        if groups.len() >= GROUPS {
            return None;
        }
        groups.resize(groups.len() * 4, 0);
    }
}
