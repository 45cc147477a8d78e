//! `cargo xtask vm --verify`: what each claim of `hotr verify` comes to on each kernel, on one page.
//!
//! In: kernels. Out: docs/kernels.md, or, when only some kernels were chosen, target/vm/kernels.md.

use std::{fmt::Write as _, fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{Guest, initramfs::Import, kernel::Kernel, vm_folder};
use crate::{
    build::{self, Flavour},
    cmd::{self, say},
    paths,
};

/// The programs that make the filesystems of the experiments.
const MKFS: [&str; 3] = ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"];

/// A line of `hotr verify --json`, as far as the page needs it.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Verdict(Finding),
    Summary { experiments: usize },
}

/// What one kernel does.
#[derive(Debug, Clone, Deserialize)]
struct Finding {
    experiment: String,
    group: String,
    claim: String,
    verdict: String,
    why: String,
}

/// What was found on one kernel.
struct Run {
    label: String,
    version: String,
    findings: Vec<Finding>,
}

/// Runs all experiments on these kernels, one after the other, and writes the page.
pub(crate) fn run(kernels: &[Kernel], are_all: bool, limit: Duration) -> Result<ExitCode> {
    let mut imports = vec![Import::program(build::hotr(Flavour::Static)?)];
    for program in MKFS {
        let found = cmd::find(program).with_context(|| format!("find {program}: it is not installed"))?;
        imports.push(Import::program(found));
    }
    let runs = kernels.iter().map(|kernel| on(kernel, &imports, limit)).collect::<Result<Vec<_>>>()?;
    let page = if are_all { paths::root().join("docs/kernels.md") } else { vm_folder().join("kernels.md") };
    fs::write(&page, markdown(&runs)).with_context(|| format!("write {}", page.display()))?;
    say(format!("vm: verify: written to {}", page.display()));
    Ok(ExitCode::SUCCESS)
}

fn on(kernel: &Kernel, imports: &[Import], limit: Duration) -> Result<Run> {
    let guest = Guest {
        kernel,
        name: format!("verify-{}-{}", kernel.label, std::process::id()),
        task: "exec hotr verify --json > /dev/ttyS1\n".to_owned(),
        imports: imports.to_vec(),
        filesystems: Vec::new(),
        icount: false,
        limit,
        show: false,
        keep: false,
    };
    let ended = guest.run()?;
    if ended.status != Some(0) {
        bail!(
            "{}: hotr verify ended with {:?}:\n{}",
            kernel.label,
            ended.status,
            cmd::tail(&ended.console, 10)
        );
    }
    let findings = findings(ended.results.iter().map(String::as_str))
        .with_context(|| format!("{}: read what hotr verify found", kernel.label))?;
    let (count, took) = (findings.len(), ended.took.as_secs_f64());
    say(format!("vm: verify: {} ({}): {count} experiments, {took:.0} s", kernel.label, kernel.version));
    let folder: PathBuf = guest.folder();
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok(Run { label: kernel.label.clone(), version: kernel.version.clone(), findings })
}

fn findings<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Finding>> {
    let (mut findings, mut expected) = (Vec::new(), None);
    for line in lines {
        match serde_json::from_str(line).with_context(|| format!("read {line}"))? {
            Line::Verdict(finding) => findings.push(finding),
            Line::Summary { experiments } => expected = Some(experiments),
        }
    }
    ensure!(expected == Some(findings.len()), "{} verdicts, and a summary of {expected:?}", findings.len());
    Ok(findings)
}

