//! Findings as JSON Lines: one `verdict` line an experiment, one `summary` at the end.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::json::{Object, quote_word};
use crate::text::push_json_string;
use crate::verify::evidence::{Account, State};
use crate::verify::saved::Difference;
use crate::verify::{Experiment, Finding, Verdict};

/// Prints one finding, and hands it to the reader. `expected` is the verdict of a saved run, when it was another.
///
/// # Errors
/// Any error of `out`.
pub fn finding(finding: &Finding, expected: Option<Verdict>, out: &mut dyn Write) -> io::Result<()> {
    line(out, |o| {
        o.word("type", "verdict");
        about(o, finding.experiment);
        o.word("verdict", finding.ruling.verdict.as_str());
        o.text("why", finding.ruling.why.as_bytes());
        o.maybe(expected, |o, verdict| o.word("expected", verdict.as_str()));
        o.list("rests_on", finding.experiment.rests_on, |buf, listener| quote_word(buf, listener.as_str()));
        o.object("channels", |o| {
            for account in &finding.evidence.accounts {
                o.object(account.listener.as_str(), |o| channel(o, account));
            }
        });
        o.object("facts", |o| {
            finding.evidence.facts.iter().for_each(|(name, value)| o.number(name, *value));
        });
        o.list("kernel_path", &finding.evidence.kernel_path, |buf, step| {
            push_json_string(buf, step.as_bytes());
        });
        o.list("filesystems", &finding.evidence.filesystems, |buf, name| quote_word(buf, name));
        o.object("delays_us", |o| {
            for (listener, delay) in &finding.evidence.delays {
                o.number(listener.as_str(), u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
            }
        });
        let calls = &finding.evidence.system_calls;
        o.maybe((!calls.is_empty()).then_some(calls), |o, calls| {
            o.list("system_calls", calls, |buf, call| {
                push_json_string(buf, call.as_bytes());
            });
        });
        o.number("duration_ms", milliseconds(finding.duration));
    })
}

/// Prints an experiment of the list.
///
/// # Errors
/// Any error of `out`.
pub fn listed(experiment: &Experiment, out: &mut dyn Write) -> io::Result<()> {
    line(out, |o| {
        o.word("type", "experiment");
        about(o, experiment);
        o.text("method", experiment.method.as_bytes());
    })
}

/// Prints the last line.
///
/// # Errors
/// Any error of `out`.
pub fn summary(
    verdicts: &[Verdict],
    differing: u64,
    duration: Duration,
    out: &mut dyn Write,
) -> io::Result<()> {
    line(out, |o| {
        o.word("type", "summary");
        o.number("experiments", verdicts.len() as u64);
        for (verdict, key) in Verdict::ALL.into_iter().zip(["confirmed", "refuted", "partly", "not_testable"])
        {
            o.number(key, verdicts.iter().filter(|one| **one == verdict).count() as u64);
        }
        o.number("differing", differing);
        o.number("duration_ms", milliseconds(duration));
    })
}

fn about(o: &mut Object<'_>, experiment: &Experiment) {
    o.word("experiment", experiment.name);
    o.word("group", experiment.group.as_str());
    o.text("claim", experiment.claim.as_bytes());
    o.text("source", experiment.source.as_bytes());
}

fn channel(o: &mut Object<'_>, account: &Account) {
    let (state, why) = match &account.state {
        State::Listening => ("listening", None),
        State::Silent => ("silent", None),
        State::Off(why) => ("off", Some(why)),
    };
    o.word("state", state);
    o.maybe(why, |o, why| o.text("why", why.as_bytes()));
    o.number("count", account.count());
    o.list("events", &account.events[..account.events.len().min(SHOWN)], |buf, event| {
        push_json_string(buf, event.to_string().as_bytes());
    });
}

fn line(out: &mut dyn Write, fill: impl FnOnce(&mut Object<'_>)) -> io::Result<()> {
    let mut line = Vec::new();
    Object::whole(&mut line, fill);
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Different events of a channel that are printed; all are counted.
const SHOWN: usize = 50;

/// Prints an experiment whose verdict differs between saved runs.
///
/// # Errors
/// Any error of `out`.
pub fn difference(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    line(out, |o| {
        o.word("type", "difference");
        o.text("experiment", difference.experiment.as_bytes());
        o.text("claim", difference.claim.as_bytes());
        o.list("verdicts", &difference.verdicts, |buf, verdict| match verdict {
            Some(verdict) => quote_word(buf, verdict.as_str()),
            None => buf.extend_from_slice(b"null"),
        });
    })
}

/// Prints the last line of a comparison.
///
/// # Errors
/// Any error of `out`.
pub fn compared(
    files: &[PathBuf],
    experiments: usize,
    differing: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    line(out, |o| {
        o.word("type", "summary");
        o.list("files", files, |buf, file| {
            push_json_string(buf, file.as_os_str().as_encoded_bytes());
        });
        o.number("experiments", experiments as u64);
        o.number("differing", differing as u64);
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn one_object_a_finding() {
        let mut out = Vec::new();
        let sample = samples::finding();
        finding(&sample, Some(Verdict::Refuted), &mut out).unwrap();
        let verdicts = [Verdict::Confirmed, Verdict::NotTestable];
        summary(&verdicts, 1, Duration::from_millis(7), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
        assert_eq!(text, samples::LINES);
    }
}
