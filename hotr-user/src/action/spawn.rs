//! Starting a program without copying this process: the child shares its memory until it execs, as after `vfork`.
//!
//! In: a command. Out: its process id. `fork` copies page tables, and each page is then copied that either side writes
//! to; with a large snapshot in memory that takes milliseconds, between a change and the command for it.
//! `posix_spawn` does the same as this, but knows no signal for the death of the parent.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr::null;

use rustix::process::Pid;

use super::{CommandSpec, Identity};
use crate::sched;
use crate::vfork::ChildStack;

/// Where a program is looked for when there is no `PATH`, as glibc does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// All that the child reads; it allocates nothing, because nobody would free that memory.
struct Plan {
    /// Files to try, in order.
    programs: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    dir: Option<CString>,
    stdin: c_int,
    stdout_to_stderr: bool,
    identity: Option<Identity>,
    /// Why the program does not run; 0 when it does.
    errno: c_int,
}

/// Starts a command in a process group of its own, with the scheduling policy that hotr was started with, its signals
/// as a program expects them, and `stdin`; it gets SIGTERM when the calling thread ends.
pub(super) fn spawn(
    spec: &CommandSpec,
    env: &[(OsString, OsString)],
    stdin: BorrowedFd<'_>,
) -> io::Result<Pid> {
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    all.extend(spec.identity.iter().flat_map(|identity| identity.env.iter().cloned()));
    all.extend(spec.env.iter().chain(env).cloned());
    let program = spec.words.first().ok_or(io::ErrorKind::InvalidInput)?;
    let path = all.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
    let programs = places(program, path).into_iter().map(text).collect::<io::Result<_>>()?;
    let words = spec.words.iter().cloned().map(text).collect::<io::Result<Vec<_>>>()?;
    let variables = all
        .into_iter()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let dir = spec.dir.as_ref().map(|dir| text(dir.clone().into_os_string())).transpose()?;
    let mut plan = Plan {
        programs,
        argv: pointers(&words),
        envp: pointers(&variables),
        dir,
        stdin: stdin.as_raw_fd(),
        stdout_to_stderr: spec.stdout_to_stderr,
        identity: spec.identity.clone(),
        errno: 0,
    };
    let child = plan.start()?;
    if plan.errno == 0 {
        return Ok(child);
    }
    wait(child)?;
    Err(io::Error::from_raw_os_error(plan.errno))
}

/// Waits for the end of a child and reaps it; the raw status.
pub(super) fn wait(child: Pid) -> io::Result<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: a pointer to a live number.
        if unsafe { libc::waitpid(child.as_raw_nonzero().get(), &raw mut status, 0) } >= 0 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The files that a command's name may mean.
fn places(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') || program.is_empty() {
        return vec![program.to_owned()];
    }
    let folders = path.as_bytes().split(|byte| *byte == b':');
    folders
        .map(|folder| {
            let folder = if folder.is_empty() { b"." } else { folder };
            OsString::from_vec([folder, b"/", program.as_bytes()].concat())
        })
        .collect()
}

