//! `cargo xtask picture`: what a terminal shows of a recorded run, as an SVG for the README.
//!
//! In: a recording of `hotr diagnose --record`, and the built program. Out: docs/diagnose.svg, in light and dark.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{build, cmd, paths};

/// Which run to show.
#[derive(Args)]
pub(crate) struct PictureArgs {
    /// A recording [default: that of the tests]
    recording: Option<PathBuf>,
}

/// Columns of the picture; longer lines go on below.
const COLUMNS: usize = 100;
/// Width of a character.
const WIDE: f64 = 7.83;
/// Height of a line.
const HIGH: f64 = 19.0;
/// Colours in light and in dark, by the class that stands for a sequence.
const COLORS: [(&str, &str, &str); 8] = [
    ("fg", "#1f2328", "#e6edf3"),
    ("c1", "#1f2328", "#ffffff"),
    ("c2", "#6e7781", "#8b949e"),
    ("c31", "#cf222e", "#ff7b72"),
    ("c32", "#1a7f37", "#56d364"),
    ("c33", "#9a6700", "#e3b341"),
    ("c35", "#8250df", "#d2a8ff"),
    ("c36", "#1b7c83", "#56d4dd"),
];

/// Entry point of the command.
pub(crate) fn run(args: &PictureArgs) -> Result<()> {
    let own = || paths::root().join("hotr-user/tests/diagnose/run.jsonl");
    let recording = args.recording.clone().unwrap_or_else(own);
    let program = build::hotr(build::Flavour::Debug)?;
    let mut command = Command::new(program);
    command.args(["diagnose", "--color", "always", "--replay"]).arg(&recording).env("TZ", "UTC");
    let output = command.output().context("run hotr")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 3)), "replay {}: {said}", recording.display());
    let text = String::from_utf8(output.stdout).context("read what hotr printed")?;
    let file = paths::root().join("docs/diagnose.svg");
    std::fs::write(&file, svg(&text, &title(&recording)?))
        .with_context(|| format!("write {}", file.display()))?;
    cmd::say(format!("picture: {}", file.display()));
    Ok(())
}

/// What was typed, as the recording has it.
fn title(recording: &std::path::Path) -> Result<String> {
    let text = std::fs::read_to_string(recording).context("read the recording")?;
    let ready = text.lines().nth(1).context("a second line")?;
    let ready: serde_json::Value = serde_json::from_str(ready).context("read the second line")?;
    let pid = &ready["instances"][0]["target"]["pid"];
    Ok(format!("$ hotr diagnose --live --pid {pid}"))
}

/// Characters with their class.
type Line = Vec<(char, &'static str)>;

/// The lines of a terminal, with the sequences of colour as classes.
fn lines(text: &str) -> Vec<Line> {
    let (mut all, mut line, mut class) = (Vec::new(), Line::new(), "fg");
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' => all.push(std::mem::take(&mut line)),
            '\x1b' => {
                let number: String = rest.by_ref().skip(1).take_while(|c| *c != 'm').collect::<String>();
                let known = COLORS.iter().find(|color| color.0.strip_prefix('c') == Some(number.as_str()));
                class = known.map_or("fg", |color| color.0);
            }
            c => line.push((c, class)),
        }
    }
    all
}

/// Breaks lines between words where they are too long.
fn broken(lines: Vec<Line>) -> Vec<Line> {
    let mut all = Vec::new();
    for mut line in lines {
        let indent = line.iter().take_while(|(c, _)| *c == ' ').count() + 4;
        while line.len() > COLUMNS {
            let Some(at) = (indent + 1..COLUMNS).rev().find(|&at| line[at].0 == ' ') else { break };
            let rest = line.split_off(at);
            all.push(std::mem::take(&mut line));
            line = vec![(' ', "fg"); indent];
            line.extend(rest.into_iter().skip_while(|(c, _)| *c == ' '));
        }
        all.push(line);
    }
    all
}

fn svg(text: &str, title: &str) -> String {
    let mut all = vec![title.chars().map(|c| (c, "c1")).collect()];
    all.extend(broken(lines(text)));
    let (width, height) = (COLUMNS as f64 * WIDE + 32.0, all.len() as f64 * HIGH + 30.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"a run of hotr diagnose --live\">\n<style>\n\
         text{{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,\"DejaVu Sans Mono\",monospace;white-space:pre}}\n\
         rect{{fill:#f6f8fa;stroke:#d0d7de}}.c1{{font-weight:600}}\n"
    );
    for (class, light, _) in COLORS {
        let _ = writeln!(svg, ".{class}{{fill:{light}}}");
    }
    svg.push_str("@media(prefers-color-scheme:dark){rect{fill:#0d1117;stroke:#30363d}\n");
    for (class, _, dark) in COLORS {
        let _ = writeln!(svg, ".{class}{{fill:{dark}}}");
    }
    let _ = writeln!(
        svg,
        "}}\n</style>\n<rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>",
        width - 1.0,
        height - 1.0
    );
    for (row, line) in all.iter().enumerate() {
        let y = 26.0 + row as f64 * HIGH;
        let mut column = 0;
        for part in line.chunk_by(|a, b| a.1 == b.1) {
            span(&mut svg, part, 16.0 + column as f64 * WIDE, y);
            column += part.len();
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Text of one colour, as wide as its characters are on a terminal, whatever the font.
fn span(svg: &mut String, part: &[(char, &str)], x: f64, y: f64) {
    let text: String = part.iter().map(|(c, _)| *c).collect();
    let kept = text.trim_end();
    if kept.trim_start().is_empty() {
        return;
    }
    let before = kept.chars().take_while(|c| *c == ' ').count();
    let (x, kept) = (x + before as f64 * WIDE, kept.trim_start());
    let width = kept.chars().count() as f64 * WIDE;
    let class = part[0].1;
    let escaped = kept.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y}\" textLength=\"{width:.1}\" class=\"{class}\">{escaped}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_names_no_markup() {
        let svg = svg("a \x1b[31m<b>&\x1b[0m c\n", "$ x");
        assert!(svg.contains("class=\"c31\">&lt;b&gt;&amp;</text>"), "{svg}");
        assert!(!svg.contains('\x1b'));
    }

    #[test]
    fn long_lines_go_on_below() {
        let text = format!("  {}\n", "word ".repeat(40));
        let broken = broken(lines(&text));
        assert!(broken.len() == 3 && broken.iter().all(|line| line.len() <= COLUMNS), "{broken:?}");
        assert!(broken[1].iter().take(6).all(|(c, _)| *c == ' '));
    }
}
