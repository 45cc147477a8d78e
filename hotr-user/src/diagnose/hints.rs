//! What a process was asked to watch, as far as its command line shows.
//!
//! In: the words of a command line. Out: those that name a file or directory, with what they lead to now. A hint alone
//! never makes a finding: a program may read a file that it is not meant to watch.

use std::ffi::{CString, OsString};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, readlinkat};

use super::namespaces::{FileKind, Namespace, Seen, Times};
use super::process::Process;
use crate::mounts::Location;

/// A word of a command line that names something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// The path, absolute, as the process sees it.
    pub(super) named: PathBuf,
    /// What it leads to now.
    pub(super) seen: Seen,
    /// Where that lies.
    pub(super) real: Location,
    /// A symbolic link is on the way.
    pub(super) by_link: bool,
    /// How old it is.
    pub(super) times: Option<Times>,
}

/// Words checked.
const MOST: usize = 64;

/// The hints of a process.
pub(super) fn read(process: &Process, namespace: &Namespace) -> Vec<Hint> {
    let Some(cwd) = process.dir.cwd() else { return Vec::new() };
    let words = process.dir.arguments();
    words.iter().skip(1).take(MOST).filter_map(|word| hint(namespace, &cwd, word)).collect()
}

/// The part of a word that may be a path.
fn candidate(word: &[u8]) -> Option<&[u8]> {
    let word = match word {
        [b'-', b'-', rest @ ..] => &rest[rest.iter().position(|&byte| byte == b'=')? + 1..],
        [b'-', ..] => return None,
        word => word,
    };
    (!word.is_empty() && word.len() < 4096).then_some(word)
}

fn hint(namespace: &Namespace, cwd: &Path, word: &[u8]) -> Option<Hint> {
    let named = cwd.join(OsString::from_vec(candidate(word)?.to_vec()));
    let (seen, real) = resolve(namespace, &named).filter(|(seen, _)| seen.kind != FileKind::Other)?;
    let by_link = namespace.look(&named, false).is_ok_and(|direct| direct == seen);
    let times = namespace.open(&named, true).ok().and_then(Times::of);
    Some(Hint { named, seen, real, by_link: !by_link, times })
}

/// What a path leads to, and where that lies.
pub(super) fn resolve(namespace: &Namespace, path: &Path) -> Option<(Seen, Location)> {
    let place = namespace.open(path, true).ok()?;
    let seen = Seen::of(&place).ok()?;
    let mount = namespace.table.by_id(seen.mount)?;
    let text = readlinkat(CWD, format!("/proc/self/fd/{}", place.as_raw_fd()), Vec::new());
    let real = PathBuf::from(OsString::from_vec(text.map(CString::into_bytes).ok()?));
    Some((seen, Location { dev: mount.dev, fs_path: mount.fs_path(&real)? }))
}

#[cfg(test)]
mod tests {
    use super::candidate;

    #[test]
    fn words_that_may_be_paths() {
        for (word, want) in [
            (&b"app.conf"[..], Some(&b"app.conf"[..])),
            (b"--config=/etc/a", Some(b"/etc/a")),
            (b"--config=", None),
            (b"--verbose", None),
            (b"-m", None),
            (b"", None),
        ] {
            assert_eq!(candidate(word), want);
        }
    }
}
