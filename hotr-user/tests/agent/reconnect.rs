//! An agent that is killed or ends while files are written before, during and after: its subscribers find all of them.

use std::fs::{self, File};
use std::time::Duration;

use hotr_user::agent::{Event, Subscription, Update};
use rustix::process::Signal;

use super::run::{ONE, Program, Scratch, agent, can_run, subscribe, until};

/// Waits for a line of a name, after those of `from` lines.
fn reported(subscriber: &mut Program, from: usize, op: &str, path: &str) {
    let is_it = |line: &serde_json::Value| line["op"] == op && line["path"] == path;
    if !subscriber.seen[from..].iter().any(is_it) {
        subscriber.wait(&format!("{op} of {path}"), is_it);
    }
}

#[test]
fn a_subscriber_of_a_killed_agent_misses_no_file() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("survives");
    scratch.dir("w/d", 0o755, ONE);
    for name in ["removed", "renamed", "unchanged", "d/appended"] {
        fs::write(scratch.w(name), "x").unwrap();
    }
    let mut first = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    subscriber.wait("that it knows the files", |line| line["type"] == "baseline");
    for end in [Signal::KILL, Signal::TERM] {
        let from = subscriber.seen.len();
        let name = |when: &str, number: i32| format!("{when}-{}-{number}", end.as_raw());
        for number in 0..100 {
            fs::write(scratch.w(&name("before", number)), "x").unwrap();
            if number == 50 {
                first.send(end);
            }
        }
        first.end();
        for number in 0..100 {
            fs::write(scratch.w(&name("during", number)), "x").unwrap();
        }
        if end == Signal::KILL {
            fs::remove_file(scratch.w("removed")).unwrap();
            fs::rename(scratch.w("renamed"), scratch.w("d/new-name")).unwrap();
            fs::write(scratch.w("d/appended"), "xyz").unwrap();
            scratch.dir("w/d/made/in", 0o755, ONE);
        }
        first = agent(&scratch);
        subscriber.wait("a new connection", |line| line["type"] == "reconnected");
        for number in 0..100 {
            fs::write(scratch.w(&name("after", number)), "x").unwrap();
        }
        let compared = subscriber.wait("a comparison", |line| line["type"] == "compared");
        assert!(compared["complete"] == true && compared["found"].as_u64() >= Some(100), "{compared}");
        for when in ["before", "during", "after"] {
            for number in 0..100 {
                let path = name(when, number);
                if !subscriber.seen[from..].iter().any(|line| line["path"] == path.as_str()) {
                    subscriber.wait(&path, |line| line["path"] == path.as_str());
                }
            }
        }
        let gone: Vec<_> =
            subscriber.seen[from..].iter().filter(|line| line["type"] == "disconnected").collect();
        assert_eq!(gone.len(), 1, "{gone:?}");
        let found = subscriber.seen[from..].iter().find(|line| line["path"] == name("during", 7).as_str());
        let found = found.unwrap();
        assert_eq!(found["seen_by"], serde_json::json!(["poll"]), "{found}");
        assert!(found.get("seq").is_none() && found.get("actor").is_none(), "{found}");
        if end == Signal::KILL {
            for (op, path) in [
                ("remove", "removed"),
                ("rename", "d/new-name"),
                ("write", "d/appended"),
                ("create", "d/made/in"),
            ] {
                reported(&mut subscriber, from, op, path);
            }
        }
    }
    assert!(!subscriber.text().contains("unchanged"), "{}", subscriber.text());
    assert_eq!(subscriber.said().lines().count(), 2, "one line each time: {}", subscriber.said());
    subscriber.send(Signal::INT);
    assert_eq!(subscriber.end().0, Some(0));
}

#[tokio::test]
async fn the_subscription_of_the_library_outlasts_an_agent() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("outlasts");
    let first = agent(&scratch);
    let dir = File::open(scratch.w("")).unwrap();
    let mut subscription = Subscription::connect(&scratch.socket(), vec![dir.into()]).await.unwrap();
    let mut all = Vec::new();
    let mut wait = async |all: &mut Vec<Update>, is_it: &dyn Fn(&Update) -> bool| loop {
        let update = tokio::time::timeout(Duration::from_secs(60), subscription.next()).await;
        let update = update.expect("in time").expect("an update").unwrap();
        all.push(update);
        if is_it(all.last().unwrap()) {
            break;
        }
    };
    wait(&mut all, &|update| *update == Update::Baseline).await;
    assert!(all.iter().any(|update| matches!(update, Update::Event(Event::Added { root: 0 }))));
    drop(first);
    wait(&mut all, &|update| matches!(update, Update::Disconnected { .. })).await;
    fs::write(scratch.w("meanwhile"), "x").unwrap();
    let _second = agent(&scratch);
    wait(&mut all, &|update| *update == Update::Compared { found: 1, complete: true }).await;
    let is_found = |update: &Update| matches!(update, Update::Found { root: 0, change } if change.path.to_str() == Some("meanwhile"));
    assert!(all.iter().any(is_found), "{all:?}");
    fs::write(scratch.w("later"), "x").unwrap();
    wait(&mut all, &|update| {
        matches!(update, Update::Event(Event::Change { change, .. }) if change.path.to_str() == Some("later"))
    })
    .await;
}

#[test]
fn a_subscriber_of_no_agent_says_so_at_once() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("none");
    let (socket, dir) = (scratch.socket(), scratch.w(""));
    let args = ["subscribe", "--socket", socket.to_str().unwrap(), dir.to_str().unwrap()];
    let (status, said) = Program::start(scratch.hotr(ONE, &args)).end();
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    let mut first = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    first.send(Signal::KILL);
    first.end();
    until("it says so", || subscriber.said().contains("the agent has ended"));
    subscriber.send(Signal::TERM);
    assert_eq!(subscriber.end().0, Some(0), "also while there is no agent");
}
