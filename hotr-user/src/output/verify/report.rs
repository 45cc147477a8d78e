//! A run as one page: a matrix of claims and channels, the evidence of each behind it, delays, and facts of the machine.
//!
//! In: findings, and the machine that they were found on. Out: HTML ([`html`]) or Markdown ([`markdown`]), the same for equal
//! findings but for times.

mod html;
mod markdown;
mod plot;

use crate::diagnose::live::Machine;
use crate::verify::evidence::{Account, Listener, State};
use crate::verify::{Experiment, Finding, Group, Verdict};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One self-contained page for a browser.
    Html,
    /// Markdown as GitHub reads it.
    Markdown,
}

/// Writes the report of a run.
#[must_use]
pub fn report(machine: &Machine, findings: &[Finding], form: Form) -> Vec<u8> {
    match form {
        Form::Html => html::page(machine, findings),
        Form::Markdown => markdown::page(machine, findings),
    }
}

/// What one channel has of one experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// So many events.
    Received(u64),
    /// So many, and its queue was full.
    Partly(u64),
    /// No event, and another channel received some.
    Missed,
    /// No channel received anything, so there may have been nothing to receive.
    Nothing,
    /// It received not even the barrier.
    Silent,
    /// It was not listening.
    Off,
}

impl Cell {
    fn of(finding: &Finding, listener: Listener) -> Self {
        let accounts = &finding.evidence.accounts;
        let Some(account) = accounts.iter().find(|account| account.listener == listener) else {
            return Self::Off;
        };
        match (&account.state, account.count()) {
            (State::Off(_), _) => Self::Off,
            (State::Silent, _) => Self::Silent,
            (State::Listening, 0) if accounts.iter().any(|other| other.count() > 0) => Self::Missed,
            (State::Listening, 0) => Self::Nothing,
            (State::Listening, count) if account.has_overflown() => Self::Partly(count),
            (State::Listening, count) => Self::Received(count),
        }
    }

    fn text(self) -> String {
        let (word, count) = match self {
            Self::Received(count) => ("received", count),
            Self::Partly(count) => ("partly", count),
            Self::Missed => return "missed".to_owned(),
            Self::Nothing => return "nothing".to_owned(),
            Self::Silent => return "silent".to_owned(),
            Self::Off => return "off".to_owned(),
        };
        format!("{word} {count}")
    }

    /// A class of the page's style.
    const fn color(self) -> &'static str {
        match self {
            Self::Received(_) => "good",
            Self::Missed | Self::Silent => "bad",
            Self::Partly(_) => "warn",
            Self::Nothing | Self::Off => "idle",
        }
    }
}

/// What the words of the matrix mean.
const LEGEND: [&str; 5] = [
    "received: so many events came through the channel.",
    "missed: it received nothing, and another channel did.",
    "partly: its queue was full, so events are missing.",
    "nothing: no channel received anything.",
    "off, silent: it was not listening; the evidence says why.",
];

/// Findings of each group, in order of appearance.
fn groups(findings: &[Finding]) -> Vec<(Group, Vec<&Finding>)> {
    let mut groups: Vec<(Group, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        let group = finding.experiment.group;
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, all)) => all.push(finding),
            None => groups.push((group, vec![finding])),
        }
    }
    groups
}

fn filesystems(finding: &Finding) -> String {
    finding.evidence.filesystems.join(", ")
}

/// What a channel received, one text an event.
fn received(account: &Account) -> Vec<String> {
    match &account.state {
        State::Silent => return vec!["received not even the barrier".to_owned()],
        State::Off(why) => return vec![format!("off: {why}")],
        State::Listening => {}
    }
    if account.events.is_empty() {
        return vec!["nothing".to_owned()];
    }
    let mut all: Vec<String> = account.events.iter().take(SHOWN).map(ToString::to_string).collect();
    let rest: u64 = account.events.iter().skip(SHOWN).map(|event| event.count).sum();
    if rest > 0 {
        all.push(format!("{rest} more"));
    }
    all
}

/// Different events of a channel that are shown.
const SHOWN: usize = 30;

/// Numbers of an experiment, as text.
fn facts(finding: &Finding) -> String {
    let facts: Vec<String> =
        finding.evidence.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    facts.join(", ")
}

