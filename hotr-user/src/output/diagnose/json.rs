//! A diagnosis as JSON Lines: `finding`, `watcher` and `instance`, and a `summary` at the end.

use std::io::{self, Write};
use std::path::Path;

use crate::diagnose::finding::{Finding, Severity, Target};
use crate::diagnose::process::Kind;
use crate::diagnose::reach::{Answer, Reception};
use crate::diagnose::{Diagnosis, Watcher};
use crate::json::{Object, quote_word};
use crate::text::push_json_string;
use hotr_events::mask::watch_names;

/// Prints one object a line.
///
/// # Errors
/// Any error of `out`.
pub fn print(diagnosis: &Diagnosis, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Vec::new();
    let mut add = |fill: &dyn Fn(&mut Object<'_>)| {
        Object::whole(&mut lines, |o| fill(o));
        lines.push(b'\n');
    };
    for one in &diagnosis.findings {
        add(&|o| finding(o, one));
    }
    for (path, answers) in &diagnosis.answers {
        for one in answers {
            add(&|o| answer(o, path, one));
        }
    }
    for one in &diagnosis.watchers {
        for instance in &one.instances {
            add(&|o| {
                o.word("type", "instance");
                o.object("target", |o| watcher_target(o, one, instance.fd, instance.kind));
                o.number("watches", instance.watches);
                o.maybe(instance.unread, |o, bytes| o.number("unread_bytes", bytes));
            });
        }
    }
    add(&|o| summary(o, diagnosis));
    out.write_all(&lines)?;
    out.flush()
}

pub(super) fn target(o: &mut Object<'_>, target: &Target) {
    o.maybe(target.pid, |o, pid| o.number("pid", pid.into()));
    if target.pid.is_some() {
        o.bytes("comm", "comm_b64", &target.comm);
    }
    o.maybe(target.mechanism, |o, kind| o.word("mechanism", kind.as_str()));
    o.maybe(target.fd, |o, fd| o.signed("fd", fd.into()));
    o.maybe(target.wd, |o, wd| o.signed("wd", wd.into()));
    o.maybe(target.uid, |o, uid| o.number("uid", uid.into()));
    o.maybe(target.container.as_deref(), |o, id| o.text("container", id.as_bytes()));
}

fn watcher_target(o: &mut Object<'_>, watcher: &Watcher, fd: i32, kind: Kind) {
    o.number("pid", watcher.pid.into());
    o.maybe(watcher.ns_pid, |o, pid| o.number("ns_pid", pid.into()));
    o.bytes("comm", "comm_b64", &watcher.comm);
    o.word("mechanism", kind.as_str());
    o.signed("fd", fd.into());
    o.number("uid", watcher.uid.into());
    o.maybe(watcher.container.as_deref(), |o, id| o.text("container", id.as_bytes()));
}

fn mask(o: &mut Object<'_>, mask: u32, kind: Option<Kind>) {
    let names = watch_names(mask, kind == Some(Kind::Fanotify));
    o.list("mask", &names, |buf, name| quote_word(buf, name));
}

pub(super) fn finding(o: &mut Object<'_>, finding: &Finding) {
    o.word("type", "finding");
    o.word("severity", finding.severity.as_str());
    o.word("cause", finding.cause.as_str());
    o.word("proof", finding.proof.as_str());
    o.object("target", |o| target(o, &finding.target));
    o.maybe(finding.path.as_deref(), |o, path| o.path("path", "path_b64", path));
    o.maybe(finding.path_in_target.as_deref(), |o, path| {
        o.path("path_in_target", "path_in_target_b64", path);
    });
    o.maybe(finding.watched_ino, |o, ino| o.number("watched_ino", ino));
    o.maybe(finding.path_ino, |o, ino| o.number("path_ino", ino));
    o.maybe(finding.mask, |o, bits| mask(o, bits, finding.target.mechanism));
    o.maybe(finding.watches, |o, count| o.number("watches", count as u64));
    o.list("evidence", &finding.evidence, |buf, text| {
        push_json_string(buf, text.as_bytes());
    });
    o.text("remedy", finding.remedy.as_bytes());
}

fn answer(o: &mut Object<'_>, path: &Path, answer: &Answer) {
    o.word("type", "watcher");
    o.object("target", |o| target(o, &answer.target));
    o.path("path", "path_b64", path);
    o.maybe(answer.path_ino, |o, ino| o.number("path_ino", ino));
    o.list("by", &answer.by, |buf, word| quote_word(buf, word));
    mask(o, answer.mask, answer.target.mechanism);
    reception(o, "write", &answer.write);
    reception(o, "replace", &answer.replace);
    reception(o, "create", &answer.create);
}

fn reception(o: &mut Object<'_>, key: &'static str, reception: &Reception) {
    o.object(key, |o| {
        o.word("receives", reception.as_str());
        o.maybe(reception.why(), |o, (cause, why)| {
            o.word("cause", cause.as_str());
            o.text("why", why.as_bytes());
        });
    });
}

fn summary(o: &mut Object<'_>, diagnosis: &Diagnosis) {
    o.word("type", "summary");
    o.number("processes", diagnosis.watchers.len() as u64);
    let instances = || diagnosis.watchers.iter().flat_map(|watcher| &watcher.instances);
    o.number("instances", instances().count() as u64);
    o.number("watches", instances().map(|instance| instance.watches).sum());
    o.number("watches_without_path", diagnosis.without_path);
    o.number("unreadable_processes", diagnosis.unreadable);
    o.object("findings", |o| {
        for (key, severity) in [
            ("deaf", Severity::Deaf),
            ("lost", Severity::Lost),
            ("at_risk", Severity::AtRisk),
            ("note", Severity::Note),
        ] {
            o.number(key, diagnosis.count(severity) as u64);
        }
    });
    o.number("duration_ms", u64::try_from(diagnosis.took.as_millis()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::diagnose::samples;

    #[test]
    fn one_object_a_line() {
        let mut out = Vec::new();
        print(&samples::diagnosis(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
        assert_eq!(text, samples::LINES);
    }
}
