//! Benchmarks in virtual machines: instruction counts of a write, and the verifier's work on each kernel.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{figures::Figures, native};
use crate::{
    build::{self, Flavour},
    cmd::{self, say},
    setup,
    vm::{
        Guest,
        initramfs::Import,
        kernel::{self, Kernel},
    },
};

const TIERS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// The tools that a write is measured beside.
pub(crate) const TOOLS: [&str; 3] = ["bpftrace", "fatrace", "inotifywait"];

/// What each subject adds to a write, in instructions; the kernel's version comes first.
pub(crate) fn cost(label: &str, quick: bool) -> Result<(String, Figures)> {
    let kernel = kernel::of_series(label, false)?;
    let rust = setup::build()?;
    let empty = build::bench_object(&rust)?;
    let load = Import::program(native::program(Flavour::Static)?);
    let places = format!("--watched /t/ext4 --other /t/tmpfs --count {}", if quick { 5000 } else { 20_000 });
    let hotr = vec![
        load.clone(),
        Import::program(build::hotr(Flavour::Static)?),
        Import { host: empty, guest: PathBuf::from("/bin/empty.o") },
    ];
    let mut figures = Figures::default();
    let task = format!("cost --hotr /bin/hotr --empty /bin/empty.o {places}");
    measure(&kernel, "cost", &task, hotr, true, &mut figures)?;
    // Each in a guest of its own: their libraries make the root archive large, and none should wait for another.
    for tool in TOOLS {
        let program = cmd::find(tool).with_context(|| format!("measure {tool}: it is not installed"))?;
        let mut beside = Figures::default();
        let task = format!("cost --tools {tool} {places}");
        measure(&kernel, tool, &task, vec![load.clone(), Import::program(program)], true, &mut beside)?;
        figures.beside(tool, &beside);
    }
    Ok((kernel.version, figures))
}

/// What a live diagnosis adds to a delivered event, in instructions; the kernel's version comes first.
pub(crate) fn delivered(label: &str, quick: bool) -> Result<(String, Figures)> {
    let kernel = kernel::of_series(label, false)?;
    let rust = setup::build()?;
    let empty = build::bench_object(&rust)?;
    let imports = vec![
        Import::program(native::program(Flavour::Static)?),
        Import::program(build::hotr(Flavour::Static)?),
        Import { host: empty, guest: PathBuf::from("/bin/empty.o") },
    ];
    let mut figures = Figures::default();
    let task = format!(
        "delivered --hotr /bin/hotr --empty /bin/empty.o --watched /t/ext4 --other /t/tmpfs --count {}",
        if quick { 2000 } else { 10_000 }
    );
    measure(&kernel, "delivered", &task, imports, true, &mut figures)?;
    Ok((kernel.version, figures))
}

/// Instructions processed by the verifier, `verifier/KERNEL/TIER/PROGRAM`.
pub(crate) fn verifier(labels: &[String]) -> Result<Figures> {
    let imports = [native::program(Flavour::Static)?, build::hotr(Flavour::Static)?];
    let mut figures = Figures::default();
    for label in labels {
        let kernel = kernel::of_series(label, false)?;
        // A tier that a kernel does not have gives no figures; the matrix tests that, not we.
        let task: String = TIERS
            .iter()
            .map(|tier| {
                format!(
                    "hotr-load --out /dev/ttyS1 verifier --label {label}/{tier} -- /bin/hotr watch --json \
                     --channels ebpf --tier {tier} /t/tmpfs -- sh -c 'kill $PPID'\n"
                )
            })
            .collect();
        let imports = imports.iter().cloned().map(Import::program).collect();
        guest(&kernel, "verifier", format!("{task}exit 0\n"), imports, false, &mut figures)?;
    }
    Ok(figures)
}

fn measure(
    kernel: &Kernel,
    name: &str,
    task: &str,
    imports: Vec<Import>,
    icount: bool,
    figures: &mut Figures,
) -> Result<()> {
    guest(kernel, name, format!("exec hotr-load --out /dev/ttyS1 {task}\n"), imports, icount, figures)
}

fn guest(
    kernel: &Kernel,
    name: &str,
    task: String,
    imports: Vec<Import>,
    icount: bool,
    figures: &mut Figures,
) -> Result<()> {
    let guest = Guest {
        kernel,
        name: format!("bench-{}-{name}-{}", kernel.label, std::process::id()),
        task,
        imports,
        filesystems: vec![if icount { "ext4" } else { "tmpfs" }.to_owned()],
        icount,
        limit: Duration::from_secs(900),
        show: false,
        keep: false,
    };
    let ended = guest.run()?;
    figures.read("", ended.results.iter().map(String::as_str))?;
    let took = ended.took.as_secs_f64();
    say(format!("bench: {name} on {} ({}): {took:.0} s", kernel.label, kernel.version));
    if ended.status != Some(0) {
        bail!("{}: the load ended with {:?}:\n{}", guest.name, ended.status, cmd::tail(&ended.console, 10));
    }
    fs::remove_dir_all(guest.folder()).with_context(|| format!("remove {}", guest.folder().display()))
}
