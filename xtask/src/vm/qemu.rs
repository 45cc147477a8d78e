//! One virtual machine, from power-on to its end.
//!
//! In: kernel, root archive, disks, limits. Out: what the guest wrote to its result line and its console. The
//! machine is emulated (TCG): it runs wherever QEMU does, and the same everywhere.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::disk::Image;
use crate::cmd;

/// How often the end of a machine is looked for.
const POLL: Duration = Duration::from_millis(20);

/// What a machine consists of.
pub(crate) struct Machine<'a> {
    /// For messages: kernel, and what runs.
    pub(crate) label: &'a str,
    /// The kernel's image.
    pub(crate) kernel: &'a Path,
    /// The root archive.
    pub(crate) initrd: &'a Path,
    /// Disks; the guest's changes to them are thrown away.
    pub(crate) disks: &'a [Image],
    /// Let the guest's clock count instructions, one a nanosecond: noise-free cost.
    pub(crate) icount: bool,
    /// The guest is stopped after this time.
    pub(crate) limit: Duration,
    /// Files `console.txt` and `results.jsonl` are left here.
    pub(crate) folder: &'a Path,
    /// Show the console on stdout instead of keeping it in a file.
    pub(crate) show: bool,
}

/// What a machine left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the guest wrote to its second serial line, line by line.
    pub(crate) results: Vec<String>,
    /// The console, empty when it was shown.
    pub(crate) console: String,
    /// The exit status of the guest's task; `None` when the guest stopped before that.
    pub(crate) status: Option<i32>,
    /// From power-on to the end.
    pub(crate) took: Duration,
}

/// The last line of the result line.
#[derive(Deserialize)]
struct Exit {
    exit: i32,
}

/// Runs a machine to its end. Fails when QEMU cannot run or the time is up.
pub(crate) fn run(machine: &Machine) -> Result<Ended> {
    let results = machine.folder.join("results.jsonl");
    let console = machine.folder.join("console.txt");
    let mut command = command(machine, &console, &results)?;
    let start = Instant::now();
    let mut guest = Guest(command.spawn().with_context(|| format!("{}: start QEMU", machine.label))?);
    let ended = loop {
        if let Some(status) =
            guest.0.try_wait().with_context(|| format!("{}: wait for QEMU", machine.label))?
        {
            break Some(status);
        }
        if start.elapsed() > machine.limit {
            break None;
        }
        std::thread::sleep(POLL);
    };
    let took = start.elapsed();
    let text = read(&console);
    match ended {
        None => bail!(
            "{}: the guest did not end within {} s and was stopped; --timeout gives it more{}",
            machine.label,
            machine.limit.as_secs(),
            if text.is_empty() {
                String::new()
            } else {
                format!("; its last lines:\n{}", cmd::tail(&text, 20))
            }
        ),
        Some(status) if !status.success() => {
            let mut said = String::new();
            if let Some(mut stderr) = guest.0.stderr.take() {
                // The reason is a courtesy: without it the status stands alone.
                let _unread = stderr.read_to_string(&mut said);
            }
            bail!("{}: QEMU ended with {status}: {}", machine.label, cmd::tail(&said, 4))
        }
        Some(_) => {}
    }
    let (results, status) = split_exit(&read(&results));
    Ok(Ended { results, console: text, status, took })
}

/// Kills its machine when the run ends early.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Both fail only when the machine is gone already.
            let _gone = self.0.kill();
            let _gone = self.0.wait();
        }
    }
}

fn command(machine: &Machine, console: &Path, results: &Path) -> Result<Command> {
    for file in [console, results] {
        File::create(file).with_context(|| format!("{}: make {}", machine.label, file.display()))?;
    }
    let qemu = cmd::find("qemu-system-x86_64").context(
        "start a virtual machine: qemu-system-x86_64 is not installed; run `cargo xtask setup --tests`",
    )?;
    // The machine must not outlive us, however we end.
    let mut command = cmd::find("setpriv").map_or_else(
        || Command::new(&qemu),
        |setpriv| {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(&qemu);
            command
        },
    );
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(["-accel", "tcg", "-cpu", "max", "-m", "1G"]);
    // One processor: a kernel that patches its own code (static keys, and every fentry attachment) under two emulated
    // ones now and then executes a breakpoint that is already gone, and panics.
    command.args(["-smp", "1"]);
    if machine.icount {
        command.args(["-icount", "shift=0"]);
    }
    command.arg("-kernel").arg(machine.kernel).arg("-initrd").arg(machine.initrd);
    // A machine that does much else does not emulate the timer fast enough for the kernel's test of it.
    let words = "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off no_timer_check";
    command.args(["-append", words]);
    if machine.show {
        command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    } else {
        command.arg("-serial").arg(file_argument("file:", console));
    }
    command.arg("-serial").arg(file_argument("file:", results));
    for disk in machine.disks {
        let drive = format!("if=none,id={0},format=raw,snapshot=on,cache=unsafe,file=", disk.name);
        command.arg("-drive").arg(file_argument(&drive, &disk.file));
        command.arg("-device").arg(format!("virtio-blk-pci,drive={0},serial={0}", disk.name));
    }
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command.stdout(if machine.show { Stdio::inherit() } else { Stdio::null() });
    Ok(command)
}

/// QEMU separates options by commas; one in a name is doubled.
fn file_argument(before: &str, file: &Path) -> String {
    // QEMU takes options as text; paths of our own making are.
    format!("{before}{}", PathBuf::from(file).display().to_string().replace(',', ",,"))
}

fn read(file: &Path) -> String {
    std::fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The result lines, and the exit status that ends them.
fn split_exit(text: &str) -> (Vec<String>, Option<i32>) {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.trim_end_matches('\r').to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let status = lines.last().and_then(|line| serde_json::from_str::<Exit>(line).ok()).map(|exit| exit.exit);
    if status.is_some() {
        lines.pop();
    }
    (lines, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_line_is_not_a_result() {
        assert_eq!(split_exit("{\"a\":1}\r\n{\"exit\":3}\r\n"), (vec!["{\"a\":1}".to_owned()], Some(3)));
        assert_eq!(split_exit("{\"a\":1}\n{\"ex"), (vec!["{\"a\":1}".to_owned(), "{\"ex".to_owned()], None));
        assert_eq!(split_exit(""), (Vec::new(), None));
    }
}
