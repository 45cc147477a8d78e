//! `cargo xtask build`: the kernel side first, then the program that carries it.
//!
//! In: the sources. Out: `target/release/hotr`, one file. Cargo decides what is fresh; nothing is touched here,
//! so a second run costs two freshness checks.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::{cmd, paths, setup, toolchain::EbpfRust};

/// Gives hotr-user's build script the object to carry.
pub(crate) const OBJECT: &str = "HOTR_EBPF_OBJECT";

/// How to build.
#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Optimised, to target/release (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Unoptimised, to target/debug
    #[arg(long)]
    debug: bool,
    /// Without shared libraries, to target/vm: runs on a machine or guest that has none
    #[arg(long = "static")]
    without_libraries: bool,
    /// With the messages of the kernel programs, for debugging a hook: `hotr trace --log-ebpf`. Unoptimised and without shared
    /// libraries, to target/vm
    #[arg(long, conflicts_with_all = ["release", "debug", "without_libraries"])]
    log_ebpf: bool,
}

/// One flavour of the userspace programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Optimised, for this machine.
    Release,
    /// Unoptimised, for this machine.
    Debug,
    /// Optimised and without shared libraries, for guests.
    Static,
    /// With messages of the kernel programs, unoptimised and without shared libraries: for this machine and for guests.
    Log,
}

/// Where a build for packages puts its files, and what makes it the same on every machine.
pub(crate) struct Place {
    /// A target folder of its own.
    pub(crate) target: PathBuf,
    /// Flags of rustc, for the program and not for what builds it.
    pub(crate) flags: Vec<String>,
    /// Seconds since 1970, for whatever would take the moment (`SOURCE_DATE_EPOCH`).
    pub(crate) time: u64,
}

/// Entry point of the command.
pub(crate) fn run(args: &BuildArgs) -> Result<()> {
    let flavour = match args {
        BuildArgs { log_ebpf: true, .. } => Flavour::Log,
        BuildArgs { without_libraries: true, .. } => Flavour::Static,
        BuildArgs { debug: true, release: false, .. } => Flavour::Debug,
        _ => Flavour::Release,
    };
    let built = hotr(flavour)?;
    println!("{}", built.display());
    Ok(())
}

/// Sets up, builds both sides, and returns the program's place.
pub(crate) fn hotr(flavour: Flavour) -> Result<PathBuf> {
    let rust = setup::build()?;
    let object = if flavour == Flavour::Log { log_object(&rust)? } else { object(&rust)? };
    program(flavour, &object, "hotr-user", "hotr")
}

/// Builds the kernel side and returns the object's place.
pub(crate) fn object(rust: &EbpfRust) -> Result<PathBuf> {
    object_in(rust, &paths::ebpf_crate())
}

/// The same from a copy of its sources.
pub(crate) fn object_in(rust: &EbpfRust, folder: &Path) -> Result<PathBuf> {
    if !folder.join("Cargo.toml").is_file() {
        bail!("build the kernel side: {} is not there", folder.display());
    }
    let mut command = rust.cargo("build", &[])?;
    let target = folder.join("target");
    say_if_first(&target, "build the kernel side");
    command.arg("--release").arg("--target-dir").arg(target).current_dir(folder);
    executable(&mut command, None, "build the kernel side")
}

/// The same from `sources` with flags, in a target folder of its own.
pub(crate) fn object_at(rust: &EbpfRust, place: &Place, sources: &Path) -> Result<PathBuf> {
    let flags: Vec<&str> = place.flags.iter().map(String::as_str).collect();
    let mut command = rust.cargo("build", &flags)?;
    command.args(["--release", "--locked", "--target-dir"]).arg(&place.target).current_dir(sources);
    command.env("SOURCE_DATE_EPOCH", place.time.to_string());
    executable(&mut command, None, "build the kernel side")
}

/// Builds the kernel side with the empty program of the benchmarks, apart from the object that hotr carries.
pub(crate) fn bench_object(rust: &EbpfRust) -> Result<PathBuf> {
    let folder = paths::ebpf_crate();
    let mut command = rust.cargo("build", &[])?;
    command.args(["--release", "--features", "bench", "--target-dir"]).arg(folder.join("target/bench"));
    executable(command.current_dir(&folder), None, "build the empty program")
}

