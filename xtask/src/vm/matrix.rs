//! The matrix {kernel} × {filesystem} × {tier} × {operation}: which part runs, and where.
//!
//! In: kernels and a selection. Out: a [`Tally`], and the result lines in `target/vm/results/`. A guest runs one
//! tier, which divides the work evenly over a few guests at a time and confines a kernel that stops.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{Guest, disk, initramfs::Import, kernel::Kernel, quoted, vm_folder};
use crate::{
    build::{self, Flavour},
    cmd::{self, say},
    setup,
    tally::Tally,
};

/// Where a guest has the root of its fixtures.
const GUEST_ROOT: &str = "/t";
const TIERS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// A part of the matrix.
#[derive(Args, Clone, Default)]
pub(crate) struct Selection {
    /// Only operations whose name contains this
    #[arg(long, value_name = "STR")]
    pub(crate) filter: Option<String>,
    /// Only this tier: fentry, kprobe, tracepoint; may be repeated
    #[arg(long, value_name = "TIER", value_parser = TIERS)]
    pub(crate) tier: Vec<String>,
    /// Only this filesystem: ext4, xfs, btrfs, tmpfs, ovl-ext4, ovl-xfs; may be repeated
    #[arg(long = "fs", value_name = "FS", value_parser = filesystems())]
    pub(crate) filesystem: Vec<String>,
}

fn filesystems() -> [&'static str; 6] {
    disk::FIXTURES.map(|(name, _)| name)
}

impl Selection {
    /// The arguments of `hotr-matrix` for one tier, with the fixtures below `root`.
    fn arguments(&self, root: &Path, kernel: &str, tier: &str) -> Vec<String> {
        let mut arguments =
            vec!["--kernel".to_owned(), kernel.to_owned(), "--tier".to_owned(), tier.to_owned()];
        for (name, folder) in disk::FIXTURES {
            if self.filesystem.is_empty() || self.filesystem.iter().any(|wanted| wanted == name) {
                arguments.extend(["--dir".to_owned(), format!("{name}={}", root.join(folder).display())]);
            }
        }
        // An emulated guest verifies programs slowly, the more so on a machine that does something else.
        arguments.extend(["--ready-deadline".to_owned(), "600".to_owned()]);
        if let Some(filter) = &self.filter {
            arguments.extend(["--filter".to_owned(), filter.clone()]);
        }
        arguments
    }

    fn tiers(&self) -> Vec<String> {
        if self.tier.is_empty() { TIERS.map(str::to_owned).into() } else { self.tier.clone() }
    }
}

/// The two programs that a run of the matrix needs.
struct Programs {
    hotr: PathBuf,
    matrix: PathBuf,
}

/// Builds both, static: one build serves guests and this machine.
fn programs() -> Result<Programs> {
    let object = build::object(&setup::build()?)?;
    Ok(Programs {
        hotr: build::program(Flavour::Static, &object, "hotr-user", "hotr")?,
        matrix: build::program(Flavour::Static, &object, "hotr-tests", "hotr-matrix")?,
    })
}

/// Guests at a time. Each has one processor, and waits for timers half of the time.
const AT_A_TIME: usize = 3;

/// Runs the selection on each kernel, [`AT_A_TIME`] guests at a time.
pub(crate) fn in_guests(
    kernels: &[Kernel],
    selection: &Selection,
    limit: Duration,
    keep: bool,
) -> Result<Tally> {
    let programs = programs()?;
    // Made before there are several who want to.
    disk::images(&vm_folder().join("disks"), &selection.filesystem)?;
    let tiers = selection.tiers();
    let mut jobs: Vec<(&Kernel, &str)> = Vec::new();
    for kernel in kernels {
        jobs.extend(tiers.iter().map(|tier| (kernel, tier.as_str())));
    }
    let queue = Mutex::new(jobs.into_iter());
    let total = Mutex::new(Tally::default());
    let worker = || {
        loop {
            let Some((kernel, tier)) = queue.lock().expect("no holder of the queue panics").next() else {
                return;
            };
            let name = format!("{}-{tier}", kernel.label);
            let guest = Guest {
                kernel,
                task: task(selection, kernel, tier),
                imports: [&programs.hotr, &programs.matrix].map(|file| Import::program(file.clone())).into(),
                filesystems: selection.filesystem.clone(),
                icount: false,
                limit,
                show: false,
                keep,
                name: name.clone(),
            };
            let tally = outcome(&guest, &name);
            say(format!(
                "vm: {name} ({}): {} passed, {} failed",
                kernel.version,
                tally.passed,
                tally.failed()
            ));
            total.lock().expect("no holder of the sum panics").add(tally);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(worker);
        }
    });
    Ok(total.into_inner().expect("no holder of the sum panics"))
}

/// What process 1 of the guest runs.
fn task(selection: &Selection, kernel: &Kernel, tier: &str) -> String {
    let arguments: Vec<String> = selection
        .arguments(Path::new(GUEST_ROOT), &kernel.label, tier)
        .iter()
        .map(|argument| quoted(Path::new(argument)))
        .collect();
    format!("exec hotr-matrix run --faults --hotr /bin/hotr --out /dev/ttyS1 {}\n", arguments.join(" "))
}

