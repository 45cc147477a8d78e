//! A folder stands for `/proc`, so that pids can be reused at will.

use super::*;

struct FakeProc(PathBuf);

impl FakeProc {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-proc-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn process(&self, pid: u32, comm: &str, exe: &str, start: u64) {
        self.end(pid);
        let dir = self.0.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stat"), stat(comm, start)).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(dir.join("cgroup"), "0::/slice\n").unwrap();
        std::os::unix::fs::symlink(exe, dir.join("exe")).unwrap();
    }

    fn end(&self, pid: u32) {
        let _absent_is_fine = fs::remove_dir_all(self.0.join(pid.to_string()));
    }

    fn cache(&self) -> ActorCache {
        ActorCache::with_proc(self.0.clone(), true)
    }
}

impl Drop for FakeProc {
    fn drop(&mut self) {
        let _absent_is_fine = fs::remove_dir_all(&self.0);
    }
}

fn stat(comm: &str, start: u64) -> String {
    format!("7 ({comm}) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n")
}

fn task(pid: u32, comm: &[u8]) -> Task<'_> {
    Task { pid, tid: pid, comm, cgroup_id: 0, uid: 0, made_ns: u64::MAX }
}

fn exe(cache: &mut ActorCache, task: &Task<'_>, now: Instant) -> Option<String> {
    cache.lookup(task, now).exe.map(|exe| exe.to_str().unwrap().to_owned())
}

#[test]
fn the_start_time_is_found_behind_any_comm() {
    for comm in ["x", "a b", ") S 1 (", "((("] {
        let found = Stat::parse(stat(comm, 4242).as_bytes());
        assert_eq!(found, Some(Stat { parent: 1, start: 4242 }), "{comm}");
    }
    assert_eq!(Stat::parse(b"7 (x) S 1"), None);
    assert_eq!(Stat::parse(b""), None);
}

#[test]
fn a_hit_asks_nobody() {
    let proc = FakeProc::new("hit");
    proc.process(7, "vim", "/usr/bin/vim", 1);
    let (mut cache, now) = (proc.cache(), Instant::now());
    let found = cache.lookup(&task(7, b"vim"), now);
    assert_eq!(
        (found.exe.as_deref(), found.cgroup.as_deref()),
        (Some(Path::new("/usr/bin/vim")), Some("/slice"))
    );
    proc.process(7, "vim", "/changed", 1);
    assert_eq!(exe(&mut cache, &task(7, b"vim"), now).as_deref(), Some("/usr/bin/vim"));
}

#[test]
fn a_reused_pid_is_another_process() {
    let proc = FakeProc::new("reuse");
    proc.process(7, "vim", "/usr/bin/vim", 1);
    let (mut cache, now) = (proc.cache(), Instant::now());
    assert!(exe(&mut cache, &task(7, b"vim"), now).is_some());
    proc.process(7, "vim", "/opt/vim", 2);
    assert_eq!(exe(&mut cache, &task(7, b"vim"), now + ActorCache::TRUST).as_deref(), Some("/opt/vim"));
}

#[test]
fn a_process_that_has_ended_is_still_known() {
    let proc = FakeProc::new("ended");
    proc.process(7, "vim", "/usr/bin/vim", 1);
    let (mut cache, now) = (proc.cache(), Instant::now());
    assert!(exe(&mut cache, &task(7, b"vim"), now).is_some());
    proc.end(7);
    assert_eq!(
        exe(&mut cache, &task(7, b"vim"), now + ActorCache::TRUST * 2).as_deref(),
        Some("/usr/bin/vim")
    );
    assert_eq!(cache.lookup(&task(8, b"vim"), now), TaskInfo::default());
}

#[test]
fn a_shell_and_what_it_becomes_are_two_programs() {
    let proc = FakeProc::new("exec");
    proc.process(7, "sh", "/bin/sh", 1);
    let (mut cache, now) = (proc.cache(), Instant::now());
    assert_eq!(exe(&mut cache, &task(7, b"sh"), now).as_deref(), Some("/bin/sh"));
    proc.process(7, "cat", "/bin/cat", 1);
    assert_eq!(exe(&mut cache, &task(7, b"cat"), now).as_deref(), Some("/bin/cat"));
    // A late record of the shell: the program that made it is gone.
    assert_eq!(exe(&mut cache, &task(7, b"sh"), now), None);
}

#[test]
fn it_does_not_grow_without_end_and_keeps_what_is_used() {
    let proc = FakeProc::new("bound");
    proc.process(7, "vim", "/usr/bin/vim", 1);
    let (mut cache, start) = (proc.cache(), Instant::now());
    let count = u32::try_from(ActorCache::CAPACITY).unwrap() * 2;
    for pid in 100..100 + count {
        let now = start + Duration::from_nanos(pid.into());
        cache.lookup(&task(pid, b"x"), now);
        assert!(exe(&mut cache, &task(7, b"vim"), now).is_some());
    }
    assert!(cache.entries.len() <= ActorCache::CAPACITY);
    assert!(cache.entries.len() >= ActorCache::CAPACITY / 2);
    proc.process(7, "vim", "/changed", 1);
    let now = start + Duration::from_nanos((100 + count).into());
    assert_eq!(exe(&mut cache, &task(7, b"vim"), now).as_deref(), Some("/usr/bin/vim"));
}

