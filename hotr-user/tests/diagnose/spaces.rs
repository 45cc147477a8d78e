//! Overlays, mounts on top of watches, and targets in other mount namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::inotify::WatchFlags;
use serde_json::json;

use super::run::{Instance, Program, Scratch, diagnose, ino, of_pid, of_self, root, tool};

const WHOLE: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::CLOSE_WRITE);

/// A mount that is removed at the end of a test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(words: &[&std::ffi::OsStr], at: &Path) -> Self {
        tool("mount", &[words, &[at.as_os_str()]].concat());
        Self(at.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_watch_on_an_overlay_names_the_layers_it_cannot_receive() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("overlay");
    // Its layers must not lie on an overlay.
    let base = scratch.dir("base");
    let _base = Mounted::new(&["-t".as_ref(), "tmpfs".as_ref(), "hotr-diag".as_ref()], &base);
    let [lower, upper, work, merged] = ["base/l", "base/u", "base/w", "base/m"].map(|name| scratch.dir(name));
    fs::write(lower.join("low"), "").unwrap();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let _overlay = Mounted::new(
        &["-t".as_ref(), "overlay".as_ref(), "hotr-diag".as_ref(), "-o".as_ref(), options.as_ref()],
        &merged,
    );
    fs::write(merged.join("up"), "").unwrap();
    let instance = Instance::on(&merged, WHOLE);
    let finding = instance.finding();
    assert_eq!((&finding["severity"], &finding["cause"]), (&json!("note"), &json!("layer-bypass")));
    let evidence = finding["evidence"].to_string();
    for dir in [&lower, &upper] {
        assert!(evidence.contains(dir.to_str().unwrap()), "{evidence}");
    }
    // The paths of watches on an overlay, where the kernel's handles carry those of the layers.
    for (name, path) in [("low", merged.join("low")), ("up", merged.join("up"))] {
        let instance = Instance::on(&path, WatchFlags::MODIFY);
        let said = of_self();
        let found = said.of(std::process::id(), Some(instance.fd()));
        let paths: Vec<_> = found.iter().filter_map(|line| line.get("path")).collect();
        assert!(paths.iter().all(|found| **found == json!(path)), "{name}: {paths:?}");
    }
    let low = Instance::on(&lower, WHOLE);
    let finding = low.finding();
    assert_eq!((&finding["cause"], &finding["path"]), (&json!("layer-bypass"), &json!(lower)));
}

#[test]
fn a_directory_that_was_mounted_over() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("over");
    let (dir, other) = (scratch.dir("dir"), scratch.dir("other"));
    let file = scratch.file("dir/app.conf");
    let below = ino(&dir);
    let instance = Instance::on(&dir, WHOLE);
    let on_file = Instance::on(&file, WatchFlags::DELETE_SELF);
    assert_eq!(instance.kinds(), []);
    let mount = Mounted::new(&["--bind".as_ref(), other.as_os_str()], &dir);
    let finding = instance.finding();
    assert_eq!(
        (&finding["severity"], &finding["cause"], &finding["proof"]),
        (&json!("deaf"), &json!("mounted-over"), &json!("proved"))
    );
    assert_eq!((&finding["watched_ino"], &finding["path_ino"]), (&json!(below), &json!(ino(&other))));
    assert_eq!(finding["path"], json!(dir));
    assert_eq!(on_file.kinds(), [("deaf", "mounted-over")]);
    // A tree below one mount is one finding, of its top.
    let tree = Instance::new();
    drop(mount);
    for dir in [scratch.dir("dir/a/b"), scratch.dir("dir/a"), dir.clone()] {
        tree.add(&dir, WHOLE);
    }
    let mount = Mounted::new(&["--bind".as_ref(), other.as_os_str()], &dir);
    let finding = tree.finding();
    assert_eq!((&finding["path"], &finding["watches"]), (&json!(dir), &json!(3)));
    drop(mount);
    assert_eq!(instance.kinds(), [], "the path leads to it again");
}

#[test]
fn a_filesystem_that_was_unmounted_lazily() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("lazy");
    let dir = scratch.dir("dir");
    let mount = Mounted::new(&["-t".as_ref(), "tmpfs".as_ref(), "hotr-diag".as_ref()], &dir);
    let instance = Instance::on(&dir, WHOLE);
    let _held = fs::File::open(&dir).unwrap();
    assert_eq!(instance.kinds(), []);
    drop(mount);
    let said = diagnose::<&str>(&[]);
    assert_eq!(said.kinds(std::process::id(), Some(instance.fd())), [("deaf", "unmounted")]);
}

#[test]
fn a_target_in_a_mount_namespace_of_its_own() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("unshared");
    let (host, inside) = (scratch.dir("host"), scratch.dir("inside"));
    let file = scratch.file("host/app.conf");
    let script = "mount --bind \"$1\" \"$2\" && exec inotifywait -m -q \"$2/app.conf\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).args([&host, &inside]);
    let watcher = Program::start(&mut command, 1);
    let said = of_pid(watcher.pid());
    let found = said.of(watcher.pid(), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["path"], &found[0]["cause"]), (&json!(file), &json!("replaced-file")));
    // The bind mount shows the same directory as the one it is of: both are paths of the target.
    assert!([json!(file), json!(inside.join("app.conf"))].contains(&found[0]["path_in_target"]));
    // A tmpfs that only the target has.
    let script = "mount -t tmpfs t \"$1\" && echo 1 >\"$1/f\" && exec inotifywait -m -q \"$1/f\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&inside);
    let private = Program::start(&mut command, 1);
    let said = of_pid(private.pid());
    let found = said.of(private.pid(), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["path_in_target"], found[0].get("path")), (&json!(inside.join("f")), None));
    // It is named by its own path, which leads nowhere on the host.
    let words =
        ["--pid".to_owned(), private.pid().to_string(), inside.join("f").to_str().unwrap().to_owned()];
    assert_eq!(diagnose(&words).watcher(private.pid())["by"], json!(["file"]));
}

