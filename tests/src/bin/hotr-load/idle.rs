//! Memory of a trace with nothing to report.

use std::fs;

use anyhow::{Context as _, Result};

use crate::Common;
use crate::figures::Figures;
use crate::ready::megabytes;
use crate::watcher;

/// Entry point of the benchmark.
pub(crate) fn run(common: &Common, out: &mut Figures) -> Result<()> {
    let dir = common.dir.join("idle");
    fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    let size = fs::metadata(&common.hotr).with_context(|| format!("read {}", common.hotr.display()))?.len();
    out.count("idle/binary-bytes", size)?;
    for (name, options) in [("ebpf", &["--channels", "ebpf"][..]), ("auto", &[])] {
        let watcher = watcher::hotr(&common.hotr, options, &dir)?;
        out.value(format!("idle/{name}/resident-mb"), megabytes(watcher.memory("VmRSS")?))?;
        out.value(format!("idle/{name}/peak-mb"), megabytes(watcher.memory("VmHWM")?))?;
        watcher.stop(|_| ())?;
    }
    Ok(())
}
