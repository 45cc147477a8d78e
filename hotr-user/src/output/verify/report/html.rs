//! The report for a browser.

use std::fmt::Write as _;

use super::plot::{self, Delays};
use super::{Cell, LEGEND, count, facts, filesystems, groups, machine_facts, received, rests_on};
use crate::diagnose::live::Machine;
use crate::output::page::{self, text};
use crate::verify::evidence::Listener;
use crate::verify::{Finding, Verdict};

pub(super) fn page(machine: &Machine, findings: &[Finding]) -> Vec<u8> {
    let mut html = page::begin("hotr verify", include_str!("style.css"));
    html.push_str("<header><p class=dim>hotr verify</p><h1>Claims about inotify, on Linux ");
    text::message(&mut html, &machine.kernel);
    html.push_str("</h1><ul class=tiles>");
    for verdict in Verdict::ALL {
        let (name, count) = (verdict.as_str(), count(findings, verdict));
        let color = if count == 0 { "idle" } else { color(verdict) };
        let _ = write!(html, "<li class={color} data-count={name}><b>{count}</b>{name}</li>");
    }
    html.push_str("</ul></header><main>");
    matrix(&mut html, findings);
    html.push_str("<section id=evidence><h2>Evidence</h2>");
    findings.iter().for_each(|finding| evidence(&mut html, finding));
    html.push_str("</section>");
    delays(&mut html, findings);
    html.push_str("<section id=machine><h2>The machine</h2><dl>");
    for (name, value) in machine_facts(machine, findings) {
        pair(&mut html, name, &value);
    }
    html.push_str("</dl></section></main>");
    page::end(&mut html, "made by hotr verify --report; times are in UTC");
    html.into_bytes()
}

const fn color(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Confirmed => "good",
        Verdict::Refuted => "bad",
        Verdict::Partly => "warn",
        Verdict::NotTestable => "idle",
    }
}

fn matrix(html: &mut String, findings: &[Finding]) {
    html.push_str("<section id=matrix><h2>What each channel received</h2><ul class=\"small dim\">");
    for line in LEGEND {
        let _ = write!(html, "<li>{line}</li>");
    }
    html.push_str("</ul>");
    for (group, findings) in groups(findings) {
        let _ = write!(html, "<h3>{}</h3><table class=matrix><thead><tr>", group.as_str());
        for head in ["experiment", "verdict", "filesystem"] {
            let _ = write!(html, "<th>{head}");
        }
        for listener in Listener::ALL {
            let _ = write!(html, "<th>{}", listener.as_str());
        }
        html.push_str("</tr></thead><tbody>");
        for finding in findings {
            let (name, verdict) = (finding.experiment.name, finding.ruling.verdict);
            let _ = write!(html, "<tr><td data-is=experiment><a href=\"#{name}\">{name}</a>");
            let _ = write!(html, "<td data-is=verdict class={}>{}", color(verdict), verdict.as_str());
            let _ = write!(html, "<td data-is=filesystem>{}", filesystems(finding));
            for listener in Listener::ALL {
                let cell = Cell::of(finding, listener);
                let _ = write!(
                    html,
                    "<td data-is={} class={}>{}</td>",
                    listener.as_str(),
                    cell.color(),
                    cell.text()
                );
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table>");
    }
    html.push_str("</section>");
}

fn evidence(html: &mut String, finding: &Finding) {
    let experiment = finding.experiment;
    let (name, verdict) = (experiment.name, finding.ruling.verdict);
    let _ = write!(
        html,
        "<article class=card id={name}><h3><span class={}>{}</span> <code>{name}</code></h3><p>",
        color(verdict),
        verdict.as_str()
    );
    text::message(html, experiment.claim);
    html.push_str("</p><p class=small>");
    text::message(html, &finding.ruling.why);
    html.push_str("</p><details><summary>evidence</summary><dl>");
    pair(html, "source", experiment.source);
    pair(html, "method", experiment.method);
    pair(html, "rests on", &rests_on(experiment));
    for account in &finding.evidence.accounts {
        let _ = write!(html, "<dt>{}</dt><dd>", account.listener.as_str());
        list(html, "ul", &received(account));
        html.push_str("</dd>");
    }
    pair(html, "measured", &facts(finding));
    if !finding.evidence.kernel_path.is_empty() {
        html.push_str("<dt>kernel path</dt><dd>");
        list(html, "ol", &finding.evidence.kernel_path);
        html.push_str("</dd>");
    }
    if !finding.evidence.system_calls.is_empty() {
        html.push_str("<dt>strace</dt><dd>");
        list(html, "ol", &finding.evidence.system_calls);
        html.push_str("</dd>");
    }
    html.push_str("</dl></details></article>");
}

fn list(html: &mut String, kind: &str, items: &[String]) {
    let _ = write!(html, "<{kind}>");
    for item in items {
        html.push_str("<li><bdi class=path>");
        text::message(html, item);
        html.push_str("</bdi></li>");
    }
    let _ = write!(html, "</{kind}>");
}

fn pair(html: &mut String, name: &str, value: &str) {
    let _ = write!(html, "<dt>{name}</dt><dd>");
    text::message(html, value);
    html.push_str("</dd>");
}

fn delays(html: &mut String, findings: &[Finding]) {
    let all = Delays::of(findings);
    if all.is_empty() {
        return;
    }
    html.push_str(
        "<section id=delays><h2>How long each channel took</h2><p class=small>From before the call that makes a file until hotr has \
         read the event, once before each operation. hotr reads the channels one after another, from top to bottom, so the time of one \
         includes reading those above it. poll has no events.</p><figure>",
    );
    plot::svg(html, &all);
    html.push_str("<figcaption class=small>");
    for delays in &all {
        let (name, count) = (delays.listener.as_str(), delays.count());
        let _ = write!(html, "{name}: median {} of {count}, at most {}. ", delays.median(), delays.longest());
    }
    html.push_str("</figcaption></figure></section>");
}
