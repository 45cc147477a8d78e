//! What a user may take: connections, descriptors, memory, places under other names.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::Signal;

use super::run::{Bare, ONE, OTHER, Program, Scratch, agent, can_run, knows_processes, subscribe, until};

/// Ten thousand connections of a user, of which most are refused, cost the agent neither descriptors nor memory, and another
/// user no change.
#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("many");
    let running = agent(&scratch);
    let mut beside = subscribe(&scratch, ONE, &scratch.w(""));
    let (descriptors, memory) = (running.descriptors(), running.memory_kib());
    let at = scratch.socket();
    let sender = std::thread::spawn(move || {
        // SAFETY: numbers only; this thread alone is another user from here on.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER) };
        assert_eq!(result, 0);
        let mut held = std::collections::VecDeque::new();
        for number in 0..10_000_u32 {
            let socket = UnixStream::connect(&at).unwrap();
            // Nothing, a half frame, or garbage; of some nothing is ever closed until the end.
            let part: &[u8] = [&b""[..], b"\x20\0\0\0{", b"\xff\xff\xff\xff"][number as usize % 3];
            let _ = std::io::Write::write_all(&mut &socket, part);
            held.push_back(socket);
            if held.len() > 64 {
                held.pop_front();
            }
        }
    });
    let mut number = 0;
    while !sender.is_finished() || number < 20 {
        number += 1;
        fs::write(scratch.w(&format!("f{number}")), "x").unwrap();
        beside.change("write", &format!("f{number}"));
    }
    sender.join().unwrap();
    until("all descriptors are closed", || running.descriptors() <= descriptors);
    let grown = running.memory_kib().saturating_sub(memory);
    assert!(grown < 32 * 1024, "{grown} KiB more");
}

/// The other end of a connection, passed to the agent, would keep it open after its process has ended.
#[test]
fn a_descriptor_without_a_frame_ends_its_connection() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("own-end");
    let running = agent(&scratch);
    let before = running.descriptors();
    for _ in 0..20 {
        let mut bare = Bare::greeted(&scratch);
        let own = bare.0.try_clone().unwrap();
        bare.send(r#"{"type":"remove","root":7}"#, &[own.as_fd(), own.as_fd()]);
        let last = bare.next().unwrap();
        assert!(last["why"].as_str().is_some_and(|why| why.contains("without its frame")), "{last}");
        let mut bare = Bare::greeted(&scratch);
        let answer = bare.add(0, &[own.as_fd()]);
        assert!(answer["why"].as_str().unwrap().contains("no directory"), "{answer}");
    }
    until("all descriptors are closed", || running.descriptors() <= before);
}

/// Who has many users in a namespace of his own has the places of one: also where the processes have ended that have
/// connected, and nobody can say any more what namespace they were in.
#[test]
fn a_process_that_has_ended_gets_no_place() {
    if !can_run() {
        return;
    }
    if !knows_processes() {
        return eprintln!("not run: the kernel gives no descriptor of who has connected");
    }
    let scratch = Scratch::new("ended");
    let running = agent(&scratch);
    let held = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let address = SocketAddrUnix::new(scratch.socket()).unwrap();
    // It takes the connection when the process has ended.
    running.send(Signal::STOP);
    let mut command = Command::new("true");
    let number = held.as_raw_fd();
    // SAFETY: the descriptor is open, and system calls alone are made before the program is run.
    unsafe {
        command.uid(ONE).pre_exec(move || {
            let socket = std::os::fd::BorrowedFd::borrow_raw(number);
            Ok(connect(socket, &address)?)
        });
    }
    let status = command.status();
    running.send(Signal::CONT);
    assert!(status.unwrap().success());
    let mut bare = Bare(held.into());
    let last = bare.next().unwrap();
    assert_eq!(last["type"], "error", "{last}");
    assert!(last["why"].as_str().unwrap().contains("has ended"), "{last}");
}

/// The administrator may hide processes while subscribers are connected.
#[test]
fn processes_that_are_hidden_later_have_no_name_from_then_on() {
    if !can_run() {
        return;
    }
    if !knows_processes() {
        return eprintln!("not run: the kernel gives no descriptor of who has connected");
    }
    let scratch = Scratch::new("hidepid");
    let socket = scratch.socket();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t proc proc /proc && exec \"$0\" agent --socket \"$1\""]);
    command.arg(scratch.0.join("hotr")).arg(&socket);
    let running = Program::start(command);
    until("it listens", || running.said().contains("listening"));
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    fs::write(scratch.w("before"), "x").unwrap();
    assert!(subscriber.change("write", "before").get("actor").is_some());
    let mut inside = Command::new("nsenter");
    inside.args(["--mount", "--target", &running.child.id().to_string()]);
    let status = inside.args(["mount", "-o", "remount,hidepid=2", "/proc"]).status().unwrap();
    assert!(status.success());
    let mut number = 0;
    until("the process has no name", || {
        number += 1;
        fs::write(scratch.w(&format!("after-{number}")), "x").unwrap();
        let line = subscriber.change("write", &format!("after-{number}"));
        line.get("actor").is_none() && line["outside"] == true
    });
    let own = File::create(scratch.w("last")).unwrap();
    drop(own);
    assert!(subscriber.change("create", "last").get("actor").is_none());
}
