//! What is no protocol ends its own connection, with a sentence, and no other.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};

use super::run::{Bare, ONE, OTHER, Scratch, agent, can_run, subscribe};

/// The sentence with which a connection ends.
fn ended(mut bare: Bare) -> String {
    let mut last = None;
    while let Some(event) = bare.next() {
        last = Some(event);
    }
    let last = last.expect("an event");
    assert_eq!(last["type"], "error", "{last}");
    last["why"].as_str().unwrap().to_owned()
}

#[test]
fn garbage_ends_its_own_connection_only() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("garbage");
    let mut running = agent(&scratch);
    let mut beside = subscribe(&scratch, ONE, &scratch.w(""));

    let mut bare = Bare::connect(&scratch);
    bare.write(&u32::MAX.to_le_bytes());
    assert!(ended(bare).contains("longer than any"));

    let mut bare = Bare::connect(&scratch);
    bare.write(b"\x05\0\0\0hello");
    assert!(ended(bare).contains("no JSON object"));

    let mut bare = Bare::connect(&scratch);
    bare.write(b"\x64\0\0\0{\"type\":");
    bare.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(ended(bare).contains("no end"));

    let mut bare = Bare::connect(&scratch);
    bare.send(r#"{"type":"hello","version":2}"#, &[]);
    assert!(ended(bare).contains("version 1"));

    let mut bare = Bare::connect(&scratch);
    bare.send(r#"{"type":"add","root":0}"#, &[]);
    assert!(ended(bare).contains("no hello"));

    let mut bare = Bare::greeted(&scratch);
    bare.send(r#"{"type":"hello","version":1}"#, &[]);
    assert!(ended(bare).contains("second hello"));

    let dir = File::open(scratch.w("")).unwrap();
    let many: Vec<BorrowedFd<'_>> = (0..16).map(|_| dir.as_fd()).collect();
    let mut bare = Bare::greeted(&scratch);
    bare.send(r#"{"type":"add","root":0}"#, &many);
    assert!(ended(bare).contains("descriptors"));

    // Bytes by a fixed rule, of many lengths; the agent may have closed before all were written.
    let mut state = 1_u32;
    for length in 1..300 {
        let bare = Bare::connect(&scratch);
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(length)
        .collect();
        let _ = std::io::Write::write_all(&mut &bare.0, &bytes);
    }
    fs::write(scratch.w("f"), "x").unwrap();
    beside.change("write", "f");
    assert!(running.child.try_wait().unwrap().is_none(), "{}", running.said());
}

#[test]
fn one_user_takes_no_place_of_another() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("limits");
    let _agent = agent(&scratch);
    let held = std::thread::spawn({
        let place = scratch.0.clone();
        move || {
            // SAFETY: numbers only; this thread alone is another user from here on.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER) };
            assert_eq!(result, 0);
            let scratch = std::mem::ManuallyDrop::new(Scratch(place));
            let held: Vec<Bare> = (0..16).map(|_| Bare::greeted(&scratch)).collect();
            let refused = ended(Bare::connect(&scratch));
            assert!(refused.contains("16 subscribers"), "{refused}");
            held
        }
    });
    let held = held.join().unwrap();
    let mut one = subscribe(&scratch, ONE, &scratch.w(""));
    fs::write(scratch.w("f"), "x").unwrap();
    one.change("write", "f");
    drop(held);
}
