//! Which watchers on this machine receive their changes, and which do not, and why: the static part of
//! `hotr diagnose`.
//!
//! In: processes and paths that the user names, or none for the whole machine. Out: a [`Diagnosis`]. Nothing is
//! changed, no event is taken from anybody and none is caused: see [`namespaces`] and [`process`].

mod fdinfo;
pub mod finding;
mod hints;
mod judge;
pub mod limits;
pub mod live;
mod namespaces;
mod polling;
pub mod process;
pub mod reach;
pub mod select;
mod thread_waits;
mod view;
mod watched_inode;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use finding::{Finding, Severity};
use limits::Limits;
use namespaces::Namespaces;
use process::{Instance, Kind, ProcDir, Process};
use reach::{Answer, Subject};
use select::{Choice, Error};
use view::View;
use watched_inode::InodeFinder;

/// What the user requested.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Processes; empty for all.
    pub choices: Vec<Choice>,
    /// Paths; empty for all watches.
    pub paths: Vec<PathBuf>,
}

/// An instance in short.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// Its descriptor.
    pub fd: i32,
    /// inotify or fanotify.
    pub kind: Kind,
    /// Watches, and marks of any kind.
    pub watches: u64,
    /// Bytes of unread events; absent when it may not be asked.
    pub unread: Option<u64>,
}

/// A process in short.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watcher {
    /// Its id.
    pub pid: u32,
    /// Its id in its own pid namespace, when that is another.
    pub ns_pid: Option<u32>,
    /// Its command name.
    pub comm: Vec<u8>,
    /// Its effective user id.
    pub uid: u32,
    /// Id of the container it runs in.
    pub container: Option<String>,
    /// Its instances.
    pub instances: Vec<InstanceInfo>,
    /// The worst that was found of it.
    pub worst: Option<Severity>,
}

/// Everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Processes with instances, and those that the user named, by id.
    pub watchers: Vec<Watcher>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// For each path of the user, who would receive what.
    pub answers: Vec<(PathBuf, Vec<Answer>)>,
    /// Paths of the user that do not exist, each with what is known of its directory.
    pub absent: Vec<(PathBuf, String)>,
    /// Processes that could not be read, for lack of privileges.
    pub unreadable: u64,
    /// Watches whose path could not be found.
    pub without_path: u64,
    /// Remarks for stderr.
    pub notes: Vec<String>,
    /// Time it took.
    pub took: Duration,
}

impl Diagnosis {
    /// Whether a watch is deaf, or a change was lost.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity <= Severity::Lost)
    }

    /// How many findings are of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// How long hotr waits before it counts unread events again.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Looks at the machine once.
