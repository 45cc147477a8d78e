//! The compiler of the kernel side: which one this machine has, and how to get one.
//!
//! rustc must bring `core` for `bpfel-unknown-none`, which rustup does not ship ready-made. Two ways lead there, and
//! the first that is there is taken: a rustup nightly with `rust-src`, which compiles `core` itself, or a
//! distribution's rustc with a compiled `core`. When neither is there, Debian's package is installed where the package
//! sources offer it (one fixed version, seconds), otherwise rustup installs a nightly. bpf-linker must read what the
//! compiler writes: one whose LLVM is newer than the linker's comes last, and a linker is built for it if that can be.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt,
    cmd::{self, say},
};

/// The target of the kernel side; aya's object loader converts nothing, so it has the host's byte order.
pub(crate) const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Debian's packages with a compiled `core` for BPF: the compiler and the library.
const DEBIAN: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Below this the linker does not know the flags that `build` gives it.
const LINKER: &str = "0.13";

/// How to come by a compiler.
type Way = (&'static str, fn() -> Result<()>);

/// In this order.
const WAYS: [Way; 3] = [
    ("what is installed", || Ok(())),
    ("Debian's packages", install_debian),
    ("a rustup nightly", install_nightly),
];

/// A compiler for the kernel side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EbpfRust {
    /// A rustup nightly that has the library's source: `core` is compiled with the crate.
    BuildStd {
        /// The toolchain's own folder, `…/toolchains/nightly-…`.
        toolchain: PathBuf,
    },
    /// A rustc that has a compiled `core`; it is used with the workspace's cargo.
    Prebuilt {
        /// The compiler.
        rustc: PathBuf,
    },
}

impl EbpfRust {
    /// The compilers that are there: those first whose bitcode the linker that is there can read, then nightlies.
    fn there() -> Vec<Self> {
        let nightlies = nightlies().into_iter().filter(|dir| nightly_works(dir));
        let debian = debian_rustc().into_iter().filter(|rustc| has_core(rustc));
        let mut all: Vec<Self> = nightlies
            .map(|toolchain| Self::BuildStd { toolchain })
            .chain(debian.map(|rustc| Self::Prebuilt { rustc }))
            .collect();
        all.sort_by_key(|rust| !linker_reads(rust));
        all
    }

    /// A compiler with a linker for it. What is missing is installed; a compiler that no linker can be had for, such as a
    /// nightly with an LLVM that no package has yet, is passed over.
    pub(crate) fn ensure() -> Result<Self> {
        let mut tried = Vec::new();
        let mut seen = Vec::new();
        for (way, install) in WAYS {
            if let Err(error) = install() {
                tried.push(format!("{way}: {error:#}"));
                continue;
            }
            let there: Vec<Self> = Self::there().into_iter().filter(|rust| !seen.contains(rust)).collect();
            if there.is_empty() {
                tried.push(format!("{way}: no compiler with a core for {TARGET}"));
            }
            for rust in there {
                match ensure_linker(&rust) {
                    Ok(()) => return Ok(rust),
                    Err(error) => tried.push(format!("{}: {error:#}", rust.describe())),
                }
                seen.push(rust);
            }
        }
        bail!(
            "find an eBPF compiler: {}; run `rustup toolchain install nightly --component rust-src` or, on Debian 12, `apt-get install {}`",
            tried.join("; "),
            DEBIAN.join(" ")
        )
    }

    /// The compiler itself.
    pub(crate) fn rustc(&self) -> PathBuf {
        match self {
            Self::BuildStd { toolchain } => toolchain.join("bin/rustc"),
            Self::Prebuilt { rustc } => rustc.clone(),
        }
    }

    /// The compiler's own folder.
    pub(crate) fn sysroot(&self) -> Result<PathBuf> {
        let mut command = Command::new(self.rustc());
        command.args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH");
        let said = cmd::capture(&mut command, "ask the kernel side's compiler for its folder")?;
        Ok(PathBuf::from(String::from_utf8_lossy(&said).trim()))
    }

    /// `cargo SUBCOMMAND` for the kernel side's crate, with target, compiler, linker and `flags` for the compiler set.
    pub(crate) fn cargo(&self, subcommand: &str, flags: &[&str]) -> Result<Command> {
        let mut command = match self {
            // `-Z build-std` wants cargo and rustc of one nightly.
            Self::BuildStd { toolchain } => Command::new(toolchain.join("bin/cargo")),
            Self::Prebuilt { .. } => cmd::cargo(),
        };
        command.arg(subcommand).args(["--target", TARGET]);
        if let Self::BuildStd { .. } = self {
            command.arg("-Zbuild-std=core");
        }
        let linker = linker().context("find bpf-linker: not installed; run `cargo xtask setup`")?;
        // aya-ebpf enables a feature gate; a stable compiler needs a flag for that.
        command.env("RUSTC", self.rustc()).env("RUSTC_BOOTSTRAP", "1");
        // cargo adds the host toolchain's libraries for us; they are not those of this compiler.
        command
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        // Whoever wants the program compiled faster does not mean this side: the verifier refuses it unoptimised.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CARGO_PROFILE_") {
                command.env_remove(name);
            }
        }
        let linker = format!("-Clinker={}", linker.display());
        // Without debug information there is no BTF, and without BTF no typed pointers.
        let mut all = vec![linker.as_str(), "-Clink-arg=--btf", "-Cdebuginfo=2"];
        all.extend(flags);
        command.env("CARGO_ENCODED_RUSTFLAGS", all.join("\x1f"));
        Ok(command)
    }

    /// One line for `setup` and `build`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::BuildStd { toolchain } => format!("{} with -Z build-std=core", toolchain.display()),
            Self::Prebuilt { rustc } => format!("{} with its compiled core for {TARGET}", rustc.display()),
        }
    }
}

