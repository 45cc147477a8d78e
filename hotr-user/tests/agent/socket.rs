//! The socket and its agent: in use, left by the dead, of somebody else; and an agent that is killed.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

use super::run::{Bare, ONE, Program, Scratch, agent, can_run, subscribe_once};

fn refused(scratch: &Scratch, user: u32, args: &[&str]) -> String {
    let (status, said) = Program::start(scratch.hotr(user, args)).end();
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{args:?}: {said}");
    said
}

#[test]
fn a_killed_agent_is_noticed_and_its_socket_taken_over() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("killed");
    let socket = scratch.socket();
    let mut first = agent(&scratch);
    let named = ["agent", "--socket", socket.to_str().unwrap()];
    assert!(refused(&scratch, 0, &named).contains("another agent listens there"));
    let mut subscriber = subscribe_once(&scratch, ONE, &scratch.w(""));
    first.send(Signal::KILL);
    assert_eq!(first.end().0, None);
    let (status, said) = subscriber.end();
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("it has ended, and what changes from now on is missed"), "{said}");
    let subscribing = ["subscribe", "--socket", socket.to_str().unwrap(), "/tmp"];
    assert!(refused(&scratch, ONE, &subscribing).contains("start `hotr agent`"));
    assert!(socket.exists(), "a killed agent leaves its socket");
    let second = agent(&scratch);
    let mut subscriber = subscribe_once(&scratch, ONE, &scratch.w(""));
    fs::write(scratch.w("f"), "x").unwrap();
    subscriber.change("write", "f");
    second.send(Signal::TERM);
    let (status, said) = subscriber.end();
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("the agent ends"), "{said}");
    let mut second = second;
    assert_eq!(second.end().0, Some(0));
    assert_eq!(fs::read_dir(scratch.0.join("run")).unwrap().count(), 0, "nothing stays behind");
}

#[test]
fn a_place_that_is_not_roots_and_a_user_who_is_not_root_get_one_line() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("place");
    let socket = scratch.socket();
    let named = ["agent", "--socket", socket.to_str().unwrap()];
    assert!(refused(&scratch, ONE, &named).contains("run it as root"));
    fs::set_permissions(scratch.0.join("run"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&scratch, 0, &named).contains("others may write to its directory"));
    fs::set_permissions(scratch.0.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&socket, "").unwrap();
    assert!(refused(&scratch, 0, &named).contains("no socket"));
    assert!(socket.exists(), "it is left alone");
}

/// As systemd starts it: the socket is descriptor 3, and stays when the agent ends. Who has connected before is served.
#[test]
fn a_socket_that_was_passed_is_served_and_left() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("passed-socket");
    let listener = std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap();
    fs::set_permissions(scratch.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let start = |fd: BorrowedFd<'_>| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" agent 3<&0 </dev/null"])
            .arg(scratch.0.join("hotr"));
        let number = fd.as_raw_fd();
        // SAFETY: one system call, of descriptors that are open.
        unsafe {
            command.pre_exec(move || match libc::dup2(number, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Program::start(command)
    };
    let mut early = Bare::connect(&scratch);
    early.send(r#"{"type":"hello","version":1}"#, &[]);
    let agent = start(listener.as_fd());
    assert_eq!(early.next().unwrap()["type"], "hello");
    let mut subscriber = subscribe_once(&scratch, ONE, &scratch.w(""));
    fs::write(scratch.w("f"), "x").unwrap();
    subscriber.change("write", "f");
    drop(agent);
    assert!(scratch.socket().exists());
    let file = fs::File::open(scratch.w("f")).unwrap();
    let (status, said) = start(file.as_fd()).end();
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("no stream socket"), "{said}");
}
