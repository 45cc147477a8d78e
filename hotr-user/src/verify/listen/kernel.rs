//! hotr's own eBPF channel, through its library, for the whole laboratory and the whole run: it takes seconds to load.
//!
//! In: the laboratory's root. Out: changes up to a barrier, which comes through the same ring buffer. Each change of a mount
//! that is new needs to be covered first: a barrier in it that is reported proves it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use hotr_events::{Change, Report};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout_at;

use super::fanotify::BARRIER;
use super::{PATIENCE, put};
use crate::ending;
use crate::options::{Channels, TraceOptions};
use crate::session::Session;
use crate::verify::evidence::{Account, Event, Listener, State};

/// See the module.
pub(in crate::verify) struct Kernel {
    /// Dropped before the runtime that it lives in.
    session: Session,
    runtime: Runtime,
    base: Vec<u8>,
    events: Vec<Event>,
    state: State,
}

impl Kernel {
    /// Starts the channel for everything below `base`.
    ///
    /// # Errors
    /// A sentence: why it cannot run here.
    pub(in crate::verify) fn new(base: &Path) -> Result<Self, String> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let mut options = TraceOptions::new(vec![base.to_path_buf()]);
        options.channels = Channels { ebpf: true, inotify: false, required: true };
        // The laboratory counts; the last write of a file must not be waited for.
        options.at_once = true;
        let session = runtime.block_on(async { Session::start(options) });
        let session = session.map_err(|error| error.to_string())?;
        let base = base.as_os_str().as_bytes().to_vec();
        Ok(Self { session, runtime, base, events: Vec::new(), state: State::Listening })
    }

    /// Looks for new mounts with the next read.
    pub(in crate::verify) fn look_at_mounts(&mut self) {
        self.session.look_at_roots();
    }

    /// Forgets what was received so far.
    pub(in crate::verify) fn forget(&mut self) {
        self.events.clear();
        self.state = State::Silent;
    }

    /// Reads up to the barrier of this name.
    pub(in crate::verify) fn read_to(&mut self, barrier: &[u8]) {
        self.state = State::Silent;
        if self.read_until(barrier, Instant::now() + PATIENCE) {
            self.state = State::Listening;
        }
    }

    /// Reads until the barrier is reported or the time is over; whether it was.
    pub(in crate::verify) fn read_until(&mut self, barrier: &[u8], over: Instant) -> bool {
        let Self { session, runtime, base, events, .. } = self;
        runtime.block_on(async {
            while !ending::is_asked() {
                let Ok(Ok(reports)) = timeout_at(over.into(), session.next()).await else { break };
                let mut found = false;
                for report in reports {
                    let Report::Change(change) = report else { continue };
                    let name = change.path.file_name().map_or(&[][..], |name| name.as_bytes());
                    found |= name == barrier;
                    if !name.starts_with(BARRIER) {
                        put(events, event(&change, base));
                    }
                }
                if found {
                    return true;
                }
            }
            false
        })
    }

    /// What was received.
    pub(in crate::verify) fn account(&self) -> Account {
        Account { listener: Listener::Ebpf, state: self.state.clone(), events: self.events.clone() }
    }
}

/// A change in the laboratory's words: its operation, how it was made, its path below the laboratory.
fn event(change: &Change, base: &[u8]) -> Event {
    let path = change.path.as_os_str().as_bytes();
    let below = path.strip_prefix(base).and_then(|rest| rest.strip_prefix(b"/")).unwrap_or(path);
    let mut what = vec![change.op.as_str().to_owned()];
    what.extend(change.detail.iter().map(|detail| detail.to_string()));
    Event { at: "", what, name: Some(below.to_vec()), cookie: 0, count: 1 }
}
