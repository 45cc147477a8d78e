//! Daemons: nginx with a reloader, Prometheus, incron, watchman.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::{
    Live, append, found, installed, loses_a_replaced_file, nothing_lost, releases, replace, switch,
    until_found, verdict, words,
};
use crate::run::{Program, Scratch, diagnose, inotifywait, root, tool, until};

/// nginx, which ends its workers itself when it is asked to.
struct Nginx(Program);

impl Drop for Nginx {
    fn drop(&mut self) {
        self.0.send(Signal::TERM);
        let over = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while worker(&self.0).is_some() && std::time::Instant::now() < over {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}

/// nginx in the foreground, with a socket of its own.
fn nginx(scratch: &Scratch) -> Option<(Nginx, std::path::PathBuf)> {
    let nginx = installed("nginx")?;
    let conf = scratch.0.join("nginx.conf");
    let dir = scratch.0.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "{user} daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 1; events {{}}\n\
         http {{ access_log off; server {{ listen unix:{dir}/socket; }} }}\n"
    );
    fs::write(&conf, text).unwrap();
    let program = Program::start(Command::new(nginx).arg("-p").arg(&scratch.0).arg("-c").arg(&conf), 0);
    until("nginx serves", || worker(&program).is_some());
    Some((Nginx(program), conf))
}

/// The id of the worker that serves.
fn worker(nginx: &Program) -> Option<String> {
    let pid = nginx.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next_back().map(str::to_owned)
}

#[test]
fn a_reloader_of_nginx() {
    let scratch = Scratch::new("nginx");
    if !root() {
        return;
    }
    let Some((nginx, conf)) = nginx(&scratch) else { return };
    // A reloader sends the signal for each line of such a program; nginx itself watches nothing.
    let naive = inotifywait(&["-e".as_ref(), "close_write".as_ref(), conf.as_os_str()], 1);
    let careful = inotifywait(&["-e".as_ref(), "close_write,moved_to".as_ref(), scratch.0.as_os_str()], 1);
    assert_eq!(found(naive.pid()), [["at-risk", "replaced-file", "inferred"]]);
    assert_eq!(found(careful.pid()), [[""; 3]; 0]);
    let before = worker(&nginx.0);
    let mut live = Live::start("auto", careful.pid());
    tool("sed", &["-i".as_ref(), "s/worker_processes 1/worker_processes  1/".as_ref(), conf.as_os_str()]);
    let conf_path = conf.to_str().unwrap();
    let line = live.until("rename", |line| {
        line["type"] == "delivery" && line["op"] == "rename" && line["path"] == conf_path
    });
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nginx.0.send(Signal::HUP);
    until("nginx has another worker", || worker(&nginx.0).is_some_and(|now| Some(now) != before));
    nothing_lost(live);
    assert_eq!(found(careful.pid()), [[""; 3]; 0]);
    until_found(naive.pid(), &[["deaf", "replaced-file", "inferred"]]);
    let said = diagnose(&[&conf]);
    let answer = said.watcher(naive.pid());
    assert_eq!(
        (&answer["write"]["receives"], &answer["write"]["cause"]),
        (&"no".into(), &"replaced-file".into())
    );
    assert_eq!(said.watcher(careful.pid())["replace"]["receives"], "yes");
}

#[test]
fn prometheus_watches_lists_of_targets_and_not_its_configuration() {
    let scratch = Scratch::new("prometheus");
    let current = releases(&scratch);
    let list = scratch.0.join("releases/1/list.json");
    fs::write(&list, "[]").unwrap();
    fs::copy(&list, scratch.0.join("releases/2/list.json")).unwrap();
    let conf = scratch.0.join("prometheus.yml");
    let jobs = format!(
        "scrape_configs:\n- job_name: a\n  file_sd_configs:\n  - files: ['{}/*.json']\n",
        current.display()
    );
    fs::write(&conf, jobs).unwrap();
    let Some(prometheus) = installed("prometheus").filter(|_| root()) else { return };
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", conf.display()));
    command.arg(format!("--storage.tsdb.path={}", scratch.0.join("data").display()));
    let program = Program::start(command.arg("--web.listen-address=127.0.0.1:0"), 1);
    assert_eq!(found(program.pid()), [[""; 3]; 0]);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "rename", &list, || replace(&list));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
    let receives = |path: &Path| {
        let pid = program.pid().to_string();
        let said = diagnose(&["--pid".as_ref(), pid.as_ref(), path.as_os_str()]);
        let answer = said.watcher(program.pid());
        ["write", "replace"].map(|what| answer[what]["receives"].as_str().unwrap().to_owned())
    };
    assert_eq!(receives(&current.join("list.json")), ["yes", "yes"]);
    assert_eq!(receives(&conf), ["no", "no"], "it is read at a signal only");
    switch(&current);
    assert_eq!(receives(&current.join("list.json")), ["no", "no"], "the watch is on the first release");
}

