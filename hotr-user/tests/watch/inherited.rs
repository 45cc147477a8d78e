//! What a parent may leave to hotr: ignored and blocked signals, low limits, filtered system calls. hotr works, or ends with
//! status 1 and one line; it never panics, hangs, or takes a good reload for a failed one.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use super::run::{HOTR, Scratch, Watch, hung_up, root, until};

/// A user of these tests alone: limits of processes are counted by user.
const USER: u32 = 61_741;

fn watching(scratch: &Scratch, args: &[&str]) -> Command {
    let mut hotr = Command::new(HOTR);
    hotr.args(["watch", "--json", "-v", "-p"]).args(args).arg(scratch.w()).args(["--", "true"]);
    hotr
}

/// Prepares the process that becomes hotr.
fn after(mut command: Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Command {
    // SAFETY: the closures of this file make system calls only: they neither allocate nor take a lock.
    unsafe { command.pre_exec(prepare) };
    command
}

fn ignore(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn block_all() -> io::Result<()> {
    // SAFETY: pointers to a live set.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    Ok(())
}

fn limit(resource: Resource, number: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(number), maximum: Some(number) })?)
}

/// These system calls fail with this error.
fn refuse<const N: usize>(calls: [libc::c_long; N], error: i32) -> io::Result<()> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW); 12];
    filter[0] = op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    for (i, call) in calls.into_iter().enumerate() {
        let number = u32::try_from(call).unwrap();
        filter[1 + 2 * i] = op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number);
        let answer = libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
        filter[2 + 2 * i] = op(libc::BPF_RET | libc::BPF_K, 0, 0, answer);
    }
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter lives until the call has copied it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn inherited_signals_change_nothing() {
    for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGPIPE, libc::SIGXFSZ] {
        let scratch = Scratch::new("ignored");
        let conf = scratch.file("conf", "1");
        let args = ["--validate", "true", "--health", "true", "--rollback"];
        let mut watch = Watch::spawn(after(watching(&scratch, &args), move || ignore(signal)), &scratch.w());
        watch.until_said("initial state recorded");
        fs::write(&conf, "2").unwrap();
        watch.reload("started");
        let ended = watch.wait("its end", |line| line["type"] == "reload" && line["state"] != "started");
        assert_eq!(ended["state"], "done", "signal {signal} ignored: {ended}");
        assert_eq!(fs::read_to_string(&conf).unwrap(), "2", "signal {signal} ignored: rolled back");
        watch.end();
    }
    let scratch = Scratch::new("blocked");
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::spawn(after(watching(&scratch, &[]), block_all), &scratch.w());
    watch.until_said("initial state recorded");
    fs::write(&conf, "2").unwrap();
    watch.reload("done");
    watch.end();
}

#[test]
fn a_hangup_ends_hotr_unless_nohup_asked_otherwise() {
    let scratch = Scratch::new("nohup");
    let mut watch = Watch::spawn(after(watching(&scratch, &[]), || ignore(libc::SIGHUP)), &scratch.w());
    watch.until_said("initial state recorded");
    watch.send(Signal::HUP);
    watch.nothing_but_a_marker();
    watch.end();
    let watch = Watch::spawn(hung_up(watching(&scratch, &["--health", "true", "--rollback"])), &scratch.w());
    watch.until_said("initial state recorded");
    watch.end_by(Signal::HUP);
    let left: Vec<_> = fs::read_dir(scratch.w()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("hotr")), "{left:?}");
}

