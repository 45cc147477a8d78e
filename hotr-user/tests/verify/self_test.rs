//! Every experiment can fail: without the listener that its verdict rests upon, or without the operation, it is another one.

use super::run::{root, verify, whole};

/// Experiments with a verdict here that rest upon a listener.
fn resting_on(listener: &str) -> Vec<String> {
    let lines = whole().lines();
    let rests = |line: &&serde_json::Value| {
        line["rests_on"].as_array().is_some_and(|all| all.iter().any(|one| one == listener))
            && line["verdict"] != "not-testable"
    };
    lines.iter().filter(rests).map(|line| line["experiment"].as_str().unwrap().to_owned()).collect()
}

fn verdicts_change(words: &[&str], experiments: &[String]) {
    assert!(!experiments.is_empty());
    let names = experiments.iter().map(String::as_str);
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().chain(names).collect();
    let said = verify(&words);
    let (before, after) = (whole().verdicts(), said.verdicts());
    assert_eq!(after.len(), experiments.len(), "{}", said.stderr);
    for experiment in experiments {
        assert_ne!(before[experiment], after[experiment], "{words:?}: {}", said.of(experiment));
    }
}

#[test]
fn without_its_listener_a_verdict_changes() {
    if !root() {
        return;
    }
    for listener in ["inotify", "fanotify", "poll"] {
        verdicts_change(&["--mute", listener], &resting_on(listener));
    }
}

#[test]
fn without_ebpf_its_verdict_changes() {
    if !root() {
        return;
    }
    if whole().of("rename-exchange")["channels"]["ebpf"]["state"] != "listening" {
        eprintln!("not run: eBPF is off here, or hotr was built without its object");
        return;
    }
    verdicts_change(&["--mute", "ebpf"], &resting_on("ebpf"));
}

#[test]
fn without_the_operation_every_verdict_changes() {
    if !root() {
        return;
    }
    let testable = whole().verdicts().into_iter().filter(|(_, verdict)| verdict != "not-testable");
    let experiments: Vec<String> = testable.map(|(experiment, _)| experiment).collect();
    assert!(experiments.len() >= 30, "{experiments:?}");
    verdicts_change(&["--omit-operation"], &experiments);
}
