//! The sources of the kernel side, laid out so that its object does not depend on where the checkout is.
//!
//! Cargo gives each crate a number, and names in the object have it inside. The number comes from the crate's folder as seen
//! from the workspace's, or from the whole path where the crate lies outside, as `hotr-common` does for the kernel side. In
//! the copy it lies within.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::sums;
use crate::paths;

/// What the manifest of the kernel side says of the crate that both sides share, and what that of the copy says.
const SHARED: [&str; 2] = ["path = \"../hotr-common\"", "path = \"hotr-common\""];

/// Sections of the workspace's manifest that `hotr-common` refers to.
const INHERITED: [&str; 3] = ["[workspace.package]", "[workspace.lints.rust]", "[workspace.lints.clippy]"];

/// Copies the sources to `to`. Files that are the same stay as they are: cargo goes by their times.
pub(super) fn copy_sources(to: &Path) -> Result<()> {
    let (kernel, shared) = (paths::ebpf_crate(), paths::root().join("hotr-common"));
    copy_folder(&kernel.join("src"), &to.join("src"))?;
    copy_folder(&shared.join("src"), &to.join("hotr-common/src"))?;
    copy(&to.join("hotr-common/Cargo.toml"), &read(&shared.join("Cargo.toml"))?)?;
    copy(&to.join("Cargo.lock"), &read(&kernel.join("Cargo.lock"))?)?;
    let manifest = manifest(&read(&kernel.join("Cargo.toml"))?, &read(&paths::root().join("Cargo.toml"))?)?;
    copy(&to.join("Cargo.toml"), &manifest)
}

fn manifest(kernel: &str, root: &str) -> Result<String> {
    let [outside, within] = SHARED;
    ensure!(kernel.contains(outside), "copy the kernel side: its manifest has no {outside}");
    let mut manifest = kernel.replace(outside, within);
    for title in INHERITED {
        let (_, rest) = root
            .split_once(&format!("{title}\n"))
            .with_context(|| format!("copy the kernel side: the workspace has no {title}"))?;
        let section = rest.split("\n[").next().unwrap_or_default();
        manifest.push_str(&format!("\n{title}\n{section}\n"));
    }
    Ok(manifest)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    sums::files(from)?.iter().try_for_each(|name| copy(&to.join(name), &read(&from.join(name))?))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn copy(to: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(to).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_a_workspace_of_its_own() {
        let kernel = "[dependencies]\nhotr-common = { path = \"../hotr-common\" }\n\n[workspace]\n";
        let root = "[workspace]\nx = 1\n\n[workspace.package]\nversion = \"1\"\n\n[workspace.lints.rust]\na = \"warn\"\n\n\
            [workspace.lints.clippy]\nb = \"deny\"\n\n[profile.release]\n";
        let expected = "[dependencies]\nhotr-common = { path = \"hotr-common\" }\n\n[workspace]\n\n[workspace.package]\n\
            version = \"1\"\n\n\n[workspace.lints.rust]\na = \"warn\"\n\n\n[workspace.lints.clippy]\nb = \"deny\"\n\n";
        assert_eq!(manifest(kernel, root).unwrap(), expected);
        assert!(manifest("", root).is_err() && manifest(kernel, "").is_err());
    }
}
