//! The guest's root: busybox, the programs under test, the kernel's modules, and what process 1 does.
//!
//! In: a kernel's modules, programs of this machine, a command. Out: an archive for QEMU's `-initrd`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{cpio::Archive, modules::Module};
use crate::cmd;

const INIT: &str = include_str!("../../../scripts/guest-init.sh");
const FIXTURES: &str = include_str!("../../../scripts/fixtures.sh");

/// A file or folder of this machine and where the guest finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// On this machine.
    pub(crate) host: PathBuf,
    /// In the guest, absolute.
    pub(crate) guest: PathBuf,
}

impl Import {
    /// A program for the guest's `/bin`.
    pub(crate) fn program(host: PathBuf) -> Self {
        let guest = Path::new("/bin").join(host.file_name().unwrap_or_default());
        Self { host, guest }
    }

    /// Parses `HOST` or `HOST:GUEST`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Ok(Self::program(PathBuf::from(text))),
            Some((host, guest)) if guest.starts_with('/') => {
                Ok(Self { host: host.into(), guest: guest.into() })
            }
            Some((_, guest)) => Err(format!("the path in the guest is not absolute: {guest}")),
        }
    }
}

/// Writes the archive to `file`: with `modules`, in load order, and `imports`; process 1 will run the shell script
/// `task`.
pub(crate) fn write(file: &Path, modules: &[Module], imports: &[Import], task: &str) -> Result<()> {
    let mut archive = Archive::default();
    let busybox = cmd::find("busybox")
        .context("make the guest: busybox is not installed; run `cargo xtask setup --tests`")?;
    archive.tree(&busybox, Path::new("/bin/busybox"))?;
    archive.link("/bin/sh", "busybox");
    archive.device("/dev/console", 5, 1);
    archive.device("/dev/null", 1, 3);
    archive.file("/init", 0o755, INIT.as_bytes());
    archive.file("/etc/fixtures.sh", 0o755, FIXTURES.as_bytes());
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    archive.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    archive.file("/etc/task", 0o755, task.as_bytes());
    let mut list = String::new();
    for module in modules {
        let name = format!("{}.ko", module.name);
        archive.file(&format!("/modules/{name}"), 0o644, &module.bytes);
        list.push_str(&name);
        list.push('\n');
    }
    archive.file("/etc/modules", 0o644, list.as_bytes());
    for import in imports {
        archive.tree(&import.host, &import.guest)?;
        for library in libraries(&import.host)? {
            archive.tree(&library, &library)?;
        }
    }
    fs::write(file, archive.finish()).with_context(|| format!("write {}", file.display()))
}

/// The shared libraries of a program, the dynamic loader included; none for a static program or another file.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let bytes = if program.is_file() { fs::read(program)? } else { Vec::new() };
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(Vec::new());
    }
    let output =
        Command::new("ldd").arg(program).output().context("list shared libraries: cannot start ldd")?;
    // ldd fails on a static program, which is the answer we like best.
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!(
            "put {} into the guest: this machine lacks a library of it: {}",
            program.display(),
            missing.trim()
        );
    }
    Ok(parse_ldd(&text))
}

/// Paths in ldd's lines: `name => /path (address)` or `/path (address)`.
fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_lines_give_paths() {
        let text = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(
            parse_ldd(text),
            [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }

    #[test]
    fn an_import_goes_to_bin_unless_told_otherwise() {
        assert_eq!(Import::parse("/x/tool").map(|import| import.guest), Ok(PathBuf::from("/bin/tool")));
        assert_eq!(Import::parse("/x/tool:/opt/t").map(|import| import.guest), Ok(PathBuf::from("/opt/t")));
        assert!(Import::parse("/x/tool:opt").is_err());
    }
}
