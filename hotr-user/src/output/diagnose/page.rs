//! A live diagnosis as one page for a browser: no script, nothing from elsewhere, and of a bounded size.
//!
//! In: what a run reports. Out: HTML. Names are escaped twice: as for a terminal, so that nothing invisible stays in
//! them, and as HTML. The page forbids itself to load or to run anything.

mod chain;
mod kept;
mod summary;

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::diagnose::finding::{Finding, Proof, Severity, Target};
use crate::diagnose::live::{LiveReport, Machine, State, Summary, Verdict};
use crate::output::page::{self, text};
use crate::output::text::push_rfc3339;
use hotr_events::mask::{names, watch_names};
use kept::{Kept, Shown};
use summary::{banner, causes, tiles, waits};

/// Instances, paths and mounts that are listed.
const LISTED: usize = 40;

/// Collects a run.
#[derive(Debug, Default)]
pub struct Page {
    machine: Option<Machine>,
    tier: &'static str,
    instances: Vec<(Target, usize)>,
    paths: Vec<PathBuf>,
    kept: Kept,
    lost_records: u64,
    summary: Option<Summary>,
}

impl Page {
    /// The run begins on this machine.
    pub fn begin(&mut self, machine: Machine) {
        self.machine = Some(machine);
    }

    /// Whether there is something to show.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.machine.is_some()
    }

    /// Takes a report.
    pub fn take(&mut self, told: &LiveReport<'_>) {
        match told {
            LiveReport::Ready { tier, instances, paths } => {
                (self.tier, self.instances, self.paths) = (tier.as_str(), instances.clone(), paths.clone());
            }
            LiveReport::Note(note) => self.kept.note(note.clone()),
            LiveReport::Lost { count, .. } => self.lost_records += count,
            LiveReport::Change(change) => self.kept.change(change),
            LiveReport::Verdict(verdict) => self.kept.verdict(verdict),
            LiveReport::Used(used) => self.kept.used(used),
            LiveReport::Finding(finding) => self.kept.finding(finding),
            LiveReport::Summary(summary) => self.summary = Some((*summary).clone()),
        }
    }

    /// The page.
    #[must_use]
    pub fn html(&self) -> Vec<u8> {
        let mut html = page::begin("hotr diagnose", "");
        html.push_str("<header>");
        self.heading(&mut html);
        html.push_str("</header><main>");
        if let Some(summary) = &self.summary {
            causes(&mut html, &summary.rows);
        }
        self.findings(&mut html);
        self.changes(&mut html);
        if let Some(summary) = &self.summary {
            waits(&mut html, &summary.read_us);
        }
        self.facts(&mut html);
        html.push_str("</main>");
        page::end(&mut html, "made by hotr diagnose --report; times are in UTC");
        html.into_bytes()
    }

    fn heading(&self, html: &mut String) {
        html.push_str("<p class=dim>hotr diagnose</p><h1>");
        let mut whom: Vec<&Target> = Vec::new();
        for (target, _) in &self.instances {
            if whom.iter().all(|other| other.pid != target.pid) {
                whom.push(target);
            }
        }
        for (i, one) in whom.iter().take(3).enumerate() {
            html.push_str(if i == 0 { "" } else { ", " });
            process(html, one);
        }
        if whom.len() > 3 {
            let _ = write!(html, " and {} more", whom.len() - 3);
        }
        html.push_str("</h1>");
        let Some(summary) = &self.summary else {
            html.push_str("<div class=\"banner warn\"><strong>The run ended before its summary</strong><p>What it saw until then is below.</p></div>");
            return;
        };
        banner(html, summary, self.kept.findings.len());
        tiles(html, summary);
    }

    fn findings(&self, html: &mut String) {
        if self.kept.findings.is_empty() {
            return;
        }
        html.push_str("<section id=findings><h2>After delivery</h2>");
        self.kept.findings.iter().for_each(|one| finding(html, one));
        left_out(html, self.kept.findings_left_out, "findings");
        html.push_str("</section>");
    }

    fn changes(&self, html: &mut String) {
        html.push_str("<section id=changes><h2>What became of each change</h2>");
        let changes = self.kept.by_change();
        if changes.is_empty() {
            html.push_str("<p>There was no change.</p>");
        }
        for shown in changes.values() {
            change(html, shown);
        }
        left_out(html, self.kept.left_out, "answers about changes");
        html.push_str("</section>");
    }

    fn facts(&self, html: &mut String) {
        html.push_str("<section id=machine><h2>The machine</h2><dl>");
        let mut fact = |name: &str, value: &str| {
            let _ = write!(html, "<dt>{name}</dt><dd>");
            text::sentence(html, value);
            html.push_str("</dd>");
        };
        if let Some(machine) = &self.machine {
            fact("kernel", &machine.kernel);
            fact("programs", self.tier);
            let mut began = Vec::new();
            push_rfc3339(&mut began, machine.time);
            fact("began", &String::from_utf8_lossy(&began));
            fact("hotr", &machine.version);
            fact("lockdown", machine.lockdown.as_deref().unwrap_or("not known"));
            for (name, value) in [
                ("max_user_watches", machine.max_user_watches),
                ("max_user_instances", machine.max_user_instances),
                ("max_queued_events", machine.max_queued_events),
            ] {
                fact(name, &value.map_or_else(|| "not known".to_owned(), |value| value.to_string()));
            }
        }
        html.push_str("</dl>");
        self.followed(html);
        html.push_str("</section>");
    }

    fn followed(&self, html: &mut String) {
        html.push_str("<details open><summary>instances and paths</summary><ul>");
        for (target, watches) in self.instances.iter().take(LISTED) {
            html.push_str("<li>");
            process(html, target);
            instance(html, target);
            let _ = write!(html, ": {watches} {}</li>", if *watches == 1 { "watch" } else { "watches" });
        }
        for path in self.paths.iter().take(LISTED) {
            html.push_str("<li>");
            text::path(html, path);
            let mounts = self.machine.iter().flat_map(|machine| &machine.mounts);
            if let Some(mount) = mounts.into_iter().find(|mount| mount.path == *path) {
                html.push_str(" on ");
                text::sentence(html, &mount.fs);
                html.push_str(" mounted at ");
                text::path(html, &mount.mount_point);
            }
            html.push_str("</li>");
        }
        html.push_str("</ul>");
        left_out(html, self.instances.len().saturating_sub(LISTED) as u64, "instances");
        left_out(html, self.paths.len().saturating_sub(LISTED) as u64, "paths");
        for note in &self.kept.notes {
            html.push_str("<p class=small>");
            text::sentence(html, note);
            html.push_str("</p>");
        }
        left_out(html, self.kept.notes_left_out, "notes");
        html.push_str("</details>");
    }
}

