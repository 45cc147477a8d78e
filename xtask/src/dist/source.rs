//! What is packaged: the commit, its time, and the version that it has.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cmd, paths};

/// One state of the sources.
pub(super) struct Source {
    /// Of `hotr-user`'s Cargo.toml.
    pub(super) version: String,
    /// The commit's hash.
    pub(super) commit: String,
    /// Seconds since 1970 when the commit was made: the time of all files in packages (`SOURCE_DATE_EPOCH`).
    pub(super) time: u64,
    /// The same as in a mail's `Date:`, for Debian's changelog.
    pub(super) mail_date: String,
    /// The same as RFC 3339, in UTC.
    pub(super) utc: String,
    /// Who made the commit, `NAME <MAIL>`.
    pub(super) author: String,
    /// Files that differ from the commit, as git lists them.
    changed: Vec<String>,
}

impl Source {
    /// Of the checkout that xtask was built in.
    pub(super) fn of_checkout() -> Result<Self> {
        let log = git(&[
            "log",
            "-1",
            "--date=format-local:%Y-%m-%dT%H:%M:%SZ",
            "--format=%H%n%ct%n%cD%n%cd%n%an <%ae>",
        ])?;
        let mut lines = log.lines().map(str::to_owned);
        let mut next = || lines.next().context("read the commit: git says less than it was asked for");
        let (commit, time, mail_date, utc, author) = (next()?, next()?, next()?, next()?, next()?);
        Ok(Self {
            // xtask has the version of the workspace, as hotr has.
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit,
            time: time.parse().with_context(|| format!("read the commit's time {time}"))?,
            mail_date,
            utc,
            author,
            changed: git(&["status", "--porcelain"])?.lines().map(str::to_owned).collect(),
        })
    }

    /// Fails, unless that is `allowed`, when the files are not those of the commit.
    pub(super) fn must_be_clean(&self, allowed: bool) -> Result<()> {
        match self.changed.as_slice() {
            [first, ..] if !allowed => bail!(
                "package hotr: {} of the checkout's files are not as committed, such as {}; commit them, or use --allow-dirty",
                self.changed.len(),
                first.trim()
            ),
            _ => Ok(()),
        }
    }

    /// The commit, and whether files differ from it.
    pub(super) fn revision(&self) -> String {
        let suffix = if self.changed.is_empty() { "" } else { "-dirty" };
        format!("{}{suffix}", self.commit)
    }
}

/// What git says of the checkout.
fn git(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(paths::root()).env("TZ", "UTC").env("LC_ALL", "C");
    let said = cmd::capture(&mut command, "ask git about the checkout")?;
    String::from_utf8(said).context("ask git about the checkout: its answer is not UTF-8")
}
