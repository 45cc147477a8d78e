//! `--expect`: a run compared with a saved one.

use std::fs;

use super::run::{Scratch, root, verify};

#[test]
fn a_verdict_that_differs_is_status_3() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("expect");
    let file = scratch.path().join("saved.jsonl");
    let names = ["rename-exchange", "mask-mismatch"];
    let expect = file.to_str().unwrap();
    let saved = verify(&["--json", names[0], names[1]]);
    fs::write(&file, &saved.stdout).unwrap();
    let same = verify(&["--expect", expect, names[0], names[1]]);
    assert_eq!(same.status, Some(0), "{}", same.stdout);
    assert!(same.stdout.ends_with("every verdict is the same as in the saved run\n"), "{}", same.stdout);

    let other = saved.stdout.replacen("\"verdict\":\"confirmed\"", "\"verdict\":\"refuted\"", 1);
    fs::write(&file, other).unwrap();
    let differs = verify(&["--json", "--expect", expect, names[0], names[1]]);
    assert_eq!(differs.status, Some(3), "{}", differs.stdout);
    assert_eq!(differs.of(names[0])["expected"], "refuted");
    assert!(differs.of(names[1])["expected"].is_null());
    assert_eq!(differs.lines().last().unwrap()["differing"], 1);
}
