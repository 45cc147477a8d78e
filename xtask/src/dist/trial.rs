//! `cargo xtask dist --test`: the packages as their users meet them.
//!
//! In: `target/dist`. Out: a line for each trial with what was measured. All of it needs root, and Debian for the fresh system.
//! Mounts are made in a namespace that only this process has, and in a folder that is removed.

mod container;
mod debian;
mod running;
mod service;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    apt,
    cmd::{self, say},
    setup,
};

/// Of the command that runs in the namespace.
#[derive(Args)]
pub(crate) struct TrialArgs {
    /// The packages
    packages: PathBuf,
    /// An empty folder
    work: PathBuf,
}

/// Starts the trials in a namespace of mounts.
pub(super) fn run(packages: &Path) -> Result<()> {
    ensure!(
        apt::is_root(),
        "try the packages: they are installed in a fresh system, which only root can; run as root"
    );
    setup::install(setup::PACKAGES)?;
    let work = tempfile::tempdir().context("make a folder for the trials")?;
    let this = std::env::current_exe().context("find xtask")?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(this)
        .arg("dist-trial")
        .arg(packages)
        .arg(work.path());
    let tried = cmd::must(&mut command, "try the packages");
    work.close().context("remove the folder of the trials").and(tried)
}

/// Entry point of the command in the namespace.
pub(crate) fn in_namespace(args: &TrialArgs) -> Result<()> {
    let mut failed = Vec::new();
    let mut note = |name: &str, result: Result<()>| {
        match &result {
            Ok(()) => say(format!("dist: test: {name}: ok")),
            Err(error) => {
                say(format!("dist: test: {name}: {error:#}"));
                failed.push(name.to_owned());
            }
        }
        result.is_ok()
    };
    let TrialArgs { packages, work } = args;
    note("hashes", hashes(packages));
    note("lintian", lintian(packages));
    note("archive in an empty root", archive(packages, work));
    note("rpm", rpm(packages, work));
    note("image", image(packages, work));
    let root = work.join("root");
    if note("fresh system", debian::bootstrap(&root).and_then(|()| mount(&root))) {
        let package = one(packages, "deb")?;
        let before = debian::listing(&root)?;
        note("from package to first change", debian::first_change(&root, &package));
        note("names of users", debian::names(&root));
        note("unit", service::analyzed(&root));
        fs::remove_file(root.join("srv/app.conf")).context("remove a file of the trials")?;
        let purged = debian::purge(&root).and_then(|()| debian::compare(&before, &debian::listing(&root)?));
        note("removal", purged);
        note("service", debian::install(&root, &package).and_then(|()| service::booted(&root)));
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// What a running system has there. Its root is a mount of its own, as systemd expects.
fn mount(root: &Path) -> Result<()> {
    let mut bind = Command::new("mount");
    cmd::must_quietly(bind.arg("--bind").args([root, root]), "mount the fresh system")?;
    let mut proc = Command::new("mount");
    cmd::must_quietly(
        proc.args(["-t", "proc", "proc"]).arg(root.join("proc")),
        "mount /proc in the fresh system",
    )?;
    let mut sys = Command::new("mount");
    cmd::must_quietly(sys.args(["--rbind", "/sys"]).arg(root.join("sys")), "mount /sys in the fresh system")
}

fn hashes(packages: &Path) -> Result<()> {
    let mut check = Command::new("sha256sum");
    cmd::must_quietly(
        check.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(packages),
        "check SHA256SUMS",
    )
}

fn lintian(packages: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on=error,warning"]).arg(one(packages, "deb")?);
    let said = cmd::capture(&mut lintian, "lintian")?;
    ensure!(said.is_empty(), "lintian says {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// The program runs where there is nothing else.
fn archive(packages: &Path, work: &Path) -> Result<()> {
    let file = one(packages, "gz")?;
    let packed = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let folder = work.join("archive");
    tar::Archive::new(flate2::read::GzDecoder::new(&*packed))
        .unpack(&folder)
        .context("unpack the archive")?;
    let inner = one_in(&folder, |_| true)?;
    let ldd = cmd::capture(Command::new("ldd").arg(inner.join("hotr")), "ask ldd")?;
    let ldd = String::from_utf8_lossy(&ldd).trim().to_owned();
    ensure!(ldd == "statically linked", "ldd says {ldd}");
    let empty = work.join("empty");
    fs::create_dir(&empty).context("make an empty root")?;
    fs::copy(inner.join("hotr"), empty.join("hotr")).context("copy the program")?;
    let said = cmd::capture(&mut debian::within(&empty, &["/hotr", "--version"]), "run in an empty root")?;
    ensure!(said == version().as_bytes(), "in an empty root it says {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// Installed, verified and removed by rpm, in a root that has nothing else.
fn rpm(packages: &Path, work: &Path) -> Result<()> {
    let package = one(packages, "rpm")?;
    let root = work.join("rpm");
    fs::create_dir(&root).context("make an empty root")?;
    let rpm = |arguments: &[&str], file: Option<&Path>| {
        let mut command = Command::new("rpm");
        command.arg("--root").arg(&root).args(arguments).args(file);
        cmd::capture(&mut command, "try the RPM")
    };
    rpm(&["--initdb"], None)?;
    // Its scripts want a shell, which an empty root does not have.
    rpm(&["--install", "--nodeps", "--noscripts"], Some(&package))?;
    let changed = rpm(&["--verify", "--nodeps", "--noscripts", "--nouser", "--nogroup", "hotr"], None)?;
    ensure!(changed.is_empty(), "rpm --verify says {}", String::from_utf8_lossy(&changed));
    let said =
        cmd::capture(&mut debian::within(&root, &["/usr/bin/hotr", "--version"]), "run what rpm installed")?;
    ensure!(said == version().as_bytes(), "what rpm installed says {}", String::from_utf8_lossy(&said));
    let files = rpm(&["--query", "--list", "hotr"], None)?;
    rpm(&["--erase", "--noscripts", "hotr"], None)?;
    let files = String::from_utf8_lossy(&files).into_owned();
    let left: Vec<&str> = files.lines().filter(|name| root.join(&name[1..]).exists()).collect();
    ensure!(left.is_empty(), "the removed RPM left {}", left.join(", "));
    Ok(())
}

fn image(packages: &Path, work: &Path) -> Result<()> {
    let watched = work.join("watched");
    fs::create_dir(&watched).context("make a folder")?;
    container::run(&one(packages, "oci")?, work, &watched, env!("CARGO_PKG_VERSION"))
}

/// What `hotr --version` prints.
fn version() -> String {
    concat!("hotr ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// The package with this ending.
fn one(packages: &Path, ending: &str) -> Result<PathBuf> {
    one_in(packages, |path| path.extension().is_some_and(|extension| extension == ending))
        .with_context(|| format!("find the package *.{ending}"))
}

fn one_in(folder: &Path, fits: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| fits(path)).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        several => bail!("{}: one was expected, and {} are there", folder.display(), several.len()),
    }
}
