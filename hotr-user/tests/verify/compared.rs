//! `--compare`: saved runs against each other.

use std::fs;

use super::run::{Scratch, verify};

fn line(experiment: &str, verdict: &str) -> String {
    format!(
        "{{\"type\":\"verdict\",\"experiment\":\"{experiment}\",\"claim\":\"C {experiment}.\",\"verdict\":\"{verdict}\"}}\n"
    )
}

#[test]
fn what_differs_is_a_row_and_status_3() {
    let scratch = Scratch::new("compare");
    let files = ["a", "b", "c"].map(|name| scratch.path().join(name).to_str().unwrap().to_owned());
    fs::write(&files[0], line("same", "partly") + &line("other", "refuted")).unwrap();
    fs::write(&files[1], line("other", "confirmed") + &line("same", "partly")).unwrap();
    fs::write(&files[2], line("same", "partly")).unwrap();
    let [a, b, c] = files.each_ref().map(String::as_str);

    let equal = verify(&["--compare", a, c]);
    assert_eq!((equal.status, equal.stderr.as_str()), (Some(0), ""));
    assert!(equal.stdout.ends_with("\n0 of 2 verdicts differ\n"), "{}", equal.stdout);

    let differs = verify(&["--color", "never", "--compare", a, b, c]);
    assert_eq!(differs.status, Some(3), "{}", differs.stderr);
    let rows: Vec<Vec<&str>> = differs.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["other", "REFUTED", "CONFIRMED", "-"]), "{}", differs.stdout);
    assert!(rows.contains(&vec!["claim", "C", "other."]), "{}", differs.stdout);
    assert!(!differs.stdout.contains("same"), "{}", differs.stdout);

    let json = verify(&["--json", "--compare", a, b, c]);
    assert_eq!(json.status, Some(3), "{}", json.stderr);
    let other = json.of("other");
    assert_eq!(other["type"], "difference");
    assert_eq!(other["verdicts"], serde_json::json!(["refuted", "confirmed", null]));
    let lines = json.lines();
    assert_eq!((lines.len(), &lines[1]["experiments"], &lines[1]["differing"]), (2, &2.into(), &1.into()));
    assert_eq!(lines[1]["files"], serde_json::json!([a, b, c]));
}

#[test]
fn what_cannot_be_compared_is_one_line() {
    let scratch = Scratch::new("incomparable");
    let (good, bad) = (scratch.path().join("good"), scratch.path().join("bad"));
    fs::write(&good, line("same", "partly")).unwrap();
    fs::write(&bad, "x").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    for (words, status, wanted) in [
        (&["--compare", good][..], 2, "2 values required"),
        (&["--compare", good, good, "--expect", good], 2, "cannot be used with"),
        (&["--compare", good, bad], 1, "line 1 is not an object"),
        (&["--compare", "/nonexistent", good], 1, "read /nonexistent: No such file"),
    ] {
        let said = verify(words);
        assert_eq!((said.status, said.stdout.as_str()), (Some(status), ""), "{words:?}: {}", said.stderr);
        assert!(
            said.stderr.lines().count() == 1 && said.stderr.contains(wanted),
            "{words:?}: {}",
            said.stderr
        );
    }
}
