//! Findings for humans: the verdict, the claim, one line of evidence a channel, and at the end a table of counts.

use std::io::{self, Write};
use std::time::Duration;

use crate::output::human::style::Paint;
use crate::text::visible_message;
use crate::verify::evidence::{Account, State};
use crate::verify::{Experiment, Finding, Group, Verdict};

/// Different events of a channel in its line.
const SHOWN: usize = 6;

/// Prints one finding, and hands it to the reader. `expected` is the verdict of a saved run, when it was another.
///
/// # Errors
/// Any error of `out`.
pub fn finding(
    finding: &Finding,
    expected: Option<Verdict>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = Vec::new();
    let verdict = finding.ruling.verdict;
    paint(verdict).push(&mut text, color, format!("{:12}", word(verdict)).as_bytes());
    text.push(b' ');
    Paint::Bold.push(&mut text, color, finding.experiment.name.as_bytes());
    text.push(b'\n');
    line(&mut text, "claim", finding.experiment.claim);
    line(&mut text, "because", &finding.ruling.why);
    if let Some(expected) = expected {
        line(&mut text, "expected", &format!("{}, by the saved run", word(expected)));
    }
    for account in &finding.evidence.accounts {
        line(&mut text, account.listener.as_str(), &evidence(account));
    }
    for (number, step) in finding.evidence.kernel_path.iter().enumerate() {
        line(&mut text, if number == 0 { "kernel" } else { "" }, step);
    }
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

/// Prints the list of experiments.
///
/// # Errors
/// Any error of `out`.
pub fn list<'a>(
    experiments: impl Iterator<Item = &'a Experiment>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = Vec::new();
    let mut last: Option<Group> = None;
    for experiment in experiments {
        // Neighbours of one group may be in different files.
        if last != Some(experiment.group) {
            if last.is_some() {
                text.push(b'\n');
            }
            Paint::Bold.push(&mut text, color, experiment.group.as_str().as_bytes());
            text.push(b'\n');
            last = Some(experiment.group);
        }
        text.extend_from_slice(format!("  {:27} {}\n", experiment.name, experiment.claim).as_bytes());
    }
    out.write_all(&text)?;
    out.flush()
}

/// Prints the table of counts.
///
/// # Errors
/// Any error of `out`.
pub fn summary(
    verdicts: &[Verdict],
    differing: Option<u64>,
    duration: Duration,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = Vec::new();
    for verdict in Verdict::ALL {
        let count = verdicts.iter().filter(|one| **one == verdict).count();
        paint(verdict).push(&mut text, color, format!("{:12}", word(verdict)).as_bytes());
        text.extend_from_slice(format!(" {count:3}\n").as_bytes());
    }
    let total = verdicts.len();
    text.extend_from_slice(
        format!("{:12} {total:3} in {:.1} s\n", "total", duration.as_secs_f64()).as_bytes(),
    );
    match differing {
        Some(0) => text.extend_from_slice(b"every verdict is the same as in the saved run\n"),
        Some(1) => text.extend_from_slice(b"1 verdict differs from the saved run\n"),
        Some(count) => {
            text.extend_from_slice(format!("{count} verdicts differ from the saved run\n").as_bytes());
        }
        None => {}
    }
    out.write_all(&text)?;
    out.flush()
}

fn line(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(format!("  {key:10} ").as_bytes());
    // Names in it are escaped already.
    text.extend_from_slice(visible_message(value).as_bytes());
    text.push(b'\n');
}

/// What a channel received, in one line.
fn evidence(account: &Account) -> String {
    match &account.state {
        State::Silent => return "received not even the barrier".to_owned(),
        State::Off(why) => return format!("off: {why}"),
        State::Listening => {}
    }
    if account.events.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = account.events.iter().take(SHOWN).map(ToString::to_string).collect();
    let rest = account.events.iter().skip(SHOWN).map(|event| event.count).sum::<u64>();
    let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Confirmed => "CONFIRMED",
        Verdict::Refuted => "REFUTED",
        Verdict::Partly => "PARTLY",
        Verdict::NotTestable => "NOT-TESTABLE",
    }
}

const fn paint(verdict: Verdict) -> Paint {
    match verdict {
        Verdict::Confirmed => Paint::Green,
        Verdict::Refuted => Paint::Red,
        Verdict::Partly => Paint::Yellow,
        Verdict::NotTestable => Paint::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_page_of_one_finding() {
        let mut out = Vec::new();
        finding(&samples::finding(), Some(Verdict::Refuted), false, &mut out).unwrap();
        let verdicts = [Verdict::Confirmed, Verdict::NotTestable];
        summary(&verdicts, Some(1), Duration::from_millis(700), false, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), samples::PAGE);
    }

    #[test]
    fn what_differs_is_counted() {
        for (differing, wanted) in [
            (None, "total          0 in 0.0 s\n"),
            (Some(0), "every verdict is the same as in the saved run\n"),
            (Some(2), "2 verdicts differ from the saved run\n"),
        ] {
            let mut out = Vec::new();
            summary(&[], differing, Duration::ZERO, false, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.ends_with(wanted), "{text}");
        }
    }
}
