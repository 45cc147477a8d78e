//! What the figures were measured on.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{cmd, paths, setup};

/// Kernel, processor, date, tools: what a reader needs to compare with a machine of theirs.
pub(crate) fn describe() -> Result<Vec<(String, String)>> {
    let cpu = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rows = [
        ("date", first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
        (
            "hotr",
            first_line(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(paths::root())),
        ),
        ("kernel", first_line(Command::new("uname").arg("-srm"))),
        ("processor", format!("{}, {cores} cores", field(&cpu, "model name"))),
        ("memory", field(&memory, "MemTotal")),
        ("load at the start", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()),
        ("rustc", first_line(Command::new("rustc").arg("--version"))),
        ("QEMU (TCG)", first_line(Command::new("qemu-system-x86_64").arg("--version"))),
        ("inotify-tools", package("inotify-tools")),
        ("bpftrace", package("bpftrace")),
        ("fatrace", package("fatrace")),
        ("entr", package("entr")),
        ("watchexec", setup::watchexec_version().to_owned()),
    ];
    Ok(rows.into_iter().map(|(what, is)| (what.to_owned(), is)).collect())
}

/// A note, not a result: what is not known is left empty.
fn first_line(command: &mut Command) -> String {
    let said = cmd::capture(command, "describe the machine").unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or("").to_owned()
}

fn package(name: &str) -> String {
    first_line(Command::new("dpkg-query").args(["-W", "-f=${Version}", name]))
}

/// The value of `name : value` in a file of /proc.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_proc_files() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n", "model name"), "A CPU @ 2 GHz");
        assert_eq!(field("MemTotal:       100 kB\n", "MemTotal"), "100 kB");
        assert_eq!(field("", "x"), "");
    }
}
