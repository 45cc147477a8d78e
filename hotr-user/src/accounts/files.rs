//! Accounts, from `/etc/passwd` and `/etc/group` (passwd(5), group(5)), for a program without shared libraries.
//!
//! glibc's functions load the machine's name services as shared libraries. Within a static program these bring a second C
//! library along, and a lookup ends with a segmentation fault where `nsswitch.conf` names another service than `files`. A user
//! that only such a service knows has no entry here; its number can be given.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::lines::{entries, id};
use super::{User, number};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// The entry of a user, by name or, if there is none of that name, by number.
pub(crate) fn user(named: &OsStr) -> Result<Option<User>, String> {
    Ok(user_in(&content(USERS, "user", named)?, named))
}

/// The id of a group, by name.
pub(crate) fn group(named: &OsStr) -> Result<Option<u32>, String> {
    Ok(group_in(&content(GROUPS, "group", named)?, named))
}

/// As initgroups(3) would set them; none when they cannot be read.
pub(crate) fn groups_of(name: &OsStr, gid: u32) -> Option<Vec<u32>> {
    Some(groups_in(&content(GROUPS, "group", name).ok()?, name, gid))
}

/// A machine without the file has no accounts.
fn content(file: &str, kind: &str, named: &OsStr) -> Result<Vec<u8>, String> {
    match std::fs::read(file) {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("look up {kind} {}: read {file}: {error}; name a number", named.display())),
    }
}

fn user_in(content: &[u8], named: &OsStr) -> Option<User> {
    let uid = number(named);
    let named_so = entries::<7>(content).find(|entry| entry[0] == named.as_bytes());
    let entry = named_so.or_else(|| entries(content).find(|entry| uid.is_some() && id(entry[2]) == uid))?;
    let words = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Some(User {
        name: words(entry[0]),
        uid: id(entry[2])?,
        gid: id(entry[3])?,
        home: words(entry[5]),
        shell: words(entry[6]),
    })
}

fn group_in(content: &[u8], named: &OsStr) -> Option<u32> {
    entries::<4>(content).find(|entry| entry[0] == named.as_bytes()).and_then(|entry| id(entry[2]))
}

/// The user's own group first; the others in the order of the file.
fn groups_in(content: &[u8], name: &OsStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![gid];
    for entry in entries::<4>(content) {
        let is_member = entry[3].split(|&byte| byte == b',').any(|member| member == name.as_bytes());
        if let Some(id) = id(entry[2]).filter(|id| is_member && !groups.contains(id)) {
            groups.push(id);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# n:x:1:1::/:/\n+nis:x:2:2::/:/\nshort:x:3\n\
        7:x:70:71::/seven:/bin/false\n\xffb:x:8:9:a,b:/h:/s\nbad:x:x:1::/:/";
    const GROUP: &[u8] =
        b"root:x:0:\nwheel:x:10:root,\xffb\nmany:x:11:x,\xffb,y\nagain:x:11:\xffb\nno:x::\xffb\n";

    #[test]
    fn users_are_found_by_name_then_by_number() {
        let found = |named: &[u8]| user_in(PASSWD, OsStr::from_bytes(named)).map(|user| (user.uid, user.gid));
        assert_eq!(found(b"root"), Some((0, 0)));
        assert_eq!(found(b"0"), Some((0, 0)));
        assert_eq!(found(b"7"), Some((70, 71)), "a name of digits goes before a number");
        assert_eq!(found(b"\xffb"), Some((8, 9)));
        for absent in
            [&b"n"[..], b"# n", b"nis", b"+nis", b"short", b"bad", b"4294967295", b"-1", b"", b"roo"]
        {
            assert_eq!(found(absent), None, "{absent:?}");
        }
        let user = user_in(PASSWD, OsStr::new("70")).unwrap();
        assert_eq!((user.name, user.home, user.shell), ("7".into(), "/seven".into(), "/bin/false".into()));
    }

    #[test]
    fn groups_are_those_of_the_c_library() {
        assert_eq!(group_in(GROUP, OsStr::new("wheel")), Some(10));
        assert_eq!(group_in(GROUP, OsStr::new("no")), None);
        assert_eq!(group_in(GROUP, OsStr::new("nobody")), None);
        assert_eq!(groups_in(GROUP, OsStr::from_bytes(b"\xffb"), 9), [9, 10, 11]);
        assert_eq!(groups_in(GROUP, OsStr::new("root"), 0), [0, 10]);
    }

    /// The machine's own accounts, where both ways lead to the same files.
    #[cfg(not(target_feature = "crt-static"))]
    #[test]
    fn both_ways_give_the_same_entries() {
        use super::super::name_service;
        for name in ["root", "daemon", "bin", "0", "1", "nobody-of-this-name"].map(OsStr::new) {
            let user = user(name).unwrap();
            assert_eq!(user, name_service::user(name).unwrap(), "{name:?}");
            assert_eq!(group(name).unwrap(), name_service::group(name).unwrap(), "{name:?}");
            if let Some(user) = user {
                let sorted = |mut groups: Vec<u32>| {
                    groups.sort_unstable();
                    groups
                };
                assert_eq!(
                    groups_of(&user.name, user.gid).map(sorted),
                    name_service::groups_of(&user.name, user.gid).map(sorted)
                );
            }
        }
    }
}
