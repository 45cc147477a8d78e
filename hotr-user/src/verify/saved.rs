//! Verdicts of an earlier run, to compare with.
//!
//! In: the JSON Lines that `hotr verify --json` printed. Out: the verdict of each experiment in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::verdict::Verdict;

/// The part of a line that is compared.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    experiment: Option<String>,
    verdict: Option<String>,
    claim: Option<String>,
}

/// Verdicts by the names of their experiments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved(BTreeMap<String, (Verdict, String)>);

/// An experiment whose verdict is not the same in all saved runs that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Its name.
    pub experiment: String,
    /// Its claim, as the first run that has it says.
    pub claim: String,
    /// Its verdict in each run; none where the run did not make it.
    pub verdicts: Vec<Option<Verdict>>,
}

/// How many experiments the runs have together, and those whose verdict differs, by name.
#[must_use]
pub fn compare(runs: &[Saved]) -> (usize, Vec<Difference>) {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.0.keys()).collect();
    let difference = |name: &&String| {
        let verdicts: Vec<Option<Verdict>> = runs.iter().map(|run| run.of(name)).collect();
        let mut known = verdicts.iter().flatten();
        let first = known.next()?;
        let claim = runs.iter().find_map(|run| run.0.get(*name)).map_or("", |(_, claim)| claim);
        known.any(|verdict| verdict != first).then(|| Difference {
            experiment: (*name).clone(),
            claim: claim.to_owned(),
            verdicts: verdicts.clone(),
        })
    };
    (names.len(), names.iter().filter_map(difference).collect())
}

impl Saved {
    /// Reads a file.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, or is not what `hotr verify --json` prints.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("read {}: {why}", path.display()))
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut verdicts = BTreeMap::new();
        let lines = text.split(|byte| *byte == b'\n').zip(1_u64..);
        for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
            let fault =
                |why: &str| format!("line {number} {why}; give a file that hotr verify --json printed");
            let line: Line = serde_json::from_slice(line).map_err(|_| fault("is not an object of hotr's"))?;
            if line.kind != "verdict" {
                continue;
            }
            let verdict = line.verdict.as_deref().and_then(Verdict::from_word);
            let (Some(experiment), Some(verdict)) = (line.experiment, verdict) else {
                return Err(fault("has no experiment with a verdict"));
            };
            verdicts.insert(experiment, (verdict, line.claim.unwrap_or_default()));
        }
        if verdicts.is_empty() {
            return Err("it has no verdict; give a file that hotr verify --json printed".to_owned());
        }
        Ok(Self(verdicts))
    }

    /// The verdict of an experiment at that time.
    #[must_use]
    pub fn of(&self, experiment: &str) -> Option<Verdict> {
        self.0.get(experiment).map(|(verdict, _)| *verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_and_other_lines_are_not() {
        let text = b"{\"type\":\"verdict\",\"experiment\":\"a\",\"verdict\":\"partly\",\"new\":1}\n{\"type\":\"summary\"}\n";
        let saved = Saved::parse(text).unwrap();
        assert_eq!((saved.of("a"), saved.of("b")), (Some(Verdict::Partly), None));
    }

    #[test]
    fn only_verdicts_that_differ_are_given() {
        let run = |verdicts: &[(&str, &str)]| {
            let line = |(name, verdict): &(&str, &str)| {
                format!(
                    "{{\"type\":\"verdict\",\"experiment\":\"{name}\",\"verdict\":\"{verdict}\",\"claim\":\"C {name}.\"}}\n"
                )
            };
            Saved::parse(verdicts.iter().map(line).collect::<String>().as_bytes()).unwrap()
        };
        let runs = [
            run(&[("same", "partly"), ("other", "refuted"), ("once", "refuted")]),
            run(&[("same", "partly"), ("other", "confirmed")]),
            run(&[("same", "partly")]),
        ];
        let wanted = Difference {
            experiment: "other".to_owned(),
            claim: "C other.".to_owned(),
            verdicts: vec![Some(Verdict::Refuted), Some(Verdict::Confirmed), None],
        };
        assert_eq!(compare(&runs), (3, vec![wanted]));
    }

    #[test]
    fn what_is_no_run_is_named_by_its_line() {
        for (text, wanted) in [
            (&b"\nx\n"[..], "line 2 is not an object"),
            (
                b"{\"type\":\"verdict\",\"experiment\":\"a\",\"verdict\":\"maybe\"}",
                "line 1 has no experiment",
            ),
            (b"{\"type\":\"verdict\"}", "line 1 has no experiment"),
            (b"", "it has no verdict"),
            (b"\xff", "line 1 is not an object"),
        ] {
            let why = Saved::parse(text).unwrap_err();
            assert!(why.starts_with(wanted), "{why}");
        }
    }
}
