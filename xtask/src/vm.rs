//! `cargo xtask vm`: the matrix of tests, or one command, on kernels that this machine does not run.
//!
//! In: kernels by series or by file, and what to run. Out: the verdict of each cell, or the command's console and
//! status. Everything is left in `target/vm/` for inspection.

mod archive;
mod cpio;
pub(crate) mod disk;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod matrix;
mod modules;
mod qemu;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;

use self::{initramfs::Import, kernel::Kernel, qemu::Machine};
use crate::{
    build::{self, Flavour},
    cmd::say,
    paths, setup,
};

/// What runs where.
#[derive(Args)]
pub(crate) struct VmArgs {
    /// A kernel series, for example 6.12; may be repeated [default: all of the matrix]
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Any other kernel: its bootable image
    #[arg(long, value_name = "VMLINUZ", requires = "modules", conflicts_with = "kernel")]
    image: Option<PathBuf>,
    /// The module folder that belongs to --image, for example /lib/modules/6.6.1
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// Look for newer kernels instead of taking those downloaded before
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    selection: matrix::Selection,
    /// Run this command line (busybox sh) in the guest instead of the matrix and show its console. The tests'
    /// filesystems (or those of --fs) are at /t/{ext4,xfs,btrfs,tmpfs} and /t/ovl-{ext4,xfs}/merged
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Run `hotr verify` instead of the matrix, and write what each claim comes to on each kernel to docs/kernels.md (of some
    /// kernels only: to target/vm/kernels.md)
    #[arg(long, conflicts_with = "exec")]
    verify: bool,
    /// A file or folder for the guest, to /bin or to GUEST; libraries of a program come along
    #[arg(long = "with", value_name = "HOST[:GUEST]", value_parser = Import::parse, requires = "exec")]
    with: Vec<Import>,
    /// Do not build hotr for the guest
    #[arg(long, requires = "exec")]
    bare: bool,
    /// Give the guest the hotr of `cargo xtask build --log-ebpf`
    #[arg(long, requires = "exec", conflicts_with = "bare")]
    log_ebpf: bool,
    /// The guest's clock counts instructions, one a nanosecond: a loop timed in it gives its cost without noise
    #[arg(long, requires = "exec")]
    icount: bool,
    /// Stop a guest after this many seconds [default: 1800 for the matrix, 300 for --exec and --verify]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Keep the root archives in target/vm/guests, too; console and results of the matrix are always there
    #[arg(long)]
    keep: bool,
}

/// Entry point of the command.
pub(crate) fn run(args: &VmArgs) -> Result<ExitCode> {
    setup::install(setup::TESTS)?;
    let kernels = kernels(args)?;
    if args.verify {
        let are_all = args.kernel.is_empty() && args.image.is_none();
        return verify::run(&kernels, are_all, Duration::from_secs(args.timeout.unwrap_or(300)));
    }
    let Some(command) = &args.exec else {
        let limit = Duration::from_secs(args.timeout.unwrap_or(1800));
        let tally = matrix::in_guests(&kernels, &args.selection, limit, args.keep)?;
        tally.print("virtual machines");
        return Ok(tally.exit());
    };
    let mut imports = args.with.clone();
    if !args.bare {
        imports.push(Import::program(build::hotr(if args.log_ebpf {
            Flavour::Log
        } else {
            Flavour::Static
        })?));
    }
    let mut worst = 0;
    for kernel in &kernels {
        say(format!("vm: {} ({})", kernel.label, kernel.version));
        let guest = Guest {
            kernel,
            name: format!("{}-exec-{}", kernel.label, std::process::id()),
            task: command.clone(),
            imports: imports.clone(),
            filesystems: args.selection.filesystem.clone(),
            icount: args.icount,
            limit: Duration::from_secs(args.timeout.unwrap_or(300)),
            show: true,
            keep: args.keep,
        };
        let ended = guest.run();
        if !args.keep {
            let folder = guest.folder();
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        let ended = ended?;
        for line in &ended.results {
            println!("{line}");
        }
        let status = ended
            .status
            .with_context(|| format!("{}: the guest stopped before the command ended", kernel.label))?;
        say(format!("vm: {}: status {status} after {:.1} s", kernel.label, ended.took.as_secs_f64()));
        worst = worst.max(status);
    }
    Ok(ExitCode::from(u8::try_from(worst).unwrap_or(1)))
}

fn kernels(args: &VmArgs) -> Result<Vec<Kernel>> {
    if let (Some(image), Some(modules)) = (&args.image, &args.modules) {
        return Ok(vec![kernel::given(image, modules)?]);
    }
    let labels = if args.kernel.is_empty() { kernel::labels() } else { args.kernel.clone() };
    labels.iter().map(|label| kernel::of_series(label, args.update)).collect()
}

/// One command in one guest.
pub(crate) struct Guest<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// Names the folder below `target/vm/guests`.
    pub(crate) name: String,
    /// A busybox shell script.
    pub(crate) task: String,
    /// Programs and files for the guest.
    pub(crate) imports: Vec<Import>,
    /// The fixtures to mount, by name; all when empty. Fewer boot faster.
    pub(crate) filesystems: Vec<String>,
    /// Let the guest's clock count instructions.
    pub(crate) icount: bool,
    /// The guest is stopped after this time.
    pub(crate) limit: Duration,
    /// Show the console instead of keeping it.
    pub(crate) show: bool,
    /// Leave the root archive.
    pub(crate) keep: bool,
}

impl Guest<'_> {
    /// Where the guest's root archive, console and results lie.
    pub(crate) fn folder(&self) -> PathBuf {
        vm_folder().join("guests").join(&self.name)
    }

    /// Boots the guest, runs the task, and returns what it left. What the task writes to `/dev/ttyS1` are results.
    pub(crate) fn run(&self) -> Result<qemu::Ended> {
        let folder = self.folder();
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let disks = disk::images(&vm_folder().join("disks"), &self.filesystems)?;
        let types: Vec<&str> = disks.iter().map(disk::Image::filesystem).collect();
        let modules = modules::needed(&self.kernel.modules, &types)?;
        let initrd = folder.join("root.cpio");
        initramfs::write(&initrd, &modules, &self.imports, &self.task)?;
        let machine = Machine {
            label: &self.name,
            kernel: &self.kernel.image,
            initrd: &initrd,
            disks: &disks,
            icount: self.icount,
            limit: self.limit,
            folder: &folder,
            show: self.show,
        };
        let ended = qemu::run(&machine);
        if !self.keep {
            fs::remove_file(&initrd).with_context(|| format!("remove {}", initrd.display()))?;
        }
        ended
    }
}

/// Where disks, guests and results lie.
pub(crate) fn vm_folder() -> PathBuf {
    paths::target().join("vm")
}

/// Quotes a word for the guest's shell.
pub(crate) fn quoted(word: &Path) -> String {
    format!("'{}'", word.display().to_string().replace('\'', "'\\''"))
}
