//! What a subscriber receives for a directory that it may list but not search: names, and nothing else about the files. And
//! files that have two names.

use std::fs;

use super::run::{ONE, Scratch, agent, can_run, subscribe};

#[test]
fn a_directory_that_may_only_be_listed_shows_names_and_no_more() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("listed");
    scratch.dir("w/listed", 0o744, 0);
    scratch.dir("w/searched", 0o755, 0);
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    for dir in ["listed", "searched"] {
        let file = scratch.w(dir).join("f");
        fs::write(&file, "x".repeat(12_345)).unwrap();
        fs::rename(&file, scratch.w(dir).join("g")).unwrap();
        fs::remove_file(scratch.w(dir).join("g")).unwrap();
    }
    let all = |dir: &str, subscriber: &mut super::run::Program| {
        let write = subscriber.change("write", &format!("{dir}/f"));
        let rename = subscriber.change("rename", &format!("{dir}/g"));
        [write, rename, subscriber.change("remove", &format!("{dir}/g"))]
    };
    for line in all("listed", &mut subscriber) {
        for field in ["size", "bytes", "writes", "ino", "gen"] {
            assert!(line.get(field).is_none(), "{field}: {line}");
        }
        assert!(!line.to_string().contains("12345"), "{line}");
    }
    let shown = all("searched", &mut subscriber);
    assert_eq!(shown[0]["bytes"], 12_345, "{}", shown[0]);
}

#[test]
fn a_file_with_a_name_in_a_secret_directory_shows_only_its_other_one() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("links");
    scratch.dir("w/open", 0o755, 0);
    scratch.dir("w/secret", 0o700, 0);
    let (secret, open) = (scratch.w("secret/classified"), scratch.w("open/known"));
    fs::write(&secret, "x").unwrap();
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    fs::hard_link(&secret, &open).unwrap();
    let linked = subscriber.change("create", "open/known");
    assert!(linked.get("old_path").is_none(), "{linked}");
    fs::write(&secret, "xx").unwrap();
    fs::hard_link(&open, scratch.w("secret/classified-too")).unwrap();
    std::os::unix::fs::symlink("classified", scratch.w("secret/classified-link")).unwrap();
    std::os::unix::fs::symlink("../secret/classified", scratch.w("open/leads")).unwrap();
    subscriber.change("create", "open/leads");
    fs::write(scratch.w("open/leads"), "xxx").unwrap();
    fs::remove_file(&secret).unwrap();
    fs::write(&open, "y").unwrap();
    subscriber.change("write", "open/known");
    fs::write(scratch.w("open/last"), "y").unwrap();
    subscriber.change("write", "open/last");
    assert!(!subscriber.text().contains("classified"), "{}", subscriber.text());
}