#[test]
fn kernel_state_is_not_watched_by_notifications() {
    let instance = Instance::on(Path::new("/proc/self"), WatchFlags::MODIFY);
    let finding = instance.finding();
    assert_eq!((&finding["severity"], &finding["cause"]), (&json!("at-risk"), &json!("pseudo-fs")));
    assert_eq!(finding.get("path"), None, "proc opens nothing by handle");
}

#[test]
fn a_fuse_filesystem_whose_daemon_hangs_does_not_hang_hotr() {
    if !root() {
        return;
    }
    let Ok(daemon) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") else {
        eprintln!("not run: the kernel has no FUSE");
        return;
    };
    let scratch = Scratch::new("fuse");
    let (dir, link) = (scratch.dir("mnt"), scratch.0.join("link"));
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&daemon);
    let options = std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0")).unwrap();
    let at = std::ffi::CString::new(dir.to_str().unwrap()).unwrap();
    rustix::mount::mount(c"hotr-diag", &at, c"fuse", rustix::mount::MountFlags::empty(), options.as_c_str())
        .unwrap();
    let mount = Mounted(dir.clone());
    // Nobody answers what the kernel asks the daemon: whoever asks the filesystem waits, and cannot be killed.
    let instance = Instance::on(&dir, WHOLE);
    let fd = instance.fd();
    let found = std::thread::spawn(move || {
        let all = of_self();
        let path = diagnose(&[&dir.join("app.conf")]);
        let by_link = diagnose(&[&link.join("app.conf")]);
        let by = |said: &super::run::Said| {
            let line = said.lines.iter().find(|line| line["type"] == "watcher" && line["target"]["fd"] == fd);
            line.map(|line| line["by"].clone())
        };
        (all, by(&path), by(&by_link))
    });
    super::run::until("hotr ends", || found.is_finished());
    let (all, path, by_link) = found.join().unwrap();
    let kinds = all.kinds(std::process::id(), Some(instance.fd()));
    assert_eq!(kinds, [("at-risk", "remote")]);
    // Its root directory is in memory, and watched; the file in it is not looked for.
    assert_eq!((path, by_link), (Some(json!(["directory"])), Some(json!(["directory"]))));
    drop(daemon);
    drop(mount);
}

/// Runs a watcher in a cgroup of its own.
fn in_cgroup(name: &str, test: impl FnOnce(&Program)) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = mounts.lines().filter(|line| line.contains(" - cgroup2 ") || line.contains("name=systemd"));
    let Some(cgroup) = places.filter_map(|line| line.split(' ').nth(4)).find_map(|at| {
        let cgroup = Path::new(at).join(name);
        fs::create_dir(&cgroup).is_ok().then_some(cgroup)
    }) else {
        eprintln!("not run: no cgroup can be made");
        return;
    };
    let scratch = Scratch::new("cgroup");
    let watcher = super::run::inotifywait(&[&scratch.0], 1);
    fs::write(cgroup.join("cgroup.procs"), watcher.pid().to_string()).unwrap();
    test(&watcher);
    drop(watcher);
    super::run::until("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
}

#[test]
fn processes_of_a_unit_and_of_a_container() {
    if !root() {
        return;
    }
    let name = format!("hotr-diag-{}", std::process::id());
    in_cgroup(&format!("{name}.service"), |watcher| {
        for word in [name.clone(), format!("{name}.service")] {
            let said = diagnose(&["--unit".to_owned(), word]);
            assert_eq!(
                (said.status, &said.lines.last().unwrap()["processes"]),
                (Some(0), &json!(1)),
                "{}",
                said.stderr
            );
            assert!(said.lines.iter().any(|line| line["target"]["pid"] == watcher.pid()));
        }
    });
    let id = format!("{:064x}", std::process::id());
    let id = id.replacen("0000", "fade", 1);
    in_cgroup(&format!("docker-{id}.scope"), |watcher| {
        let said = diagnose(&["--container", &id[..12]]);
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        let line =
            said.lines.iter().find(|line| line["target"]["pid"] == watcher.pid()).expect("its instance");
        assert_eq!(line["target"]["container"], json!(id));
    });
}

#[test]
fn a_user_namespace_whose_limit_is_used_up() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("userns");
    scratch.dir("d");
    // The limit of this namespace only: fs.inotify.* would be the machine's.
    let script = "echo 2 >/proc/sys/user/max_inotify_watches && exec inotifywait -m -q \"$1\" \"$1/d\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(&scratch.0);
    let watcher = Program::start(&mut command, 2);
    let said = diagnose::<&str>(&[]);
    let ns = fs::read_link(format!("/proc/{}/ns/user", watcher.pid())).unwrap();
    let ns: String = ns.to_str().unwrap().chars().filter(char::is_ascii_digit).collect();
    let mut limits = said.lines.iter().filter(|line| line["cause"] == "limit");
    let text = format!("has 2 of 2 inotify watches in user namespace {ns}");
    assert!(limits.any(|line| line["evidence"][0].as_str().unwrap().contains(&text)), "{:?}", said.lines);
}
