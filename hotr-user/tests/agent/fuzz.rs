//! Random bytes, frames and descriptors from several connections, while a subscriber that behaves receives every change. Seeded:
//! `HOTR_FUZZ_SEED` and `HOTR_FUZZ_SECONDS` make another run, or a longer one.

use std::fs::{self, File};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::run::{ONE, Scratch, agent, can_run, subscribe, until};

/// Users who send garbage; each has its own limits.
const USERS: [u32; 4] = [54_331, 54_332, 54_333, 54_334];

/// Numbers by a fixed rule (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// Bytes that a connection sends next: valid frames, or what was made of them.
fn bytes(random: &mut Random) -> Vec<u8> {
    let bodies: [&[u8]; 10] = [
        br#"{"type":"hello","version":1}"#,
        br#"{"type":"hello","version":2}"#,
        br#"{"type":"hello","version":-1}"#,
        br#"{"type":"add","root":0}"#,
        br#"{"type":"add","root":4294967295}"#,
        br#"{"type":"add","root":4294967296}"#,
        br#"{"type":"remove","root":0}"#,
        br#"{"type":"remove","root":1,"more":[]}"#,
        b"\xff\xfe\x00",
        b"",
    ];
    // Most begin as a subscriber does, so that what follows is looked at.
    let mut all = frame(bodies[if random.below(4) == 0 { random.below(bodies.len()) } else { 0 }]);
    for _ in 0..random.below(6) {
        let mut more = frame(random.one::<&[u8]>(&bodies));
        match random.below(8) {
            0 => {
                let at = random.below(more.len());
                more[at] ^= 1 << random.below(8);
            }
            1 => more.truncate(random.below(more.len())),
            2 => more[..4].copy_from_slice(&(random.next() as u32).to_le_bytes()),
            3 => more[..4].copy_from_slice(&4096_u32.to_le_bytes()),
            4 => more = frame("[".repeat(random.below(4096)).as_bytes()),
            _ => {}
        }
        all.extend(more);
    }
    all
}

/// Descriptors of every sort, but for those that make a subscriber of the connection.
fn descriptors(scratch: &Scratch) -> Vec<OwnedFd> {
    let path = |flags| openat(CWD, scratch.w(""), flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (pipe, writer) = std::io::pipe().unwrap();
    let deleted = scratch.dir("gone", 0o755, 0);
    let held = File::open(&deleted).unwrap();
    fs::remove_dir(&deleted).unwrap();
    let (one, _other) = UnixStream::pair().unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let device = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let pseudo = File::open("/proc/self").unwrap().into();
    let own = File::open(scratch.0.join("hotr")).unwrap().into();
    vec![
        path(OFlags::PATH),
        path(OFlags::RDONLY),
        pipe.into(),
        writer.into(),
        held.into(),
        one.into(),
        event,
        device,
        pseudo,
        own,
    ]
}

/// One connection: random frames in random pieces, with random descriptors, read or not.
fn connection(random: &mut Random, scratch: &Scratch, known: &[OwnedFd], is_long: bool) {
    let Ok(mut socket) = UnixStream::connect(scratch.socket()) else { return };
    let all = bytes(random);
    let mut rest = &all[..];
    while !rest.is_empty() {
        let length = if random.below(2) == 0 { rest.len() } else { 1 + random.below(rest.len()) };
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        if random.below(2) == 0 {
            fds.extend((0..random.below(7)).map(|_| random.one(known).as_fd()));
        }
        let own_end = socket.try_clone().unwrap();
        // With half a frame it lasts until the agent has no more patience.
        if is_long && random.below(8) == 0 {
            fds.push(own_end.as_fd());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // It may have been ended by now.
        if sendmsg(&socket, &[IoSlice::new(&rest[..length])], &mut ancillary, flags).is_err() {
            return;
        }
        rest = &rest[length..];
    }
    match random.below(3) {
        0 => drop(socket.shutdown(std::net::Shutdown::Write)),
        1 => {
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let _ = socket.read(&mut [0; 512]);
        }
        _ => {}
    }
}

#[test]
fn random_frames_take_nothing_from_a_subscriber_that_behaves() {
    if !can_run() {
        return;
    }
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |value| value.parse().unwrap());
    let (seed, seconds) = (number("HOTR_FUZZ_SEED", 1), number("HOTR_FUZZ_SECONDS", 2));
    eprintln!("HOTR_FUZZ_SEED={seed} HOTR_FUZZ_SECONDS={seconds}");
    let scratch = Scratch::new("fuzz");
    let mut running = agent(&scratch);
    let mut beside = subscribe(&scratch, ONE, &scratch.w(""));
    let before = running.descriptors();
    let known = descriptors(&scratch);
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let over = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let _over = super::slow::Over(&is_over);
        for (place, user) in (1..).zip(USERS) {
            let (scratch, known, is_over, made) = (&scratch, &known, &is_over, &made);
            scope.spawn(move || {
                // SAFETY: numbers only; this thread alone is another user from here on.
                let result = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
                assert_eq!(result, 0);
                let mut random = Random((seed + 1) * 1_000_003 * place);
                while !is_over.load(Ordering::Relaxed) {
                    connection(&mut random, scratch, known, seconds > 10);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut number = 0;
        // On a busy machine it takes its time until there were enough of both.
        while Instant::now() < over || number < 200 || made.load(Ordering::Relaxed) < 200 {
            for _ in 0..20 {
                number += 1;
                fs::write(scratch.w(&format!("f{number}")), "x").unwrap();
            }
            for number in number - 19..=number {
                let path = format!("f{number}");
                beside.wait(&path, |line| line["path"] == path.as_str() || is_skipped(line));
            }
        }
    });
    let lost = beside.seen.iter().find(|line| line["type"] == "loss" && !is_skipped(line));
    assert_eq!(lost, None);
    assert!(running.child.try_wait().unwrap().is_none(), "{}", running.said());
    until("all descriptors are closed", || running.descriptors() <= before);
    let said = running.said();
    assert!(!said.contains("panicked"), "{said}");
}

/// Where programs are preempted the kernel skips some, whoever sends what.
fn is_skipped(line: &serde_json::Value) -> bool {
    line["type"] == "loss" && line["reason"] == "program-skipped"
}
