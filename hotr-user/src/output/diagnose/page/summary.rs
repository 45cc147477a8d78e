//! What a page says of a whole run: how it ended, the causes, and how long events waited.

use std::fmt::Write as _;

use super::color;
use crate::diagnose::live::{Histogram, Row, State, Summary};
use crate::output::diagnose::live::micros;
use crate::output::page::text;

pub(super) fn banner(html: &mut String, summary: &Summary, findings: usize) {
    let count = |state| summary.counts.get(&state).copied().unwrap_or(0);
    let lost = count(State::Dropped) + count(State::NeverSent);
    let (color, title) = match (lost, count(State::Unread), findings) {
        (0, 0, 0) if summary.changes == 0 => ("idle", "No change was made".to_owned()),
        (0, 0, 0) => ("good", "Every change that was judged arrived".to_owned()),
        (0, 0, _) => {
            ("warn", "Every change that was judged arrived, and was not used as expected".to_owned())
        }
        (0, unread, _) => ("warn", format!("{unread} {} not read", were(unread))),
        (lost, _, _) => ("bad", format!("{lost} {} lost", were(lost))),
    };
    let _ = write!(html, "<div class=\"banner {color}\"><strong>{title}</strong>");
    let of_cause = worst_first(&summary.rows).into_iter().find_map(|row| Some((row.cause?, row)));
    if let Some((cause, row)) = of_cause {
        html.push_str("<p>");
        let _ = write!(html, "<code>{}</code>, {}, such as ", cause.as_str(), cause.sentence());
        text::path(html, &row.example);
        html.push_str(".</p>");
    }
    if summary.records_lost != 0 {
        let _ = write!(
            html,
            "<p>{} records of deliveries were lost; changes that lack one are not judged.</p>",
            summary.records_lost
        );
    }
    html.push_str("</div>");
}

fn were(count: u64) -> &'static str {
    if count == 1 { "change was" } else { "changes were" }
}

pub(super) fn tiles(html: &mut String, summary: &Summary) {
    html.push_str("<ul class=tiles>");
    let mut tile = |name: &str, count: u64, color: &str| {
        let _ = write!(html, "<li class=\"{color}\" data-count={name}><b>{count}</b>{name}</li>");
    };
    tile("changes", summary.changes, "");
    for state in State::ALL {
        let count = summary.counts.get(&state).copied().unwrap_or(0);
        tile(state.as_str(), count, if count == 0 { "idle" } else { color(state) });
    }
    tile("undecided", summary.undecided, "idle");
    html.push_str("</ul>");
}

/// What was lost before what was not, the most frequent first.
fn worst_first(rows: &[Row]) -> Vec<&Row> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| !matches!(row.state, State::Dropped | State::NeverSent));
    rows
}

pub(super) fn causes(html: &mut String, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    html.push_str("<section id=causes><h2>Why, and what to do</h2><table><thead><tr><th>cause<th>count<th>example<th>remedy</tr></thead><tbody>");
    for row in worst_first(rows) {
        let cause = row.cause.map_or("unknown", |cause| cause.as_str());
        let _ = write!(
            html,
            "<tr><td data-is=cause><code>{cause}</code><br><span class=\"small {}\">{}</span>",
            color(row.state),
            row.state.as_str()
        );
        let _ = write!(html, "<td class=n data-is=count>{}<td data-is=example>", row.count);
        text::path(html, &row.example);
        html.push_str("<td data-is=remedy>");
        text::sentence(html, row.cause.and_then(|cause| cause.remedy()).unwrap_or("none known"));
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></section>");
}

/// How long events waited to be read.
pub(super) fn waits(html: &mut String, histogram: &Histogram) {
    let (Some(half), Some(most), Some(max)) =
        (histogram.percentile(50), histogram.percentile(99), histogram.max())
    else {
        return;
    };
    let rows = histogram.rows();
    let highest = rows.iter().map(|row| row.1).max().unwrap_or(1).max(1);
    let _ = write!(
        html,
        "<section id=waits><h2>From the queue to the program</h2><p>Half of {} events were read within {}, 99% within {}, all within {}.</p>\
         <figure><svg class=good viewBox=\"0 0 340 {}\" role=img aria-label=\"how long events waited\">",
        histogram.count(),
        micros(half),
        micros(most),
        micros(max),
        rows.len() * 20 + 6,
    );
    for (i, (below, count)) in rows.iter().enumerate() {
        let y = i * 20 + 4;
        let width = (u128::from(*count) * 190).div_ceil(u128::from(highest));
        let _ = write!(html, "<text x=74 y={} text-anchor=end>&lt; {}</text>", y + 12, micros(*below));
        let _ = write!(html, "<rect class=bar x=82 y={} width={width} height=13 rx=2 />", y + 1);
        let _ = write!(html, "<text class=t x={} y={}>{count}</text>", 87 + width, y + 12);
    }
    html.push_str("</svg></figure></section>");
}