///
/// # Errors
/// When a process or path that the user named cannot be read, or `/proc` cannot.
pub fn run(options: &Options) -> Result<Diagnosis, Error> {
    // A thread of its own, because its working directory is changed.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || survey(options));
        let thread = thread.map_err(|error| Error::NoThread(error.to_string()))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn survey(options: &Options) -> Result<Diagnosis, Error> {
    let start = Instant::now();
    let mut space = Namespaces::new().map_err(|error| Error::NoProc(error.to_string()))?;
    let mut diagnosis = Diagnosis::default();
    let chosen = !options.choices.is_empty();
    let mut processes = if chosen {
        let (pids, notes) = select::pids(&options.choices)?;
        diagnosis.notes = notes;
        read_all_chosen(&pids)?
    } else {
        read_all(&mut diagnosis)?
    };
    limits::drop_shared(&mut processes);
    processes.retain(|process| chosen || !process.instances.is_empty());
    let looked = Instant::now();
    let mut places = InodeFinder::default();
    let views = views(&processes, &mut space, &mut places, chosen, &mut diagnosis)?;
    space.complete = !chosen && diagnosis.unreadable == 0;
    let limits = Limits::read();
    let later = second_look(&processes, looked, limits.queued);
    let users = if space.complete { limits::users(&processes, limits) } else { Vec::new() };
    let full: HashSet<_> =
        users.iter().filter(|user| user.has_no_watch_left()).map(|user| user.who).collect();
    diagnosis.findings = limits::judge(&users);
    for view in &views {
        let no_room = limits::counted_for(view.process).any(|who| full.contains(&who));
        diagnosis.findings.extend(judge::process(view, &space, &later, no_room));
    }
    diagnosis.without_path = without_path(&views);
    without_instance(options, &views, &mut diagnosis);
    if !options.paths.is_empty() {
        ask_paths(options, &views, &space, &mut diagnosis)?;
    }
    diagnosis.findings.sort_by_key(|finding| {
        (finding.severity, finding.target.pid, finding.target.fd, finding.target.wd, finding.cause)
    });
    diagnosis.watchers = processes.iter().map(|process| watcher(process, &diagnosis.findings)).collect();
    diagnosis.took = start.elapsed();
    Ok(diagnosis)
}

/// Every process with instances; those of others are counted when they may not be read.
fn read_all(diagnosis: &mut Diagnosis) -> Result<Vec<Process>, Error> {
    let mut processes = Vec::new();
    let own = std::process::id();
    let pids = process::all().map_err(|error| Error::NoProc(error.to_string()))?;
    for pid in pids.into_iter().filter(|pid| *pid != own) {
        let Ok(dir) = ProcDir::open(pid) else { continue };
        match dir.process(false) {
            Ok(process) => processes.extend(process),
            // It has ended meanwhile.
            Err(errno) if process::has_ended(errno) => {}
            Err(_) => {
                let hidden = ProcDir::open(pid).is_ok_and(|dir| !dir.is_kernel_thread());
                diagnosis.unreadable += u64::from(hidden);
            }
        }
    }
    Ok(processes)
}

/// Of several, those that have ended meanwhile are left out.
fn read_all_chosen(pids: &[u32]) -> Result<Vec<Process>, Error> {
    let mut processes = Vec::with_capacity(pids.len());
    let mut ended = None;
    for &pid in pids {
        match read_chosen(pid) {
            Ok(process) => processes.push(process),
            Err(error @ Error::Exited { .. }) => ended = Some(error),
            Err(error) => return Err(error),
        }
    }
    match ended {
        Some(error) if processes.is_empty() => Err(error),
        _ => Ok(processes),
    }
}

fn read_chosen(pid: u32) -> Result<Process, Error> {
    let dir = ProcDir::open(pid).map_err(|errno| select::failed(pid, errno))?;
    if dir.is_kernel_thread() {
        return Err(Error::KernelThread { pid });
    }
    match dir.process(true) {
        Ok(Some(process)) => Ok(process),
        Ok(None) => Err(Error::Exited { pid }),
        Err(errno) => Err(select::failed(pid, errno)),
    }
}

fn views<'a>(
    processes: &'a [Process],
    space: &mut Namespaces,
    places: &mut InodeFinder,
    chosen: bool,
    diagnosis: &mut Diagnosis,
) -> Result<Vec<View<'a>>, Error> {
    let mut views = Vec::with_capacity(processes.len());
    for process in processes {
        match View::new(process, space, places) {
            Ok(view) => views.push(view),
            Err(errno) if chosen && processes.len() == 1 => return Err(select::failed(process.pid, errno)),
            Err(errno) if process::has_ended(errno) => {}
            Err(_) => diagnosis.unreadable += 1,
        }
    }
    Ok(views)
}

/// Asks again for unread bytes where there were some.
fn second_look(processes: &[Process], first: Instant, max_queued: Option<u64>) -> judge::Later {
    let full =
        |process: &Process| process.instances.iter().any(|one| one.unread.is_some_and(|bytes| bytes > 0));
    let waiting: Vec<_> = processes.iter().filter(|process| full(process)).collect();
    let mut unread = HashMap::new();
    if !waiting.is_empty() {
        std::thread::sleep(SECOND_LOOK.saturating_sub(first.elapsed()));
        for process in waiting {
            for (fd, bytes) in process.unread_now() {
                unread.insert((process.pid, fd), bytes);
            }
        }
    }
    let after_ms = u64::try_from(first.elapsed().as_millis()).unwrap_or(u64::MAX);
    judge::Later { unread, after_ms, max_queued }
}

