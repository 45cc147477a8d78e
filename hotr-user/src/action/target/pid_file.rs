//! A pid file: who may write it chooses whom hotr signals, with hotr's privileges.
//!
//! In: the path of a pid file. Out: a process id, and whether the file may be believed. The file is opened once, never by
//! a symbolic link of its own and without waiting; everything is asked of that descriptor. Links on the way are followed
//! where root or hotr's own user made them (`/var/run`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::beneath::{Lost, NoFile, regular, way};

/// A process id and whatever a service writes after it.
const LIMIT: usize = 4096;

/// An open pid file.
#[derive(Debug)]
pub(super) struct PidFile {
    file: File,
    stat: Stat,
}

impl PidFile {
    /// Opens it.
    ///
    /// # Errors
    /// A sentence: what is there instead of a pid file.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let object = path.display();
        let refused =
            |why: String| format!("read pid file {object}: {why}; start the service, or name its pid file");
        let in_words = |errno: Errno| io::Error::from(errno).to_string();
        let own = geteuid().as_raw();
        // Whoever else made a link on the way would choose which pid file is read.
        let (dir, name) = way(path, |uid| uid == 0 || uid == own).map_err(|lost| {
            refused(match lost {
                Lost::NoName => "it is a directory".to_owned(),
                Lost::Refused(errno) => in_words(errno),
                Lost::Link(name, uid) => {
                    format!("user {uid} made the symbolic link {} on the way to it", name.display())
                }
            })
        })?;
        let (file, stat) = regular(dir.as_fd(), &name).map_err(|instead| {
            refused(match instead {
                NoFile::Link => "it is a symbolic link".to_owned(),
                NoFile::Irregular => "it is not a regular file".to_owned(),
                NoFile::Refused(errno) => in_words(errno),
            })
        })?;
        Ok(Self { file, stat })
    }

    /// The id it holds now.
    ///
    /// # Errors
    /// A sentence: it holds none.
    pub(super) fn pid(&self, path: &Path) -> Result<i32, String> {
        let object = path.display();
        let mut bytes = [0; LIMIT];
        let length = self
            .file
            .read_at(&mut bytes, 0)
            .map_err(|error| format!("read pid file {object}: {error}; name its pid file"))?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        if text.trim().is_empty() {
            return Err(format!("read pid file {object}: it is empty; is the service still starting?"));
        }
        let first: String = text.lines().next().unwrap_or_default().trim().chars().take(40).collect();
        first.parse().ok().filter(|pid| *pid > 0).ok_or_else(|| {
            format!("read pid file {object}: {first:?} is not a process id; name a file that holds one")
        })
    }

    /// When it was written, seconds since 1970.
    pub(super) fn written_s(&self) -> i64 {
        self.stat.st_mtime
    }

    /// Whether only root, hotr's own user or the user of the process could write this process id.
    ///
    /// # Errors
    /// A sentence: who else could.
    pub(super) fn check_writers(&self, path: &Path, pid: i32, uid: u32) -> Result<(), String> {
        let (object, owner, mode) = (path.display(), self.stat.st_uid, self.stat.st_mode);
        if owner != 0 && owner != uid {
            return Err(format!(
                "pid file {object} belongs to user {owner}, and process {pid} to user {uid}: not signalled; \
                 let root or user {uid} own the file"
            ));
        }
        // A user's own group is not root's affair, and hotr as that user can signal no more than he can.
        let by_group = mode & 0o020 != 0 && self.stat.st_gid != 0 && geteuid().is_root();
        if mode & 0o002 != 0 || by_group {
            let who = if by_group { format!("group {}", self.stat.st_gid) } else { "everybody".to_owned() };
            return Err(format!(
                "pid file {object} can be written by {who}, who would choose whom hotr signals: not signalled; \
                 chmod go-w it"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType};

    use super::*;

    struct Scene(PathBuf);

    impl Drop for Scene {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    impl Scene {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("hotr-pid-file-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("pid"), "12\n").unwrap();
            fs::set_permissions(dir.join("pid"), fs::Permissions::from_mode(0o644)).unwrap();
            Self(dir)
        }

        fn pid(&self, name: &str) -> Result<i32, String> {
            let path = self.0.join(name);
            PidFile::open(&path)?.pid(&path)
        }
    }

    #[test]
    fn links_pipes_and_large_files_are_not_believed() {
        let scene = Scene::new("odd");
        assert_eq!(scene.pid("pid"), Ok(12));
        symlink("pid", scene.0.join("link")).unwrap();
        let pipe = scene.0.join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        for (name, why) in [
            ("link", "symbolic link"),
            ("pipe", "not a regular file"),
            (".", "directory"),
            ("none", "No such file"),
        ] {
            let said = scene.pid(name).unwrap_err();
            assert!(said.contains(why) || name == "." && said.contains("regular"), "{name}: {said}");
        }
        File::create(scene.0.join("large")).unwrap().set_len(4 << 30).unwrap();
        assert!(scene.pid("large").unwrap_err().contains("not a process id"));
        fs::write(scene.0.join("long"), "7".repeat(9000)).unwrap();
        assert!(scene.pid("long").unwrap_err().len() < 400);
    }

    #[test]
    fn who_else_can_write_the_file_does_not_choose() {
        let scene = Scene::new("writers");
        let path = scene.0.join("pid");
        let own = geteuid().as_raw();
        let checked = |mode, uid| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            PidFile::open(&path)?.check_writers(&path, 12, uid)
        };
        assert_eq!(checked(0o644, own), Ok(()));
        assert!(checked(0o646, own).unwrap_err().contains("everybody"));
        if !geteuid().is_root() {
            return;
        }
        assert_eq!(checked(0o664, 1234), Ok(()), "root's group");
        chown(&path, Some(0), Some(1234)).unwrap();
        assert!(checked(0o664, 1234).unwrap_err().contains("group 1234"));
        chown(&path, Some(1234), Some(0)).unwrap();
        assert_eq!(checked(0o644, 1234), Ok(()), "his own process");
        assert!(checked(0o644, 0).unwrap_err().contains("belongs to user 1234"));
    }

    #[test]
    fn links_on_the_way_are_followed_if_who_made_them_may_decide() {
        let scene = Scene::new("way");
        fs::create_dir(scene.0.join("real")).unwrap();
        fs::rename(scene.0.join("pid"), scene.0.join("real/pid")).unwrap();
        symlink("real", scene.0.join("run")).unwrap();
        symlink("run/../run", scene.0.join("further")).unwrap();
        assert_eq!(scene.pid("further/pid"), Ok(12));
        if geteuid().is_root() {
            lchown(scene.0.join("run"), Some(1234), None).unwrap();
            assert!(scene.pid("further/pid").unwrap_err().contains("user 1234 made"));
        }
    }
}
