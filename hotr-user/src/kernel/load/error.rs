//! Why programs cannot be loaded or attached, each in one line.

use std::io;

use aya::EbpfError;
use aya::programs::ProgramError;

use crate::kernel::btf::BtfError;
use crate::kernel::offsets::MissingField;

/// Why the programs cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No type information.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A field is not there.
    #[error(transparent)]
    Field(#[from] MissingField),
    /// The object was refused.
    #[error("load the eBPF object: {}; {}", chain(.0), next_step(.0))]
    Object(#[source] EbpfError),
    /// A program was refused.
    #[error("attach {program}: {}; {}", chain(.error), next_step(.error))]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's answer.
        #[source]
        error: ProgramError,
    },
    /// A map of the object is missing or of another type: the object is of another version.
    #[error("use map {0} of the eBPF object: not as expected; rebuild with `cargo xtask build`")]
    Map(&'static str),
    /// A system call on hotr's own descriptors failed.
    #[error("register {object} with the kernel programs: {source}; see `hotr doctor`")]
    Register {
        /// What was registered.
        object: String,
        /// The answer.
        source: io::Error,
    },
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    // aya appends the verifier's words even when it never came to speak, or had nothing against the program.
    if let Some((short, words)) = text.split_once(". Verifier output: ")
        && (words.is_empty() || !matches!(os_error(error), Some(libc::EACCES | libc::EINVAL | libc::E2BIG)))
    {
        text = short.to_owned();
    }
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    if std::env::var_os("HOTR_VERIFIER_LOG").is_some() {
        eprintln!("{text}");
    }
    // A verifier's log has thousands of lines; its last ones say what is wrong.
    if text.lines().count() > 1 {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let tail = lines.len().saturating_sub(3).max(1);
        text = format!("{} … {}", lines[0], lines[tail..].join(" | "));
    }
    text
}

/// What can be done about an error of the kernel's.
fn next_step(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match os_error(error) {
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`)",
        Some(libc::ENOMEM) => "free memory, or raise the memory limit of the cgroup",
        _ => "see `hotr doctor` for what this kernel allows",
    }
}

/// The number the kernel answered with.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}
