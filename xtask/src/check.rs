//! `cargo xtask check`: what a reviewer would otherwise have to check.
//!
//! Format, lints of both sides, licences, and the shape of the repository: the folders that ARCHITECTURE.md names
//! exist, and modules import only what its table allows.

mod api;
mod imports;
mod library;
mod messages;
mod source;

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build,
    cmd::{self, say},
    paths, setup,
};

/// What ARCHITECTURE.md may have: it is a map.
const MAP_WORDS: usize = 1500;

/// Which checks to make.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Only what needs no compiler: format and folders
    #[arg(long)]
    fast: bool,
    /// Also known faults of the crates used, by a list that cargo-deny fetches with git
    #[arg(long, conflicts_with = "fast")]
    advisories: bool,
    /// Update the public interface of the libraries (`api.txt`)
    #[arg(long)]
    update_api: bool,
}

/// Entry point of the command: every check is made, whatever the others said.
pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut note = |name: &str, result: Result<()>| match result {
        Ok(()) => say(format!("check: {name}: ok")),
        Err(error) => {
            say(format!("check: {name}: {error:#}"));
            failed.push(name.to_owned());
        }
    };
    note("format", format());
    note("folders", folders());
    note("imports", imports::check());
    note("public interface", api::check(args.update_api));
    note("paths of modules", source::paths_stay_in_their_crate());
    if !args.fast {
        note("lints", lints());
        note("library alone", library::stands_alone());
        note("kernel messages", messages::check());
        note("licences", deny(&["licenses", "bans", "sources"]));
    }
    if args.advisories {
        note("known faults", deny(&["advisories"]));
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("check: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn format() -> Result<()> {
    let mut workspace = cmd::cargo();
    cmd::must(workspace.args(["fmt", "--all", "--check"]).current_dir(paths::root()), "check the format")?;
    let ebpf = paths::ebpf_crate();
    if ebpf.join("Cargo.toml").is_file() {
        cmd::must(
            cmd::cargo().args(["fmt", "--check"]).current_dir(ebpf),
            "check the format of the kernel side",
        )?;
    }
    Ok(())
}

/// The userspace crates are linted with the real object. The kernel side is read by the workspace's clippy as if for
/// this machine, because eBPF compilers seldom come with one, and by its own compiler with every warning an error.
fn lints() -> Result<()> {
    let rust = setup::build()?;
    let object = build::object(&rust)?;
    let mut workspace = cmd::cargo();
    workspace
        .args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"])
        .env(build::OBJECT, object);
    cmd::must(workspace.current_dir(paths::root()), "lint the workspace")?;
    let folder = paths::ebpf_crate();
    // A folder of its own: other flags in the build's folder would make the next build start over.
    let target = folder.join("target/lint");
    let mut clippy = cmd::cargo();
    clippy.args(["clippy", "--release", "--quiet", "--target-dir"]).arg(&target).args(["--", "-Dwarnings"]);
    clippy.current_dir(&folder).env("RUSTC_BOOTSTRAP", "1");
    cmd::must(&mut clippy, "lint the kernel side")?;
    for features in [&[][..], &["--features", "log"]] {
        let mut compiler = rust.cargo("check", &["-Dwarnings"])?;
        compiler
            .args(["--release", "--quiet", "--target-dir"])
            .arg(&target)
            .args(features)
            .current_dir(&folder);
        cmd::must(&mut compiler, "check the kernel side with its own compiler")?;
    }
    Ok(())
}

/// What `deny.toml` says, of both workspaces.
fn deny(checks: &[&str]) -> Result<()> {
    if cmd::find("cargo-deny").is_none() {
        let what = checks.join(", ");
        say(format!(
            "check: {what}: cargo-deny is not installed; `cargo install cargo-deny --locked` to have it checked"
        ));
        return Ok(());
    }
    for workspace in [paths::root().to_path_buf(), paths::ebpf_crate()] {
        let mut command = Command::new("cargo-deny");
        command.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
        command.arg("--config").arg(paths::root().join("deny.toml"));
        command.args(["--log-level", "error", "check"]).args(checks);
        cmd::must(&mut command, "check what deny.toml says")?;
    }
    Ok(())
}

fn folders() -> Result<()> {
    let file = paths::root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let absent: Vec<String> =
        named_folders(&text).into_iter().filter(|name| !paths::root().join(name).is_dir()).collect();
    let words = text.split_whitespace().count();
    anyhow::ensure!(
        words <= MAP_WORDS,
        "ARCHITECTURE.md has {words} words, and a map at most {MAP_WORDS}: put reasons and measurements into docs/design/"
    );
    anyhow::ensure!(
        absent.is_empty(),
        "ARCHITECTURE.md names folders that do not exist: {}",
        absent.join(", ")
    );
    Ok(())
}

/// Folders named in Markdown as inline code that ends in a slash, for example `hotr-user/src/kernel/`.
fn named_folders(markdown: &str) -> Vec<String> {
    let mut found: Vec<String> = markdown
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.len() > 1 && code.ends_with('/') && !code.starts_with('/'))
        .filter(|code| code.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c)))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_in_inline_code_only() {
        let text = "see `b/src/` and `a/`, not c/ nor `/proc/` nor `x.rs` nor `a {b}/`";
        assert_eq!(named_folders(text), ["a/", "b/src/"]);
    }
}
