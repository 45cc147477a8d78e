//! Subscribers as others write them: the one of the documentation, one of the library, and one that runs a command.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use hotr_user::agent::{Client, Event};

use super::run::{ONE, Program, Scratch, agent, can_run, until};

#[test]
fn the_python_client_of_the_documentation_works() {
    if !can_run() {
        return;
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md")).unwrap();
    let source = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(source.lines().count() <= 20, "it is short");
    let scratch = Scratch::new("python");
    let _agent = agent(&scratch);
    let mut python = Command::new("python3");
    python.args(["-c", source]).arg(scratch.socket()).arg(scratch.w("")).stdout(Stdio::piped());
    let mut child = python.spawn().expect("python3 is installed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("added")));
    fs::write(scratch.w("f"), "x").unwrap();
    assert!(lines.any(|line| line == "change write f"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn the_client_of_the_library_is_a_stream() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("library");
    let running = agent(&scratch);
    let mut client = Client::connect(&scratch.socket()).await.unwrap();
    let root = client.add(File::open(scratch.w("")).unwrap().as_fd()).await.unwrap();
    assert!(matches!(client.next().await, Some(Ok(Event::Hello { version: 1, .. }))));
    assert!(matches!(client.next().await, Some(Ok(Event::Added { root: added })) if added == root));
    fs::write(scratch.w("f"), "x").unwrap();
    let Some(Ok(Event::Change { seq, change, .. })) = client.next().await else { panic!("no change") };
    assert_eq!((seq, change.path.to_str()), (1, Some("f")));
    client.remove(root).await.unwrap();
    loop {
        match client.next().await.unwrap().unwrap() {
            Event::Removed { root: removed } => break assert_eq!(removed, root),
            event => assert!(matches!(event, Event::Change { .. }), "{event:?}"),
        }
    }
    drop(running);
    let error = client.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("it has ended"), "{error}");
    assert!(client.next().await.is_none());
}

#[test]
fn a_command_runs_when_a_wanted_file_changes() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("command");
    let out = scratch.dir("out", 0o755, ONE);
    let _agent = agent(&scratch);
    let (socket, dir) = (scratch.socket(), scratch.w(""));
    let (socket, dir) = (socket.to_str().unwrap(), dir.to_str().unwrap());
    let mark = out.join("mark");
    let args = ["subscribe", "--socket", socket, "-e", "conf", dir, "--", "touch", mark.to_str().unwrap()];
    let subscriber = Program::start(scratch.hotr(ONE, &args));
    until("it is subscribed", || subscriber.said().contains("subscribed to"));
    fs::write(scratch.w("other.txt"), "x").unwrap();
    fs::write(scratch.w("a.conf"), "x").unwrap();
    until("the command has run", || mark.exists());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(&mark).unwrap().uid(), ONE, "as who subscribed");
    fs::remove_file(&mark).unwrap();
    fs::write(scratch.w("a.conf"), "y").unwrap();
    until("and again", || mark.exists());
}
