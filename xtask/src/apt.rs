//! Debian packages: is one there, put one in, and read what `apt-cache` prints.

use std::{
    cmp::Ordering,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, say};

/// Whether this machine has Debian's package tools.
pub(crate) fn available() -> bool {
    cmd::find("apt-get").is_some() && cmd::find("dpkg").is_some()
}

/// The files of an installed package; empty when it is not installed.
pub(crate) fn files_of(package: &str) -> Vec<PathBuf> {
    let listed =
        Command::new("dpkg").args(["-L", package]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the configured package sources offer every one of `packages`.
pub(crate) fn offers(packages: &[&str]) -> bool {
    let shown = Command::new("apt-cache").arg("policy").args(packages).stdin(Stdio::null()).output();
    shown.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        packages.iter().all(|package| candidate(&text, package).is_some())
    })
}

/// The version that `apt-cache policy` names as the candidate for `package`.
fn candidate<'a>(policy: &'a str, package: &str) -> Option<&'a str> {
    let mut lines = policy.lines().skip_while(|line| line.strip_suffix(':') != Some(package)).skip(1);
    let version = lines
        .by_ref()
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then_some(version)
}

/// Installs `packages`, reading the package lists again only when they do not know one of them or are stale.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !available() {
        bail!(
            "install {}: this is not a Debian machine; install the equivalents yourself",
            packages.join(" ")
        );
    }
    if !is_root() && cmd::find("sudo").is_none() {
        bail!("install packages: not root and no sudo; run as root: {by_hand}");
    }
    let mut updated = false;
    if !offers(packages) {
        update()?;
        updated = true;
    }
    let attempt = || {
        cmd::must_quietly(
            apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages),
            "install packages",
        )
    };
    match attempt() {
        Ok(()) => Ok(()),
        // A list from last month names versions that the mirror no longer has.
        Err(_) if !updated => update().and_then(|()| attempt()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("run it yourself to see more: {by_hand}"))
}

/// Reads the machine's package lists again.
pub(crate) fn update() -> Result<()> {
    say("setup: apt-get update: the package lists are missing or old");
    cmd::must_quietly(apt_get().arg("update"), "read the package lists")
}

fn apt_get() -> Command {
    let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root() {
        // Never wait for a password: an unattended machine has nobody to type it.
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether we run as root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// One package version that a source offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The package's name.
    pub(crate) package: String,
    /// Its exact version.
    pub(crate) version: String,
}

/// The offers in the stanzas of `apt-cache show`.
pub(crate) fn parse_show(text: &str) -> Vec<Offer> {
    text.split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            Some(Offer { package: field("Package:")?, version: field("Version:")? })
        })
        .collect()
}

/// Compares two package versions as dpkg does (deb-version(7)).
pub(crate) fn compare_versions(left: &str, right: &str) -> Ordering {
    let (left_epoch, left_rest) = epoch(left);
    let (right_epoch, right_rest) = epoch(right);
    let (left_upstream, left_revision) = left_rest.rsplit_once('-').unwrap_or((left_rest, ""));
    let (right_upstream, right_revision) = right_rest.rsplit_once('-').unwrap_or((right_rest, ""));
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream.as_bytes(), right_upstream.as_bytes()))
        .then_with(|| compare_part(left_revision.as_bytes(), right_revision.as_bytes()))
}

fn epoch(version: &str) -> (u32, &str) {
    version
        .split_once(':')
        .and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest)))
        .unwrap_or((0, version))
}

/// Alternates between runs of non-digits, ordered by [`weight`], and runs of digits, ordered as numbers.
fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        loop {
            let (a, b) = (left.first().copied(), right.first().copied());
            let digit = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_digit());
            if digit(a) && digit(b) {
                break;
            }
            match weight(a).cmp(&weight(b)) {
                Ordering::Equal => (left, right) = (&left[1..], &right[1..]),
                unequal => return unequal,
            }
        }
        let (left_number, left_rest) = number(left);
        let (right_number, right_rest) = number(right);
        match left_number.cmp(&right_number) {
            Ordering::Equal => (left, right) = (left_rest, right_rest),
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

/// `~` sorts before the end, letters before everything else.
fn weight(byte: Option<u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(byte) if byte.is_ascii_digit() => 1,
        Some(byte) if byte.is_ascii_alphabetic() => u16::from(byte),
        Some(byte) => u16::from(byte) + 256,
    }
}

fn number(text: &[u8]) -> (u64, &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..digits]
        .iter()
        .fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    (value, &text[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        for (older, newer) in [
            ("5.10.9-1", "5.10.262-1"),
            ("6.12.117-1~deb12u1", "6.12.117-1"),
            ("6.1.192-1", "6.1.192-2"),
            ("7.3.4-1~bpo13+1", "7.3.4-1"),
            ("1.0~rc1", "1.0"),
            ("9.0", "1:1.0"),
            ("1.0a", "1.0+b"),
            ("1.0", "1.0.1"),
        ] {
            assert_eq!(compare_versions(older, newer), Ordering::Less, "{older} < {newer}");
            assert_eq!(compare_versions(newer, older), Ordering::Greater, "{newer} > {older}");
        }
        assert_eq!(compare_versions("1.0-01", "1.0-1"), Ordering::Equal);
    }

    #[test]
    fn show_gives_package_and_version_of_each_stanza() {
        let text =
            "Package: a\nDepends: b\nVersion: 1-1\n\nPackage: b\nVersion: 2\nDescription: x\n Version: 9\n\n";
        let offer = |package: &str, version: &str| Offer { package: package.into(), version: version.into() };
        assert_eq!(parse_show(text), [offer("a", "1-1"), offer("b", "2")]);
    }

    #[test]
    fn a_package_without_candidate_is_not_offered() {
        let policy = "a:\n  Installed: (none)\n  Candidate: (none)\nb:\n  Installed: 1\n  Candidate: 2\n";
        assert_eq!(candidate(policy, "a"), None);
        assert_eq!(candidate(policy, "b"), Some("2"));
        assert_eq!(candidate(policy, "c"), None);
    }
}
