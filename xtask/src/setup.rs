//! `cargo xtask setup`: what the build and the tests need, installed once and checked fast.
//!
//! In: what is wanted (build, tests, benchmarks). Out: a machine that has it, or one line that says what to do.

pub(crate) mod targets;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    apt,
    cmd::{self, say},
    paths,
    toolchain::EbpfRust,
};

/// Which parts to set up.
#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Also what the tests need: QEMU, busybox, mkfs, editors, programs that watch files
    #[arg(long)]
    tests: bool,
}

/// A program that must be there, and the Debian package that brings it.
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
    why: &'static str,
    /// Further proof that the program is the right one.
    fits: fn() -> bool,
}

const fn need(program: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { program, package, why, fits: || true }
}

const BUILD: &[Need] = &[need("cc", "gcc", "links the programs")];

/// What the virtual machines and the native filesystems of the tests need.
pub(crate) const TESTS: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86", "runs the kernels of the test matrix"),
    Need {
        program: "busybox",
        package: "busybox-static",
        why: "is the guests' userland",
        fits: || cmd::find("busybox").is_some_and(|file| is_static(&file)),
    },
    need("mkfs.ext4", "e2fsprogs", "makes the ext4 disks of the tests"),
    need("mkfs.xfs", "xfsprogs", "makes the xfs disks of the tests"),
    need("mkfs.btrfs", "btrfs-progs", "makes the btrfs disk of the tests"),
    need("xz", "xz-utils", "unpacks kernel modules"),
    need("zstd", "zstd", "unpacks kernel modules"),
    need("unshare", "util-linux", "keeps the tests' mounts to themselves"),
    need("inotifywait", "inotify-tools", "is the other witness in the tests"),
    need("vim", "vim", "saves files in the tests of the reload watcher"),
    need("emacs", "emacs-nox", "saves files in the tests of the reload watcher"),
    need("nano", "nano", "saves files in the tests of the reload watcher"),
    need("script", "bsdutils", "gives nano a terminal in these tests"),
    need("rsync", "rsync", "copies files in these tests"),
    need("git", "git", "checks files out in these tests"),
    need("chromium", "chromium", "opens the pages of hotr diagnose in the tests"),
];

/// The tools that the benchmarks measure beside hotr; with inotifywait, which the tests have already.
pub(crate) const BENCHES: &[Need] = &[
    need("bpftrace", "bpftrace", "is measured beside hotr"),
    need("fatrace", "fatrace", "is measured beside hotr"),
    need("entr", "entr", "is measured beside hotr watch"),
];

/// What tries the packages of hotr.
pub(crate) const PACKAGES: &[Need] = &[
    need("lintian", "lintian", "checks the Debian package"),
    need("debootstrap", "debootstrap", "makes the fresh system that it is installed in"),
    need("rpm", "rpm", "installs the RPM"),
    need("crun", "crun", "runs the container image"),
];

/// Debian does not have it. A fixed version: figures are compared between runs.
const WATCHEXEC: &str = "2.8.0";

/// Entry point of the command.
pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    let rust = build()?;
    if args.tests {
        install(TESTS)?;
        targets::ensure();
    }
    say(format!("setup: all there; the kernel side is compiled by {}", rust.describe()));
    Ok(())
}

/// Sees to it that the build can run; returns the compiler of the kernel side.
pub(crate) fn build() -> Result<EbpfRust> {
    install(BUILD)?;
    EbpfRust::ensure()
}

/// watchexec, which is measured beside hotr watch; built into the cache when it is not there.
pub(crate) fn watchexec() -> Result<PathBuf> {
    let root = paths::cache()?.join(format!("watchexec-{WATCHEXEC}"));
    let program = root.join("bin/watchexec");
    if cmd::is_executable(&program) {
        return Ok(program);
    }
    say(format!(
        "setup: installing watchexec {WATCHEXEC}: is measured beside hotr watch (cargo install, some minutes)"
    ));
    let mut command = cmd::cargo();
    command.args(["install", "watchexec-cli", "--version", WATCHEXEC, "--locked", "--root"]).arg(&root);
    cmd::must_quietly(&mut command, "install watchexec")?;
    Ok(program)
}

/// The version of watchexec that the benchmarks use, for their notes.
pub(crate) const fn watchexec_version() -> &'static str {
    WATCHEXEC
}

/// Installs those of `needs` that are missing, and says what for.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> =
        needs.iter().filter(|need| cmd::find(need.program).is_none() || !(need.fits)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        say(format!("setup: installing {}: {} {} (apt)", need.package, need.program, need.why));
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    apt::install(&packages)
}

/// Whether an executable names no dynamic loader, so that it runs in a guest that has no libraries.
fn is_static(file: &std::path::Path) -> bool {
    std::fs::read(file)
        .is_ok_and(|bytes| !bytes.windows(8).take(64 * 1024).any(|window| window == b"ld-linux"))
}
