//! The crates that are linked into the program, of both sides.
//!
//! In: what cargo resolves for hotr, not for the tools beside it. Out: names, versions, licences, the hashes that Cargo.lock
//! has, and the folders of their sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{build, cmd, paths};

/// One crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Component {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// The expression of its Cargo.toml.
    pub(super) licence: Option<String>,
    /// SHA-256 of its package; none for a crate of this repository.
    pub(super) sha256: Option<String>,
    /// The folder of its sources.
    pub(super) folder: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
}

/// All of them, sorted.
pub(super) fn linked() -> Result<Vec<Component>> {
    let triple = build::host_triple();
    let user = of_workspace(paths::root(), &["--package", "hotr-user", "--target", &triple])?;
    let kernel = of_workspace(&paths::ebpf_crate(), &[])?;
    let all: BTreeMap<_, _> =
        user.into_iter().chain(kernel).map(|one| ((one.name.clone(), one.version.clone()), one)).collect();
    Ok(all.into_values().collect())
}

fn of_workspace(folder: &Path, which: &[&str]) -> Result<BTreeSet<Component>> {
    let what = "list the crates of the program";
    let mut tree = cmd::cargo();
    tree.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let tree = cmd::capture(tree.args(which).current_dir(folder), what)?;
    let mut metadata = cmd::cargo();
    metadata.args(["metadata", "--locked", "--format-version", "1"]).current_dir(folder);
    let metadata: Metadata = serde_json::from_slice(&cmd::capture(&mut metadata, what)?).context(what)?;
    let lock = folder.join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let hashes = hashes(&lock);
    named(&String::from_utf8_lossy(&tree))
        .into_iter()
        .map(|(name, version)| {
            let package = metadata
                .packages
                .iter()
                .find(|package| package.name == name && package.version == version)
                .with_context(|| format!("{what}: cargo says nothing of {name} {version}"))?;
            Ok(Component {
                licence: package.license.clone(),
                sha256: hashes.get(&(name.as_str(), version.as_str())).map(|&hash| hash.to_owned()),
                folder: package.manifest_path.parent().map(Path::to_path_buf).unwrap_or_default(),
                name,
                version,
            })
        })
        .collect()
}

/// Names and versions in the lines of `cargo tree`: `NAME vVERSION`, and more.
fn named(tree: &str) -> BTreeSet<(String, String)> {
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
        })
        .collect()
}

/// The checksums in Cargo.lock, by name and version. Cargo writes each key on a line of its own.
fn hashes(lock: &str) -> BTreeMap<(&str, &str), &str> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let value = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
                Some(line.trim_matches('"'))
            };
            Some(((value("name")?, value("version")?), value("checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_read_from_cargos_tree() {
        let tree = "hotr-user v0.1.0 (/h/hotr-user)\nanstyle v1.0.1\nanstyle v1.0.1 (*)\n\n[build]\n";
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(named(tree), BTreeSet::from([pair("hotr-user", "0.1.0"), pair("anstyle", "1.0.1")]));
    }

    #[test]
    fn hashes_are_read_from_the_lock() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"s\"\nchecksum = \"00ff\"\n\n\
            [[package]]\nname = \"own\"\nversion = \"2\"\ndependencies = [\n \"a\",\n]\n";
        assert_eq!(hashes(lock), BTreeMap::from([(("a", "1"), "00ff")]));
    }
}
