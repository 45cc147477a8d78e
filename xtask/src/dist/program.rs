//! The program in packages: one static file that is the same wherever it is built.
//!
//! In: the sources. Out: the program's bytes and what it prints of itself. It is linked with glibc's static library, as the
//! program of the test matrix is: what is shipped is what was tested. Paths of this machine are mapped to fixed names, and a
//! program that still has one is refused.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Endianness,
    elf::{FileHeader64, PT_INTERP},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use super::{kernel_side, source::Source};
use crate::{
    build::{self, Place},
    cmd::{self, say},
    paths,
    toolchain::EbpfRust,
};

/// The program and its texts.
pub(super) struct Program {
    /// The executable.
    pub(super) binary: Vec<u8>,
    /// `hotr man`.
    pub(super) manual: String,
    /// `hotr completions` for bash, zsh and fish.
    pub(super) completions: [(&'static str, Vec<u8>); 3],
    /// `rustc -V` of both sides: userspace, kernel.
    pub(super) compilers: [String; 2],
    /// The version of the C library inside.
    pub(super) glibc: String,
}

/// Builds both sides.
pub(super) fn build(rust: &EbpfRust, source: &Source) -> Result<Program> {
    say("dist: build the program: optimised as a whole, which takes some minutes");
    let work = paths::target().join("dist-build");
    let sources = work.join("kernel-side");
    kernel_side::copy_sources(&sources)?;
    let flags = remapped(&rust.sysroot()?)?;
    let place = Place { target: work.join("ebpf"), flags, time: source.time };
    let object = build::object_at(rust, &place, &sources)?;
    let mut flags = remapped(&sysroot()?)?;
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    let file = build::program_at(&Place { target: work.join("user"), flags, time: source.time }, &object)?;
    let binary = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    ensure_static(&binary)?;
    ensure_nothing_of_this_machine(&binary)?;
    let said = |arguments: &[&str]| {
        cmd::capture(Command::new(&file).args(arguments), "run the program that was built")
    };
    let version = said(&["--version"])?;
    ensure!(
        version == format!("hotr {}\n", source.version).as_bytes(),
        "package hotr: the program says that it is {}",
        String::from_utf8_lossy(&version).trim()
    );
    let complete = |shell| said(&["completions", shell]).map(|script| (shell, script));
    Ok(Program {
        manual: String::from_utf8(said(&["man"])?).context("read the manual: not UTF-8")?,
        completions: [complete("bash")?, complete("zsh")?, complete("fish")?],
        compilers: [answer(Command::new("rustc").arg("-V"))?, answer(Command::new(rust.rustc()).arg("-V"))?],
        glibc: answer(Command::new("getconf").arg("GNU_LIBC_VERSION"))?.replace("glibc ", ""),
        binary,
    })
}

/// Flags that map the folders of this machine to names that are the same everywhere. rustc takes the last that fits.
fn remapped(sysroot: &Path) -> Result<Vec<String>> {
    let folders = [
        (cargo_home()?, "/cargo"),
        (paths::root().to_path_buf(), "/hotr"),
        (paths::target(), "/hotr/target"),
        (sysroot.to_path_buf(), "/rust"),
    ];
    Ok(folders.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect())
}

fn cargo_home() -> Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("find cargo's folder: neither CARGO_HOME nor HOME is set; set HOME")
}

fn sysroot() -> Result<PathBuf> {
    answer(Command::new("rustc").args(["--print", "sysroot"])).map(PathBuf::from)
}

/// The first line that a command prints.
fn answer(command: &mut Command) -> Result<String> {
    let said = cmd::capture(command.current_dir(paths::root()), "ask about the build")?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// A static program names no loader.
fn ensure_static(binary: &[u8]) -> Result<()> {
    let header = FileHeader64::<Endianness>::parse(binary).context("read the program that was built")?;
    let endian = header.endian().context("read the program that was built")?;
    let segments = header.program_headers(endian, binary).context("read the program that was built")?;
    if segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        bail!(
            "package hotr: the program that was built needs a loader and shared libraries; is libc's static library there?"
        );
    }
    Ok(())
}

/// A path in the program would give away the builder's folders, and differ on the next machine.
fn ensure_nothing_of_this_machine(binary: &[u8]) -> Result<()> {
    for folder in [cargo_home()?, paths::root().to_path_buf(), paths::target()] {
        let path = std::os::unix::ffi::OsStrExt::as_bytes(folder.as_os_str());
        if let Some(at) = binary.windows(path.len()).position(|window| window == path) {
            let end =
                binary[at..].iter().position(|&byte| !(b' '..=b'~').contains(&byte)).unwrap_or(path.len());
            bail!(
                "package hotr: the program has a path of this machine, {}; find what puts it there",
                String::from_utf8_lossy(&binary[at..at + end.min(200)])
            );
        }
    }
    Ok(())
}
