//! What was lost, on either channel: told, and looked for.

use std::time::SystemTime;

use super::super::copyup;
use super::super::presence::Became;
use super::{Engine, IDLE_LOSS_CHECK, LOSS_CHECK};
use crate::error::Error;
use crate::event::{Change, Channel};
use crate::report::{ChannelState, Report};
use crate::source::inotify::LostReason;
use crate::source::mono_ns;

impl Engine {
    pub(super) fn check_losses(&mut self) -> Result<(), Error> {
        self.repair_inotify()?;
        let now = mono_ns();
        if self.loss_check.is_some_and(|at| at <= now) {
            // What was lost may have been the only change: looked for now and then when nothing was reported.
            self.loss_check = self.kernel.as_ref().map(|_| now + IDLE_LOSS_CHECK);
            self.check_kernel(false);
        }
        Ok(())
    }

    /// Counts what the kernel side lost, and looks for it once the ring buffer has been read empty. `all`: see
    /// [`KernelSide::losses`](super::super::kernel::KernelSide::losses).
    pub(super) fn check_kernel(&mut self, all: bool) {
        let Some(kernel) = &mut self.kernel else { return };
        let now = SystemTime::now();
        let mut lost_now = false;
        let losses = kernel.losses(all);
        for (reason, count) in losses.counts.into_iter().filter(|(_, count)| *count > 0) {
            lost_now = true;
            self.ledger.lose(reason);
            self.reports.push(Report::Loss { channel: Channel::Ebpf, reason, count, path: None });
        }
        if self.ledger.is_short() && (self.more || lost_now) {
            // The storm goes on: look again.
            self.loss_check = Some(mono_ns() + LOSS_CHECK);
        } else if self.ledger.is_short() {
            self.rescan();
        } else if losses.is_complete {
            self.ledger.clean(now);
        }
    }

    /// Looks for what was lost, and reports it.
    pub(super) fn rescan(&mut self) {
        let roots = self.kernel.as_ref().map_or(&[][..], |kernel| kernel.roots.call_roots());
        let paths = &self.options.paths;
        let found = self.ledger.rescan(&self.options, |file| copyup::lower(roots, paths, file));
        self.report_found(found);
    }

    pub(super) fn report_found(&mut self, found: Vec<Change>) {
        for change in found {
            if change.id.is_some_and(|id| self.own.contains(&(id.dev, id.ino))) {
                continue;
            }
            let root = self.options.paths.iter().position(|root| change.path.starts_with(root));
            if root.is_some_and(|root| self.keep(&change, root)) {
                self.emit_all(vec![change]);
            }
        }
    }

    fn repair_inotify(&mut self) -> Result<(), Error> {
        let Some(ear) = &mut self.ear else { return Ok(()) };
        let why = if let Some(lost) = ear.take_lost() {
            self.reports.push(Report::Loss {
                channel: Channel::Inotify,
                reason: lost.reason.as_str(),
                count: lost.count,
                path: lost.path,
            });
            if lost.reason == LostReason::QueueOverflow { " after a full queue" } else { "" }
        } else {
            let (reason, path) = match ear.look_at_roots(mono_ns()) {
                None => return Ok(()),
                Some(Became::Back(_)) => (None, None),
                Some(Became::Gone(path)) => (Some(LostReason::RootGone), Some(path)),
                Some(Became::Another(path)) => (Some(LostReason::RootMoved), Some(path)),
                Some(Became::MountedOver(path)) => (Some(LostReason::MountedOver), Some(path)),
            };
            self.reports.extend(reason.map(|reason| Report::Loss {
                channel: Channel::Inotify,
                reason: reason.as_str(),
                count: 1,
                path,
            }));
            ""
        };
        let repaired = ear.repair()?;
        self.renewed = true;
        if let Some(kernel) = &mut self.kernel {
            kernel.listen_to(ear);
        }
        let watches = ear.source.watches();
        let (state, why) = match repaired.absent.first() {
            None => (ChannelState::Active, format!("watches rebuilt{why}: {watches} watches")),
            Some(error) => (ChannelState::Degraded, format!("{error}; looked for again every second")),
        };
        self.reports.push(Report::Channel { channel: Channel::Inotify, state, why });
        self.report_found(repaired.found);
        Ok(())
    }
}
