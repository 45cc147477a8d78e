//! The report as Markdown.

use std::fmt::Write as _;

use super::plot::Delays;
use super::{Cell, LEGEND, count, facts, filesystems, groups, machine_facts, received, rests_on};
use crate::diagnose::live::Machine;
use crate::text::visible_message;
use crate::verify::evidence::Listener;
use crate::verify::{Finding, Verdict};

pub(super) fn page(machine: &Machine, findings: &[Finding]) -> Vec<u8> {
    let mut text = format!("# Claims about inotify, on Linux {}\n\n", plain(&machine.kernel));
    let counts: Vec<String> = Verdict::ALL
        .into_iter()
        .map(|verdict| format!("{} {}", count(findings, verdict), verdict.as_str()))
        .collect();
    let _ = writeln!(text, "{}.\n\n## What each channel received\n", counts.join(", "));
    for line in LEGEND {
        let _ = writeln!(text, "- {line}");
    }
    let channels: Vec<&str> = Listener::ALL.into_iter().map(Listener::as_str).collect();
    for (group, findings) in groups(findings) {
        let _ = writeln!(
            text,
            "\n### {}\n\n| experiment | verdict | filesystem | {} |",
            group.as_str(),
            channels.join(" | ")
        );
        let _ = writeln!(text, "| --- | --- | --- |{}", " --- |".repeat(channels.len()));
        for finding in findings {
            let cells: Vec<String> =
                Listener::ALL.into_iter().map(|listener| Cell::of(finding, listener).text()).collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                finding.experiment.name,
                finding.ruling.verdict.as_str(),
                filesystems(finding),
                cells.join(" | ")
            );
        }
    }
    text.push_str("\n## Evidence\n");
    findings.iter().for_each(|finding| evidence(&mut text, finding));
    delays(&mut text, findings);
    text.push_str("\n## The machine\n\n| | |\n| --- | --- |\n");
    for (name, value) in machine_facts(machine, findings) {
        let _ = writeln!(text, "| {name} | {} |", plain(&value));
    }
    text.into_bytes()
}

fn evidence(text: &mut String, finding: &Finding) {
    let experiment = finding.experiment;
    let _ = writeln!(
        text,
        "\n### {}\n\n**{}**: {}\n\nBecause {}.\n\n<details><summary>evidence</summary>\n",
        experiment.name,
        finding.ruling.verdict.as_str(),
        plain(experiment.claim),
        plain(&finding.ruling.why)
    );
    for (name, value) in [
        ("source", experiment.source),
        ("method", experiment.method),
        ("rests on", &rests_on(experiment)),
        ("measured", &facts(finding)),
    ] {
        let _ = writeln!(text, "- {name}: {}", plain(value));
    }
    for account in &finding.evidence.accounts {
        let _ = writeln!(text, "- {}: {}", account.listener.as_str(), plain(&received(account).join(", ")));
    }
    for (name, lines) in
        [("kernel path", &finding.evidence.kernel_path), ("strace", &finding.evidence.system_calls)]
    {
        if !lines.is_empty() {
            let _ = writeln!(text, "- {name}:");
        }
        for (number, line) in (1_u32..).zip(lines) {
            let _ = writeln!(text, "  {number}. {}", plain(line));
        }
    }
    text.push_str("\n</details>\n");
}

fn delays(text: &mut String, findings: &[Finding]) {
    let all = Delays::of(findings);
    if all.is_empty() {
        return;
    }
    text.push_str(
        "\n## How long each channel took\n\nFrom before the call that makes a file until hotr has read the event, once before each \
         operation. hotr reads the channels one after another, from top to bottom, so the time of one includes reading those above \
         it. poll has no events.\n\n| channel | samples | median | longest |\n| --- | --- | --- | --- |\n",
    );
    for delays in &all {
        let (name, count) = (delays.listener.as_str(), delays.count());
        let _ = writeln!(text, "| {name} | {count} | {} | {} |", delays.median(), delays.longest());
    }
}

/// Text of anybody, in which nothing is markup.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in visible_message(text).chars() {
        match c {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => plain.extend(['\\', c]),
            c => plain.push(c),
        }
    }
    plain
}
