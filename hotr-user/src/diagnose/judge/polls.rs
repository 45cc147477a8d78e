//! A process without an instance that looks at paths by itself.

use std::path::PathBuf;
use std::time::Duration;

use super::super::finding::{Finding, Proof, Severity};
use super::super::hints;
use super::super::polling::Polled;
use super::super::view::View;
use hotr_events::Cause;

/// What it polls: of several paths one that the user asked for, or else the one it looks at most. `None` when it looked at
/// nothing repeatedly.
pub(in super::super) fn polls(
    view: &View<'_>,
    seen: &[Polled],
    took: Duration,
    asked: &[PathBuf],
) -> Option<Finding> {
    let total = seen.iter().map(|one| one.looks).max()?;
    let seconds = took.as_secs_f64();
    let mut finding = Finding::new(
        Severity::Note,
        Cause::NeverWatched,
        Proof::Inferred,
        view.target(None, None),
    )
    .evidence("the process has no inotify or fanotify instance")
    .remedy(
        "none is needed if changes may be noticed that late; two changes between two looks are one to it",
    );
    let asked = asked.iter().filter_map(|path| std::path::absolute(path).ok()).collect::<Vec<_>>();
    let existing: Vec<_> =
        seen.iter().filter_map(|one| Some((one, hints::resolve(&view.namespace, &one.path)?))).collect();
    let one = existing.iter().find(|(one, _)| asked.contains(&one.path)).or_else(|| existing.first());
    let Some((one, (now, real))) = one else {
        return Some(finding.evidence(format!(
            "within {seconds:.1} s it looked at one path at least {total} times by stat or a similar call; the path could not be read in time, or does not exist"
        )));
    };
    finding.path_in_target = Some(one.path.clone());
    finding.path_ino = Some(now.ino);
    finding.path = view.paths(real).0;
    let finding = finding.evidence(format!(
        "within {seconds:.1} s it looked at this path at least {} times by stat or a similar call",
        one.looks
    ));
    Some(match existing.len() - 1 {
        0 => finding,
        1 => finding.evidence("and at 1 more path"),
        more => finding.evidence(format!("and at {more} more paths")),
    })
}
