//! Facts of the machine that a live diagnosis ran on, as a recording and a report need them.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::kernel::facts::Facts;
use crate::mounts::MountTable;

/// A mount that shows a followed path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mounted {
    /// The followed path.
    pub path: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type of its filesystem.
    pub fs: String,
}

/// See the module. What could not be read is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// hotr's version.
    pub version: String,
    /// When the run began.
    pub time: SystemTime,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether it has BTF.
    pub btf: bool,
    /// Lockdown mode.
    pub lockdown: Option<String>,
    /// Watches a user may have.
    pub max_user_watches: Option<u64>,
    /// Instances a user may have.
    pub max_user_instances: Option<u64>,
    /// Unread events an instance may have.
    pub max_queued_events: Option<u64>,
    /// Of each followed path.
    pub mounts: Vec<Mounted>,
}

impl Machine {
    /// Asks this machine.
    #[must_use]
    pub fn gather(paths: &[PathBuf]) -> Self {
        let facts = Facts::gather();
        let table = MountTable::read().ok();
        let mounted = |path: &PathBuf| {
            let mount = table.as_ref()?.mount_of(path)?;
            let fs = String::from_utf8_lossy(mount.fs_type.as_bytes()).into_owned();
            Some(Mounted { path: path.clone(), mount_point: mount.mount_point.clone(), fs })
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: SystemTime::now(),
            kernel: facts.release,
            btf: facts.btf,
            lockdown: facts.lockdown.map(|mode| mode.as_str().to_owned()),
            max_user_watches: facts.inotify_max_user_watches,
            max_user_instances: facts.inotify_max_user_instances,
            max_queued_events: facts.inotify_max_queued_events,
            mounts: paths.iter().filter_map(mounted).collect(),
        }
    }
}
