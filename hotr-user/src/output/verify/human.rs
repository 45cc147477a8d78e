//! Findings for humans: the verdict, the claim, one line of evidence a channel, and at the end a table of counts.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::output::human::style::Paint;
use crate::text::{push_visible, visible_message};
use crate::verify::evidence::{Account, State};
use crate::verify::saved::Difference;
use crate::verify::{Experiment, Finding, Group, Verdict};

/// Different events of a channel in its line.
const SHOWN: usize = 6;
/// System calls of a listener.
const CALLS: usize = 12;

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
    for (number, call) in finding.evidence.system_calls.iter().take(CALLS).enumerate() {
        line(&mut text, if number == 0 { "strace" } else { "" }, call);
    }
    let more = finding.evidence.system_calls.len().saturating_sub(CALLS);
    if more > 0 {
        line(&mut text, "", &format!("{more} more calls; --json has all"));
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

/// Prints what differs between saved runs: a row an experiment, a column a file.
///
/// # Errors
/// Any error of `out`.
pub fn comparison(
    files: &[PathBuf],
    experiments: usize,
    differences: &[Difference],
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = Vec::new();
    for (file, number) in files.iter().zip(1_u32..) {
        line(&mut text, &format!("[{number}]"), &file.display().to_string());
    }
    if !differences.is_empty() {
        text.extend_from_slice(format!("\n{:28}", "experiment").as_bytes());
        (1..=files.len())
            .for_each(|number| text.extend_from_slice(format!(" {:12}", format!("[{number}]")).as_bytes()));
        text.push(b'\n');
    }
    for difference in differences {
        let mut name = Vec::new();
        push_visible(&mut name, difference.experiment.as_bytes());
        Paint::Bold.push(&mut text, color, format!("{:28}", String::from_utf8_lossy(&name)).as_bytes());
        for verdict in &difference.verdicts {
            text.push(b' ');
            match verdict {
                Some(verdict) => {
                    paint(*verdict).push(&mut text, color, format!("{:12}", word(*verdict)).as_bytes())
                }
                None => text.extend_from_slice(format!("{:12}", "-").as_bytes()),
            }
        }
        text.push(b'\n');
        line(&mut text, "claim", &difference.claim);
    }
    let differ = if differences.len() == 1 { "differs" } else { "differ" };
    text.extend_from_slice(
        format!("\n{} of {experiments} verdicts {differ}\n", differences.len()).as_bytes(),
    );
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
