//! `hotr relay`: real watchers are woken by what they missed, nothing of the files changes, and nobody who swaps names makes
//! hotr open anything else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{Reader, WatchFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde_json::{Value, json};

use super::bad_input::{NOBODY, for_anybody};
use super::live::Live;
use super::run::{HOTR, Instance, Scratch, inotifywait, root, tool, until};
use super::targets::{installed, tool_at};

/// `hotr relay --json` to these processes.
fn relay(to: &[u32], options: &[&str], path: &Path) -> Live {
    let mut command = Command::new(HOTR);
    command.args(["relay", "--json", "--duration", "60s"]).args(options);
    to.iter().for_each(|pid| {
        command.arg("--to").arg(pid.to_string());
    });
    Live::run(command.arg(path))
}

fn of(path: &Path) -> impl Fn(&Value) -> bool + '_ {
    move |line| line["type"] == "relay" && line["path"] == json!(path)
}

/// A page of a file that is mapped until the end.
struct Mapped(*mut u8);

impl Mapped {
    fn new(path: &Path) -> Self {
        File::create(path).unwrap().set_len(4096).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of one page, of a file of that size that no test makes shorter.
        let page = unsafe { mmap(std::ptr::null_mut(), 4096, access, MapFlags::SHARED, &file, 0).unwrap() };
        Self(page.cast())
    }

    fn store(&self, byte: u8) {
        // SAFETY: the mapping is there until the end, and nobody else has its address.
        unsafe { self.0.write_volatile(byte) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        let _ = unsafe { munmap(self.0.cast(), 4096) };
    }
}

/// A program that ends with the first event it receives.
struct Waiter(Child);

impl Waiter {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let waiter = Self(child.expect("inotifywait is installed"));
        let has_watch = |entry: fs::DirEntry| {
            fs::read_to_string(entry.path()).is_ok_and(|info| info.contains("inotify wd:"))
        };
        until("a watch", || {
            let infos = fs::read_dir(format!("/proc/{}/fdinfo", waiter.0.id()));
            infos.is_ok_and(|infos| infos.flatten().any(has_watch))
        });
        waiter
    }

    fn wakes(&mut self) {
        until("the program receives an event", || self.0.try_wait().unwrap().is_some());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that an announcement must leave as it is.
fn told(path: &Path) -> (Vec<u8>, [i64; 6], [u64; 4]) {
    let stat = fs::metadata(path).unwrap();
    let times = [
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec(),
        stat.uid().into(),
        stat.gid().into(),
    ];
    (fs::read(path).unwrap(), times, [stat.len(), stat.mode().into(), stat.ino(), stat.nlink()])
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"2\n").unwrap();
}

/// Names of events that are unread.
fn events(instance: &Instance) -> Vec<(u32, String)> {
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 1 << 12];
    let mut reader = Reader::new(&instance.0, &mut buffer);
    let mut events = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        events.push((event.events().bits(), name));
    }
    events
}

const CLOSED: u32 = WatchFlags::CLOSE_WRITE.bits();

#[test]
fn a_program_that_waits_for_a_close_is_woken_by_a_store_through_a_mapping() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-mmap");
    let file = scratch.0.join("state");
    let page = Mapped::new(&file);
    let mut waiter = Waiter::start(Command::new("inotifywait").args(["-q", "-e", "close_write"]).arg(&file));
    let mut live = relay(&[waiter.0.id()], &[], &scratch.0);
    page.store(7);
    let before = told(&file);
    let line = live.until("relay", of(&file));
    waiter.wakes();
    assert_eq!((&line["cause"], &line["event"]), (&"mmap".into(), &"IN_CLOSE_WRITE".into()), "{line}");
    let to = &line["for"];
    assert_eq!((&to["pid"], &to["comm"]), (&waiter.0.id().into(), &"inotifywait".into()), "{line}");
    assert_eq!((&line["arrived"], line.get("refused")), (&true.into(), None), "{line}");
    assert!(line["announced_us"].is_u64() && line["proof"].is_string(), "{line}");
    assert_eq!(told(&file), before);
    assert_eq!(before.0[0], 7);
    let (status, said) = live.ended();
    assert_eq!(status, Some(0), "{said}");
}

struct Unmounted(Vec<PathBuf>);

