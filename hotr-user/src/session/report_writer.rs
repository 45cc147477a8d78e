//! From reports to a printer. Once a signal requests the end there is little time for it: the changes for which there
//! is none are counted, and the count is reported.

use crate::ending;
use crate::error::Error;
use hotr_events::Channel;
use hotr_events::LossReason;
use hotr_events::ReportSink;
use hotr_events::{Raw, Report};

const CHANNELS: [Channel; 3] = [Channel::Ebpf, Channel::Inotify, Channel::Poll];

/// See the module.
pub(crate) struct ReportWriter<'a> {
    printer: &'a mut dyn ReportSink,
    /// Changes that were not told, by the channel that saw them first.
    untold: [u64; CHANNELS.len()],
}

impl<'a> ReportWriter<'a> {
    pub(crate) fn new(printer: &'a mut dyn ReportSink) -> Self {
        Self { printer, untold: [0; CHANNELS.len()] }
    }

    /// Prints reports, and hands them to the reader.
    pub(crate) fn write(&mut self, reports: Vec<Report>) -> Result<(), Error> {
        for mut report in reports {
            if let Some(channel) = channel(&report)
                && ending::is_over()
            {
                let untold = self.untold.iter_mut().zip(CHANNELS).find(|(_, one)| *one == channel);
                untold.into_iter().for_each(|(count, _)| *count += 1);
                continue;
            }
            if let Report::Summary { changes, .. } = &mut report {
                *changes = changes.saturating_sub(self.untold.iter().sum());
                self.tell_untold()?;
            }
            self.printer.print(&report).map_err(Error::Output)?;
        }
        self.printer.flush().map_err(Error::Output)
    }

    fn tell_untold(&mut self) -> Result<(), Error> {
        for (count, channel) in self.untold.into_iter().zip(CHANNELS).filter(|(count, _)| *count > 0) {
            let loss = Report::Loss { channel, reason: LossReason::Interrupted, count, path: None };
            self.printer.print(&loss).map_err(Error::Output)?;
        }
        Ok(())
    }
}

/// The channel of a change.
fn channel(report: &Report) -> Option<Channel> {
    match report {
        Report::Change(change) => Some(change.seen_by.first().copied().unwrap_or(Channel::Ebpf)),
        Report::Raw(Raw::Ebpf { .. }) => Some(Channel::Ebpf),
        Report::Raw(Raw::Inotify { .. }) => Some(Channel::Inotify),
        _ => None,
    }
}
