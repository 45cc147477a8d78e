//! The changes that a diagnosis judges: a trace of its own, beside the programs that see deliveries.
//!
//! In: what is traced, and a [`Follower`]. Out: the reports of the trace, as soon as there are any or deliveries can be read.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::follower::Follower;
use crate::error::Error;
use crate::kernel::load::Tier;
use crate::options::{Channels, TierChoice, TraceOptions};
use crate::session::Session;
use crate::source::ebpf::DeliverySource;
use hotr_events::{Channel, ChannelInfo, ChannelState, Report, WatcherId};

/// Starts the trace, with eBPF alone.
pub(super) fn start(options: TraceOptions, source: &DeliverySource) -> Result<Session, Error> {
    let channels = Channels { ebpf: true, inotify: false, required: true };
    Session::start(TraceOptions { channels, tier: tier_beside(options.tier, source), ..options })
}

/// The tier of a trace beside the programs that see deliveries. Where probes were taken, the kernel skips programs on
/// functions, and changes would be missing.
fn tier_beside(chosen: TierChoice, source: &DeliverySource) -> TierChoice {
    match (chosen, source.tier()) {
        (TierChoice::Auto, Tier::Kprobe) => TierChoice::Kprobe,
        (chosen, _) => chosen,
    }
}

/// Waits for records of deliveries.
pub(super) fn wake(follower: &Follower) -> Result<AsyncFd<OwnedFd>, Error> {
    let failed = |source| Error::Os {
        operation: "wait for",
        object: "deliveries".to_owned(),
        source,
        next: "raise the limit of open files",
    };
    let own = follower.as_fd().try_clone_to_owned().map_err(failed)?;
    // SAFETY: the `AsyncFd` owns the descriptor, and keeps it open.
    let wake = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
    wake.map_err(|error| failed(error.into()))
}

/// The next reports; none when deliveries can be read, or nothing happened for so long. May be dropped and called again.
pub(super) async fn next(
    session: &mut Session,
    wake: &AsyncFd<OwnedFd>,
    wait: Duration,
) -> Result<Vec<Report>, Error> {
    tokio::select! {
        biased;
        reports = session.next() => reports,
        ready = wake.readable() => {
            if let Ok(mut guard) = ready {
                guard.clear_ready();
            }
            Ok(Vec::new())
        }
        () = tokio::time::sleep(wait) => Ok(Vec::new()),
    }
}

/// Ends the trace: its last reports, and its summary.
pub(super) fn finish(session: &mut Session) -> Result<(Vec<Report>, Vec<Report>), Error> {
    let mut reports = Vec::new();
    session.finish(|more| {
        reports.extend(more);
        Ok(())
    })?;
    let is_summary = |report: &mut Report| matches!(report, Report::Summary { .. });
    let summary = reports.extract_if(.., is_summary).collect();
    Ok((reports, summary))
}

/// The followed processes as a channel; `watcher` when it is one by itself.
pub(super) fn channel(follower: &Follower, watcher: Option<WatcherId>) -> ChannelInfo {
    let watches: usize = follower.instances().map(|one| one.watches.len()).sum();
    ChannelInfo {
        channel: Channel::Inotify,
        state: ChannelState::Active,
        tier: Some(follower.tier().as_str().into()),
        watches: Some(watches as u64),
        uncovered: None,
        interval_ms: None,
        why: None,
        watcher,
    }
}