#[test]
fn trust_in_what_is_used_is_renewed_before_it_is_over() {
    let proc = FakeProc::new("renewed");
    proc.process(7, "vim", "/first", 1);
    let (mut cache, start) = (proc.cache(), Instant::now());
    let half = ActorCache::TRUST / 2;
    for time in [start, start + half] {
        assert_eq!(exe(&mut cache, &task(7, b"vim"), time).as_deref(), Some("/first"));
    }
    cache.refresh(start + half);
    proc.process(7, "vim", "/second", 2);
    // Trusted without a look, because one was taken.
    assert_eq!(exe(&mut cache, &task(7, b"vim"), start + half * 2).as_deref(), Some("/first"));
    cache.refresh(start + half * 2);
    assert_eq!(exe(&mut cache, &task(7, b"vim"), start + half * 2).as_deref(), Some("/second"));
}

#[test]
fn in_another_pid_namespace_nobody_is_looked_up() {
    let proc = FakeProc::new("namespace");
    proc.process(7, "vim", "/usr/bin/vim", 1);
    let mut cache = ActorCache::with_proc(proc.0.clone(), false);
    assert_eq!(exe(&mut cache, &task(7, b"vim"), Instant::now()), None);
    assert!(cache.impossible().is_some());
    assert!(proc.cache().impossible().is_none());
}

#[test]
fn we_are_who_we_are() {
    let mut cache = ActorCache::with_proc(PathBuf::from("/proc"), true);
    let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    let comm = fs::read("/proc/thread-self/comm").unwrap();
    let comm = comm.strip_suffix(b"\n").unwrap();
    let me = Task { pid: std::process::id(), tid, comm, cgroup_id: 0, uid: 0, made_ns: u64::MAX };
    assert_eq!(
        cache.lookup(&me, Instant::now()).exe.as_deref(),
        Some(std::env::current_exe().unwrap().as_path())
    );
}

#[test]
fn task_names_are_cut_as_the_kernel_cuts_them() {
    assert_eq!(kept_of(OsStr::new("vim")), b"vim");
    assert_eq!(kept_of(OsStr::new("a-name-of-17-byte")), b"a-name-of-17-by");
}

/// What is known of where a task belongs, but for its unit: the parent as `pid comm`.
fn origin(cache: &mut ActorCache, task: &Task<'_>) -> Option<(Option<String>, Option<u32>, Option<String>)> {
    let origin = cache.lookup(task, Instant::now()).origin?;
    let parent = origin.parent.as_ref();
    let parent = parent.map(|parent| format!("{} {}", parent.pid, String::from_utf8_lossy(&parent.comm)));
    Some((origin.user.as_deref().map(str::to_owned), origin.login_uid, parent))
}

fn known(
    user: &str,
    login: Option<u32>,
    parent: &str,
) -> Option<(Option<String>, Option<u32>, Option<String>)> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some((text(user), login, text(parent)))
}

#[test]
fn where_a_writer_belongs_is_known_when_asked() {
    let proc = FakeProc::new("origin");
    proc.process(1, "init", "/init", 1);
    proc.process(7, "vim", "/usr/bin/vim", 1);
    fs::write(proc.0.join("7/loginuid"), "0").unwrap();
    fs::write(proc.0.join("7/cgroup"), "0::/system.slice/app.service/x\n").unwrap();
    let mut cache = proc.cache();
    assert_eq!(origin(&mut cache, &task(7, b"vim")), None, "nobody asks");
    let mut cache = proc.cache();
    cache.ask_origins();
    assert_eq!(origin(&mut cache, &task(7, b"vim")), known("root", Some(0), "1 init"));
    let found = cache.lookup(&task(7, b"vim"), Instant::now()).origin.unwrap();
    assert_eq!((found.login_user.as_deref(), found.unit.as_deref()), (Some("root"), Some("app.service")));
    // It becomes another user, and nothing else changes.
    let other = Task { uid: 3_999_999_999, ..task(7, b"vim") };
    assert_eq!(origin(&mut cache, &other), known("", Some(0), "1 init"));
    assert_eq!(origin(&mut cache, &task(7, b"vim")), known("root", Some(0), "1 init"));
    // No login, and no parent.
    proc.process(8, "sh", "/bin/sh", 1);
    fs::write(proc.0.join("8/loginuid"), "4294967295").unwrap();
    proc.end(1);
    assert_eq!(origin(&mut cache, &task(8, b"sh")), known("root", None, ""));
}

#[test]
fn nothing_is_said_of_a_process_that_took_over_an_id() {
    let proc = FakeProc::new("other");
    proc.process(1, "init", "/init", 1);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ticks = boot.tv_sec.unsigned_abs() * rustix::param::clock_ticks_per_second();
    proc.process(7, "vim", "/usr/bin/vim", ticks);
    fs::write(proc.0.join("7/loginuid"), "0").unwrap();
    let mut cache = proc.cache();
    cache.ask_origins();
    // It was called the same, and started a minute after the change.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec.unsigned_abs();
    let before = Task { made_ns: now.saturating_sub(60) * 1_000_000_000, ..task(7, b"vim") };
    assert_eq!(origin(&mut cache, &before), known("root", None, ""));
    // It has exited.
    assert_eq!(origin(&mut cache, &task(9, b"vim")), known("root", None, ""));
    // It has become another program.
    proc.process(7, "less", "/usr/bin/less", 1);
    assert_eq!(origin(&mut cache, &Task { tid: 8, ..task(7, b"vim") }), known("root", None, ""));
}