/// Builds the kernel side with its messages, apart from the object that hotr usually carries.
pub(crate) fn log_object(rust: &EbpfRust) -> Result<PathBuf> {
    let folder = paths::ebpf_crate();
    let mut command = rust.cargo("build", &[])?;
    command.args(["--release", "--features", "log", "--target-dir"]).arg(folder.join("target/log"));
    executable(command.current_dir(&folder), None, "build the kernel side with messages")
}

/// Builds the binary `binary` of `package` with `object` inside and returns its place.
pub(crate) fn program(flavour: Flavour, object: &Path, package: &str, binary: &str) -> Result<PathBuf> {
    let mut command = cmd::cargo();
    command
        .args(["build", "--package", package, "--bin", binary])
        .current_dir(paths::root())
        .env(OBJECT, object);
    let built = paths::target().join(match flavour {
        Flavour::Release => "release",
        Flavour::Debug => "debug",
        Flavour::Static | Flavour::Log => "vm",
    });
    say_if_first(&built, &format!("build {binary}"));
    if !matches!(flavour, Flavour::Debug | Flavour::Log) {
        command.arg("--release");
    }
    if matches!(flavour, Flavour::Static | Flavour::Log) {
        // The target is named so that the flags reach the program only: procedural macros cannot be static.
        let triple = host_triple();
        let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
        command.args(["--target", &triple]).arg("--target-dir").arg(paths::target().join("vm"));
        command.env(flags, "-Ctarget-feature=+crt-static");
    }
    executable(&mut command, Some(binary), &format!("build {binary}"))
}

/// Builds hotr for packages, with `object` inside and no symbols, and returns its place.
pub(crate) fn program_at(place: &Place, object: &Path) -> Result<PathBuf> {
    let mut command = cmd::cargo();
    command
        .args(["build", "--release", "--locked", "--package", "hotr-user", "--bin", "hotr"])
        // The target is named so that the flags reach the program only: procedural macros cannot be static.
        .args(["--target", &host_triple(), "--target-dir"])
        .arg(&place.target)
        .current_dir(paths::root())
        .env(OBJECT, object)
        .env("SOURCE_DATE_EPOCH", place.time.to_string())
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_ENCODED_RUSTFLAGS", place.flags.join("\x1f"));
    executable(&mut command, Some("hotr"), "build hotr")
}

/// Cargo runs quietly, and a first build takes minutes: xtask says so.
fn say_if_first(target: &Path, what: &str) {
    if !target.exists() {
        cmd::say(format!("{what}: for the first time, which takes some minutes"));
    }
}

/// The target of what runs on this machine.
pub(crate) fn host_triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The line of `cargo --message-format=json` that interests us.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Runs a cargo build with its diagnostics shown, and returns the executable that cargo says it made: the
/// name and folder are cargo's to choose.
fn executable(command: &mut Command, binary: Option<&str>, what: &str) -> Result<PathBuf> {
    command.args(["--quiet", "--message-format=json-render-diagnostics"]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{what}: cannot start cargo"))?;
    if !output.status.success() {
        bail!("{what}: cargo ended with {}; its messages are above", output.status);
    }
    made(&String::from_utf8_lossy(&output.stdout), binary)
        .with_context(|| format!("{what}: cargo reported no executable; does the crate have a [[bin]]?"))
}

/// The executable that cargo's messages name, of the target `binary` if that is given.
fn made(messages: &str, binary: Option<&str>) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| {
            binary.is_none_or(|name| message.target.as_ref().is_some_and(|target| target.name == name))
        })
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_taken_from_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"build-script-build"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/o"}
{"reason":"compiler-artifact","target":{"name":"hotr"},"executable":"/t/hotr"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(made(messages, Some("hotr")), Some(PathBuf::from("/t/hotr")));
        assert_eq!(made(messages, None), Some(PathBuf::from("/o")));
        assert_eq!(made(messages, Some("absent")), None);
    }
}
