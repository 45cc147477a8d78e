//! Files that are written over and over: no write is lost where storms begin and end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::place::Scratch;
use super::run::{Run, changes, ebpf, path_of};

/// Threads of one process that write to each file: they share a storm.
const THREADS: usize = 3;
const FILES: usize = 24;
/// Pauses before a thread's next writes. hotr ends a storm when nothing came for about 300 ms.
const PAUSES: [u64; 12] = [1, 90, 101, 250, 299, 301, 310, 330, 350, 400, 420, 60];
/// Writes without a pause, of this many bytes each.
const BURST: usize = 40;
const BYTES: usize = 3;

/// Writes to every file, with the pauses in an order of this thread's own.
fn write(files: &[File], thread: usize) {
    for round in 0..PAUSES.len() {
        for file in files {
            for _ in 0..BURST {
                file.write_all_at(&[b'x'; BYTES], 0).unwrap();
            }
        }
        // The pause is what is tested: it ends while hotr is about to end the storm.
        let over = Instant::now() + Duration::from_millis(PAUSES[(round + thread * 5) % PAUSES.len()]);
        while Instant::now() < over {
            std::thread::park_timeout(over.saturating_duration_since(Instant::now()));
        }
    }
}

#[test]
fn totals_are_exact_while_storms_begin_and_end() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("storms");
    let paths: Vec<_> = (0..FILES).map(|number| scratch.0.join(format!("f{number}"))).collect();
    let files: Vec<File> = paths.iter().map(|path| File::create(path).unwrap()).collect();
    let run = Run::start(&["--channels", "ebpf"], &scratch.0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let files = &files;
            scope.spawn(move || write(files, thread));
        }
    });
    let lines = run.end();
    let losses: Vec<_> = lines.iter().filter(|line| line["type"] == "loss").collect();
    assert!(losses.is_empty(), "{losses:?}");
    let written = THREADS * PAUSES.len() * BURST;
    for path in &paths {
        let told = changes(&lines).filter(|line| line["op"] == "write" && path_of(line) == *path);
        let (mut writes, mut bytes, mut count) = (0, 0, 0);
        for line in told {
            writes += line["writes"].as_u64().unwrap();
            bytes += line["bytes"].as_u64().unwrap();
            count += 1;
        }
        assert_eq!((writes, bytes), (written as u64, (written * BYTES) as u64), "{}", path.display());
        assert!(count < written / 4, "{count} lines for {}: nothing was coalesced", path.display());
    }
}
