//! The yardstick of the cost figures: an fexit program that does nothing.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf, programs::FExit};

/// Its name in the object that was built with the feature `bench`.
const PROGRAM: &str = "bench_empty";

/// Attaches the program to `function`; it is detached when the value goes.
pub(crate) fn attach(object: &Path, function: &str) -> Result<Ebpf> {
    let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
    let mut ebpf = Ebpf::load(&bytes).with_context(|| format!("load {}", object.display()))?;
    let btf = Btf::from_sys_fs().context("read this kernel's types")?;
    let program: &mut FExit = ebpf
        .program_mut(PROGRAM)
        .with_context(|| {
            format!("find {PROGRAM} in {}: was it built with the feature `bench`?", object.display())
        })?
        .try_into()
        .context("use the empty program")?;
    program.load(function, &btf).with_context(|| format!("load the empty program for {function}"))?;
    program.attach().with_context(|| format!("attach the empty program to {function}"))?;
    Ok(ebpf)
}

/// Keeps it attached until standard input ends.
pub(crate) fn hold(object: &Path, function: &str) -> Result<()> {
    let _attached = attach(object, function)?;
    println!("attached");
    std::io::stdin().read_to_end(&mut Vec::new()).context("wait for the end of input")?;
    Ok(())
}
