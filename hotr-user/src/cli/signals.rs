//! Signals: what hotr inherits of them is set at its start, and a run ends by SIGINT, SIGTERM, SIGHUP, or when the
//! reader of stdout has closed it.
//!
//! In: signals, and the state of file descriptor 1. Out: one future. Rust programs start with SIGPIPE ignored, so a
//! closed pipe is an error of a write, and this future reports it even before there is something to write.

use std::io;
use std::os::fd::AsRawFd;

use hotr_user::ending;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Sets what a parent may have left otherwise, for hotr and for what it starts. A blocked SIGTERM would never end a
/// run; with an ignored SIGCHLD the kernel reaps children itself, and their exit status is lost (kernel/signal.c,
/// `do_notify_parent`); and SIGXFSZ would kill hotr in the middle of a line where a write can say that the file is
/// full. Must be called before any thread is started. An ignored SIGHUP is left: that is what `nohup` sets.
pub(super) fn take_over() {
    // SAFETY: pointers to live structures; both dispositions are no code of ours.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Whether a signal was ignored when hotr was started.
fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: a pointer to a live structure; the disposition is only read.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Everything that asks a run to end.
pub(super) struct End {
    interrupt: Signal,
    terminate: Signal,
    /// None under `nohup`.
    hangup: Option<Signal>,
    stdout: Option<AsyncFd<io::Stdout>>,
}

impl End {
    /// Installs the signal handlers; call inside the runtime, before the first report.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: descriptor 1 stays open until the process ends: Rust's stdout never closes it, and nor do we.
        let stdout = unsafe { AsyncFd::register_with_interest(io::stdout(), Interest::ERROR) };
        // A regular file cannot be polled (EPERM), and has no reader that could go.
        Ok(Self { stdout: stdout.ok(), ..Self::by_signals()? })
    }

    /// The same for a run that prints nothing on stdout: who reads that may close it.
    pub(super) fn by_signals() -> io::Result<Self> {
        let hangs_up = !is_ignored(libc::SIGHUP);
        for number in [libc::SIGINT, libc::SIGTERM].into_iter().chain(hangs_up.then_some(libc::SIGHUP)) {
            // SAFETY: the handler stores into one atomic, which is async-signal-safe.
            unsafe { signal_hook_registry::register(number, ending::ask)? };
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if hangs_up { Some(signal(SignalKind::hangup())?) } else { None },
            stdout: None,
        })
    }

    /// Ready when the run should end.
    pub(super) async fn wait(mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => {}
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