/// Of processes that were named by their ids and have no instance: what they look at by themselves.
fn without_instance(options: &Options, views: &[View<'_>], diagnosis: &mut Diagnosis) {
    let is_named = |view: &&View<'_>| {
        view.process.instances.is_empty() && options.choices.contains(&Choice::Pid(view.process.pid))
    };
    let views: Vec<_> = views.iter().filter(is_named).collect();
    if views.is_empty() {
        return;
    }
    let processes: Vec<_> = views.iter().map(|view| view.process).collect();
    let seen = polling::look(&processes);
    for view in views {
        let pid = view.process.pid;
        let none = format!("process {pid} has no inotify or fanotify instance");
        match &seen {
            Ok(seen) => {
                let paths = seen.polled.get(&pid).map(Vec::as_slice).unwrap_or_default();
                match judge::polls(view, paths, seen.took, &options.paths) {
                    Some(finding) => diagnosis.findings.push(finding),
                    None => {
                        let seconds = seen.took.as_secs_f64();
                        diagnosis.notes.push(format!(
                            "{none}, and looked at no path repeatedly by stat within {seconds:.1} s"
                        ));
                    }
                }
            }
            Err(error) => {
                diagnosis.notes.push(format!("{none}; what it looks at by stat is not seen: {error}"))
            }
        }
    }
}

/// Watches of inotify without a path.
fn without_path(views: &[View<'_>]) -> u64 {
    let seats = views.iter().flat_map(|view| &view.seats);
    seats.filter(|seat| seat.place.location.is_none()).count() as u64
}

/// Answers for each path, and leaves only findings that have to do with one.
fn ask_paths(
    options: &Options,
    views: &[View<'_>],
    space: &Namespaces,
    diagnosis: &mut Diagnosis,
) -> Result<(), Error> {
    let chosen = !options.choices.is_empty();
    let mut kept = HashSet::new();
    for path in &options.paths {
        let ours = Subject::find(path, &[&space.ours]);
        let named = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let (mut answers, mut found) = (Vec::new(), ours.is_ok());
        let mut exists = ours.as_ref().is_ok_and(|subject| subject.file.is_some());
        for view in views {
            // Of a process that the user chose, a path is meant as that process sees it, if it leads anywhere there.
            let theirs =
                if chosen { Subject::find(path, &[&view.namespace, &space.ours]) } else { ours.clone() };
            let Ok(subject) = theirs else { continue };
            (found, exists) = (true, exists || subject.file.is_some());
            let of_view = |finding: &Finding| finding.target.pid == Some(view.process.pid);
            let about: Vec<_> = diagnosis
                .findings
                .iter()
                .enumerate()
                .filter(|(_, finding)| of_view(finding) && subject.concerns(view, finding))
                .collect();
            kept.extend(about.iter().map(|(index, _)| *index));
            let about: Vec<_> = about.into_iter().map(|(_, finding)| finding).collect();
            answers.extend(reach::answers(view, &subject, chosen, &about));
        }
        if !found && let Err(error) = ours {
            return Err(error);
        }
        if !exists {
            diagnosis.absent.push((named.clone(), reach::absence(&answers)));
        }
        diagnosis.answers.push((named, answers));
    }
    let mut index = 0;
    diagnosis.findings.retain(|_| {
        index += 1;
        kept.contains(&(index - 1))
    });
    Ok(())
}

fn watcher(process: &Process, findings: &[Finding]) -> Watcher {
    let info = |instance: &Instance| InstanceInfo {
        fd: instance.fd,
        kind: instance.kind,
        watches: (instance.marks.watches.len() + instance.marks.wide.len()) as u64,
        unread: instance.unread,
    };
    let of = findings.iter().filter(|finding| finding.target.pid == Some(process.pid));
    Watcher {
        pid: process.pid,
        ns_pid: process.ns_pid,
        comm: process.comm.clone(),
        uid: process.uid,
        container: process.container.clone(),
        instances: process.instances.iter().map(info).collect(),
        worst: of.map(|finding| finding.severity).min(),
    }
}
