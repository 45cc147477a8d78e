//! All experiments, by name.

use super::experiment::Experiment;
use super::experiments::ALL;

/// Every experiment, in the order in which they are listed and made.
pub fn all() -> impl Iterator<Item = &'static Experiment> {
    ALL.iter().flat_map(|group| group.iter())
}

/// The experiment of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Experiment> {
    all().find(|experiment| experiment.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::verify::evidence::{Account, DONE, Evidence, Listener, State};
    use crate::verify::verdict::Verdict;

    #[test]
    fn names_are_words_and_no_two_are_the_same() {
        let mut known = HashSet::new();
        for experiment in all() {
            assert!(known.insert(experiment.name), "{} is there twice", experiment.name);
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(experiment.name.chars().all(is_word), "{}", experiment.name);
            assert!(experiment.name.len() <= 28, "{}", experiment.name);
        }
    }

    #[test]
    fn what_is_said_is_one_sentence() {
        for experiment in all() {
            for text in [experiment.claim, experiment.method] {
                assert!(text.starts_with(char::is_uppercase) && text.ends_with('.'), "{text}");
                assert!(!text.contains("  ") && text.len() <= 200, "{text}");
            }
            assert!(!experiment.source.is_empty() && !experiment.rests_on.is_empty(), "{}", experiment.name);
        }
    }

    #[test]
    fn no_verdict_without_a_listener_or_an_operation() {
        for experiment in all() {
            let listening = |listener| Account::new(listener, State::Listening);
            let accounts: Vec<Account> = Listener::ALL.map(listening).into();
            let nothing_done =
                Evidence { accounts: accounts.clone(), facts: Vec::new(), ..Evidence::default() };
            assert_eq!(experiment.judge(&nothing_done).verdict, Verdict::NotTestable, "{}", experiment.name);
            let mut silent = Evidence { accounts, facts: vec![(DONE, 1)], ..Evidence::default() };
            silent.accounts.iter_mut().for_each(|account| account.state = State::Silent);
            assert_eq!(experiment.judge(&silent).verdict, Verdict::NotTestable, "{}", experiment.name);
        }
    }
}
