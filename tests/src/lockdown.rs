//! A kernel that is locked down: hotr continues where it may, and says in one line why not where it may not.
//!
//! Nothing but a boot takes a lockdown back (security/lockdown/lockdown.c `lock_kernel_down`), so these are the last
//! cases of a guest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use crate::group::{Group, Report, Setting};
use crate::session::Session;

/// Where the kernel may not be changed, but read.
pub const INTEGRITY: Group = Group {
    place: "lockdown",
    names: || INTEGRITY_CASES.map(|(name, _)| name).to_vec(),
    make: make_integrity,
};

/// Where it may not be read either.
pub const CONFIDENTIALITY: Group = Group {
    place: "lockdown",
    names: || CONFIDENTIALITY_CASES.map(|(name, _)| name).to_vec(),
    make: make_confidentiality,
};

const SECURITYFS: &str = "/sys/kernel/security";

type Case = fn(&Locked<'_>) -> Result<()>;

const INTEGRITY_CASES: [(&str, Case); 1] = [("lockdown-integrity", traces)];

/// The last one unmounts securityfs.
const CONFIDENTIALITY_CASES: [(&str, Case); 4] = [
    ("lockdown-demanded", demanded),
    ("lockdown-inotify", left_to_inotify),
    ("lockdown-doctor", examined),
    ("lockdown-untold", untold),
];

fn make_integrity(report: &mut Report<'_>) {
    make(report, "integrity", &INTEGRITY_CASES);
}

fn make_confidentiality(report: &mut Report<'_>) {
    make(report, "confidentiality", &CONFIDENTIALITY_CASES);
}

fn make(report: &mut Report<'_>, mode: &str, cases: &[(&'static str, Case)]) {
    let file = Path::new(SECURITYFS).join("lockdown");
    let mounted = if file.exists() {
        Ok(())
    } else {
        mount("hotr", SECURITYFS, "securityfs", MountFlags::empty(), None)
            .with_context(|| format!("mount {SECURITYFS}"))
    };
    if mounted.is_ok() && !file.exists() {
        return report.excuse("this kernel has no lockdown module");
    }
    let setting = report.setting;
    let locked = mounted.and_then(|()| Locked::new(setting, &file, mode));
    report.cases(cases.iter().copied(), locked, |locked, case| case(locked), Locked::end);
}

/// A machine that has been locked down.
struct Locked<'a> {
    setting: Setting<'a>,
    dir: PathBuf,
}

impl<'a> Locked<'a> {
    /// Locks down as far as this mode. A kernel that is locked further cannot be brought back, and is an error.
    fn new(setting: Setting<'a>, file: &Path, mode: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("hotr-lockdown-{}", setting.tier));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let is_so = || -> io::Result<bool> { Ok(fs::read_to_string(file)?.contains(&format!("[{mode}]"))) };
        if !is_so()? {
            fs::write(file, mode).with_context(|| format!("write {mode} to {}", file.display()))?;
        }
        ensure!(is_so()?, "{} did not take {mode}", file.display());
        Ok(Self { setting, dir })
    }

    fn start(&self, channels: &str) -> Result<(Session, Value)> {
        let Setting { hotr, tier, deadlines, .. } = self.setting;
        Session::start(hotr, channels, tier, &[&self.dir], deadlines, false)
    }

    /// Makes a file, and waits until hotr has reported it; then hotr exits normally.
    fn heard(&self, mut session: Session) -> Result<()> {
        let path = self.dir.join("file");
        fs::write(&path, "x")?;
        for op in ["create", "write"] {
            session
                .read_until(|session| session.seen.iter().any(|seen| seen.op == op && seen.path == path))
                .with_context(|| format!("the {op} was not reported; messages: {}", session.messages()))?;
        }
        fs::remove_file(&path)?;
        let end = session.finish()?;
        ensure!(end.status.success(), "{}; messages: {}", end.status, session.messages());
        Ok(())
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.setting.hotr);
        command.args(args).arg(&self.dir).stdin(Stdio::null());
        command.output().with_context(|| format!("run {command:?}"))
    }

    fn end(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

fn traces(locked: &Locked<'_>) -> Result<()> {
    let (session, _) = locked.start("ebpf")?;
    locked.heard(session)
}

fn demanded(locked: &Locked<'_>) -> Result<()> {
    let output = locked.run(&["trace", "--json", "--channels", "ebpf", "--tier", locked.setting.tier])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    ensure!(said.lines().count() == 1 && said.starts_with("hotr: ") && says_why(&said), "it said {said}");
    Ok(())
}

/// The cause, and what can be done.
fn says_why(text: &str) -> bool {
    ["lockdown", "boot with lockdown=integrity"].iter().all(|words| text.contains(words))
}

fn left_to_inotify(locked: &Locked<'_>) -> Result<()> {
    let (session, ready) = locked.start("auto")?;
    let channels = &ready["channels"];
    ensure!(channels["ebpf"]["state"] == "off" && channels["inotify"]["state"] == "active", "{ready}");
    ensure!(channels["ebpf"]["why"].as_str().is_some_and(says_why), "{ready}");
    locked.heard(session)
}

fn examined(locked: &Locked<'_>) -> Result<()> {
    let output = locked.run(&["doctor", "--json"])?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("parse the doctor's lines")?;
    let mode = lines.iter().find(|line| line["section"] == "kernel").map(|line| &line["lockdown"]);
    ensure!(mode.is_some_and(|mode| mode == "confidentiality"), "the mode is {mode:?}");
    let hooks: Vec<&Value> = lines.iter().filter(|line| line["section"] == "hook").collect();
    let forbidden = |line: &&Value| line["why"].as_str().is_some_and(|why| why.contains("lockdown forbids"));
    ensure!(!hooks.is_empty() && hooks.iter().all(forbidden), "{hooks:?}");
    Ok(())
}

/// Without securityfs nothing shows the mode; the kernel's refusal does.
fn untold(locked: &Locked<'_>) -> Result<()> {
    unmount(SECURITYFS, UnmountFlags::empty()).with_context(|| format!("unmount {SECURITYFS}"))?;
    demanded(locked)?;
    left_to_inotify(locked)
}
