//! What an experiment works with: its directories and mounts, its listeners, and one operation between two barriers.

use std::fs::{self, File, FileTimes};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::inotify::WatchFlags;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::container::CONTROL_GROUPS;
use super::evidence::{Account, CONTROL, CONTROL_EBPF, CONTROL_FANOTIFY, DONE, Evidence, Listener, State};
use super::fuse::{Fuse, Notice};
use super::hidden_tree::HiddenTree;
use super::kernel_path::{self, Marks, Record, Seen};
use super::lab::Lab;
use super::listen::delivery::Deliveries;
use super::listen::fanotify::{BARRIER, Fanotify};
use super::listen::inotify::Inotify;
use super::listen::kernel::Kernel;
use super::listen::poll::Poll;
use super::make_filesystem::Disk;
use super::nfs::Nfs;
pub(super) use super::stop::{During, Stop};
use super::strace::Strace;
use crate::ending;

/// How long hotr may need to cover a new mount.
const COVERED: Duration = Duration::from_secs(2);
/// The same once hotr could not cover one of the mounts that are kept.
const COVERED_WHEN_FULL: Duration = Duration::from_millis(200);

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

/// Files whose marks are shown.
const MOST_MARKED: usize = 6;

/// What the self-test leaves out, to see whether the verdict changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfTest {
    /// This listener loses all that it received.
    pub mute: Option<Listener>,
    /// The operation is not made.
    pub omit_operation: bool,
}

/// The directories of an overlay mount.
pub(super) struct Layers {
    pub(super) lower: PathBuf,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
    pub(super) merged: PathBuf,
}

/// What listens for a whole run: it takes long to start. Or why it does not run.
pub(super) struct Programs {
    pub(super) kernel: Result<Kernel, String>,
    pub(super) deliveries: Result<Deliveries, String>,
    pub(super) strace: Option<Strace>,
    /// A mount was not covered in time.
    pub(super) has_uncovered: bool,
}

