//! The user and the groups that commands run as.
//!
//! In: names or numbers. Out: ids, and what a login would set in the environment. They are looked up once, at the start,
//! where whatever the machine's name service does may take its time.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr::null_mut;

use rustix::process::geteuid;

/// Most bytes of a user's or a group's entry; a group may have many members.
const ENTRY: usize = 1 << 20;
/// Most groups of a user (include/uapi/linux/limits.h `NGROUPS_MAX`).
const GROUPS: usize = 65_536;

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User; hotr's own when none.
    pub uid: Option<u32>,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// `HOME`, `USER`, `LOGNAME` and `SHELL`, where the user has an entry.
    pub env: Vec<(OsString, OsString)>,
}

struct User {
    name: CString,
    uid: u32,
    gid: u32,
    home: OsString,
    shell: OsString,
}

impl Identity {
    /// Of a user, a group, or both; names, or numbers.
    ///
    /// # Errors
    /// A sentence: who is not known, or that only root can become somebody else.
    pub fn of(user: Option<&OsStr>, group: Option<&OsStr>) -> Result<Option<Self>, String> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        if !geteuid().is_root() {
            return Err(
                "run commands as another user: only root can; leave out --user and --group".to_owned()
            );
        }
        let gid = group.map(gid_of).transpose()?;
        let Some(named) = user else {
            return Ok(gid.map(|gid| Self { uid: None, gid, groups: vec![gid], env: Vec::new() }));
        };
        let object = named.display();
        match entry_of(named)? {
            Some(user) => {
                let gid = gid.unwrap_or(user.gid);
                let groups = groups_of(&user.name, gid).ok_or_else(|| {
                    format!("run commands as user {object}: its groups cannot be read; see id")
                })?;
                let name = OsString::from_vec(user.name.into_bytes());
                let env =
                    [("HOME", user.home), ("USER", name.clone()), ("LOGNAME", name), ("SHELL", user.shell)]
                        .map(|(name, value)| (OsString::from(name), value));
                Ok(Some(Self { uid: Some(user.uid), gid, groups, env: env.into() }))
            }
            None => match (number(named), gid) {
                (Some(uid), Some(gid)) => {
                    Ok(Some(Self { uid: Some(uid), gid, groups: vec![gid], env: Vec::new() }))
                }
                (Some(_), None) => Err(format!(
                    "run commands as user {object}: it has no entry and so no group; add --group"
                )),
                (None, _) => {
                    Err(format!("run commands as user {object}: there is no such user; correct --user"))
                }
            },
        }
    }
}

/// The id of a user.
///
/// # Errors
/// A sentence: there is no such user, or that could not be found out.
pub fn uid_of(named: &OsStr) -> Result<u32, String> {
    let user = entry_of(named)?.map(|user| user.uid);
    user.or_else(|| number(named)).ok_or_else(|| "there is no such user; name one, or a number".to_owned())
}

/// An id; the highest means "leave as it is" to the kernel.
fn number(text: &OsStr) -> Option<u32> {
    let digits = text.as_bytes().iter().all(u8::is_ascii_digit);
    text.to_str().filter(|_| digits)?.parse().ok().filter(|id| *id != u32::MAX)
}

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| format!("run commands as {}: no such name", text.display()))
}

/// The entry of a user, by name or, if there is none of that name, by number.
fn entry_of(named: &OsStr) -> Result<Option<User>, String> {
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
    let text = |pointer: *const c_char| unsafe { CStr::from_ptr(pointer) }.to_owned();
    let words = |pointer| OsString::from_vec(text(pointer).into_bytes());
    Ok(Some(User {
        name: text(entry.pw_name),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: words(entry.pw_dir),
        shell: words(entry.pw_shell),
    }))
}

fn gid_of(named: &OsStr) -> Result<u32, String> {
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
        return Ok(entry.gr_gid);
    }
    unknown("group", named, error)?;
    number(named).ok_or_else(|| {
        format!("run commands as group {}: there is no such group; correct --group", named.display())
    })
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
fn groups_of(name: &CStr, gid: u32) -> Option<Vec<u32>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let of = |user: Option<&str>, group: Option<&str>| {
            Identity::of(user.map(OsStr::new), group.map(OsStr::new))
        };
        assert_eq!(of(None, None), Ok(None));
        if !geteuid().is_root() {
            assert!(of(Some("0"), None).unwrap_err().contains("only root"));
            return;
        }
        let root = of(Some("root"), None).unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.groups.contains(&0)), (Some(0), 0, true));
        assert_eq!(of(Some("0"), None).unwrap().unwrap(), root);
        assert!(root.env.contains(&("USER".into(), "root".into())), "{root:?}");
        let stranger = of(Some("54321"), Some("54322")).unwrap().unwrap();
        assert_eq!(
            stranger,
            Identity { uid: Some(54_321), gid: 54_322, groups: vec![54_322], env: Vec::new() }
        );
        let group = of(None, Some("root")).unwrap().unwrap();
        assert_eq!((group.uid, group.gid, group.groups), (None, 0, vec![0]));
        for (user, group, why) in [
            (Some("nobody-of-this-name"), None, "no such user"),
            (Some("54321"), None, "add --group"),
            (Some("4294967295"), Some("0"), "no such user"),
            (Some("-1"), Some("0"), "no such user"),
            (Some(""), None, "no such user"),
            (None, Some("no-such-group"), "no such group"),
        ] {
            let said = of(user, group).unwrap_err();
            assert!(said.contains(why) && !said.contains('\n'), "{user:?}: {said}");
        }
    }
}
