//! The user and the groups that commands run as.
//!
//! In: names or numbers. Out: ids, and what a login would set in the environment. They are looked up once, at the start,
//! where whatever the machine's name service does may take its time.

use std::ffi::{OsStr, OsString};

use rustix::process::geteuid;

use crate::accounts::{self, number};

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
        match accounts::user(named)? {
            Some(user) => {
                let gid = gid.unwrap_or(user.gid);
                let groups = accounts::groups_of(&user.name, gid).ok_or_else(|| {
                    format!("run commands as user {object}: its groups cannot be read; see id")
                })?;
                let (name, home, shell) = (user.name, user.home, user.shell);
                let env = [("HOME", home), ("USER", name.clone()), ("LOGNAME", name), ("SHELL", shell)]
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
    let user = accounts::user(named)?.map(|user| user.uid);
    user.or_else(|| number(named)).ok_or_else(|| "there is no such user; name one, or a number".to_owned())
}

fn gid_of(named: &OsStr) -> Result<u32, String> {
    let gid = accounts::group(named)?;
    gid.or_else(|| number(named)).ok_or_else(|| {
        format!("run commands as group {}: there is no such group; correct --group", named.display())
    })
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