/// A run under a limit: it reloads, or says in one line why it cannot. Returns whether it did.
fn works_or_says_why(what: &str, scratch: &Scratch, mut command: Command) -> bool {
    let conf = scratch.file("conf", "1");
    let (out, err) = (scratch.0.join("out"), scratch.0.join("err"));
    command.stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = Killed(command.spawn().unwrap());
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let mut status = None;
    until("ready, or an end", || {
        status = child.0.try_wait().unwrap();
        status.is_some() || text(&err).contains("initial state recorded")
    });
    let mut number = 1;
    until("a reload, or an end", || {
        if status.is_none() {
            number += 1;
            fs::write(&conf, number.to_string()).unwrap();
            status = child.0.try_wait().unwrap();
        }
        status.is_some()
            || text(&out).contains("\"state\":\"done\"")
            || text(&out).contains("\"state\":\"failed\"")
    });
    let works = text(&out).contains("\"state\":\"done\"");
    if let Some(status) = status {
        assert_eq!(status.code(), Some(1), "{what}: {}", text(&err));
        let last = text(&err).lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("hotr: ") && last.contains("; "), "{what}: {}", text(&err));
    } else {
        kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
        until("its end", || {
            status = child.0.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0), "{what}: {}", text(&err));
    }
    let said = text(&err);
    assert!(!said.contains("panicked") && !said.contains("internal error"), "{what}: {said}");
    works
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn few_threads_are_an_error_or_enough() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("threads");
    let copy = scratch.0.join("hotr");
    fs::copy(HOTR, &copy).unwrap();
    let (mut works, mut fails) = (0, 0);
    for most in 1..9 {
        let mut hotr = Command::new(&copy);
        hotr.args(["watch", "--json", "-v", "-p", "--emit", "stdin"]).arg(scratch.w()).args(["--", "true"]);
        // The limit first: as root it would not hold for the call that leaves root.
        hotr.uid(USER).gid(USER);
        let hotr = after(hotr, move || limit(Resource::Nproc, most));
        match works_or_says_why(&format!("{most} threads"), &scratch, hotr) {
            true => works += 1,
            false => fails += 1,
        }
    }
    assert!(works > 0 && fails > 0, "the limits are on both sides: {works} work, {fails} do not");
}

#[test]
fn no_new_thread_at_all_is_an_error() {
    for (calls, error) in [
        ([libc::SYS_clone3, libc::SYS_clone3], libc::ENOSYS),
        ([libc::SYS_clone3, libc::SYS_clone3], libc::EPERM),
        ([libc::SYS_clone3, libc::SYS_clone], libc::EAGAIN),
    ] {
        let scratch = Scratch::new("clone");
        let hotr = after(watching(&scratch, &["--emit", "stdin"]), move || refuse(calls, error));
        let works = works_or_says_why(&format!("{calls:?} refused with {error}"), &scratch, hotr);
        assert_eq!(works, error == libc::ENOSYS, "glibc falls back to clone where clone3 is not implemented");
    }
}

#[test]
fn small_limits_are_an_error_or_enough() {
    for (resource, number) in
        [(Resource::Nofile, 8), (Resource::Nofile, 16), (Resource::Nofile, 32), (Resource::Fsize, 0)]
    {
        let scratch = Scratch::new("limits");
        scratch.file("more", "content that would have to be kept");
        let args = ["--health", "true", "--rollback"];
        let hotr = after(watching(&scratch, &args), move || limit(resource, number));
        if resource == Resource::Fsize {
            // Its reports go to a pipe: a file would take nothing.
            file_limit(&scratch, hotr);
        } else {
            works_or_says_why(&format!("{number} descriptors"), &scratch, hotr);
        }
    }
}

/// No file may be written: nothing can be kept, and reloads continue.
fn file_limit(scratch: &Scratch, hotr: Command) {
    let conf = scratch.file("conf", "1");
    let mut watch = Watch::spawn(hotr, &scratch.w());
    watch.until_said("initial state recorded");
    fs::write(&conf, "2").unwrap();
    watch.reload("done");
    watch.end();
}

#[test]
fn a_full_report_file_is_one_line_and_status_1() {
    let scratch = Scratch::new("full");
    let out = scratch.0.join("out");
    let mut hotr = Command::new(HOTR);
    hotr.args(["trace", "--json", "--channels", "inotify"]).arg(scratch.w()).stdin(Stdio::null());
    hotr.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::piped());
    let mut child = Killed(after(hotr, || limit(Resource::Fsize, 100)).spawn().unwrap());
    let mut status = None;
    until("its end", || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.unwrap().code(), Some(1), "{said}");
    assert!(said.contains("write report to stdout: File too large") && said.lines().count() == 1, "{said}");
}
