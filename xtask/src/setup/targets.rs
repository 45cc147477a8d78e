//! The real programs that the tests of `hotr diagnose` diagnose.
//!
//! In: Debian's packages, and exact versions from the registries that this machine is configured for. Out: programs in
//! `PATH`, and below `target/tools`. What cannot be installed is one line: its tests then say that they were not run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Need, WATCHEXEC, install, need};
use crate::{
    cmd::{self, say},
    paths,
};

const PACKAGES: &[Need] = &[
    need("node", "nodejs", "runs nodemon and chokidar, which are diagnosed in the tests"),
    need("npm", "npm", "installs nodemon and chokidar"),
    Need {
        program: "python3",
        package: "python3-venv",
        why: "runs watchfiles, which is diagnosed in the tests",
        fits: || {
            let command = &mut Command::new("python3");
            cmd::must_quietly(command.args(["-c", "import ensurepip, venv"]), "look for venv").is_ok()
        },
    },
    need("entr", "entr", "is diagnosed in the tests"),
    need("nginx", "nginx-light", "is reloaded by a watcher that the tests diagnose"),
    need("prometheus", "prometheus", "is diagnosed in the tests"),
    need("incrond", "incron", "is diagnosed in the tests"),
    need("watchman", "watchman", "is diagnosed in the tests"),
];

/// What no Debian package brings. Fixed versions: a test says what becomes of a change in this very program.
struct Tool {
    /// Its folder below `target/tools`.
    name: &'static str,
    versions: &'static str,
    install: fn(&Path, &str) -> Result<()>,
}

const TOOLS: [Tool; 3] = [
    Tool { name: "npm", versions: "nodemon@3.1.14 chokidar@4.0.3", install: npm },
    Tool { name: "python", versions: "watchfiles==1.3.0", install: python },
    Tool { name: "watchexec", versions: WATCHEXEC, install: watchexec },
];

/// Installs what is missing.
pub(crate) fn ensure() {
    if let Err(error) = install(PACKAGES) {
        say(format!("setup: tests of hotr diagnose that need one of these packages do not run: {error:#}"));
    }
    for tool in &TOOLS {
        if let Err(error) = tool.ensure() {
            let (name, versions) = (tool.name, tool.versions);
            say(format!("setup: tests of hotr diagnose with {versions} ({name}) do not run: {error:#}"));
        }
    }
}

impl Tool {
    fn ensure(&self) -> Result<()> {
        let root = paths::target().join("tools");
        // Written when all of it is there.
        let mark = root.join(format!("{}.installed", self.name));
        if fs::read_to_string(&mark).is_ok_and(|versions| versions == self.versions) {
            return Ok(());
        }
        say(format!("setup: installing {}: diagnosed in the tests ({})", self.versions, self.name));
        let dir = root.join(self.name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        (self.install)(&dir, self.versions)?;
        fs::write(&mark, self.versions).with_context(|| format!("write {}", mark.display()))
    }
}

fn npm(dir: &Path, packages: &str) -> Result<()> {
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--save-exact", "--prefix"]).arg(dir);
    cmd::must_quietly(command.args(packages.split(' ')).current_dir(dir), "install with npm")
}

fn python(dir: &Path, package: &str) -> Result<()> {
    cmd::must_quietly(Command::new("python3").args(["-m", "venv"]).arg(dir), "make a place for it")?;
    let pip: PathBuf = dir.join("bin/pip");
    cmd::must_quietly(Command::new(pip).args(["install", "--quiet", package]), "install with pip")
}

/// Unoptimised, which is built faster: it is not measured here.
fn watchexec(dir: &Path, version: &str) -> Result<()> {
    let mut command = cmd::cargo();
    command.args(["install", "watchexec-cli", "--version", version, "--locked", "--debug", "--root"]);
    cmd::must_quietly(command.arg(dir), "install with cargo")
}