/// The page. Experiments are in the order of the first kernel; those that only others have follow.
fn markdown(runs: &[Run]) -> String {
    let mut all: Vec<&Finding> = Vec::new();
    for finding in runs.iter().flat_map(|run| &run.findings) {
        if all.iter().all(|known| known.experiment != finding.experiment) {
            all.push(finding);
        }
    }
    let of = |run: &'_ Run, name: &str| run.findings.iter().position(|one| one.experiment == name);
    let verdicts = |name: &str| -> Vec<&str> {
        runs.iter().map(|run| of(run, name).map_or("–", |at| run.findings[at].verdict.as_str())).collect()
    };
    let mut text = String::from(
        "# Claims about inotify, kernel by kernel\n\n\
         What `hotr verify` finds on each kernel of the test matrix, in virtual machines of Debian's cloud kernels. Written by \
         `cargo xtask vm --verify`; [verify.md](verify.md) says what the verdicts mean.\n",
    );
    let kernels: Vec<String> = runs.iter().map(|run| format!("{} ({})", run.label, run.version)).collect();
    let _ = writeln!(text, "\nKernels: {}.", kernels.join(", "));
    text.push_str("\n## What differs between kernels\n");
    let differing: Vec<&&Finding> = all
        .iter()
        .filter(|finding| {
            let verdicts = verdicts(&finding.experiment);
            verdicts.iter().any(|verdict| *verdict != verdicts[0])
        })
        .collect();
    if differing.is_empty() {
        text.push_str("\nNothing.\n");
    }
    for finding in differing {
        let _ = writeln!(text, "\n**{}**: {}\n", finding.experiment, finding.claim);
        text.push_str("| kernel | verdict | because |\n| --- | --- | --- |\n");
        for run in runs {
            let found = of(run, &finding.experiment).map(|at| &run.findings[at]);
            let (verdict, why) = found.map_or(("–", ""), |one| (one.verdict.as_str(), one.why.as_str()));
            let _ = writeln!(text, "| {} | {verdict} | {} |", run.label, cell(why));
        }
    }
    text.push_str("\n## All claims\n");
    let mut group = "";
    for finding in &all {
        if finding.group != group {
            group = &finding.group;
            let labels: Vec<&str> = runs.iter().map(|run| run.label.as_str()).collect();
            let _ = writeln!(text, "\n### {group}\n\n| experiment | claim | {} |", labels.join(" | "));
            let _ = writeln!(text, "| --- | --- |{}", " --- |".repeat(labels.len()));
        }
        let verdicts = verdicts(&finding.experiment).join(" | ");
        let _ = writeln!(text, "| `{}` | {} | {verdicts} |", finding.experiment, cell(&finding.claim));
    }
    text
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(experiment: &str, verdict: &str) -> String {
        format!(
            r#"{{"type":"verdict","experiment":"{experiment}","group":"names","claim":"A claim.","source":"s",
            "verdict":"{verdict}","why":"a | b","duration_ms":1}}"#
        )
    }

    fn run(label: &str, verdicts: [&str; 2]) -> Run {
        let names = ["same", "other"];
        let lines: Vec<String> =
            names.iter().zip(verdicts).map(|(name, verdict)| line(name, verdict)).collect();
        let summary = r#"{"type":"summary","experiments":2}"#;
        let findings = findings(lines.iter().map(String::as_str).chain([summary])).expect("lines of a run");
        Run { label: label.to_owned(), version: "1".to_owned(), findings }
    }

    #[test]
    fn the_page_has_each_verdict_and_names_what_differs() {
        let page = markdown(&[run("5.10", ["confirmed", "refuted"]), run("7.3", ["confirmed", "partly"])]);
        assert!(page.contains("| `same` | A claim. | confirmed | confirmed |"), "{page}");
        assert!(page.contains("| `other` | A claim. | refuted | partly |"), "{page}");
        assert!(page.contains("**other**: A claim.\n\n| kernel | verdict | because |"), "{page}");
        assert!(page.contains("| 7.3 | partly | a \\| b |"), "{page}");
        assert!(!page.contains("**same**"), "{page}");
    }

    #[test]
    fn a_run_that_stopped_half_way_is_no_run() {
        let line = line("same", "confirmed");
        assert!(findings([line.as_str()].into_iter()).is_err());
        assert!(findings([line.as_str(), r#"{"type":"summary","experiments":2}"#].into_iter()).is_err());
    }
}
