use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::*;
use crate::source::poll::{PollOptions, Poller, Progress};
use hotr_events::Channel;

/// A directory, the state that a loss is compared with, and what was reported since.
struct Case {
    root: PathBuf,
    poller: Poller,
    reported: Reported,
}

impl Case {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("hotr-reported-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("old"), "x").unwrap();
        fs::write(root.join("d/f"), "x").unwrap();
        let options = PollOptions { budget: None, idle: false, ..PollOptions::default() };
        let poller = Poller::new(std::slice::from_ref(&root), options).unwrap();
        Self { root, poller, reported: Reported::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn report(&mut self, op: Op, name: &str, old: Option<&str>) {
        let path = self.at(name);
        let wanted = StatxFlags::BASIC_STATS;
        let stat = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, wanted).ok();
        let ctime_ns = stat.as_ref().map(|stat| nanos(stat.stx_ctime));
        let file_type = if path.is_dir() { FileType::Dir } else { FileType::File };
        let difference = Difference {
            kind: old.map_or(Kind::Created, |old| Kind::Renamed { old: self.at(old) }),
            path,
            dev: stat.as_ref().map_or(0, crate::source::device),
            ino: stat.as_ref().map_or(0, |stat| stat.stx_ino),
            gen_: 0,
            file_type: Some(file_type),
            size: 0,
            ctime_ns: 0,
        };
        let change = difference.into_change(Channel::Inotify, SystemTime::now());
        let id = change.id.filter(|_| stat.is_some());
        self.reported.report(&Change { op, id, ..change }, ctime_ns);
    }

    /// What is missed, by name.
    fn missed(&mut self) -> Vec<(Kind, String)> {
        let audit = self.poller.audit(&AtomicBool::new(false), &Progress::default()).unwrap();
        let name = |path: &Path| path.strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned();
        let missed = self.reported.missed(audit.differences).into_iter();
        missed
            .filter(|one| one.path != self.root)
            .filter(|one| one.file_type != Some(FileType::Dir) || one.kind != Kind::Attrib)
            .map(|one| (one.kind, name(&one.path)))
            .collect()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn what_was_reported_is_not_missed() {
    let mut case = Case::new("all");
    fs::write(case.at("new"), "x").unwrap();
    case.report(Op::Create, "new", None);
    fs::write(case.at("old"), "xy").unwrap();
    case.report(Op::Write, "old", None);
    fs::write(case.at("d/g"), "x").unwrap();
    case.report(Op::Create, "d/g", None);
    fs::rename(case.at("d"), case.at("e")).unwrap();
    case.report(Op::Rename, "e", Some("d"));
    fs::remove_file(case.at("e/f")).unwrap();
    case.report(Op::Remove, "e/f", None);
    assert_eq!(case.missed(), []);
}

#[test]
fn what_came_after_the_report_is_missed_and_called_what_it_is() {
    let mut case = Case::new("rest");
    fs::write(case.at("new"), "x").unwrap();
    case.report(Op::Create, "new", None);
    fs::write(case.at("passing"), "x").unwrap();
    case.report(Op::Create, "passing", None);
    fs::rename(case.at("old"), case.at("other")).unwrap();
    case.report(Op::Rename, "other", Some("old"));
    let later = SystemTime::now();
    // Inode times advance with the tick.
    while fs::symlink_metadata(case.at("new")).unwrap().modified().unwrap() < later {
        fs::write(case.at("new"), "xy").unwrap();
    }
    fs::set_permissions(case.at("other"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(case.at("passing")).unwrap();
    fs::remove_file(case.at("d/f")).unwrap();
    let mut missed = case.missed();
    missed.sort_by(|one, other| one.1.cmp(&other.1));
    let named = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(
        missed,
        [
            named(Kind::Removed, "d/f"),
            named(Kind::Content, "new"),
            named(Kind::Attrib, "other"),
            named(Kind::Removed, "passing")
        ]
    );
    assert_eq!(case.missed(), [], "it is a new state");
}