/// See the module.
pub(super) struct Bench<'a> {
    lab: &'a mut Lab,
    programs: &'a mut Programs,
    self_test: SelfTest,
    folder: PathBuf,
    inotify: Inotify,
    fanotify: Result<Fanotify, String>,
    poll: Poll,
    mounts: Vec<PathBuf>,
    barriers: u32,
    /// Mounts that hotr must cover before the operation.
    uncovered: Vec<PathBuf>,
    covered: bool,
    /// What was received of the operation, as soon as that is over.
    accounts: Vec<Account>,
    facts: Vec<(&'static str, u64)>,
    /// Files whose marks are looked at before the operation.
    named: Vec<(&'static str, PathBuf)>,
    kernel_path: Vec<String>,
    filesystems: Vec<&'static str>,
    delays: Vec<(Listener, Duration)>,
    system_calls: Vec<String>,
    /// Answers for a FUSE filesystem.
    server: Option<Fuse>,
    nfs: Option<Nfs>,
}

impl<'a> Bench<'a> {
    /// A bench in a new directory of this name.
    pub(super) fn new(
        lab: &'a mut Lab,
        programs: &'a mut Programs,
        self_test: SelfTest,
        name: &str,
    ) -> Result<Self, Stop> {
        let folder = lab.base().join(name);
        fs::create_dir(&folder).during("make a directory")?;
        let inotify = Inotify::new(&lab.barriers()).during("start inotify")?;
        let fanotify = Fanotify::new(&lab.barriers()).map_err(|error| error.to_string());
        Ok(Self {
            lab,
            programs,
            self_test,
            folder,
            inotify,
            fanotify,
            poll: Poll::new(),
            mounts: Vec::new(),
            barriers: 0,
            uncovered: Vec::new(),
            covered: true,
            accounts: Vec::new(),
            facts: Vec::new(),
            named: Vec::new(),
            kernel_path: Vec::new(),
            filesystems: Vec::new(),
            delays: Vec::new(),
            system_calls: Vec::new(),
            server: None,
            nfs: None,
        })
    }

    /// A directory in the laboratory's tmpfs.
    pub(super) fn dir(&mut self, name: &str) -> Result<PathBuf, Stop> {
        self.uses("tmpfs");
        let dir = self.folder.join(name);
        fs::create_dir(&dir).during("make a directory")?;
        Ok(dir)
    }

    /// A watched directory `d` with an old file `f`, which is compared.
    pub(super) fn watched_file(&mut self) -> Result<PathBuf, Stop> {
        let dir = self.dir("d")?;
        let path = dir.join("f");
        old_file(&path, b"1\n")?;
        self.watch("d", &dir)?;
        self.compare("d/f", &path);
        Ok(path)
    }

    /// A directory of this experiment on a filesystem with a device.
    pub(super) fn dir_on(&mut self, disk: Disk) -> Result<PathBuf, Stop> {
        let root = self.lab.disk(disk)?;
        self.uses(disk.name());
        self.uncovered.push(root.clone());
        let name = self.folder.file_name().unwrap_or_default();
        let dir = root.join(name);
        fs::create_dir(&dir).during("make a directory")?;
        Ok(dir)
    }

    /// An overlay; `fill` puts files into its layers before it is mounted.
    pub(super) fn overlay(&mut self, fill: impl FnOnce(&Layers) -> Result<(), Stop>) -> Result<Layers, Stop> {
        self.overlay_with("", fill)
    }

    /// The same with more mount options, each after a comma.
    pub(super) fn overlay_with(
        &mut self,
        options: &str,
        fill: impl FnOnce(&Layers) -> Result<(), Stop>,
    ) -> Result<Layers, Stop> {
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| self.dir(name));
        let layers = Layers { lower: lower?, upper: upper?, work: work?, merged: merged? };
        fill(&layers)?;
        self.mount_overlay(&layers, &layers.work, &layers.merged, options)?;
        Ok(layers)
    }

    /// Mounts the lower and the upper layer once more, with another workdir; returns where.
    pub(super) fn overlay_again(&mut self, layers: &Layers) -> Result<PathBuf, Stop> {
        let (work, merged) = (self.dir("work-again")?, self.dir("merged-again")?);
        self.mount_overlay(layers, &work, &merged, "")?;
        Ok(merged)
    }

    fn mount_overlay(&mut self, layers: &Layers, work: &Path, merged: &Path, more: &str) -> Result<(), Stop> {
        let option = |key: &str, path: &Path| format!("{key}={}", path.display());
        let options =
            [option("lowerdir", &layers.lower), option("upperdir", &layers.upper), option("workdir", work)];
        self.mount("overlay", merged, &(options.join(",") + more))
    }

    /// Mounts a filesystem without a device; gone again at the end of the experiment.
    pub(super) fn mount(&mut self, kind: &'static str, target: &Path, options: &str) -> Result<(), Stop> {
        let options = std::ffi::CString::new(options).map_err(|error| Stop(error.to_string()))?;
        mount(kind, target, kind, MountFlags::empty(), Some(options.as_c_str()))
            .during(&format!("mount {kind}"))?;
        self.uses(kind);
        self.remember_mount(target);
        self.uncovered.push(target.to_path_buf());
        Ok(())
    }

    /// Shows the files of `backing` on `target`; see [`Fuse::mount`].
    pub(super) fn mount_fuse(
        &mut self,
        backing: OwnedFd,
        target: &Path,
        lifetime: Duration,
    ) -> Result<(), Stop> {
        let server = Fuse::mount(backing, target, lifetime)?;
        self.uses("fuse");
        self.remember_mount(target);
        self.uncovered.push(target.to_path_buf());
        self.server = Some(server);
        Ok(())
    }

    /// See [`HiddenTree::new`]; the same tree is made once a run.
    pub(super) fn hidden_tree(&mut self, levels: u32, width: u64, most: u64) -> Result<Rc<HiddenTree>, Stop> {
        self.lab.hidden_tree(levels, width, most)
    }

    /// Where control groups are of the first version, or of both, crun needs a view of the second one: in the laboratory's
    /// namespace, and until the end of the experiment.
    pub(super) fn unify_control_groups(&mut self) -> Result<(), Stop> {
        let path = Path::new(CONTROL_GROUPS);
        let is_unified = rustix::fs::statfs(path).is_ok_and(|statfs| statfs.f_type == CGROUP2);
        if !is_unified {
            mount("hotr-verify", path, "cgroup2", MountFlags::empty(), None).during("mount cgroup2")?;
            self.remember_mount(path);
        }
        Ok(())
    }

    /// Serves `export` by NFS and mounts it on `target`; see [`Nfs::mount`].
    pub(super) fn mount_nfs(&mut self, export: &Path, target: &Path) -> Result<(), Stop> {
        let control = self.dir("nfsd")?;
        self.nfs = Some(Nfs::mount(export, target, &control)?);
        self.uses("nfs4");
        // No barrier is made there: a file is opened by nobody before the server's grace period is over.
        Ok(())
    }

    /// Has the server of the FUSE filesystem tell the kernel something.
    pub(super) fn notify_fuse(&mut self, notice: Notice) -> Result<(), Stop> {
        let server = self.server.as_mut().ok_or_else(|| Stop("no FUSE filesystem is mounted".to_owned()))?;
        server.notify(notice).during("notify the kernel of a change behind a FUSE mount")
    }

    fn uses(&mut self, filesystem: &'static str) {
        if !self.filesystems.contains(&filesystem) {
            self.filesystems.push(filesystem);
        }
    }

    /// Unmounts it at the end.
    pub(super) fn remember_mount(&mut self, target: &Path) {
        self.mounts.push(target.to_path_buf());
    }

    /// Does not let hotr find this mount: what it opens there would keep the filesystem.
    pub(super) fn leave_uncovered(&mut self, target: &Path) {
        self.uncovered.retain(|mount| mount != target);
        self.covered = false;
    }

    /// Watches a path by inotify and fanotify, and compares its attributes.
    pub(super) fn watch(&mut self, at: &'static str, path: &Path) -> Result<(), Stop> {
        self.inotify_watch(at, path, WatchFlags::ALL_EVENTS - QUIET)?;
        if let Ok(fanotify) = &mut self.fanotify {
            fanotify.add(at, path);
        }
        self.compare(at, path);
        Ok(())
    }

    /// Watches a path by inotify only, with this mask.
    pub(super) fn inotify_watch(
        &mut self,
        at: &'static str,
        path: &Path,
        mask: WatchFlags,
    ) -> Result<i32, Stop> {
        self.name(at, path);
        self.inotify.add(at, path, mask).during("add an inotify watch")
    }

    /// Compares the attributes of a path only.
    pub(super) fn compare(&mut self, at: &'static str, path: &Path) {
        self.name(at, path);
        self.poll.add(at, path);
    }

    fn name(&mut self, at: &'static str, path: &Path) {
        if self.named.len() < MOST_MARKED && self.named.iter().all(|(_, known)| known != path) {
            self.named.push((at, path.to_path_buf()));
        }
    }

    /// Watches that inotify has.
    pub(super) fn live_watches(&self) -> u64 {
        self.inotify.live_watches()
    }

    /// See [`Inotify::marks`].
    pub(super) fn own_marks(&self) -> Vec<(u64, u64, u32)> {
        self.inotify.marks()
    }

    /// What the marks on a file's inode ask for, and whether a kernel program has read it; otherwise only the marks of this instance
    /// are known (/proc/self/fdinfo).
    pub(super) fn notification_mask(&mut self, path: &Path) -> Result<(u32, bool), Stop> {
        let marks =
            self.marks_of(String::new(), path).ok_or_else(|| Stop("look at a file's marks".to_owned()))?;
        if let Some(mask) = marks.asked {
            return Ok((mask, true));
        }
        let own = self.inotify.marks();
        let of_file = own.iter().find(|(dev, ino, _)| (*dev, *ino) == (marks.dev, marks.ino));
        Ok((of_file.map_or(0, |(.., mask)| *mask), false))
    }

    /// Records a number.
    pub(super) fn fact(&mut self, name: &'static str, value: u64) {
        self.facts.push((name, value));
    }

    /// Records that the experiment has seen, by its own means, that the operation was made.
    pub(super) fn done(&mut self, is_done: bool) {
        self.fact(DONE, u64::from(is_done));
    }

    /// Makes the operation, between a barrier before it and one after it. What listeners receive in between is the evidence.
    pub(super) fn operate<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<Option<T>, Stop> {
        self.cover()?;
        self.delays = self.pass_barrier()?;
        self.inotify.forget();
        if let Ok(fanotify) = &mut self.fanotify {
            fanotify.forget();
        }
        if let Ok(kernel) = &mut self.programs.kernel {
            kernel.forget();
        }
        let before = self.look_at_marks();
        if let Ok(deliveries) = &mut self.programs.deliveries {
            deliveries.follow(self.inotify.as_fd());
            deliveries.forget();
        }
        self.poll.look();
        if let Some(strace) = &mut self.programs.strace {
            strace.forget();
        }
        let result = if self.self_test.omit_operation { None } else { Some(operation(self)?) };
        self.poll.compare();
        self.pass_barrier()?;
        if let Some(strace) = &mut self.programs.strace {
            self.system_calls = strace.calls();
        }
        self.accounts = self.all_accounts();
        self.kernel_path = kernel_path::steps(self.seen(before));
        Ok(result)
    }

    /// Of a claim that something is not received: makes a change afterwards that the same watch must receive. Without this
    /// proof that it works, silence would be none.
    pub(super) fn control(
        &mut self,
        at: &'static str,
        change: impl FnOnce() -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.inotify.forget();
        change()?;
        self.pass_barrier()?;
        let received = self.inotify.account().events.iter().any(|event| event.at == at);
        self.fact(CONTROL, u64::from(received));
        Ok(())
    }

    /// The same; fanotify and eBPF must receive it too.
    pub(super) fn control_all(
        &mut self,
        at: &'static str,
        change: impl FnOnce() -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if let Ok(fanotify) = &mut self.fanotify {
            fanotify.forget();
        }
        if let Ok(kernel) = &mut self.programs.kernel {
            kernel.forget();
        }
        self.control(at, change)?;
        let received = self.all_accounts();
        for (listener, name) in [(Listener::Fanotify, CONTROL_FANOTIFY), (Listener::Ebpf, CONTROL_EBPF)] {
            let account = received.iter().find(|account| account.listener == listener);
            self.fact(name, u64::from(account.is_some_and(|account| account.count() > 0)));
        }
        Ok(())
    }

    /// Lets hotr find the mounts of this experiment, as it finds those of others: until a barrier in each is reported.
    fn cover(&mut self) -> Result<(), Stop> {
        // Mounts that are kept take the room of later ones.
        let is_full = self.lab.keeps() && self.programs.has_uncovered;
        let over = Instant::now() + if is_full { COVERED_WHEN_FULL } else { COVERED };
        for mount in std::mem::take(&mut self.uncovered) {
            let Ok(kernel) = &mut self.programs.kernel else { return Ok(()) };
            loop {
                self.barriers += 1;
                let name = barrier_name(&self.folder, self.barriers);
                let path = mount.join(as_name(&name));
                File::create(&path).during("make a barrier")?;
                let soon = Instant::now() + Duration::from_millis(50);
                let is_covered = kernel.read_until(&name, soon);
                fs::remove_file(&path).during("remove a barrier")?;
                if is_covered {
                    break;
                }
                if Instant::now() >= over || ending::is_asked() {
                    self.covered = false;
                    self.programs.has_uncovered = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Makes a barrier and reads up to it; how long each listener took that received it.
    fn pass_barrier(&mut self) -> Result<Vec<(Listener, Duration)>, Stop> {
        self.barriers += 1;
        let name = barrier_name(&self.folder, self.barriers);
        let path = self.lab.barriers().join(as_name(&name));
        let since = Instant::now();
        let mut delays = Vec::new();
        let mut passed = |listener, has_received: bool| {
            if has_received {
                delays.push((listener, since.elapsed()));
            }
        };
        File::create(&path).during("make a barrier")?;
        passed(Listener::Inotify, self.inotify.read_to(&name));
        if let Ok(fanotify) = &mut self.fanotify {
            passed(Listener::Fanotify, fanotify.read_to(&name));
        }
        if let Ok(kernel) = &mut self.programs.kernel {
            passed(Listener::Ebpf, kernel.read_to(&name));
        }
        fs::remove_file(&path).during("remove a barrier")?;
        Ok(delays)
    }

    /// The evidence.
    pub(super) fn evidence(&self) -> Evidence {
        // An experiment that stopped before its operation.
        let is_early = self.accounts.is_empty();
        let mut accounts = if is_early { self.all_accounts() } else { self.accounts.clone() };
        let muted = |account: &&mut Account| Some(account.listener) == self.self_test.mute;
        for account in accounts.iter_mut().filter(muted) {
            *account = Account::new(account.listener, State::Silent);
        }
        Evidence {
            accounts,
            facts: self.facts.clone(),
            kernel_path: self.kernel_path.clone(),
            filesystems: self.filesystems.clone(),
            delays: self.delays.clone(),
            system_calls: self.system_calls.clone(),
        }
    }

    /// What was seen of the operation, which is over.
    fn seen(&mut self, before: Vec<Marks>) -> Seen {
        let own = self.folder.file_name().unwrap_or_default().as_bytes();
        let records = match &self.programs.kernel {
            Ok(kernel) if self.covered => kernel.records(own),
            _ => Vec::new(),
        };
        let after = self.changed_marks(&records, &before);
        let account = self.inotify.account();
        let shown = account.events.iter().take(MOST_MARKED).map(ToString::to_string);
        let mut received = shown.collect::<Vec<_>>().join(", ");
        match account.events.len() {
            0 => received.push_str("nothing"),
            MOST_MARKED.. => received.push_str(", and more"),
            _ => {}
        }
        let watches = self.inotify.watches();
        let (offers, lost) = match &mut self.programs.deliveries {
            Ok(deliveries) if deliveries.sees_offers() => {
                let (offers, lost) = deliveries.read(&watches);
                (Some(offers), lost)
            }
            _ => (None, 0),
        };
        Seen { before, after, records, offers, lost, received, own: self.inotify.marks() }
    }

    fn look_at_marks(&mut self) -> Vec<Marks> {
        let named = self.named.clone();
        named.into_iter().filter_map(|(at, path)| self.marks_of(at.to_owned(), &path)).collect()
    }

    /// The marks on files that were changed, and on their directories: those that were not looked at before.
    fn changed_marks(&mut self, records: &[Record], before: &[Marks]) -> Vec<Marks> {
        let mut all: Vec<Marks> = Vec::new();
        for record in records {
            let dir =
                |path: &str| path.rsplit_once('/').map_or_else(|| ".".to_owned(), |(dir, _)| dir.to_owned());
            let parent = record.path.parent().map(|parent| (dir(&record.name), parent, None));
            let file = (record.name.clone(), record.path.as_path(), record.id.map(|(ino, _)| ino));
            for (name, path, ino) in [Some(file), parent].into_iter().flatten() {
                if all.len() >= MOST_MARKED {
                    return all;
                }
                let Some(marks) = self.marks_of(name, path) else { continue };
                let is_same = |other: &Marks| (other.dev, other.ino) == (marks.dev, marks.ino);
                // Another file may have the name by now.
                let is_it = ino.is_none_or(|ino| ino == marks.ino);
                if is_it && !before.iter().any(is_same) && !all.iter().any(is_same) {
                    all.push(marks);
                }
            }
        }
        all
    }

    /// The marks on what a path leads to, or without kernel programs only which inode that is.
    fn marks_of(&mut self, name: String, path: &Path) -> Option<Marks> {
        if let Ok(deliveries) = &mut self.programs.deliveries {
            return deliveries.marks(name, path);
        }
        let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO).ok()?;
        // As fdinfo has it: the kernel's own form of a device number (include/linux/kdev_t.h).
        let dev = u64::from(stat.stx_dev_major) << 20 | u64::from(stat.stx_dev_minor);
        Some(Marks { name, ino: stat.stx_ino, dev, asked: None, count: None })
    }

    fn all_accounts(&self) -> Vec<Account> {
        let off = |listener, why: &str| Account::new(listener, State::Off(why.to_owned()));
        let fanotify = match &self.fanotify {
            Ok(fanotify) if !fanotify.is_used() => off(Listener::Fanotify, "this experiment has no mark"),
            Ok(fanotify) => fanotify.account(),
            Err(why) => off(Listener::Fanotify, why),
        };
        let ebpf = match &self.programs.kernel {
            Ok(_) if !self.covered => off(Listener::Ebpf, "hotr does not cover this new mount"),
            Ok(kernel) => kernel.account(self.folder.file_name().unwrap_or_default().as_bytes()),
            Err(why) => off(Listener::Ebpf, why),
        };
        vec![self.inotify.account(), fanotify, ebpf, self.poll.account()]
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        if let Ok(deliveries) = &mut self.programs.deliveries {
            deliveries.leave();
        }
        if self.lab.keeps() {
            self.lab.keep_servers(self.server.take(), self.nfs.take());
            return;
        }
        // It unmounts its filesystem itself, before it stops.
        drop(self.nfs.take());
        for mount in self.mounts.iter().rev() {
            let _ = unmount(mount, UnmountFlags::DETACH);
        }
        // What an experiment leaves would only take memory until the end of the run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Reading is not asked for: no claim is about it.
const QUIET: WatchFlags = WatchFlags::ACCESS.union(WatchFlags::OPEN).union(WatchFlags::CLOSE_NOWRITE);

/// A barrier's name, which no other experiment of the run uses.
fn barrier_name(folder: &Path, number: u32) -> Vec<u8> {
    let own = folder.file_name().map_or(&[][..], |name| name.as_bytes());
    [BARRIER, own, format!("-{number}").as_bytes()].concat()
}

fn as_name(bytes: &[u8]) -> &std::ffi::OsStr {
    OsStrExt::from_bytes(bytes)
}

/// Makes a file with this content and a time long ago, so that every later change shows in its times.
pub(super) fn old_file(path: &Path, content: &[u8]) -> Result<(), Stop> {
    fs::write(path, content).during("write a file")?;
    set_old(path)
}

/// Sets a file's times long back.
pub(super) fn set_old(path: &Path) -> Result<(), Stop> {
    set_old_file(&File::open(path).during("open a file")?)
}

/// The same of an open file.
pub(super) fn set_old_file(file: &File) -> Result<(), Stop> {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let times = FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    file.set_times(times).during("set a file's times")
}

/// Writes over the beginning of a file, as one write(2).
pub(super) fn overwrite(path: &Path, content: &[u8]) -> Result<(), Stop> {
    use std::io::Write;
    let mut file = File::options().write(true).open(path).during("open a file")?;
    file.write_all(content).during("write")
}

/// Whether a file has this content.
pub(super) fn holds(path: &Path, content: &[u8]) -> bool {
    fs::read(path).is_ok_and(|read| read == content)
}