const fn color(state: State) -> &'static str {
    match state {
        State::Delivered => "good",
        State::Merged => "idle",
        State::Unread => "warn",
        State::Dropped | State::NeverSent => "bad",
    }
}

fn process(html: &mut String, target: &Target) {
    text::name(html, &target.comm);
    if let Some(pid) = target.pid {
        let _ = write!(html, "[{pid}]");
    }
}

fn instance(html: &mut String, target: &Target) {
    for (word, number) in [("fd", target.fd), ("wd", target.wd)] {
        if let Some(number) = number {
            let _ = write!(html, " {word} {number}");
        }
    }
}

fn finding(html: &mut String, finding: &Finding) {
    let color = if finding.severity <= Severity::Lost { "bad" } else { "warn" };
    let _ = write!(
        html,
        "<article class=card><h3><span class={color}>{}</span> <code>{}</code> ",
        finding.severity.as_str(),
        finding.cause.as_str()
    );
    process(html, &finding.target);
    html.push_str("</h3>");
    if let Some(path) = &finding.path {
        html.push_str("<p>");
        text::path(html, path);
        html.push_str("</p>");
    }
    because(html, finding.proof, finding.cause.sentence(), &finding.evidence);
    html.push_str("<p class=remedy>");
    text::sentence(html, &finding.remedy);
    html.push_str("</p></article>");
}

