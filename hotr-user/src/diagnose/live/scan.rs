//! One look at the instances of the targets as they are now.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, readlinkat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::instance::{Instance, Watch};
use super::stand_in_instances::StandInInstances;
use crate::diagnose::namespaces::Namespaces;
use crate::diagnose::process::Kind;
use crate::diagnose::select::{self, Choice, Error};
use crate::diagnose::view::{View, WatchLocation};
use crate::diagnose::watched_inode::{InodeFinder, reopen};
use crate::diagnose::{read_all_chosen, read_chosen};
use crate::source::mono_ns;

/// Another descriptor of an instance, which must be closed at once: it keeps the instance alive.
pub(super) fn duplicate(pid: u32, fd: i32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let own = pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).ok()?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&own);
    let link = readlinkat(CWD, format!("/proc/self/fd/{number}"), Vec::new()).ok()?;
    link.to_bytes().windows(7).any(|part| part == b"inotify").then_some(own)
}

/// The instances as they are now. In a thread of its own, because its working directory is changed.
pub(super) fn look(
    choices: &[Choice],
    shadows: Option<&mut StandInInstances>,
) -> Result<Vec<Instance>, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || look_here(choices, shadows));
        let thread = thread.map_err(|error| Error::NoThread(error.to_string()))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn look_here(choices: &[Choice], mut shadows: Option<&mut StandInInstances>) -> Result<Vec<Instance>, Error> {
    let mut space = Namespaces::new().map_err(|error| Error::NoProc(error.to_string()))?;
    let (pids, _) = select::pids(choices)?;
    let processes = match pids.as_slice() {
        [one] => vec![read_chosen(*one)?],
        several => read_all_chosen(several)?,
    };
    let mut places = InodeFinder::default();
    let mut instances = Vec::new();
    for process in &processes {
        let Ok(view) = View::new(process, &mut space, &mut places) else { continue };
        for instance in process.instances.iter().filter(|instance| instance.kind == Kind::Inotify) {
            let mut watches: Vec<_> = view.of(instance.fd).map(|seat| watch(&view, seat)).collect();
            if let Some(shadows) = shadows.as_deref_mut() {
                let at = (process.pid, instance.fd);
                shadows.only(at, &watches.iter().map(|watch| (watch.wd, watch.ino)).collect());
                for (watch, seat) in watches.iter_mut().zip(view.of(instance.fd)) {
                    let open = || reopen(&mut space, &view.namespace, seat.watch, watch.path.as_deref());
                    shadows.keep(at, (watch.wd, watch.ino, watch.mask), open);
                    watch.doubled = shadows.since(at, watch.wd, watch.ino);
                }
            }
            instances.push(Instance {
                pid: process.pid,
                comm: process.comm.clone(),
                container: process.container.clone(),
                fd: instance.fd,
                watches,
                group: 0,
                slot: 0,
                since: u64::MAX,
                closed: None,
                added: HashMap::new(),
            });
        }
    }
    Ok(instances)
}

fn watch(view: &View<'_>, seat: &WatchLocation<'_>) -> Watch {
    Watch {
        wd: seat.watch.wd,
        ino: seat.watch.ino,
        mask: seat.watch.mask,
        is_dir: seat.place.is_dir(),
        path: seat.place.location.as_ref().and_then(|location| view.paths(location).0),
        since: mono_ns(),
        doubled: None,
        gone: None,
    }
}
