//! Many watches, instances and processes.

use std::time::{Duration, Instant};

use rustix::fs::inotify::WatchFlags;

use super::run::{Instance, Program, Scratch, diagnose, inotifywait, of_self, root};

const MASK: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::CLOSE_WRITE);

#[test]
fn ten_thousand_watches_and_fifty_instances() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("large");
    let dirs: Vec<_> = (0..10_000).map(|n| scratch.dir(&format!("{}/{n}", n % 100))).collect();
    let instances: Vec<_> = (0..50).map(|_| Instance::new()).collect();
    for (n, dir) in dirs.iter().enumerate() {
        instances[n % instances.len()].add(dir, MASK);
    }
    let start = Instant::now();
    let said = of_self();
    let took = start.elapsed();
    let summary = said.lines.last().unwrap();
    assert!(summary["watches"].as_u64().unwrap() >= 10_000, "{summary}");
    assert_eq!(said.status.filter(|status| *status != 3), Some(0), "{:?}", said.stderr);
    for instance in &instances {
        assert_eq!(said.kinds(std::process::id(), Some(instance.fd())), [], "no false finding");
    }
    eprintln!("10,000 watches in 50 instances: {took:?}, by hotr's own clock {} ms", summary["duration_ms"]);
    // The bar is one second with optimisation; here the program has none, and other tests run beside.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn many_processes() {
    let scratch = Scratch::new("crowd");
    let watchers: Vec<Program> = (0..20).map(|n| inotifywait(&[scratch.dir(&n.to_string())], 1)).collect();
    let said = diagnose::<&str>(&[]);
    for watcher in &watchers {
        assert!(
            said.lines
                .iter()
                .any(|line| line["type"] == "instance" && line["target"]["pid"] == watcher.pid()),
            "{}",
            watcher.pid()
        );
    }
}
