//! The socket and its agent: in use, left by the dead, of somebody else; and an agent that is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use super::run::{ONE, Program, Scratch, agent, can_run, subscribe_once};

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
