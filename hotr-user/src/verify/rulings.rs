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
    let had_control = evidence.facts.iter().any(|(name, _)| *name == CONTROL);
    if let Some(ruling) = unproved(evidence, at).filter(|_| had_control) {
        return ruling;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::evidence::{Account, Event, Listener, State};
    use crate::verify::verdict::Verdict;

    fn evidence(words: &[&str], control: Option<u64>) -> Evidence {
        let event =
            |word: &&str| Event { at: "d", what: vec![(*word).to_owned()], name: None, cookie: 0, count: 1 };
        let events = words.iter().map(event).collect();
        let account = Account { listener: Listener::Inotify, state: State::Listening, events };
        Evidence {
            accounts: vec![account],
            facts: control.map(|value| (CONTROL, value)).into_iter().collect(),
            ..Evidence::default()
        }
    }

    #[test]
    fn silence_is_a_proof_only_of_a_watch_that_works() {
        for (control, verdict) in
            [(None, Verdict::NotTestable), (Some(0), Verdict::NotTestable), (Some(1), Verdict::Confirmed)]
        {
            assert_eq!(receives_nothing(&evidence(&[], control), "d").verdict, verdict, "{control:?}");
            assert_eq!(receives_none(&evidence(&["ATTRIB"], control), "d", &["MODIFY"]).verdict, verdict);
        }
        assert_eq!(receives_anything(&evidence(&[], Some(1)), "d").verdict, Verdict::Refuted);
        assert_eq!(receives(&evidence(&[], Some(0)), "d", "MODIFY").verdict, Verdict::NotTestable);
        assert_eq!(receives(&evidence(&[], Some(1)), "d", "MODIFY").verdict, Verdict::Refuted);
    }

    #[test]
    fn what_was_received_decides_whatever_the_control_is() {
        for control in [None, Some(0), Some(1)] {
            let heard = evidence(&["MODIFY", "ATTRIB", "MODIFY"], control);
            assert_eq!(receives(&heard, "d", "MODIFY").verdict, Verdict::Confirmed);
            let ruling = receives_nothing(&heard, "d");
            assert_eq!(
                (ruling.verdict, ruling.why.as_str()),
                (Verdict::Refuted, "the watch on d received MODIFY, ATTRIB")
            );
            assert_eq!(receives_none(&heard, "d", &["MODIFY"]).verdict, Verdict::Refuted);
        }
    }
}
