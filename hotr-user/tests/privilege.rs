//! Who may do what by hotr: commands of another user, and privileges that come with the program's file.
//!
//! All of it needs root, and a second user: 54321, who has no entry.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
const STRANGER: u32 = 54_321;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-privilege-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("w")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: root is needed");
    }
    root
}

struct Hotr(Child);

impl Drop for Hotr {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let over = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < over, "{what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn commands_and_checks_run_as_the_user_that_was_asked_for() {
    if !root() {
        return;
    }
    let stranger = STRANGER.to_string();
    for (args, ids) in [
        (vec!["--user", &stranger, "--group", "54322"], "54321 54321 54322 54322 54322"),
        (vec!["--group", "54322"], "0 0 54322 54322 54322"),
        (vec!["--user", "root"], "0 0 0 0"),
        (vec![], "0 0 0 0"),
    ] {
        let scratch = Scratch::new("ids");
        let out = scratch.0.join("out");
        fs::create_dir(&out).unwrap();
        chown(&out, Some(STRANGER), Some(54_322)).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o770)).unwrap();
        // Also what a command starts, and the file that says what changed; and no capability is left.
        let script = |name: &str| {
            format!(
                "sh -c 'grep -E \"^(Uid|Gid|Groups|CapEff)\" /proc/self/status > {0}/{name}.new; \
                 test -z \"$HOTR_CHANGES_FILE\" || cat \"$HOTR_CHANGES_FILE\" >> {0}/{name}.new; mv {0}/{name}.new {0}/{name}'",
                out.display()
            )
        };
        let mut hotr = Command::new(HOTR);
        hotr.args(["watch", "-q", "-p", "--channels", "inotify", "--shell", "--emit", "file"]).args(&args);
        hotr.args(["--validate", &script("validate"), "--health", &script("health")]);
        hotr.arg(scratch.0.join("w")).arg("--").arg(script("command"));
        let mut hotr = Hotr(hotr.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        let mut number = 0;
        until("all have run", || {
            number += 1;
            fs::write(scratch.0.join("w/f"), number.to_string()).unwrap();
            assert!(hotr.0.try_wait().unwrap().is_none());
            std::thread::park_timeout(Duration::from_millis(200));
            out.join("health").exists()
        });
        for name in ["validate", "command", "health"] {
            let said = fs::read_to_string(out.join(name)).unwrap();
            let field = |name: &str| {
                let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            let (uid, gid, groups) = (field("Uid:"), field("Gid:"), field("Groups:"));
            assert!(
                uid.iter().all(|id| *id == uid[0]) && gid.iter().all(|id| *id == gid[0]),
                "{name}: {said}"
            );
            let mut have = vec![uid[0].as_str(), &uid[1], &gid[0], &gid[1]];
            if ids.ends_with("54322") {
                have.extend(groups.iter().map(String::as_str));
            }
            assert_eq!(have.join(" "), ids, "{name} by {args:?}: {said}");
            assert!(uid[0] == "0" || field("CapEff:") == ["0000000000000000"], "{name}: {said}");
            assert!(name != "command" || said.contains("/w/f\""), "{said}");
        }
    }
}

#[test]
fn who_cannot_be_is_one_line() {
    let scratch = Scratch::new("refused");
    let mut cases = vec![];
    if root() {
        cases.extend([
            (0, vec!["--user", "no-such-user-here"], "there is no such user"),
            (0, vec!["--user", "54321"], "add --group"),
            (0, vec!["--group", "no-such-group-here"], "there is no such group"),
            (STRANGER, vec!["--user", "root"], "only root can"),
            (STRANGER, vec!["--group", "0"], "only root can"),
        ]);
    }
    let hotr_there = scratch.0.join("hotr");
    fs::copy(HOTR, &hotr_there).unwrap();
    for (uid, args, why) in cases {
        let mut hotr = Command::new(&hotr_there);
        hotr.arg("watch").args(&args).arg(scratch.0.join("w")).args(["--", "true"]);
        let output = hotr.uid(uid).gid(uid).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    }
}

/// Whoever may run a file with capabilities must not learn by it what is in files that he cannot read.
#[test]
fn capabilities_of_the_file_do_not_read_content_for_anybody() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("capabilities");
    let hotr = scratch.0.join("hotr");
    fs::copy(HOTR, &hotr).unwrap();
    fs::set_permissions(&hotr, fs::Permissions::from_mode(0o755)).unwrap();
    // VFS_CAP_REVISION_2 and effective; CAP_DAC_READ_SEARCH permitted (include/uapi/linux/capability.h).
    let value: Vec<u8> =
        [0x0200_0001_u32, 1 << 2, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(&hotr, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let secret = scratch.0.join("w/secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(scratch.0.join("w"), fs::Permissions::from_mode(0o700)).unwrap();
    for args in [&["watch"][..], &["watch", "--channels", "inotify"]] {
        let output =
            Command::new(&hotr).args(args).arg(&secret).uid(STRANGER).gid(STRANGER).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("capabilities of the program's file"), "{said}");
    }
}
