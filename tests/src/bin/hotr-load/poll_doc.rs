//! The growth of an audit as a document: a table, and a plot on logarithmic axes.
//!
//! In: medians by size. Out: `poller.md` and `poller.svg` in a folder.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::poll::Size;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const LINES: [(&str, &str); 3] = [("hotr", "#c0392b"), ("find", "#2c3e50"), ("notify", "#7f8c8d")];

/// Writes both files.
pub(crate) fn write(into: &Path, growth: &[Size], rounds: usize, dir: &Path) -> Result<()> {
    let filesystem = filesystem(dir)?;
    for (name, text) in [("poller.md", table(growth, rounds, &filesystem)), ("poller.svg", plot(growth))] {
        let path = into.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The name of the filesystem that a folder lies on.
fn filesystem(dir: &Path) -> Result<String> {
    let mut findmnt = Command::new("findmnt");
    let output = findmnt.args(["-n", "-o", "FSTYPE", "-T"]).arg(dir).output().context("run findmnt")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn table(growth: &[Size], rounds: usize, filesystem: &str) -> String {
    let mut text = format!(
        "# The poller: how an audit grows\n\nWritten by `hotr-load poll --dir DIR --rounds {rounds} --into docs`. N empty files in 1,000 \
         directories on {filesystem}, warm caches,\nmedians, measured in turns: a full audit, `find -newermt '2 seconds ago'`, \
         notify's PollWatcher. Memory is the\nwhole process, resident, 1 MB is 10^6 bytes. hotr reads a tmpfs from the kernel's memory,\nby an eBPF program; \
         for ext4 and xfs, which are read in other ways, see `bench/RESULTS.md`.\n\n| files | hotr wall ms | CPU ms | µs a file \
         | MB | find wall ms | CPU ms | PollWatcher wall ms | CPU ms | MB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for size in growth {
        let ms = |index: usize| (size.wall[index] * 1e3, size.cpu[index] * 1e3);
        let ((a, b), (c, d), (e, f)) = (ms(0), ms(1), ms(2));
        let each = b * 1e3 / count(size.files);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {a:.0} | {b:.0} | {each:.2} | {:.1} | {c:.0} | {d:.0} | {e:.0} | {f:.0} | {:.1} |",
            size.files, size.resident[0], size.resident[2],
        );
    }
    text.push_str("\n![wall time by number of files](poller.svg)\n");
    text
}

#[expect(clippy::cast_precision_loss, reason = "no tree has 2^52 files")]
fn count(files: usize) -> f64 {
    files as f64
}

/// Wall time by number of files.
fn plot(growth: &[Size]) -> String {
    let all = |pick: &dyn Fn(&Size) -> Vec<f64>| growth.iter().flat_map(pick).collect::<Vec<f64>>();
    let range = |values: Vec<f64>| {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value.log10()), high.max(value.log10()))
        });
        (low.floor(), high.ceil().max(low.floor() + 1.0))
    };
    let (x, y) = (range(all(&|size| vec![count(size.files)])), range(all(&|size| size.wall.to_vec())));
    let place = |value: f64, (low, high): (f64, f64), length: f64| {
        (value.log10() - low) / (high - low) * (length - 2.0 * MARGIN) + MARGIN
    };
    let at = |files: f64, seconds: f64| (place(files, x, WIDTH), HEIGHT - place(seconds, y, HEIGHT));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (horizontal, (low, high)) in [(true, x), (false, y)] {
        let mut exponent = low;
        while exponent <= high {
            let value = 10f64.powf(exponent);
            let (left, top) =
                if horizontal { at(value, 10f64.powf(y.0)) } else { at(10f64.powf(x.0), value) };
            let (right, bottom) =
                if horizontal { at(value, 10f64.powf(y.1)) } else { at(10f64.powf(x.1), value) };
            let label = if horizontal { format!("10^{exponent} files") } else { format!("{value} s") };
            let (dx, dy, anchor) = if horizontal { (0.0, 18.0, "middle") } else { (-6.0, 4.0, "end") };
            let _ = writeln!(
                text,
                "<line x1=\"{left:.1}\" y1=\"{top:.1}\" x2=\"{right:.1}\" y2=\"{bottom:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>",
                left + dx,
                top + dy
            );
            exponent += 1.0;
        }
    }
    for (index, (name, colour)) in LINES.iter().enumerate() {
        let points: Vec<(f64, f64)> =
            growth.iter().map(|size| at(count(size.files), size.wall[index])).collect();
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (x, y) = points.last().copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>",
            list.join(" "),
            x + 6.0
        );
    }
    text.push_str("</svg>\n");
    text
}
