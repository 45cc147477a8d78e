//! How far a change came in an instance, as a picture: changed, notified, queued, read, opened.
//!
//! The steps are as far apart in every picture; how long each took is written between them. The kernel programs stamp
//! one time when an event is offered, so "notified" and "queued" have no time between them.

use std::fmt::Write as _;

use super::kept::Shown;
use crate::diagnose::live::State;
use crate::output::diagnose::live::micros;

const STEPS: [&str; 5] = ["changed", "notified", "queued", "read", "opened"];
/// Where the steps are, of a picture that is 340 wide: a phone shows it in that size.
const FIRST: usize = 32;
const APART: usize = 69;

/// Appends the picture.
pub(super) fn push(html: &mut String, shown: &Shown) {
    let reached = reached(shown);
    let color = match shown.verdict.state {
        State::Delivered => "good",
        State::Merged => "idle",
        State::Unread => "warn",
        State::Dropped | State::NeverSent => "bad",
    };
    let last = STEPS[reached - 1];
    let _ = write!(
        html,
        "<svg class=\"chain {color}\" viewBox=\"0 0 340 58\" role=img aria-label=\"reached: {last}\">"
    );
    for (i, waited) in between(shown).into_iter().enumerate() {
        let (from, to) = (FIRST + i * APART, FIRST + (i + 1) * APART);
        let open = if i + 1 < reached { "" } else { " open" };
        let _ = write!(html, "<line class=\"way{open}\" x1={from} y1=28 x2={to} y2=28 />");
        let text = waited.unwrap_or_default();
        let _ = write!(html, "<text class=t x={} y=15 text-anchor=middle>{text}</text>", (from + to) / 2);
    }
    for (i, step) in STEPS.into_iter().enumerate() {
        let x = FIRST + i * APART;
        let open = if i < reached { "" } else { " open" };
        let _ = write!(html, "<circle class=\"dot{open}\" cx={x} cy=28 r=6 />");
        let _ = write!(html, "<text x={x} y=52 text-anchor=middle>{step}</text>");
    }
    html.push_str("</svg>");
}

/// How many of the steps were made.
fn reached(shown: &Shown) -> usize {
    match shown.verdict.state {
        State::NeverSent => 1,
        State::Dropped | State::Merged => 2,
        State::Unread => 3,
        State::Delivered => 4 + usize::from(shown.used.is_some()),
    }
}

/// What is written between the steps.
fn between(shown: &Shown) -> [Option<String>; 4] {
    let verdict = &shown.verdict;
    let queued =
        verdict.queued_us.map(|micros| if micros <= 0 { "in the call".to_owned() } else { plus(micros) });
    let used = shown.used.as_ref().and_then(|used| used.opened_us.or(used.file_read_us));
    let since_read = used.zip(verdict.queued_us).zip(verdict.read_us).and_then(|((used, queued), read)| {
        let read = queued.checked_add_unsigned(read)?;
        Some(plus(i64::try_from(used).ok()?.checked_sub(read)?))
    });
    let stopped = |text: &str| Some(text.to_owned());
    match verdict.state {
        State::NeverSent => [stopped("nothing sent"), None, None, None],
        State::Dropped => [queued, stopped("dropped"), None, None],
        State::Merged => [queued, stopped("merged"), None, None],
        State::Unread => [queued, None, stopped("not read"), None],
        State::Delivered => {
            [queued, None, verdict.read_us.and_then(|us| i64::try_from(us).ok()).map(plus), since_read]
        }
    }
}

/// A time after the step before, or before it.
fn plus(time: i64) -> String {
    let sign = if time < 0 { '−' } else { '+' };
    format!("{sign}{}", micros(time.unsigned_abs()))
}
