//! Rulings that several experiments share.

use super::evidence::{CONTROL, Evidence};
use super::verdict::Ruling;

/// That a claim about silence has no proof, when the watch did not receive what it had to.
fn unproved(evidence: &Evidence, at: &'static str) -> Option<Ruling> {
    (evidence.fact(CONTROL) == 0)
        .then(|| Ruling::not_testable(format!("the watch on {at} did not receive a later change either")))
}

/// Of a claim that a watch receives nothing with one of these words.
pub(super) fn receives_none(evidence: &Evidence, at: &'static str, words: &[&str]) -> Ruling {
    let heard = words.iter().filter(|word| evidence.heard(at, word) > 0).copied().collect::<Vec<_>>();
    if heard.is_empty() {
        return unproved(evidence, at).unwrap_or_else(|| {
            Ruling::confirmed(format!("the watch on {at} received no {}", words.join(" and no ")))
        });
    }
    Ruling::refuted(format!("the watch on {at} received {}", heard.join(", ")))
}

/// Of a claim that a watch receives nothing at all.
pub(super) fn receives_nothing(evidence: &Evidence, at: &'static str) -> Ruling {
    match evidence.heard_any(at) {
        0 => unproved(evidence, at)
            .unwrap_or_else(|| Ruling::confirmed(format!("the watch on {at} received nothing"))),
        _ => Ruling::refuted(format!("the watch on {at} received {}", words_at(evidence, at))),
    }
}

/// Of a claim that a watch receives something, whatever it is.
pub(super) fn receives_anything(evidence: &Evidence, at: &'static str) -> Ruling {
    match evidence.heard_any(at) {
        0 => unproved(evidence, at)
            .unwrap_or_else(|| Ruling::refuted(format!("the watch on {at} received nothing"))),
        _ => Ruling::confirmed(format!("the watch on {at} received {}", words_at(evidence, at))),
    }
}

/// Of a claim that a watch receives an event with this word.
pub(super) fn receives(evidence: &Evidence, at: &'static str, word: &str) -> Ruling {
    if evidence.heard(at, word) > 0 {
        return Ruling::confirmed(format!("the watch on {at} received {word}"));
    }
    match evidence.heard_any(at) {
        0 => Ruling::refuted(format!("the watch on {at} received nothing")),
        _ => Ruling::refuted(format!("the watch on {at} received only {}", words_at(evidence, at))),
    }
}

/// The words of all events through a watch, each once, in order of appearance.
pub(super) fn words_at(evidence: &Evidence, at: &'static str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in evidence.at(at).flat_map(|event| &event.what) {
        if !words.contains(&word.as_str()) {
            words.push(word);
        }
    }
    words.join(", ")
}
