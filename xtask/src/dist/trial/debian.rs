//! The Debian package on a fresh system: installed, used, removed.
//!
//! In: the package. Out: measured times. The system is what debootstrap makes of Debian's own packages, with systemd for the
//! units and no compiler.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::running::Running;
use crate::cmd::{self, say};

/// Most time from the start of the installation until a change was reported.
const FIRST_CHANGE: Duration = Duration::from_secs(3);
/// What the package manager and systemd keep for themselves, also after a package is removed.
const KEPT: [&str; 6] =
    ["var/lib/dpkg", "var/log", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-"];

/// Makes the system in `root`, with the package sources of this machine.
pub(super) fn bootstrap(root: &Path) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite =
        suite.context("make a Debian system: /etc/os-release names no release; run this on Debian")?;
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(RELEASE) $(SITE)", "Created-By: Packages"]);
    let sources = String::from_utf8(cmd::capture(&mut ask, "read the package sources")?)
        .context("read the package sources")?;
    let site = sources.lines().find_map(|line| line.strip_prefix(suite)?.strip_prefix(' '));
    let site = site.with_context(|| format!("make a Debian system: no package source has {suite}"))?;
    let start = Instant::now();
    let mut debootstrap = Command::new(cmd::find("debootstrap").context("find debootstrap")?);
    debootstrap
        .args(["--variant=minbase", "--include=systemd,systemd-sysv,libnss-systemd", suite])
        .arg(root)
        .arg(site);
    cmd::must_quietly(&mut debootstrap, "make a Debian system")?;
    say(format!("dist: test: a fresh {suite} in {} s", start.elapsed().as_secs()));
    Ok(())
}

/// A command in the system.
pub(super) fn within(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(cmd::find("chroot").unwrap_or_else(|| PathBuf::from("chroot")));
    command.arg(root).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    command.env_remove("TMPDIR").current_dir("/");
    command
}

/// Installs the package.
pub(super) fn install(root: &Path, package: &Path) -> Result<()> {
    fs::copy(package, root.join("hotr.deb")).context("copy the package")?;
    let installed =
        cmd::must_quietly(&mut within(root, &["dpkg", "--install", "/hotr.deb"]), "install the package");
    fs::remove_file(root.join("hotr.deb")).context("remove the copy of the package")?;
    installed
}

/// From the package to the first reported change.
pub(super) fn first_change(root: &Path, package: &Path) -> Result<()> {
    let start = Instant::now();
    install(root, package)?;
    let installed = start.elapsed();
    let mut trace =
        Running::start(&mut within(root, &["hotr", "trace", "--json", "/srv"]), "trace in the fresh system")?;
    trace.report("ready", &[])?;
    let ready = start.elapsed();
    fs::write(root.join("srv/app.conf"), "a = 1\n").context("write in the fresh system")?;
    trace.report("change", &["\"path\":\"/srv/app.conf\"", "\"ebpf\""])?;
    let reported = start.elapsed();
    say(format!(
        "dist: test: installed after {:.2} s, ready after {:.2} s, first change reported after {:.2} s",
        installed.as_secs_f64(),
        ready.as_secs_f64(),
        reported.as_secs_f64()
    ));
    ensure!(
        reported <= FIRST_CHANGE,
        "the first change was reported after {reported:?}, and {FIRST_CHANGE:?} are allowed"
    );
    let status = trace.terminate()?;
    ensure!(status.success(), "trace in the fresh system ended with {status}");
    cmd::must_quietly(&mut within(root, &["dpkg", "--verify", "hotr"]), "verify the installed files")
}

/// Names of users in a program without shared libraries, where the system asks more than its files for names.
pub(super) fn names(root: &Path) -> Result<()> {
    let switch = fs::read_to_string(root.join("etc/nsswitch.conf")).context("read nsswitch.conf")?;
    ensure!(
        switch.lines().any(|line| line.starts_with("passwd:") && line.contains("systemd")),
        "the fresh system looks names up in files only: the trial would show nothing"
    );
    let mut known = within(root, &["hotr", "trace", "--uid", "daemon", "--duration", "0s", "/srv"]);
    cmd::must_quietly(&mut known, "trace the changes of a user by name")?;
    let unknown = within(root, &["hotr", "trace", "--uid", "nobody-of-this-name", "/srv"])
        .output()
        .context("start hotr")?;
    let said = String::from_utf8_lossy(&unknown.stderr);
    ensure!(
        unknown.status.code() == Some(2) && said.contains("there is no such user"),
        "an unknown user ends with {}: {said}",
        unknown.status
    );
    let made = root.join("srv/by-daemon/made");
    let folder = root.join("srv/by-daemon");
    fs::create_dir(&folder).context("make a folder")?;
    cmd::must_quietly(
        &mut within(root, &["chown", "daemon:daemon", "/srv/by-daemon"]),
        "give a folder to a user",
    )?;
    let watch = [
        "hotr",
        "watch",
        "--json",
        "--user",
        "daemon",
        "/srv/app.conf",
        "--",
        "touch",
        "/srv/by-daemon/made",
    ];
    let mut watch = Running::start(&mut within(root, &watch), "watch as another user")?;
    watch.report("ready", &[])?;
    fs::write(root.join("srv/app.conf"), "a = 2\n").context("write in the fresh system")?;
    super::running::until("run a command as another user", || made.exists().then_some(()))?;
    let (owner, daemon) =
        (made.metadata().context("read the owner")?, folder.metadata().context("read the owner")?);
    ensure!(owner.uid() == daemon.uid() && owner.uid() != 0, "the command ran as user {}", owner.uid());
    drop(watch);
    fs::remove_dir_all(&folder).context("remove a folder")
}

/// Removes the package with all that it has made.
pub(super) fn purge(root: &Path) -> Result<()> {
    cmd::must_quietly(&mut within(root, &["dpkg", "--purge", "hotr"]), "remove the package")
}

/// Every name in the system, without what is mounted there and what others keep.
pub(super) fn listing(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut names = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| format!("read {}", path.display()))? {
            let entry = entry.with_context(|| format!("read {}", path.display()))?;
            let name = folder.join(entry.file_name());
            let is_left_out = ["proc", "run", "sys"].iter().chain(&KEPT).any(|kept| name.starts_with(kept));
            if is_left_out {
                continue;
            }
            if entry.file_type().context("read a type")?.is_dir() {
                waiting.push(name.clone());
            }
            names.insert(name);
        }
    }
    Ok(names)
}

/// Nothing is left, and nothing of others is gone.
pub(super) fn compare(before: &BTreeSet<PathBuf>, after: &BTreeSet<PathBuf>) -> Result<()> {
    let list = |names: Vec<&PathBuf>| {
        names.iter().map(|name| name.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    let left: Vec<_> = after.difference(before).collect();
    let gone: Vec<_> = before.difference(after).collect();
    if left.is_empty() && gone.is_empty() {
        return Ok(());
    }
    bail!("the removed package left [{}] and took [{}]", list(left), list(gone))
}
