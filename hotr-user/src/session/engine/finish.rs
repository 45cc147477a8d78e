//! The end of a run: what is queued and held is reported, what was lost is looked for; once a signal asks for the end, for as
//! long as [`ending::is_over`] allows.

use super::{Clock, EbpfChannel, Engine};
use crate::ending;
use crate::error::Error;
use hotr_events::Channel;
use hotr_events::LossReason;
use hotr_events::Report;

impl Engine {
    /// Passes the last reports to `tell`, some at a time: what is still held, and the summary.
    pub(in crate::session) fn finish(
        &mut self,
        tell: &mut dyn FnMut(Vec<Report>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            self.whole_turn()?;
            tell(self.reports())?;
            if !self.more && !self.ebpf.as_ref().is_some_and(EbpfChannel::holds) {
                break;
            }
            if ending::is_over() {
                ending::cut(self.ebpf.as_ref().map_or(1, EbpfChannel::unread).max(1));
                break;
            }
        }
        let clock = Clock::now();
        let mut trailing = Vec::new();
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.trailing(clock.mono_ns(), true, &mut trailing);
        }
        self.tell_trailing(trailing, &clock);
        if let Some(inotify) = &mut self.inotify
            && self.ebpf.is_none()
        {
            let heard = inotify.finish();
            self.report_heard(heard, clock.mono_ns())?;
        }
        self.check_kernel(true);
        if self.ledger.is_short() {
            // What was made until the loss was noticed is reported by its record, if there is one.
            self.whole_turn()?;
        }
        let unplaced = self.inotify.as_mut().map_or(0, |inotify| inotify.take_unplaced(true));
        self.tell_unplaced(unplaced);
        self.search_to_the_end(tell)?;
        self.subscription.finish();
        let count = ending::cut_count();
        if count > 0 {
            let channel = if self.ebpf.is_some() { Channel::Ebpf } else { Channel::Inotify };
            self.subscription.report(Report::Loss {
                channel,
                reason: LossReason::Interrupted,
                count,
                path: None,
            });
        }
        self.subscription.report(Report::Summary {
            changes: self.subscription.changes(),
            kernel: self.ebpf.as_ref().map(EbpfChannel::totals),
            duration: self.started.elapsed(),
        });
        tell(self.reports())
    }

    fn search_to_the_end(
        &mut self,
        tell: &mut dyn FnMut(Vec<Report>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while self.searches() || self.ledger.is_short() {
            if ending::is_over() {
                ending::cut(1);
                break;
            }
            if self.ledger.is_short() {
                self.rescan();
            }
            self.search_on();
            tell(self.reports())?;
        }
        Ok(())
    }
}