impl Drop for Unmounted {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn mount(mounts: &mut Unmounted, fs: &str, options: &str, at: &Path) {
    let words: [&std::ffi::OsStr; 5] =
        ["-t".as_ref(), fs.as_ref(), "-o".as_ref(), options.as_ref(), "hotr-diag".as_ref()];
    tool("mount", &[&words, &[at.as_os_str()][..]].concat());
    mounts.0.push(at.to_path_buf());
}

#[test]
fn a_watcher_of_an_overlay_in_another_mount_namespace_and_a_lower_file_that_is_not_copied_up() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-overlay");
    let mut mounts = Unmounted(Vec::new());
    mount(&mut mounts, "tmpfs", "mode=755", &scratch.0);
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scratch.dir(name));
    for name in ["low", "other"] {
        fs::write(lower.join(name), "1\n").unwrap();
    }
    for name in ["up", "second"] {
        fs::write(upper.join(name), "1\n").unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(&mut mounts, "overlay", &options, &merged);
    let mut command = Command::new("unshare");
    command.args(["-m", "inotifywait", "-q", "-e", "close_write"]).arg(merged.join("up"));
    let mut waiter = Waiter::start(&mut command);
    let own = Instance::on(&merged, WatchFlags::CLOSE_WRITE);
    let mut live = relay(&[waiter.0.id(), std::process::id()], &[], &merged);
    append(&upper.join("up"));
    let before = told(&merged.join("up"));
    let line =
        live.until("of the file", |line| of(&merged.join("up"))(line) && line["for"]["pid"] == waiter.0.id());
    waiter.wakes();
    assert_eq!((&line["cause"], &line["arrived"]), (&"layer-bypass".into(), &true.into()), "{line}");
    assert_eq!(told(&merged.join("up")), before);
    append(&upper.join("second"));
    let line = live.until("of the directory", of(&merged.join("second")));
    assert_eq!((&line["for"]["fd"], &line["arrived"]), (&own.fd().into(), &true.into()), "{line}");
    assert!(events(&own).contains(&(CLOSED, "second".into())));
    // The file is that of the lower layer.
    append(&lower.join("low"));
    let line = live.until("of the lower file", of(&merged.join("low")));
    assert_eq!((&line["refused"], line.get("arrived")), (&"lower-file".into(), None), "{line}");
    assert!(line["why"].as_str().unwrap().contains("--copy-up"), "{line}");
    assert!(!upper.join("low").exists() && !events(&own).iter().any(|(_, name)| name == "low"));
    assert_eq!(live.end().0, Some(0));
    let mut live = relay(&[std::process::id()], &["--copy-up"], &merged);
    append(&lower.join("low"));
    let line = live.until("of the copied file", of(&merged.join("low")));
    assert_eq!(&line["arrived"], &Value::from(true), "{line}");
    assert_eq!(fs::read(upper.join("low")).unwrap(), fs::read(lower.join("low")).unwrap());
    // What the overlay still shows is not what is written now: its open would put the old file in place of the new one.
    let shown = File::open(merged.join("other")).unwrap();
    fs::write(upper.join("other"), "new\n").unwrap();
    assert_eq!(fs::read(merged.join("other")).unwrap(), b"1\n");
    append(&upper.join("other"));
    let line = live.until("of the hidden file", of(&merged.join("other")));
    assert_eq!(&line["refused"], "unknown-layer", "{line}");
    assert_eq!(fs::read(upper.join("other")).unwrap(), b"new\n2\n");
    drop(shown);
    assert_eq!(live.end().0, Some(0));
}

#[test]
fn a_write_by_another_name_of_the_file() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-link");
    let (dir, outside) = (scratch.dir("watched"), scratch.dir("outside"));
    fs::write(dir.join("f"), "1\n").unwrap();
    fs::hard_link(dir.join("f"), outside.join("g")).unwrap();
    let own = Instance::on(&dir, WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE);
    let quiet = Instance::on(&outside, WatchFlags::DELETE);
    let mut live = relay(&[std::process::id()], &[], &dir);
    append(&outside.join("g"));
    let line = live.until("relay", of(&dir.join("f")));
    assert_eq!((&line["cause"], &line["arrived"]), (&"hardlink-alias".into(), &true.into()), "{line}");
    assert_eq!(events(&own), [(CLOSED, "f".to_owned())]);
    assert_eq!(quiet.unread(), 0);
    assert_eq!(live.end().0, Some(0));
}

/// Does as another user.
fn by_nobody(words: &[&std::ffi::OsStr]) {
    let (program, words) = words.split_first().unwrap();
    let status = Command::new(program).args(words).uid(NOBODY).gid(NOBODY).status().unwrap();
    assert!(status.success(), "{program:?} {words:?}");
}

