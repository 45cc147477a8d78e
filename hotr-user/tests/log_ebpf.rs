//! Messages of the kernel programs: absent from the usual hotr, and printed by one that was built with them, which `cargo
//! xtask test` names in `HOTR_WITH_MESSAGES`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

#[test]
fn the_usual_object_has_no_messages_and_says_so() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_hotr")).args(["trace", "--log-ebpf", "/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "hotr: trace --log-ebpf: the kernel programs in this hotr have no messages; build one that has them with `cargo xtask build --log-ebpf`\n"
    );
}

/// A trace with messages; its reports are read as they come.
struct Traced {
    child: Child,
    reports: BufReader<std::process::ChildStdout>,
}

impl Traced {
    fn start(hotr: &Path, level: &str, root: &Path) -> Self {
        let mut child = Command::new(hotr)
            .args(["trace", "--json", "--channels", "ebpf", &format!("--log-ebpf={level}")])
            .arg(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hotr starts");
        let reports = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut traced = Self { child, reports };
        traced.until("\"ready\"");
        traced
    }

    /// Reads reports up to one with these words.
    fn until(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.reports.read_line(&mut line).expect("a line"), 0, "no report with {words}");
        }
    }

    /// Ends it; what it wrote to stderr.
    fn messages(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let mut messages = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut messages).expect("UTF-8");
        assert!(self.child.wait().expect("it ends").success(), "{messages}");
        messages
    }
}

#[test]
fn messages_come_from_the_kernel() {
    let Some(hotr) = std::env::var_os("HOTR_WITH_MESSAGES").filter(|_| geteuid().is_root()) else { return };
    // A filesystem that others seldom write to: what they do makes messages too, and a full buffer takes no more.
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let (root, beside) = (scratch.path().join("root"), scratch.path().join("beside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&beside).unwrap();
    let trace = |level| {
        let mut traced = Traced::start(hotr.as_ref(), level, &root);
        fs::write(beside.join("other"), "x").unwrap();
        fs::write(root.join("file"), "x").unwrap();
        traced.until("/root/file\"");
        let number = |path: &Path| fs::metadata(path).unwrap().ino();
        let numbers = (number(&root.join("file")), number(&beside.join("other")));
        fs::remove_file(beside.join("other")).unwrap();
        fs::remove_file(root.join("file")).unwrap();
        (traced.messages(), numbers)
    };
    let (messages, (file, other)) = trace("debug");
    assert!(
        messages.contains(&format!(": inode {other} filtered: no name of it is below a watched root\n")),
        "{messages}"
    );
    assert!(messages.contains(&format!(": inode {file} sent, root=")), "{messages}");
    assert!(messages.contains("not remembered, walked up; levels below its root: 0, root="), "{messages}");
    assert!(messages.lines().all(|line| line.starts_with("hotr: ebpf debug: ")), "{messages}");
    let (messages, _) = trace("warn");
    assert_eq!(messages, "");
}
