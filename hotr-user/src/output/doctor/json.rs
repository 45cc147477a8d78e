//! The exam as JSON Lines: `{"type":"doctor","section":…}`, described in docs/doctor.md.

use std::io::{self, Write};

use crate::doctor::cover::Cover;
use crate::doctor::{Check, Examination, PlanRow};
use crate::json::{Object, quote_word};

/// Prints one object a finding.
///
/// # Errors
/// Any error of `out`.
pub fn print(exam: &Examination, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Lines(Vec::new());
    let kernel = &exam.kernel;
    lines.add("kernel", |o| {
        o.text("release", kernel.release.as_bytes());
        o.boolean("btf", kernel.btf_bytes.is_some());
        o.maybe(kernel.btf_bytes, |o, bytes| o.number("btf_bytes", bytes));
        match &kernel.lockdown {
            Ok(mode) => o.text("lockdown", mode.as_bytes()),
            Err(why) => o.text("lockdown_why", why.as_bytes()),
        }
        o.maybe(kernel.unprivileged_bpf_disabled, |o, n| o.number("unprivileged_bpf_disabled", n));
    });
    for capability in &exam.capabilities {
        lines.add("capability", |o| {
            o.word("name", capability.name);
            o.boolean("effective", capability.effective);
            check(o, &capability.check);
        });
    }
    match &exam.plan {
        Ok(rows) => rows.iter().for_each(|row| lines.add("hook", |o| hook(o, row))),
        Err(why) => lines.add("plan", |o| {
            o.word("mark", "bad");
            o.text("why", why.as_bytes());
        }),
    }
    let inotify = &exam.inotify;
    lines.add("inotify", |o| {
        o.maybe(inotify.max_user_watches, |o, n| o.number("max_user_watches", n));
        o.maybe(inotify.max_user_instances, |o, n| o.number("max_user_instances", n));
        o.maybe(inotify.max_queued_events, |o, n| o.number("max_queued_events", n));
        o.number("used_by_me", inotify.used_by_me);
        o.number("budget", inotify.budget());
        o.number("unreadable_processes", inotify.unreadable);
    });
    for user in &inotify.users {
        lines.add("inotify-user", |o| {
            o.signed("pid", user.pid.into());
            o.text("comm", user.comm.as_bytes());
            o.number("uid", user.uid.into());
            o.number("instances", user.instances);
            o.number("watches", user.watches);
        });
    }
    exam.paths.iter().for_each(|cover| lines.add("path", |o| path(o, cover)));
    out.write_all(&lines.0)?;
    out.flush()
}

struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, section: &str, fill: impl FnOnce(&mut Object<'_>)) {
        Object::whole(&mut self.0, |o| {
            o.word("type", "doctor");
            o.word("section", section);
            fill(o);
        });
        self.0.push(b'\n');
    }
}

fn check(o: &mut Object<'_>, check: &Check) {
    o.word("mark", check.mark.as_str());
    o.text("why", check.value.as_bytes());
    o.maybe(check.next.as_deref(), |o, next| o.text("next", next.as_bytes()));
}

fn hook(o: &mut Object<'_>, row: &PlanRow) {
    o.text("hook", row.hook.as_bytes());
    o.maybe(row.tier, |o, tier| o.word("tier", tier));
    o.maybe((!row.attached_to.is_empty()).then_some(&row.attached_to), |o, to| {
        o.text("attached_to", to.as_bytes());
    });
    o.boolean("optional", row.optional);
    o.text("why", row.why.as_bytes());
}

fn path(o: &mut Object<'_>, cover: &Cover) {
    o.path("path", "path_b64", &cover.path);
    o.text("fs", cover.fs.as_bytes());
    o.path("mount_point", "mount_point_b64", &cover.mount_point);
    o.list("layers", &cover.layers, |buf, layer| {
        Object::whole(buf, |o| {
            o.word("layer", layer.layer);
            o.path("path", "path_b64", &layer.path);
            o.boolean("reachable", layer.reachable);
        });
    });
    o.maybe(cover.directories, |o, n| o.number("directories", n));
    o.boolean("covered", cover.is_full());
    o.list("by", &cover.by, |buf, channel| quote_word(buf, channel));
    o.list("gaps", &cover.gaps, |buf, gap| {
        Object::whole(buf, |o| {
            o.word("cause", gap.cause.as_str());
            o.text("why", gap.why.as_bytes());
        });
    });
    o.maybe(cover.next.as_deref(), |o, next| o.text("next", next.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn one_object_a_finding() {
        let mut out = Vec::new();
        print(&samples::exam(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
        assert_eq!(text, samples::LINES);
    }
}
