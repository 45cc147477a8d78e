//! Benchmarks on this machine: `hotr-load` in a folder of its own, which is removed afterwards.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::figures::Figures;
use crate::{
    build::{self, Flavour},
    cmd::{must_quietly, say},
    paths, setup,
};

/// Removed with everything in it, however the benchmark ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say(format!("bench: remove {}: {error}; remove it yourself", self.0.display()));
        }
    }
}

/// Runs one load with `hotr` and gives its figures.
pub(crate) fn measure(load: &str, hotr: &Path, options: &[&OsStr]) -> Result<Figures> {
    let folder = folder(load)?;
    let mut figures = Figures::default();
    let mut command = Command::new(program(Flavour::Release)?);
    command.arg(load).arg("--hotr").arg(hotr).arg("--dir").arg(&folder.0).args(options);
    figures.read("", run(&mut command, load)?.lines())?;
    Ok(figures)
}

/// Filesystems of the audit, with the options of their mkfs; none for a tmpfs.
const AUDITED: [(&str, &[&str]); 3] =
    [("tmpfs", &[]), ("ext4", &["-q", "-F", "-N", "1500000"]), ("xfs", &["-q", "-f"])];
/// Size of an image; the file is sparse.
const IMAGE: u64 = 8 << 30;

/// Audits a tree of `files` files on each filesystem; the keys begin with its name.
pub(crate) fn audit(files: &str, rounds: &str) -> Result<Figures> {
    let program = program(Flavour::Release)?;
    let folder = folder("poll")?;
    let mut figures = Figures::default();
    for (filesystem, options) in AUDITED {
        say(format!("bench: poll: {filesystem}"));
        let mounted = Mounted::new(&folder.0, filesystem, options)?;
        let mut command = Command::new(&program);
        command.args(["poll", "--files", files, "--rounds", rounds, "--dir"]).arg(&mounted.0);
        figures.read(&format!("{filesystem}/"), run(&mut command, "poll")?.lines())?;
    }
    Ok(figures)
}

/// An idle `hotr watch` on `files` files of a tmpfs.
pub(crate) fn watch_idle(hotr: &Path, files: &str, seconds: &str) -> Result<Figures> {
    let folder = folder("watch-idle")?;
    let mounted = Mounted::new(&folder.0, "tmpfs", &[])?;
    let mut command = Command::new(program(Flavour::Release)?);
    command.args(["watch-idle", "--files", files, "--seconds", seconds, "--hotr"]).arg(hotr);
    let mut figures = Figures::default();
    figures.read("", run(command.arg("--dir").arg(&mounted.0), "watch-idle")?.lines())?;
    Ok(figures)
}

fn folder(load: &str) -> Result<Folder> {
    let folder = Folder(paths::target().join("bench").join(format!("{load}-{}", std::process::id())));
    fs::create_dir_all(&folder.0).with_context(|| format!("make {}", folder.0.display()))?;
    Ok(folder)
}

fn run(command: &mut Command, load: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run hotr-load {load}"))?;
    ensure!(output.status.success(), "hotr-load {load} ended with {}; its reason is above", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A filesystem of its own, unmounted however the benchmark ends.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: &Path, filesystem: &str, options: &[&str]) -> Result<Self> {
        let at = folder.join(filesystem);
        fs::create_dir(&at).with_context(|| format!("make {}", at.display()))?;
        let mut mount = Command::new("mount");
        if filesystem == "tmpfs" {
            mount.args(["-t", "tmpfs", "-o", "size=4g,nr_inodes=2000000", "hotr-bench"]);
        } else {
            let image = folder.join(format!("{filesystem}.image"));
            let file = fs::File::create(&image).with_context(|| format!("make {}", image.display()))?;
            file.set_len(IMAGE).with_context(|| format!("make {}", image.display()))?;
            let mkfs = format!("mkfs.{filesystem}");
            must_quietly(Command::new(&mkfs).args(options).arg(&image), &mkfs)?;
            mount.args(["-o", "loop"]).arg(image);
        }
        must_quietly(mount.arg(&at), &format!("mount {filesystem}"))?;
        Ok(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = must_quietly(Command::new("umount").arg(&self.0), "umount") {
            say(format!("bench: {error:#}; unmount {} yourself", self.0.display()));
        }
    }
}

/// Builds `hotr-load`.
pub(crate) fn program(flavour: Flavour) -> Result<PathBuf> {
    let object = build::object(&setup::build()?)?;
    build::program(flavour, &object, "hotr-tests", "hotr-load")
}