/// Installed nightlies, the newest name first.
fn nightlies() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".rustup")));
    let Some(entries) = home.and_then(|home| std::fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly"))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Whether a toolchain can really compile `core`: the source is there, and the compiler runs and is a nightly.
fn nightly_works(toolchain: &Path) -> bool {
    toolchain.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
        && cmd::is_executable(&toolchain.join("bin/cargo"))
        && version(&toolchain.join("bin/rustc")).is_some_and(|text| text.contains("-nightly"))
}

fn version(rustc: &Path) -> Option<String> {
    let output = Command::new(rustc)
        .arg("-vV")
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn debian_rustc() -> Vec<PathBuf> {
    apt::files_of(DEBIAN[0])
        .into_iter()
        .filter(|file| file.ends_with("bin/rustc") && cmd::is_executable(file))
        .collect()
}

/// Whether the compiler runs and its folder for the BPF target holds `core`.
fn has_core(rustc: &Path) -> bool {
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = asked else { return false };
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success()
        && std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.starts_with("libcore-") && name.ends_with(".rlib")
            })
        })
}

fn install_debian() -> Result<()> {
    if !apt::available() {
        bail!("this is not a Debian machine");
    }
    say(format!(
        "setup: installing {}: the compiler of the kernel side, with a compiled core for BPF (apt)",
        DEBIAN.join(" ")
    ));
    apt::install(&DEBIAN)
}

fn install_nightly() -> Result<()> {
    let rustup = cmd::find("rustup").context("rustup is not installed")?;
    say("setup: installing a rustup nightly with rust-src: compiles core for the kernel side");
    let mut command = Command::new(rustup);
    command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    cmd::must_quietly(&mut command, "install a nightly")
}

/// bpf-linker's place, `PATH` or cargo's bin folder.
pub(crate) fn linker() -> Option<PathBuf> {
    let cargo_bin = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .map(|home| home.join("bin/bpf-linker"));
    cmd::find("bpf-linker").or_else(|| cargo_bin.filter(|file| cmd::is_executable(file)))
}

/// Whether bpf-linker is there, runs (its LLVM library is found) and is new enough.
fn linker_works() -> bool {
    let Some(linker) = linker() else { return false };
    let Ok(output) = Command::new(linker).arg("--version").stdin(Stdio::null()).output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .nth(1)
        .is_some_and(|version| output.status.success() && apt::compare_versions(version, LINKER).is_ge())
}

/// Whether the linker that is there reads the bitcode that a compiler writes: an older LLVM does not read a newer
/// one's. A linker that was built into one file with its LLVM does not show it, and is believed.
fn linker_reads(rust: &EbpfRust) -> bool {
    let Some(linker) = linker().and_then(|file| std::fs::read(file).ok()) else { return false };
    let written = version(&rust.rustc()).and_then(|text| llvm_major(&text));
    needed_llvm(&linker).zip(written).is_none_or(|(reads, written)| reads >= written)
}

/// The major version of the LLVM library that a program names: `libLLVM.so.22.1`, or `libLLVM-17.so` before 18.
fn needed_llvm(program: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|begin| {
        let at = program.windows(begin.len()).position(|window| window == begin.as_bytes())?;
        let digits = program[at + begin.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
    })
}

/// Sees to it that bpf-linker is there, built against the LLVM that `rust` writes bitcode for.
fn ensure_linker(rust: &EbpfRust) -> Result<()> {
    if linker_works() && linker_reads(rust) {
        return Ok(());
    }
    let text =
        version(&rust.rustc()).with_context(|| format!("ask {} for its version", rust.rustc().display()))?;
    let llvm =
        llvm_major(&text).with_context(|| format!("read the LLVM version of {}", rust.rustc().display()))?;
    let config = format!("llvm-config-{llvm}");
    if cmd::find(&config).is_none() {
        let packages = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
        say(format!("setup: installing {}: bpf-linker is built against it (apt)", packages.join(" ")));
        apt::install(&packages.each_ref().map(String::as_str))?;
    }
    let prefix = cmd::capture(Command::new(&config).arg("--prefix"), "ask LLVM for its folder")?;
    say(format!(
        "setup: installing bpf-linker {LINKER}: links the kernel side into one object (cargo install, about a minute)"
    ));
    let mut command = cmd::cargo();
    command
        .args(["install", "bpf-linker", "--version", &format!("^{LINKER}"), "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        // Its build looks into /usr otherwise, and fails only at the end.
        .env("LLVM_PREFIX", String::from_utf8_lossy(&prefix).trim());
    cmd::must_quietly(&mut command, "install bpf-linker")
}

/// The major version in the line `LLVM version: 22.1.4` of `rustc -vV`.
fn llvm_major(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_the_version_line() {
        assert_eq!(llvm_major("rustc 1.97.0-nightly\nrelease: 1.97.0\nLLVM version: 22.1.4\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.97.0"), None);
    }

    #[test]
    fn a_linker_names_the_llvm_it_needs() {
        assert_eq!(needed_llvm(b"\0libgcc_s.so.1\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(needed_llvm(b"\0libLLVM-17.so.1\0"), Some(17));
        assert_eq!(needed_llvm(b"\0libc.so.6\0"), None);
    }

    #[test]
    fn a_nightly_without_source_is_not_taken() {
        let folder = std::env::temp_dir().join(format!("xtask-nightly-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).expect("the temporary folder is writable");
        assert!(!nightly_works(&folder));
        std::fs::remove_dir_all(&folder).expect("it was just made");
    }
}
