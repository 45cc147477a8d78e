//! Running other programs: without a shell, with an error that names the program and what it was for.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// One line of progress, on stderr.
pub(crate) fn say(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// Runs to the end with output shown; fails with `what` when it cannot start or reports failure.
pub(crate) fn must(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{what}: cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{what}: {} ended with {status}", line(command));
    }
    Ok(())
}

/// As [`must`], but the output is kept back and shown only in the error.
pub(crate) fn must_quietly(command: &mut Command, what: &str) -> Result<()> {
    capture(command, what).map(|_| ())
}

/// Runs to the end and returns standard output; a failure carries the last lines of standard error.
pub(crate) fn capture(command: &mut Command, what: &str) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{what}: cannot start {}", name(command)))?;
    if !status.success() {
        let mut said = String::from_utf8_lossy(&stderr).into_owned();
        if said.trim().is_empty() {
            said = String::from_utf8_lossy(&stdout).into_owned();
        }
        bail!("{what}: {} ended with {status}: {}", line(command), tail(&said, 6));
    }
    Ok(stdout)
}

/// The last `count` lines that say something.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The program's place, searched in `PATH` and in the administrator's folders that a user's `PATH` leaves out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

/// Whether `file` is a regular file that somebody may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The cargo that started us, which spares rustup's proxy and keeps one toolchain for everything.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command as a user would type it, for messages. A long one is cut: the program and its verb say enough.
fn line(command: &Command) -> String {
    let mut text = name(command);
    for argument in command.get_args() {
        if text.len() > 80 {
            text.push_str(" …");
            break;
        }
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
}
