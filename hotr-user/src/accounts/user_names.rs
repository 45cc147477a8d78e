//! The names of users by their numbers, for lines that are printed while changes come.
//!
//! In: a number. Out: the name that `/etc/passwd` has for it. No name service is asked: it may wait for a network, and changes
//! would be lost meanwhile. The file is read again, at most every few seconds, when it was replaced or changed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lines;

/// A larger file is not read.
const MOST: u64 = 4 << 20;
/// How often hotr looks whether the file is another one.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct UserNames {
    file: PathBuf,
    names: HashMap<u32, Arc<str>>,
    looked: Option<Instant>,
    /// Inode, size, and modification time of what was read.
    stamp: Option<(u64, u64, i64, i64)>,
}

impl Default for UserNames {
    fn default() -> Self {
        Self::of(PathBuf::from("/etc/passwd"))
    }
}

impl UserNames {
    fn of(file: PathBuf) -> Self {
        Self { file, names: HashMap::new(), looked: None, stamp: None }
    }

    /// The name of a user; none where there is no entry, or one that is no text.
    pub(crate) fn name(&mut self, uid: u32, now: Instant) -> Option<Arc<str>> {
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            // A machine without the file has no names.
            let _ = self.look();
        }
        self.names.get(&uid).cloned()
    }

    fn look(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.file)?;
        let stat = file.metadata()?;
        let stamp = (stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec());
        if self.stamp == Some(stamp) || !stat.is_file() || stat.size() > MOST {
            return Ok(());
        }
        self.names = read(&file)?;
        self.stamp = Some(stamp);
        Ok(())
    }
}

fn read(file: &File) -> io::Result<HashMap<u32, Arc<str>>> {
    let mut content = Vec::new();
    file.take(MOST).read_to_end(&mut content)?;
    let mut names = HashMap::new();
    for (uid, name) in lines::user_names(&content) {
        // The first entry of a number is the one that counts, as for getpwuid(3).
        names.entry(uid).or_insert_with(|| Arc::from(name));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        std::fs::write(&file, "a:x:7:0::/:/\nb:x:7:0::/:/\n\u{e9}:x:8:0::/:/\n").unwrap();
        let (mut names, now) = (UserNames::of(file.clone()), Instant::now());
        let later = now + LOOK_EVERY;
        assert_eq!(names.name(7, now).as_deref(), Some("a"));
        assert_eq!(names.name(8, now).as_deref(), Some("\u{e9}"));
        assert_eq!(names.name(9, now), None);
        std::fs::write(&file, "another:x:7:0::/:/\n").unwrap();
        assert_eq!(names.name(7, now).as_deref(), Some("a"));
        assert_eq!(names.name(7, later).as_deref(), Some("another"));
        assert_eq!(names.name(8, later), None);
    }

    #[test]
    fn nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        assert_eq!(UserNames::of(pipe).name(0, Instant::now()), None);
        assert_eq!(UserNames::of(dir.path().join("none")).name(0, Instant::now()), None);
    }
}