fn because(html: &mut String, proof: Proof, sentence: &str, evidence: &[String]) {
    let _ = write!(html, "<p>{sentence} <span class=\"small dim\">({})</span></p>", proof.as_str());
    if evidence.is_empty() {
        return;
    }
    html.push_str("<ul class=small>");
    for one in evidence.iter().take(LISTED) {
        html.push_str("<li>");
        text::sentence(html, one);
        html.push_str("</li>");
    }
    html.push_str("</ul>");
}

/// A change, and what became of it in each instance.
fn change(html: &mut String, shown: &[&Shown]) {
    let Some(first) = shown.first() else { return };
    let verdict = &first.verdict;
    let mut time = Vec::new();
    push_rfc3339(&mut time, verdict.time);
    let time = String::from_utf8_lossy(&time).into_owned();
    let clock = time.get(11..23).unwrap_or(&time);
    let _ = write!(
        html,
        "<article class=card id=change-{}><h3><span class=dim>{clock}</span> {} ",
        verdict.change,
        verdict.op.as_str()
    );
    text::path(html, &verdict.path);
    html.push_str("</h3>");
    if let Some(made) = &first.made {
        html.push_str("<p class=\"small dim\">by ");
        text::name(html, &made.comm);
        let _ = write!(html, "[{}], ", made.pid);
        text::sentence(html, &made.detail);
        html.push_str("</p>");
    }
    for one in shown.iter().take(LISTED) {
        answer(html, one);
    }
    left_out(html, shown.len().saturating_sub(LISTED) as u64, "instances");
    html.push_str("</article>");
}

fn answer(html: &mut String, shown: &Shown) {
    let verdict = &shown.verdict;
    let _ =
        write!(html, "<figure><figcaption><b class={}>{}</b> ", color(verdict.state), verdict.state.as_str());
    process(html, &verdict.target);
    instance(html, &verdict.target);
    html.push_str("</figcaption>");
    chain::push(html, shown);
    html.push_str("</figure>");
    if let Some(cause) = verdict.cause.filter(|_| verdict.state != State::Merged) {
        let _ = write!(html, "<p><code>{}</code></p>", cause.as_str());
        because(html, verdict.proof, cause.sentence(), &verdict.evidence);
        if let Some(remedy) = cause.remedy() {
            html.push_str("<p class=remedy>");
            text::sentence(html, remedy);
            html.push_str("</p>");
        }
    }
    more(html, verdict);
}

/// What few readers need.
fn more(html: &mut String, verdict: &Verdict) {
    let mut all = Vec::new();
    if verdict.events != 0 {
        all.push(("events", names(verdict.events).join(" ")));
    }
    if let Some((unread, limit)) = verdict.queue {
        all.push(("queue", format!("{unread} of {limit}")));
    }
    if let Some(mask) = verdict.mask {
        all.push(("the watch asks for", watch_names(mask, false).join(" ")));
    }
    for (name, ino) in [("watched inode", verdict.watched_ino), ("inode that changed", verdict.path_ino)] {
        all.extend(ino.map(|ino| (name, ino.to_string())));
    }
    if all.is_empty() {
        return;
    }
    html.push_str("<details><summary>fields of the kernel</summary><dl>");
    for (name, value) in all {
        let _ = write!(html, "<dt>{name}</dt><dd>{value}</dd>");
    }
    html.push_str("</dl></details>");
}

fn left_out(html: &mut String, count: u64, what: &str) {
    if count != 0 {
        let _ = write!(html, "<p class=left-out>{count} more {what} are left out here.</p>");
    }
}
