//! When a run ends from outside: SIGINT, SIGTERM, or a reader of stdout that has gone.
//!
//! In: signals, and the state of file descriptor 1. Out: one future. Rust programs start with SIGPIPE ignored,
//! so a closed pipe is an error of a write, and this future tells it even before there is something to write.

use std::io;
use std::os::fd::AsRawFd;

use hotr_user::output::stdout;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Everything that asks a run to end.
pub(super) struct End {
    interrupt: Signal,
    terminate: Signal,
    stdout: Option<AsyncFd<io::Stdout>>,
}

impl End {
    /// Installs the signal handlers; call inside the runtime, before the first report.
    pub(super) fn new() -> io::Result<Self> {
        for number in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the handler stores into one atomic, which is async-signal-safe.
            unsafe { signal_hook_registry::register(number, stdout::end_soon)? };
        }
        // SAFETY: descriptor 1 stays open until the process ends: Rust's stdout never closes it, and nor do we.
        let stdout = unsafe { AsyncFd::register_with_interest(io::stdout(), Interest::ERROR) };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            // A regular file cannot be polled (EPERM), and has no reader that could go.
            stdout: stdout.ok(),
        })
    }

    /// Ready when the run should end.
    pub(super) async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = gone(self.stdout.as_ref()) => {}
        }
    }
}

/// Ready when nobody can read a descriptor any more; never when that cannot be known.
async fn gone<F: AsRawFd>(stdout: Option<&AsyncFd<F>>) {
    match stdout {
        // The write end of a pipe reports an error once its last reader has closed (fs/pipe.c `pipe_poll`).
        Some(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn ready(future: impl Future<Output = ()>) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[tokio::test]
    async fn a_reader_that_goes_ends_a_run_that_prints_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        // SAFETY: the descriptor is moved into the `AsyncFd`, which keeps it open.
        let writer = unsafe { AsyncFd::register_with_interest(writer, Interest::ERROR) }.unwrap();
        assert!(!ready(gone(Some(&writer))));
        drop(reader);
        gone(Some(&writer)).await;
    }

    #[tokio::test]
    async fn where_nobody_reads_nobody_can_go() {
        assert!(!ready(gone(None::<&AsyncFd<io::PipeWriter>>)));
    }

    #[tokio::test]
    async fn sigterm_ends_a_run() {
        let end = End::new().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        end.wait().await;
    }
}
