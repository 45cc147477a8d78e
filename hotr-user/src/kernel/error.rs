//! Why programs cannot be loaded or attached, each in one line.

use std::io;

use aya::EbpfError;
use aya::programs::ProgramError;

use crate::kernel::btf::BtfError;
use crate::kernel::facts::UNLOCK;
use crate::kernel::offsets::MissingField;
use crate::text::visible_message;

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
    /// The program was compiled without its kernel side.
    #[error("load the eBPF object: this hotr was built without it; build hotr with `cargo xtask build`")]
    NotBuilt,
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
        text.lines().for_each(|line| eprintln!("{}", visible_message(line)));
    }
    gist(&text)
}

/// What lockdown makes of a program that reads kernel memory: the kernel has the helper, and keeps it from tracing
/// programs (kernel/trace/bpf_trace.c `bpf_tracing_func_proto`, `LOCKDOWN_BPF_READ_KERNEL`). The words of 5.10, and of
/// 6.12; aya takes the helper's older name, without `_kernel`, where the newer one is refused.
const LOCKED: [&str; 2] = ["unknown func bpf_probe_read", "cannot use helper bpf_probe_read"];

/// What is said of such a refusal: it holds for every program of every tier.
pub(super) const LOCKDOWN: &str = "lockdown forbids tracing programs to read kernel memory";

fn is_locked(text: &str) -> bool {
    LOCKED.iter().any(|words| text.contains(words))
}

/// One line of many: a verifier's log has thousands, and its last ones but for the statistics say what is wrong.
fn gist(text: &str) -> String {
    let is_statistic = |line: &&str| {
        ["verification time ", "stack depth ", "processed "].iter().any(|start| line.starts_with(start))
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.filter(|line| !is_statistic(line)).collect();
    if is_locked(text) {
        return LOCKDOWN.to_owned();
    }
    match &rest[rest.len().saturating_sub(2)..] {
        [] => first.to_owned(),
        last => format!("{first} … {}", last.join(" | ")),
    }
}

/// What can be done about an error of the kernel's.
fn next_step(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match os_error(error) {
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`)",
        Some(libc::ENOMEM) => "free memory, or raise the memory limit of the cgroup",
        _ if is_locked(&error.to_string()) => UNLOCK,
        _ => "see `hotr doctor` for what this kernel allows",
    }
}

/// The number the kernel answered with.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::{LOCKDOWN, gist};

    const STATISTICS: &str = "verification time 5 usec\nstack depth 16\nprocessed 15 insns (limit 1000000)\n";

    #[test]
    fn the_last_words_before_the_statistics_say_what_is_wrong() {
        let log = format!(
            "refused. Verifier output: 0: R1=ctx()\n0: (61) r0 = *(u32 *)(r9 +0)\nR9 !read_ok\n{STATISTICS}"
        );
        assert_eq!(
            gist(&log),
            "refused. Verifier output: 0: R1=ctx() … 0: (61) r0 = *(u32 *)(r9 +0) | R9 !read_ok"
        );
        assert_eq!(gist("refused"), "refused");
        assert_eq!(gist(&format!("refused\n\n{STATISTICS}")), "refused");
        assert_eq!(gist(""), "");
    }

    #[test]
    fn a_helper_that_lockdown_keeps_back_is_called_so() {
        for words in [
            "unknown func bpf_probe_read#4",
            "program of this type cannot use helper bpf_probe_read#4",
            "program of this type cannot use helper bpf_probe_read_kernel#113",
        ] {
            let log =
                format!("refused. Verifier output: 0: R1=ctx()\n7: (85) call x#113\n{words}\n{STATISTICS}");
            assert_eq!(gist(&log), LOCKDOWN);
        }
    }
}