fn text(words: OsString) -> io::Result<CString> {
    CString::new(words.into_vec()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// As `execve` wants them.
fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words.iter().map(|word| word.as_ptr()).chain([null()]).collect()
}

impl Plan {
    /// Returns when the child has exec'd or ended.
    fn start(&mut self) -> io::Result<Pid> {
        // SAFETY: it takes a plan, and makes system calls on what the plan holds.
        let child = unsafe { ChildStack::new().run(run, self, libc::SIGCHLD)? };
        Pid::from_raw(child).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// In the child; the error of what could not be done.
    ///
    /// # Safety
    /// Only where `start` calls it: the process must be one that ends or execs.
    unsafe fn exec(&self) -> c_int {
        let failed = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
        // SAFETY: plain system calls on numbers and on strings that live; a default handler is no code of ours.
        unsafe {
            reset_signals();
            if libc::setpgid(0, 0) != 0
                || sched::as_started().is_err()
                || self.identity.as_ref().is_some_and(|identity| !become_other(identity))
                // After that: another identity clears it.
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0
                || libc::dup2(self.stdin, 0) < 0
                || self.stdout_to_stderr && libc::dup2(2, 1) < 0
                || self.dir.as_ref().is_some_and(|dir| libc::chdir(dir.as_ptr()) != 0)
            {
                return failed();
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
        let mut refused = libc::ENOENT;
        for program in &self.programs {
            // SAFETY: both lists end with a null pointer, and their strings live.
            unsafe { libc::execve(program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            match failed() {
                // As a shell: another place may have one that runs.
                libc::EACCES => refused = libc::EACCES,
                libc::ENOENT | libc::ENOTDIR => {}
                other => return other,
            }
        }
        refused
    }
}

/// Takes another identity; whether that is so. By bare system calls: those of the C library would have all threads of the
/// process change, which are hotr's.
///
/// # Safety
/// Only in a child that is about to exec.
unsafe fn become_other(identity: &Identity) -> bool {
    let groups = &identity.groups;
    let gid = identity.gid;
    // SAFETY: plain system calls on numbers, and on a list that lives.
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && identity.uid.is_none_or(|uid| libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0)
    }
}

/// Runs in the child.
extern "C" fn run(plan: *mut c_void) -> c_int {
    // SAFETY: the plan that `start` points to, which waits.
    unsafe {
        let plan = plan.cast::<Plan>();
        (*plan).errno = (*plan).exec();
    }
    127
}

/// No handler is left; `SIGPIPE`, which Rust's runtime ignores, and `SIGXFSZ`, which hotr ignores, have their defaults. What
/// else is ignored stays so.
///
/// # Safety
/// Only in a child that is about to exec.
unsafe fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: pointers to live structures; numbers that are no signal, or cannot be set, are refused.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(signal, null(), &raw mut action) == 0;
            let is_ours = !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
            if known && (is_ours || matches!(signal, libc::SIGPIPE | libc::SIGXFSZ)) {
                action = std::mem::zeroed();
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn spec(words: &[&str]) -> CommandSpec {
        let words = words.iter().map(OsString::from).collect();
        CommandSpec { words, dir: None, env: Vec::new(), stdout_to_stderr: false, identity: None }
    }

    fn started(spec: &CommandSpec, env: &[(OsString, OsString)]) -> io::Result<Pid> {
        spawn(spec, env, File::open("/dev/null").unwrap().as_fd())
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hotr-spawn-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_child_has_its_group_folder_variables_and_signals() {
        let dir = folder("child");
        // The shell reads its own state: while it starts another program it blocks signals.
        let script = "test \"$(cut -d' ' -f5 /proc/$$/stat)\" = $$ && echo \"$PWD $A $B\" > out && \
            while read -r key value; do case $key in SigIgn:|SigBlk:) echo \"$key $value\";; esac; done \
            < /proc/$$/status >> out; exit 7";
        let mut spec = spec(&["sh", "-c", script]);
        spec.dir = Some(dir.clone());
        spec.env = vec![("A".into(), "1".into()), ("B".into(), "1".into())];
        let child = started(&spec, &[("B".into(), "2".into())]).unwrap();
        assert_eq!(libc::WEXITSTATUS(wait(child).unwrap()), 7);
        let said = fs::read_to_string(dir.join("out")).unwrap();
        let (first, masks) = said.split_once('\n').unwrap();
        assert_eq!(first, format!("{} 1 2", dir.display()));
        let masks: Vec<u64> =
            masks.lines().map(|line| u64::from_str_radix(line[7..].trim(), 16).unwrap()).collect();
        // In the order of the file.
        let [blocked, ignored] = masks[..] else { panic!("{said}") };
        assert_eq!((ignored >> (libc::SIGPIPE - 1) & 1, blocked), (0, 0), "{said}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_does_not_run_says_why() {
        let dir = folder("refused");
        for (name, mode) in [("plain", 0o644), ("no-interpreter", 0o755)] {
            fs::write(dir.join(name), "true\n").unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = [(OsString::from("PATH"), OsString::from(format!("/absent:{}", dir.display())))];
        for (name, errno) in
            [("absent", libc::ENOENT), ("plain", libc::EACCES), ("no-interpreter", libc::ENOEXEC)]
        {
            let error = started(&spec(&[name]), &path).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "{name}");
        }
        let mut lost = spec(&["true"]);
        lost.dir = Some(dir.join("absent"));
        assert_eq!(started(&lost, &[]).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(started(&spec(&["a\0b"]), &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_dir_all(&dir).unwrap();
    }
}