/// The listeners that a verdict rests upon.
fn rests_on(experiment: &Experiment) -> String {
    let names: Vec<&str> = experiment.rests_on.iter().map(|listener| listener.as_str()).collect();
    names.join(", ")
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.ruling.verdict == verdict).count()
}

/// Names and values of the machine and of the run.
fn machine_facts(machine: &Machine, findings: &[Finding]) -> Vec<(&'static str, String)> {
    let limit = |value: Option<u64>| value.map_or_else(|| "not known".to_owned(), |value| value.to_string());
    let mut began = Vec::new();
    crate::text::push_rfc3339(&mut began, machine.time);
    let mut used: Vec<&str> = Vec::new();
    for name in findings.iter().flat_map(|finding| &finding.evidence.filesystems) {
        if !used.contains(name) {
            used.push(name);
        }
    }
    vec![
        ("kernel", machine.kernel.clone()),
        ("BTF", if machine.btf { "yes" } else { "no" }.to_owned()),
        ("lockdown", machine.lockdown.clone().unwrap_or_else(|| "not known".to_owned())),
        ("max_user_watches", limit(machine.max_user_watches)),
        ("max_user_instances", limit(machine.max_user_instances)),
        ("max_queued_events", limit(machine.max_queued_events)),
        ("filesystems", used.join(", ")),
        ("mounts", "in a mount namespace of hotr's own, below a tmpfs".to_owned()),
        ("began", String::from_utf8_lossy(&began).into_owned()),
        ("hotr", machine.version.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::samples;
    use super::*;
    use crate::verify::evidence::Event;

    fn machine() -> Machine {
        Machine {
            version: "1.2.3".to_owned(),
            time: SystemTime::UNIX_EPOCH,
            kernel: "6.1<2>".to_owned(),
            btf: true,
            lockdown: None,
            max_user_watches: Some(8),
            max_user_instances: None,
            max_queued_events: Some(16),
            mounts: Vec::new(),
        }
    }

    #[test]
    fn a_channel_missed_only_what_another_received() {
        let mut finding = samples::finding();
        let cell = |finding: &Finding, listener| Cell::of(finding, listener).text();
        assert_eq!(cell(&finding, Listener::Inotify), "received 4");
        assert_eq!(cell(&finding, Listener::Fanotify), "off");
        assert_eq!(cell(&finding, Listener::Ebpf), "silent");
        assert_eq!(cell(&finding, Listener::Poll), "missed");
        let what = vec!["Q_OVERFLOW".to_owned()];
        let overflow = Event { at: "", what, name: None, cookie: 0, count: 1 };
        finding.evidence.accounts[0].events.push(overflow);
        assert_eq!(cell(&finding, Listener::Inotify), "partly 5");
        finding.evidence.accounts[0].events.clear();
        assert_eq!(cell(&finding, Listener::Inotify), "nothing");
        assert_eq!(cell(&finding, Listener::Poll), "nothing");
    }

    #[test]
    fn both_forms_have_the_claim_the_cells_and_the_evidence() {
        let findings = [samples::finding()];
        for (form, wanted) in [
            (
                Form::Html,
                &[
                    "id=splice",
                    "6.1&lt;2&gt;",
                    "<details>",
                    "<svg",
                    "received as IN_MODIFY.",
                    "vfs_write by kprobe (inode 1, d/f): write",
                    ">received 4<",
                    "d: MODIFY f\\x1b ×3",
                ][..],
            ),
            (
                Form::Markdown,
                &[
                    "6.1&lt;2&gt;",
                    "<details>",
                    "received as IN\\_MODIFY.",
                    "vfs\\_write by kprobe (inode 1, d/f): write",
                    "| confirmed | tmpfs | received 4 | off | silent | missed |",
                    "d: MODIFY f\\\\x1b ×3",
                ],
            ),
        ] {
            let text = String::from_utf8(report(&machine(), &findings, form)).unwrap();
            for part in wanted.iter().chain(&["the watch on d received MODIFY"]) {
                assert!(text.contains(part), "{form:?} has no {part}: {text}");
            }
            assert!(!text.contains('\x1b'), "{text}");
        }
    }
}
