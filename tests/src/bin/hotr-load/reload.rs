//! From a change to the start of the command that reloads: hotr beside watchexec and entr, in turns, all running all
//! the time, each on a folder of its own.
//!
//! The command is this program as `reload-note`: the first thing it does is to look at the clock, which it sends to a
//! socket. So the time ends where the command's own code begins, the same for every tool.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::time::{ClockId, clock_gettime};

use crate::figures::{Figures, percentile};
use crate::watcher::{self, PATIENCE};

/// A tool that has started nothing for so long has missed the change.
const MISSED: Duration = Duration::from_secs(3);
/// The quiet that entr waits for; it has no option for it, so the others are given the same.
const DEBOUNCE: &str = "50ms";

/// What to measure.
#[derive(Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    common: crate::Common,
    /// watchexec
    #[arg(long, default_value = "watchexec")]
    watchexec: PathBuf,
    /// Which to measure; `hotr-0` waits for no quiet at all
    #[arg(long, value_delimiter = ',', default_values = ["hotr", "watchexec", "entr", "hotr-0"])]
    subjects: Vec<String>,
    /// Changes for each tool
    #[arg(long, default_value_t = 500)]
    count: usize,
}

/// The command that the tools run.
#[derive(Args)]
pub(crate) struct NoteArgs {
    /// Where to send the time.
    socket: PathBuf,
}

/// Nanoseconds of the clock that all processes share.
pub(crate) fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Sends the time at which this process began.
pub(crate) fn note(args: &NoteArgs, began_ns: u64) -> Result<()> {
    let socket = UnixDatagram::unbound().context("make a socket")?;
    // The benchmark may have ended already.
    let _gone = socket.send_to(&began_ns.to_ne_bytes(), &args.socket);
    Ok(())
}

struct Subject {
    name: String,
    file: PathBuf,
    socket: UnixDatagram,
    /// Ended by id when this goes.
    tool: Ended,
    microseconds: Vec<f64>,
    /// Starts of the command beyond one for each change.
    extra: u64,
    missed: u64,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &ReloadArgs, out: &mut Figures) -> Result<()> {
    let mut subjects =
        args.subjects.iter().map(|name| Subject::start(name, args)).collect::<Result<Vec<Subject>>>()?;
    for subject in &mut subjects {
        subject.warm_up()?;
    }
    for _ in 0..args.count {
        for subject in &mut subjects {
            subject.sample()?;
            watcher::until_asleep(subject.tool.0.id())?;
        }
    }
    out.count("reload/count", args.count as u64)?;
    for subject in &mut subjects {
        let name = subject.name.clone();
        for percent in [50, 90, 99] {
            let value = percentile(&subject.microseconds, percent);
            out.value(format!("reload/{name}/p{percent}"), value)?;
        }
        subject.drain()?;
        out.count(format!("reload/{name}/missed"), subject.missed)?;
        out.count(format!("reload/{name}/extra"), subject.extra)?;
    }
    Ok(())
}

impl Subject {
    fn start(name: &str, args: &ReloadArgs) -> Result<Self> {
        let folder = args.common.dir.join(format!("reload-{name}"));
        let watched = folder.join("watched");
        fs::create_dir_all(&watched).with_context(|| format!("make {}", watched.display()))?;
        let file = watched.join("settings");
        File::create(&file).with_context(|| format!("make {}", file.display()))?;
        let at = folder.join("socket");
        let socket = UnixDatagram::bind(&at).with_context(|| format!("bind {}", at.display()))?;
        let command = [std::env::current_exe()?.into_os_string(), "reload-note".into(), at.into_os_string()];
        let said = File::create(folder.join("said")).context("make a file for messages")?;
        let mut tool = match name {
            "entr" => entr(),
            "watchexec" => watchexec(&args.watchexec, &watched),
            _ => hotr(&args.common.hotr, &watched, if name == "hotr" { DEBOUNCE } else { "0ms" }),
        };
        tool.args(command).stdout(said.try_clone()?).stderr(said);
        let mut child = Ended(tool.spawn().with_context(|| format!("start {name}"))?);
        if let Some(mut list) = child.0.stdin.take() {
            // entr reads which files it watches.
            writeln!(list, "{}", file.display()).context("name the file to entr")?;
        }
        Ok(Self {
            name: name.to_owned(),
            file,
            socket,
            tool: child,
            microseconds: Vec::new(),
            extra: 0,
            missed: 0,
        })
    }

    /// Changes the file until the tool has started the command for it: none of them says when it listens.
    fn warm_up(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let changed = self.change()?;
            if self.started(changed, Duration::from_millis(500))?.is_some() {
                break;
            }
            let ended = self.tool.0.try_wait()?;
            ensure!(ended.is_none(), "{} ended early; see {}", self.name, self.file.display());
            ensure!(Instant::now() < until, "{} started no command", self.name);
        }
        // What it still starts for earlier changes is none of the samples.
        while self.started(0, Duration::from_millis(300))?.is_some() {}
        self.extra = 0;
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        self.drain()?;
        let changed = self.change()?;
        match self.started(changed, MISSED)? {
            #[expect(clippy::cast_precision_loss, reason = "less than 2^52 ns")]
            Some(at) => self.microseconds.push((at - changed) as f64 / 1e3),
            None => self.missed += 1,
        }
        Ok(())
    }

    /// One write to the file, and the moment of its return.
    fn change(&self) -> Result<u64> {
        let mut file = File::options().append(true).open(&self.file).context("open the watched file")?;
        file.write_all(b"x").context("write to the watched file")?;
        Ok(clock_ns())
    }

    /// Waits for a start of the command after `changed`; earlier ones are extra.
    fn started(&mut self, changed: u64, patience: Duration) -> Result<Option<u64>> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).context("wait for a start")?;
            match self.receive()? {
                Some(at) if at > changed => return Ok(Some(at)),
                Some(_) => self.extra += 1,
                None => {}
            }
        }
    }

    fn drain(&mut self) -> Result<()> {
        self.socket.set_nonblocking(true).context("look for starts")?;
        while self.receive()?.is_some() {
            self.extra += 1;
        }
        self.socket.set_nonblocking(false).context("wait for starts")
    }

    fn receive(&self) -> Result<Option<u64>> {
        let mut time = [0; 8];
        match self.socket.recv(&mut time) {
            Ok(_) => Ok(Some(u64::from_ne_bytes(time))),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("read a start"),
        }
    }
}

fn hotr(program: &Path, watched: &Path, debounce: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("watch").arg(watched).args(["--debounce", debounce, "--no-vcs-ignore", "--"]);
    command.stdin(Stdio::null());
    command
}

/// Without a shell, and without what looks for ignore files: as little as it can do.
fn watchexec(program: &Path, watched: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--watch").arg(watched).args(["--debounce", DEBOUNCE]);
    command.args(["--postpone", "--quiet", "--shell=none", "--ignore-nothing", "--"]).stdin(Stdio::null());
    command
}

/// Without a terminal, and not before the first change.
fn entr() -> Command {
    let mut command = Command::new("entr");
    command.args(["-n", "-p"]).stdin(Stdio::piped());
    command
}
