//! The kernel's limits on inotify, and what to report when one is reached.

use std::fs;

use rustix::io::Errno;

use crate::error::Error;

/// What the kernel allows when its setting cannot be read: the lowest default of any version.
const FALLBACK: usize = 8192;

/// Half of the watches that the user may have: the other half is for everybody else.
pub fn half_of_watches() -> usize {
    setting("max_user_watches").unwrap_or(FALLBACK) / 2
}

fn setting(name: &str) -> Option<usize> {
    fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
}

/// Why there is no inotify instance.
pub(super) fn explain_no_instance(error: Errno) -> Error {
    let (cause, next) = match error {
        Errno::MFILE => {
            let limit = setting("max_user_instances").map_or_else(String::new, |n| format!(" ({n})"));
            (
                format!("the user's limit of inotify instances{limit} or of open files is reached"),
                "raise fs.inotify.max_user_instances with sysctl, or stop a watcher that is not needed",
            )
        }
        Errno::NFILE => {
            ("the system's limit of open files is reached".into(), "raise fs.file-max with sysctl")
        }
        Errno::NOSYS => {
            ("this kernel is built without inotify".into(), "use a kernel with CONFIG_INOTIFY_USER")
        }
        error => (error.to_string(), "try again, or use --channels ebpf"),
    };
    Error::Channel { channel: "inotify", cause, next: next.into() }
}

#[cfg(test)]
mod tests {
    use super::{Errno, explain_no_instance};

    #[test]
    fn no_instance_left_says_which_setting_to_raise() {
        let text = explain_no_instance(Errno::MFILE).to_string();
        assert!(text.starts_with("start channel inotify: the user's limit"), "{text}");
        assert!(text.contains("fs.inotify.max_user_instances"), "{text}");
    }
}
