//! Benchmarks on this machine: `hotr-load` in a folder of its own, which is removed afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::figures::Figures;
use crate::{
    build::{self, Flavour},
    cmd::say,
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
pub(crate) fn measure(load: &str, hotr: &Path, options: &[&str]) -> Result<Figures> {
    let program = program(Flavour::Release)?;
    let folder = Folder(paths::target().join("bench").join(format!("{load}-{}", std::process::id())));
    fs::create_dir_all(&folder.0).with_context(|| format!("make {}", folder.0.display()))?;
    let output = Command::new(program)
        .arg(load)
        .arg("--hotr")
        .arg(hotr)
        .arg("--dir")
        .arg(&folder.0)
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run hotr-load {load}"))?;
    ensure!(output.status.success(), "hotr-load {load} ended with {}; its reason is above", output.status);
    let mut figures = Figures::default();
    figures.read("", String::from_utf8_lossy(&output.stdout).lines())?;
    Ok(figures)
}

/// Builds `hotr-load`.
pub(crate) fn program(flavour: Flavour) -> Result<PathBuf> {
    let object = build::object(&setup::build()?)?;
    build::program(flavour, &object, "hotr-tests", "hotr-load")
}