#[test]
fn names_that_another_user_swaps_lead_nowhere() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-swap");
    let (dir, outside) = (scratch.dir("theirs"), scratch.dir("outside"));
    fs::write(outside.join("secret"), "1\n").unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let own = Instance::on(&dir, WatchFlags::CLOSE_WRITE);
    let guard = Instance::on(&outside, WatchFlags::OPEN | WatchFlags::CLOSE_WRITE);
    let pages = ["link", "fifo", "hard"].map(|name| {
        let page = Mapped::new(&dir.join(name));
        chown(dir.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
        page
    });
    own.drain();
    let mut live = relay(&[std::process::id()], &[], &scratch.0);
    pages.iter().for_each(|page| page.store(7));
    // Long before the announcement.
    for name in ["link", "fifo", "hard"] {
        by_nobody(&["mv".as_ref(), dir.join(name).as_ref(), dir.join(format!("{name}-was")).as_ref()]);
    }
    let secret = outside.join("secret");
    by_nobody(&["ln".as_ref(), "-s".as_ref(), secret.as_ref(), dir.join("link").as_ref()]);
    by_nobody(&["mkfifo".as_ref(), dir.join("fifo").as_ref()]);
    fs::hard_link(&secret, dir.join("hard")).unwrap();
    for (name, refusal) in [("link", "not-regular"), ("fifo", "not-regular"), ("hard", "other-file")] {
        let is_it = |line: &Value| of(&dir.join(name))(line);
        let line = match live.said.iter().find(|line| is_it(line)) {
            Some(line) => line.clone(),
            None => live.until(name, is_it),
        };
        assert_eq!((&line["refused"], line.get("event")), (&refusal.into(), None), "{line}");
    }
    // The directory itself.
    let quiet = scratch.dir("quiet");
    own.add(&quiet, WatchFlags::CLOSE_WRITE);
    let pages = [&dir, &quiet].map(|dir| Mapped::new(&dir.join("f")));
    own.drain();
    pages[0].store(7);
    chown(&scratch.0, Some(NOBODY), Some(NOBODY)).unwrap();
    by_nobody(&["mv".as_ref(), dir.as_ref(), scratch.0.join("moved").as_ref()]);
    symlink(&outside, &dir).unwrap();
    fs::write(outside.join("f"), "").unwrap();
    events(&guard);
    // What is missed afterwards is announced after all that was missed before.
    pages[1].store(7);
    live.until("of the other directory", of(&quiet.join("f")));
    assert_eq!(events(&guard), []);
    assert!(events(&own).iter().all(|(_, name)| name == "f"));
    assert_eq!(live.end().0, Some(0));
    assert_eq!(events(&guard), []);
    assert_eq!(fs::read(&secret).unwrap(), b"1\n");
}

#[test]
fn two_relays_and_a_trace_report_one_change() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-echo");
    let file = scratch.0.join("state");
    let page = Mapped::new(&file);
    let watcher = inotifywait(&["-e".as_ref(), "close_write".as_ref(), scratch.0.as_os_str()], 1);
    let mut command = Command::new(HOTR);
    command.args(["trace", "--json", "--duration", "60s"]).arg(&scratch.0);
    let mut trace = Live::run(&mut command);
    // To all who watch it: stand-ins of the other one are nobody.
    let mut relays = [0, 1].map(|_| relay(&[], &[], &scratch.0));
    page.store(7);
    for relay in &mut relays {
        let line = relay.until("relay", of(&file));
        assert_eq!((&line["for"]["pid"], &line["arrived"]), (&watcher.pid().into(), &true.into()), "{line}");
    }
    let last = scratch.file("last");
    trace.until("last", |line| line["op"] == "write" && line["path"] == json!(last));
    let said = trace.lines();
    assert_eq!(said.iter().filter(|line| line["path"] == json!(file)).count(), 1, "{said:#?}");
    for relay in relays {
        let count = relay.said.iter().filter(|line| line["type"] == "relay").count();
        assert_eq!(count, 1, "{:#?}", relay.said);
        assert_eq!(relay.end().0, Some(0));
    }
}

