//! A live diagnosis as JSON Lines.

use crate::diagnose::live::{Histogram, LiveReport, State, Summary, Verdict};
use crate::json::{Object, quote_word};
use crate::output::diagnose::json::{self, target};
use crate::output::text::{push_base64, push_json_string};
use hotr_events::mask::{names, watch_names};

/// Appends the line of a report; nothing for a change, which a trace's printer prints, and for a remark.
pub(in crate::output::diagnose) fn line(text: &mut Vec<u8>, told: &LiveReport<'_>) {
    if matches!(told, LiveReport::Note(_) | LiveReport::Change(_)) {
        return;
    }
    Object::whole(text, |o| match told {
        LiveReport::Ready { tier, instances, paths } => {
            o.word("type", "ready");
            o.word("tier", tier.as_str());
            o.list("paths", paths, |buf, path| {
                push_json_string(buf, path.as_os_str().as_encoded_bytes());
            });
            if paths.iter().any(|path| path.to_str().is_none()) {
                o.list("paths_b64", paths, |buf, path| {
                    buf.push(b'"');
                    push_base64(buf, path.as_os_str().as_encoded_bytes());
                    buf.push(b'"');
                });
            }
            o.list("instances", instances, |buf, (one, watches)| {
                Object::whole(buf, |o| {
                    o.object("target", |o| target(o, one));
                    o.number("watches", *watches as u64);
                });
            });
        }
        LiveReport::Verdict(verdict) => delivery(o, verdict),
        LiveReport::Used(used) => {
            o.word("type", "used");
            o.number("change", used.change);
            o.number("pid", used.pid.into());
            o.maybe(used.opened_us, |o, micros| o.number("opened_us", micros));
            o.maybe(used.file_read_us, |o, micros| o.number("file_read_us", micros));
        }
        LiveReport::Finding(finding) => json::finding(o, finding),
        LiveReport::Lost { reason, count } => {
            o.word("type", "loss");
            o.word("channel", "ebpf");
            o.word("reason", reason.as_str());
            o.number("count", *count);
        }
        LiveReport::Summary(summary) => totals(o, summary),
        LiveReport::Note(_) | LiveReport::Change(_) => {}
    });
    text.push(b'\n');
}

fn delivery(o: &mut Object<'_>, verdict: &Verdict) {
    o.word("type", "delivery");
    o.number("change", verdict.change);
    o.time("time", verdict.time);
    o.word("op", verdict.op.as_str());
    o.path("path", "path_b64", &verdict.path);
    o.object("target", |o| target(o, &verdict.target));
    o.word("state", verdict.state.as_str());
    if verdict.events != 0 {
        o.list("events", &names(verdict.events), |buf, name| quote_word(buf, name));
    }
    o.maybe(verdict.queued_us, |o, micros| o.signed("queued_us", micros));
    o.maybe(verdict.read_us, |o, micros| o.number("read_us", micros));
    o.maybe(verdict.queue, |o, (unread, limit)| {
        o.number("queue_length", unread.into());
        o.number("queue_limit", limit.into());
    });
    o.maybe(verdict.cause, |o, cause| o.word("cause", cause.as_str()));
    o.word("proof", verdict.proof.as_str());
    o.maybe(verdict.watched_ino, |o, ino| o.number("watched_ino", ino));
    o.maybe(verdict.path_ino, |o, ino| o.number("path_ino", ino));
    o.maybe(verdict.mask, |o, mask| {
        o.list("mask", &watch_names(mask, false), |buf, name| quote_word(buf, name));
    });
    if !verdict.evidence.is_empty() {
        o.list("evidence", &verdict.evidence, |buf, text| {
            push_json_string(buf, text.as_bytes());
        });
    }
    o.maybe(verdict.cause.and_then(|cause| cause.remedy()), |o, remedy| o.text("remedy", remedy.as_bytes()));
}

fn totals(o: &mut Object<'_>, summary: &Summary) {
    o.word("type", "summary");
    o.number("changes", summary.changes);
    for state in State::ALL {
        let key = if state == State::NeverSent { "never_sent" } else { state.as_str() };
        o.number(key, summary.counts.get(&state).copied().unwrap_or(0));
    }
    o.number("unasked", summary.unasked);
    o.number("reread", summary.reread);
    o.number("undecided", summary.undecided);
    o.number("records_lost", summary.records_lost);
    waits(o, &summary.read_us);
    o.list("causes", &summary.rows, |buf, row| {
        Object::whole(buf, |o| {
            o.word("state", row.state.as_str());
            o.maybe(row.cause, |o, cause| o.word("cause", cause.as_str()));
            o.number("count", row.count);
            o.path("example", "example_b64", &row.example);
            o.maybe(row.cause.and_then(|cause| cause.remedy()), |o, remedy| {
                o.text("remedy", remedy.as_bytes())
            });
        });
    });
    o.number("duration_ms", u64::try_from(summary.took.as_millis()).unwrap_or(u64::MAX));
}

/// How long events waited to be read.
fn waits(o: &mut Object<'_>, histogram: &Histogram) {
    for (key, percent) in [("read_us_median", 50), ("read_us_p90", 90), ("read_us_p99", 99)] {
        o.maybe(histogram.percentile(percent), |o, micros| o.number(key, micros));
    }
    o.maybe(histogram.max(), |o, micros| o.number("read_us_max", micros));
    let buckets: Vec<_> = histogram.buckets().collect();
    o.list("read_us", &buckets, |buf, (from, to, count)| {
        Object::whole(buf, |o| {
            o.number("from", *from);
            o.number("to", *to);
            o.number("count", *count);
        });
    });
}
