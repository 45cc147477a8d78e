//! The poller's way to look at a tmpfs: by the kernel's memory, and not by a system call for each file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotr_user::options::TierChoice;
use hotr_user::source::difference::Kind;
use hotr_user::source::ebpf::{ChildReader, EbpfOptions, EbpfSource};
use hotr_user::source::poll::{PollOptions, Poller, Progress};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::group::{Group, Report};

/// The case.
pub const GROUP: Group = Group { place: "poller", names: || vec![NAME], make };
const NAME: &str = "poll-tmpfs";

/// Files of one directory; more than are returned at a time.
const FILES: u64 = 300;

fn make(report: &mut Report<'_>) {
    let limit = report.setting.deadlines.line;
    let case = |(children, dir): &mut (Arc<ChildReader>, PathBuf), ()| look(children, dir, limit);
    report.cases([(NAME, ())], start(), case, |(_, dir)| {
        unmount(&dir, UnmountFlags::empty()).with_context(|| format!("unmount {}", dir.display()))
    });
}

fn start() -> Result<(Arc<ChildReader>, PathBuf)> {
    let dir = std::env::temp_dir().join("hotr-poller");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    mount(c"hotr-poller", &dir, c"tmpfs", MountFlags::empty(), c"size=8m").context("mount a tmpfs")?;
    let options = EbpfOptions { tier: TierChoice::Tracepoint, ring_bytes: 1 << 12, window_ns: 0, sizes: &[] };
    let (mut source, _) = EbpfSource::load(options)?;
    Ok((source.child_reader().context("the kernel refuses the program that reads directories")?, dir))
}

/// An unchanged directory is returned whole and found unchanged; changes of each kind are found, and nothing else.
fn look(children: &Arc<ChildReader>, dir: &Path, limit: Duration) -> Result<()> {
    let file = |number: u64| dir.join(format!("file-{number:03}"));
    for number in 0..FILES {
        fs::write(file(number), [1])?;
    }
    let options = PollOptions {
        budget: None,
        idle: false,
        children: Some(Arc::clone(children)),
        ..PollOptions::default()
    };
    let mut poller = Poller::new(&[dir.to_owned()], options)?;
    let found = |poller: &mut Poller| -> Result<Vec<(Kind, PathBuf)>> {
        let audit = poller.audit(&AtomicBool::new(false), &Progress::default())?;
        let told = audit.differences.into_iter().filter(|difference| difference.path != dir);
        Ok(told.map(|difference| (difference.kind, difference.path)).collect())
    };
    // What was written in the tick of a look is queried by name in the next one.
    let deadline = Instant::now() + limit;
    loop {
        let before = children.files_returned();
        let differences = found(&mut poller)?;
        ensure!(differences.is_empty(), "changes were found where there are none: {differences:?}");
        match children.files_returned() - before {
            0 => ensure!(Instant::now() < deadline, "no file was returned"),
            told => {
                ensure!(told == FILES, "{told} of {FILES} files were returned");
                break;
            }
        }
    }
    fs::write(file(3), [2])?;
    fs::set_permissions(file(FILES - 1), fs::Permissions::from_mode(0o600))?;
    let mut told = found(&mut poller)?;
    told.sort_by(|one, other| one.1.cmp(&other.1));
    let expected = [(Kind::Content, file(3)), (Kind::Attrib, file(FILES - 1))];
    ensure!(told == expected, "found {told:?}, and not {expected:?}");
    fs::remove_file(file(7))?;
    fs::rename(file(8), file(9))?;
    let told = found(&mut poller)?;
    ensure!(told.len() == 3, "a removal and a replacement are three differences: {told:?}");
    Ok(())
}