/// As Node.js, whose watches do not ask for closes.
#[test]
fn a_watcher_of_content_alone_is_sent_that_on_request_and_other_hotrs_do_not_report_it() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-modify");
    let file = scratch.0.join("state");
    let page = Mapped::new(&file);
    let mask = WatchFlags::ATTRIB | WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO;
    let own = Instance::on(&scratch.0, mask);
    let to = [std::process::id()];
    let mut trace =
        Live::run(Command::new(HOTR).args(["trace", "--json", "--duration", "60s"]).arg(&scratch.0));
    let mut diagnosis = Live::start("auto", to[0]);
    let mut live = relay(&to, &["--modify"], &scratch.0);
    page.store(8);
    let (content, times, others) = told(&file);
    let line = live.until("announcement", of(&file));
    assert_eq!((&line["event"], &line["arrived"]), (&"IN_MODIFY".into(), &true.into()), "{line}");
    assert_eq!(events(&own), [(WatchFlags::MODIFY.bits(), "state".to_owned())]);
    let (content_now, times_now, others_now) = told(&file);
    // All but the change time.
    assert_eq!(
        (content_now, &times_now[..2], &times_now[4..], others_now),
        (content, &times[..2], &times[4..], others)
    );
    // An event that no record explains is reported a second and a half later.
    let since = Instant::now();
    until("later changes", || since.elapsed() > Duration::from_secs(2));
    let last = scratch.file("last");
    own.drain();
    let is_last = |line: &Value| line["op"] == "write" && line["path"] == json!(last);
    trace.until("last", is_last);
    diagnosis.until("last", |line| line["type"] == "change" && is_last(line));
    for said in [trace.lines(), diagnosis.lines()] {
        let changes = said.iter().filter(|line| line["type"] == "change" && line["path"] == json!(file));
        let ops: Vec<_> = changes.map(|line| line["op"].clone()).collect();
        assert_eq!(ops, ["write"], "{said:#?}");
    }
    assert_eq!(live.end().0, Some(0));
}

#[test]
fn nodemon_in_a_container_restarts_when_the_host_writes_the_upper_layer() {
    let (Some(node), Some(nodemon)) = (installed("node"), tool_at("npm/node_modules/nodemon/bin/nodemon.js"))
    else {
        return;
    };
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-nodemon");
    let mut mounts = Unmounted(Vec::new());
    mount(&mut mounts, "tmpfs", "mode=755", &scratch.0);
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scratch.dir(name));
    let script = |version: u32| {
        let started = scratch.0.join(format!("started-{version}"));
        format!("require('fs').writeFileSync({}, '')", json!(started))
    };
    fs::write(upper.join("app.js"), script(1)).unwrap();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(&mut mounts, "overlay", &options, &merged);
    let mut command = Command::new("unshare");
    command.arg("-m").arg(node).arg(nodemon).args(["--delay", "0.1", "--watch"]).arg(&merged);
    let watcher = Waiter::start(command.arg(merged.join("app.js")));
    let has_started = |version: u32| scratch.0.join(format!("started-{version}")).exists();
    until("the first version", || has_started(1));
    let mut live = relay(&[watcher.0.id()], &["--modify"], &merged);
    fs::write(upper.join("app.js"), script(2)).unwrap();
    let line = live.until("relay", of(&merged.join("app.js")));
    assert_eq!((&line["event"], &line["cause"]), (&"IN_MODIFY".into(), &"layer-bypass".into()), "{line}");
    until("the second version", || has_started(2));
    assert_eq!(live.end().0, Some(0));
}

#[test]
fn what_cannot_be_relayed() {
    let fails = |command: &mut Command, status: i32, starts: &str| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(status), 1), "{said}");
        assert!(said.starts_with(&format!("hotr: {starts}")), "{said}");
        assert!(output.stdout.is_empty());
    };
    let relay = |words: &[&str]| {
        let mut command = Command::new(HOTR);
        command.arg("relay").args(words);
        command
    };
    fails(&mut relay(&[]), 2, "");
    fails(&mut relay(&["/", "--to", "0"]), 2, "");
    fails(&mut relay(&["/", "--container", "x"]), 2, "");
    if !root() {
        return;
    }
    let scratch = Scratch::new("relay-nobody");
    let path = scratch.0.to_str().unwrap();
    fails(&mut relay(&["/no/such/path"]), 1, "relay /no/such/path: no such file or directory");
    fails(&mut relay(&[path, "--to", "4194305"]), 1, "relay to process 4194305: no such process");
    fails(&mut relay(&[path, "--unit", "no-such-unit"]), 1, "relay to unit no-such-unit: no process of it");
    let nobody = ["--container", "0123456789ab"];
    fails(&mut relay(&[path, nobody[0], nobody[1]]), 1, "relay to container 0123456789ab: no process of it");
    fails(&mut relay(&[path]), 1, &format!("relay {path}: no process watches it"));
    let other = scratch.dir("other");
    let watcher = inotifywait(&[&other], 1);
    let (pid, dir) = (watcher.pid().to_string(), scratch.dir("dir"));
    let dir = dir.to_str().unwrap();
    fails(&mut relay(&[dir, "--to", &pid]), 1, &format!("relay {dir}: nothing of process {pid} watches it"));
    let mut command = Command::new(for_anybody(&scratch));
    command.args(["relay", "--to", &pid]).arg(&other).uid(NOBODY).gid(NOBODY);
    fails(&mut command, 1, "relay: permission denied");
}
