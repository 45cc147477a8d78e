//! Counting: how many tests passed, how many failed, and which.
//!
//! In: the output of `cargo test`, and the matrix's result lines. Out: one sum. A part that stops half-way is a
//! failure, and so is a part in which nothing ran.

use std::process::ExitCode;

use serde::Deserialize;

/// Results of one or more parts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests and cells that passed, expected exceptions included.
    pub(crate) passed: u64,
    /// Those of them that are expected exceptions.
    pub(crate) exceptions: u64,
    /// One line for each failure.
    pub(crate) failures: Vec<String>,
}

/// A line of the matrix's results.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Cell {
        kernel: String,
        fs: String,
        tier: String,
        op: String,
        result: Outcome,
        #[serde(default)]
        why: String,
    },
    End {
        end: bool,
        cells: u64,
    },
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Pass,
    Fail,
    Exception,
}

impl Tally {
    /// Adds another part.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.exceptions += other.exceptions;
        self.failures.extend(other.failures);
    }

    /// Adds a failure that no line reports.
    pub(crate) fn fail(&mut self, why: impl Into<String>) {
        self.failures.push(why.into());
    }

    /// Reads the result lines of one run of the matrix. `label` names the run in failures.
    pub(crate) fn of_matrix<'a>(label: &str, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tally = Self::default();
        let mut cells = 0;
        let mut end = None;
        for line in lines {
            match serde_json::from_str(line) {
                Ok(Line::Cell { kernel, fs, tier, op, result, why }) => {
                    cells += 1;
                    match result {
                        Outcome::Fail => tally.fail(format!("{kernel} {fs} {tier} {op}: {why}")),
                        Outcome::Pass => tally.passed += 1,
                        Outcome::Exception => {
                            tally.passed += 1;
                            tally.exceptions += 1;
                        }
                    }
                }
                Ok(Line::End { end: true, cells }) => end = Some(cells),
                Ok(Line::End { .. }) | Err(_) => tally.fail(format!("{label}: not a result: {line}")),
            }
        }
        match end {
            None => tally.fail(format!("{label}: stopped after {cells} cells")),
            Some(0) => tally.fail(format!("{label}: nothing ran")),
            Some(said) if said != cells => {
                tally.fail(format!("{label}: {said} cells ran, {cells} were reported"))
            }
            Some(_) => {}
        }
        tally
    }

    /// Reads what `cargo test` printed: the sum of its `test result:` lines, and the failed tests by name.
    pub(crate) fn of_cargo_test(text: &str) -> Self {
        let mut tally = Self::default();
        let mut failed = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("test result: ") {
                tally.passed += before(rest, " passed");
                failed += before(rest, " failed");
            } else if let Some(name) =
                line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                tally.fail(format!("cargo test: {name}"));
            }
        }
        // A test that printed into its own line is missed by name, never in number.
        while u64::try_from(tally.failures.len()).unwrap_or(u64::MAX) < failed {
            tally.fail("cargo test: a test whose name could not be read; see above");
        }
        tally
    }

    /// The number of failures.
    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Success when something ran and all of it passed.
    pub(crate) fn exit(&self) -> ExitCode {
        if self.failures.is_empty() && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Prints the failures and the sum of one part.
    pub(crate) fn print(&self, part: &str) {
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        let exceptions = if self.exceptions > 0 {
            format!(" ({} as the exceptions say)", self.exceptions)
        } else {
            String::new()
        };
        println!("{part}: {} passed{exceptions}, {} failed", self.passed, self.failed());
    }
}

/// The number before `word`: `… 3 passed; …`.
fn before(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .and_then(|(head, _)| head.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: &str = r#"{"kernel":"6.12","fs":"ext4","tier":"fentry","op":"rename","result":"pass"}"#;
    const FAIL: &str =
        r#"{"kernel":"6.12","fs":"ext4","tier":"fentry","op":"write","result":"fail","why":"no event"}"#;
    const EXCEPTION: &str =
        r#"{"kernel":"6.12","fs":"tmpfs","tier":"fentry","op":"mmap","result":"exception","why":"x"}"#;

    #[test]
    fn a_whole_run_is_counted() {
        let tally = Tally::of_matrix("6.12", [PASS, FAIL, EXCEPTION, r#"{"end":true,"cells":3}"#]);
        assert_eq!((tally.passed, tally.exceptions), (2, 1));
        assert_eq!(tally.failures, ["6.12 ext4 fentry write: no event"]);
    }

    #[test]
    fn a_run_without_its_end_or_without_cells_fails() {
        assert_eq!(Tally::of_matrix("6.12", [PASS]).failures, ["6.12: stopped after 1 cells"]);
        assert_eq!(Tally::of_matrix("6.12", []).failures, ["6.12: stopped after 0 cells"]);
        assert_eq!(Tally::of_matrix("6.12", [r#"{"end":true,"cells":0}"#]).failures, ["6.12: nothing ran"]);
        assert_eq!(
            Tally::of_matrix("6.12", [PASS, r#"{"end":true,"cells":2}"#]).failures,
            ["6.12: 2 cells ran, 1 were reported"]
        );
        assert_eq!(Tally::of_matrix("6.12", [PASS, "garbage", r#"{"end":true,"cells":1}"#]).failed(), 1);
    }

    #[test]
    fn cargo_test_is_summed_over_its_binaries() {
        let text = "test a ... ok\ntest b::c ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored\n";
        let tally = Tally::of_cargo_test(text);
        assert_eq!(tally.passed, 13);
        assert_eq!(tally.failures, ["cargo test: b::c"]);
        assert_eq!(Tally::of_cargo_test("test result: FAILED. 1 passed; 2 failed; 0 ignored").failed(), 2);
    }

    #[test]
    fn nothing_is_not_a_success() {
        assert_eq!(format!("{:?}", Tally::default().exit()), format!("{:?}", ExitCode::FAILURE));
    }
}