fn outcome(guest: &Guest, name: &str) -> Tally {
    match guest.run() {
        Ok(ended) => {
            let mut tally = Tally::of_matrix(name, ended.results.iter().map(String::as_str));
            if let Err(error) = keep_results(name, &ended.results) {
                tally.fail(format!("{name}: {error:#}"));
            }
            if ended.status.is_none() {
                tally.fail(format!(
                    "{name}: the guest stopped; its last lines:\n{}",
                    cmd::tail(&ended.console, 20)
                ));
            } else if tally.failed() == 0 && ended.status != Some(0) {
                tally.fail(format!(
                    "{name}: hotr-matrix ended with {:?}:\n{}",
                    ended.status,
                    cmd::tail(&ended.console, 20)
                ));
            }
            tally
        }
        Err(error) => {
            let mut tally = Tally::default();
            tally.fail(format!("{error:#}"));
            tally
        }
    }
}

/// Leaves the result lines of one run for the documentation's table.
fn keep_results(name: &str, lines: &[String]) -> Result<()> {
    let folder = vm_folder().join("results");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join(format!("{name}.jsonl"));
    fs::write(&file, lines.join("\n") + "\n").with_context(|| format!("write {}", file.display()))
}

/// Runs the tracepoint tier on this machine's own kernel. The mounts are made in a mount namespace of their own, in
/// which `cargo xtask` starts itself again: whatever happens, they end with it.
pub(crate) fn natively(selection: &Selection) -> Result<Tally> {
    if !crate::apt::is_root() {
        bail!(
            "run the native kernel tests: root is needed to load eBPF and to mount; run `cargo xtask test` as root"
        );
    }
    let programs = programs()?;
    let folder = vm_folder().join("native");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let images = disk::images(&folder, &selection.filesystem)?;
    let root = folder.join("t");
    let results = folder.join("results.jsonl");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read this kernel's release")?;
    let arguments = selection.arguments(&root, release.trim(), "tracepoint");
    let myself = std::env::current_exe().context("find this program")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(myself).arg("native-matrix");
    command.arg("--root").arg(&root).arg("--hotr").arg(&programs.hotr).arg("--matrix").arg(&programs.matrix);
    command.arg("--out").arg(&results);
    command.args(images.iter().map(|image| format!("--disk={}={}", image.name, image.file.display())));
    command.arg("--").args(arguments);
    let ran = cmd::must(&mut command, "run the native kernel tests");
    let text = fs::read_to_string(&results).unwrap_or_default();
    let mut tally = Tally::of_matrix("native", text.lines());
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    keep_results("native", &lines)?;
    if let (Err(error), 0) = (ran, tally.failed()) {
        tally.fail(format!("native: {error:#}"));
    }
    if selection.filter.is_none() {
        tally.add(fuzz(&programs, &folder));
    }
    Ok(tally)
}

/// Random operations, of a fixed seed; the program mounts what it needs in a namespace of its own.
fn fuzz(programs: &Programs, folder: &Path) -> Tally {
    let mut all = Tally::default();
    for fs in ["tmpfs", "ext4", "ovl-ext4"] {
        all.add(fuzz_one(programs, folder, fs, &["--ops", "33333"]));
        // Between two comparisons the command must come to rest.
        all.add(fuzz_one(programs, folder, fs, &["--watch", "--ops", "10000"]));
    }
    all
}

fn fuzz_one(programs: &Programs, folder: &Path, filesystem: &str, options: &[&str]) -> Tally {
    let results = folder.join("fuzz.jsonl");
    // What an earlier run has written is not this one's.
    let _ = fs::remove_file(&results);
    let mut command = Command::new(&programs.matrix);
    command.args(["fuzz", "--seed", "1", "--fs", filesystem]).args(options).arg("--hotr").arg(&programs.hotr);
    let ran = cmd::must(command.arg("--out").arg(&results), "run the fuzz test");
    let text = fs::read_to_string(&results).unwrap_or_default();
    let mut tally = Tally::of_matrix("fuzz", text.lines());
    if let (Err(error), 0) = (ran, tally.failed()) {
        tally.fail(format!("fuzz: {error:#}"));
    }
    tally
}

/// The part of [`natively`] that runs in the mount namespace.
#[derive(Args)]
pub(crate) struct NativeArgs {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    hotr: PathBuf,
    #[arg(long)]
    matrix: PathBuf,
    #[arg(long)]
    out: PathBuf,
    #[arg(long)]
    disk: Vec<String>,
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Mounts the fixtures and runs the matrix on them.
pub(crate) fn in_namespace(args: &NativeArgs) -> Result<()> {
    let script = crate::paths::root().join("scripts/fixtures.sh");
    cmd::must(
        Command::new("sh").arg(script).arg(&args.root).args(&args.disk),
        "mount the filesystems of the tests",
    )?;
    let mut command = Command::new(&args.matrix);
    command.arg("run").arg("--hotr").arg(&args.hotr).arg("--out").arg(&args.out).args(&args.arguments);
    cmd::must(&mut command, "run hotr-matrix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selection_becomes_arguments() {
        let selection = Selection {
            filter: Some("rename".into()),
            tier: Vec::new(),
            filesystem: vec!["xfs".into(), "ovl-xfs".into()],
        };
        assert_eq!(
            selection.arguments(Path::new("/t"), "6.12", "kprobe").join(" "),
            "--kernel 6.12 --tier kprobe --dir xfs=/t/xfs --dir ovl-xfs=/t/ovl-xfs --ready-deadline 600 --filter rename"
        );
        assert_eq!(selection.tiers(), TIERS);
        assert_eq!(Selection::default().arguments(Path::new("/t"), "k", "kprobe").len(), 4 + 2 * 6 + 2);
    }
}
