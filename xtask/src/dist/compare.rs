//! `cargo xtask dist --check`: a second build elsewhere gives the same bytes.
//!
//! In: the packages of the checkout. Out: a verdict. The second build is one of a fresh clone, in another folder, with its own
//! xtask and nothing compiled before: what depends on a path, on an order or on the moment shows.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::sums;
use crate::{
    cmd::{self, say},
    paths,
};

/// Builds the commit in a clone and compares it with what is in `folder`.
pub(super) fn with_clone(folder: &Path, maintainer: Option<&str>) -> Result<()> {
    // Not below target/: its name would be below the checkout's, which is mapped already.
    let elsewhere = tempfile::tempdir().context("make a folder for the second build")?;
    let clone = elsewhere.path().join("another-hotr");
    say(format!("dist: the second build, of a clone in {}", clone.display()));
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--local", "--no-hardlinks"]).arg(paths::root()).arg(&clone);
    cmd::must_quietly(&mut git, "clone the checkout")?;
    let mut build = cmd::cargo();
    build.args(["xtask", "dist"]).current_dir(&clone);
    build.args(maintainer.map(|maintainer| format!("--maintainer={maintainer}")));
    // Cargo gives its own folders and settings on to what it runs: none of them is the clone's.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || ["CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"].contains(&&*text)
        {
            build.env_remove(&name);
        }
    }
    cmd::must(&mut build, "build the clone")?;
    compare(folder, &clone.join("target/dist"))?;
    say("dist: both builds are the same, byte for byte");
    elsewhere.close().context("remove the folder of the second build")
}

/// Every file is in both folders, with the same content.
fn compare(left: &Path, right: &Path) -> Result<()> {
    let names: BTreeSet<_> = sums::files(left)?.into_iter().chain(sums::files(right)?).collect();
    let mut different = Vec::new();
    for name in names {
        match (fs::read(left.join(&name)).ok(), fs::read(right.join(&name)).ok()) {
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => {
                let at = one.iter().zip(&other).position(|(one, other)| one != other);
                let at = at.unwrap_or(one.len().min(other.len()));
                different.push(format!("{} (from byte {at})", name.display()));
            }
            (one, _) => {
                let which = if one.is_some() { "first" } else { "second" };
                different.push(format!("{} (only in the {which})", name.display()));
            }
        }
    }
    if !different.is_empty() {
        bail!("compare two builds of one commit: they differ in {}", different.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let both = |name: &str, one: &str, other: &str| {
            fs::write(left.path().join(name), one).unwrap();
            fs::write(right.path().join(name), other).unwrap();
        };
        both("same", "abc", "abc");
        compare(left.path(), right.path()).unwrap();
        both("byte", "abc", "abd");
        both("length", "abc", "abcd");
        fs::write(right.path().join("more"), "").unwrap();
        let error = compare(left.path(), right.path()).unwrap_err().to_string();
        for part in ["byte (from byte 2)", "length (from byte 3)", "more (only in the second)"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("same"), "{error}");
    }
}