#[test]
fn incron_loses_a_replaced_file() {
    let scratch = Scratch::new("incron");
    let file = scratch.file("app.conf");
    let dir = scratch.dir("spool");
    let (system, user, lock) = (scratch.dir("system"), scratch.dir("user"), scratch.dir("lock"));
    let conf = scratch.0.join("incron.conf");
    let settings = [("system_table_dir", &system), ("user_table_dir", &user), ("lockfile_dir", &lock)];
    let lines = settings.map(|(key, dir)| format!("{key} = {}\n", dir.display()));
    fs::write(&conf, format!("{}lockfile_name = incrond\n", lines.concat())).unwrap();
    let table = format!(
        "{} IN_MODIFY,IN_CLOSE_WRITE /bin/true\n{} IN_CLOSE_WRITE,IN_MOVED_TO /bin/true\n",
        file.display(),
        dir.display()
    );
    fs::write(system.join("table"), table).unwrap();
    let Some(incrond) = installed("incrond").filter(|_| root()) else { return };
    let program = Program::start(Command::new(incrond).arg("-n").arg("-f").arg(&conf), 4);
    assert_eq!(
        found(program.pid()),
        [["at-risk", "replaced-file", "inferred"]],
        "the file, not the directory"
    );
    let mut live = Live::start("auto", program.pid());
    let spooled = dir.join("job");
    fs::write(scratch.0.join("job"), "1\n").unwrap();
    let line =
        verdict(&mut live, "rename", &spooled, || fs::rename(scratch.0.join("job"), &spooled).unwrap());
    assert_eq!(words(&line), ("delivered", None), "{line}");
    loses_a_replaced_file(live, &file);
}

#[test]
fn watchman_on_a_tree_and_stopped() {
    let scratch = Scratch::new("watchman");
    scratch.dir("src/a");
    let file = scratch.file("src/a/x");
    let state = scratch.dir("state");
    let Some(watchman) = installed("watchman").filter(|_| root()) else { return };
    let socket = format!("--sockname={}", state.join("socket").display());
    let mut command = Command::new(&watchman);
    command.args(["--foreground", "--no-save-state", &socket]);
    for option in ["logfile", "pidfile", "statefile"] {
        command.arg(format!("--{option}={}", state.join(option).display()));
    }
    let program = Program::start(&mut command, 0);
    let mut ask = Command::new(&watchman);
    ask.args(["--no-spawn", &socket, "watch"]).arg(scratch.0.join("src"));
    until("watchman answers", || ask.output().unwrap().status.success());
    until("watchman watches", || program.watches() >= 2);
    let healthy = ["note", "mark-gone", "proved"];
    until_found(program.pid(), &[healthy]);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
    program.send(Signal::STOP);
    append(&file);
    until_found(program.pid(), &[["at-risk", "unread", "proved"], healthy]);
    program.send(Signal::CONT);
    until_found(program.pid(), &[healthy]);
}
