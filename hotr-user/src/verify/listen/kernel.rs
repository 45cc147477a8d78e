//! hotr's own eBPF channel, through its library, for the whole laboratory and the whole run: it takes seconds to load.
//!
//! In: the laboratory's root. Out: changes up to a barrier, which comes through the same ring buffer. The channel runs in a
//! child process, because it leaves out what its own process changes. Each new mount needs to be covered first: a barrier in
//! it that is reported proves it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hotr_events::{Change, Raw, Report};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use super::fanotify::BARRIER;
use super::{PATIENCE, put, wait};
use crate::ending;
use crate::error::Error;
use crate::options::{Channels, TraceOptions};
use crate::session::Session;
use crate::text::push_visible;
use crate::verify::child::{KilledAtEnd, Side, end, fork};
use crate::verify::evidence::{Account, Event, Listener, State};
use crate::verify::kernel_path::Record;

/// Loading the programs on a slow machine, emulated ones among them.
const START: Duration = Duration::from_secs(120);
/// The first line, when the channel runs; otherwise it is the reason why not.
const READY: &[u8] = b"ready";

/// See the module.
pub(in crate::verify) struct Kernel {
    /// Ends with this.
    _child: KilledAtEnd,
    /// What the child writes: one line a change.
    pipe: File,
    unread: Vec<u8>,
    base: Vec<u8>,
    events: Vec<Event>,
    records: Vec<Record>,
    state: State,
}

/// One line of the child.
#[derive(Serialize, Deserialize)]
struct Line {
    hook: String,
    tier: String,
    made_ns: u64,
    /// Of the inode; 0 when it is not known.
    dev: u64,
    change: Change,
}

/// Records of one operation that are kept.
const KEPT: usize = 20_000;

impl Kernel {
    /// Starts the channel for everything below `base`. This process must have no other threads. While the channel loads its programs,
    /// `meanwhile` is done.
    ///
    /// # Errors
    /// A sentence: why it cannot run here.
    pub(in crate::verify) fn new(base: &Path, meanwhile: impl FnOnce()) -> Result<Self, String> {
        let fault = |error: &dyn std::fmt::Display| format!("start a process: {error}");
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fault(&errno))?;
        let (reader, writer) = (File::from(reader), File::from(writer));
        let pid = match fork().map_err(|error| fault(&error))? {
            Side::Child => {
                drop(reader);
                end(i32::from(trace(base, writer).is_err()))
            }
            Side::Parent(pid) => pid,
        };
        drop(writer);
        let child = KilledAtEnd(pid);
        let base = base.as_os_str().as_bytes().to_vec();
        let mut kernel = Self {
            _child: child,
            pipe: reader,
            unread: Vec::new(),
            base,
            events: Vec::new(),
            records: Vec::new(),
            state: State::Listening,
        };
        meanwhile();
        match kernel.line(Instant::now() + START) {
            Some(line) if line == READY => Ok(kernel),
            Some(why) => Err(String::from_utf8_lossy(&why).into_owned()),
            None => Err("its process ended".to_owned()),
        }
    }

    /// Forgets what was received so far.
    pub(in crate::verify) fn forget(&mut self) {
        self.events.clear();
        self.records.clear();
        self.state = State::Silent;
    }

    /// Whether it was received: reads up to the barrier of this name.
    pub(in crate::verify) fn read_to(&mut self, barrier: &[u8]) -> bool {
        let has_received = self.read_until(barrier, Instant::now() + PATIENCE);
        self.state = if has_received { State::Listening } else { State::Silent };
        has_received
    }

    /// Reads until the barrier is reported or the time is over; whether it was.
    pub(in crate::verify) fn read_until(&mut self, barrier: &[u8], over: Instant) -> bool {
        while let Some(line) = self.line(over) {
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            let name = line.change.path.file_name().map_or(&[][..], |name| name.as_bytes());
            if name == barrier {
                return true;
            }
            if !name.starts_with(BARRIER) {
                let event = event(&line.change, &self.base);
                if self.records.len() < KEPT {
                    self.records.push(record(line, &event));
                }
                put(&mut self.events, event);
            }
        }
        false
    }

    /// The child's next line; none when the time is over or the child has ended.
    fn line(&mut self, over: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=end).collect();
                line.pop();
                return Some(line);
            }
            if !wait(self.pipe.as_fd(), over) {
                return None;
            }
            let mut part = vec![0; 1 << 16];
            let length = self.pipe.read(&mut part).ok().filter(|length| *length > 0)?;
            self.unread.extend_from_slice(&part[..length]);
        }
    }

    /// The records behind what was received, each by itself.
    pub(in crate::verify) fn records(&self, own: &[u8]) -> Vec<Record> {
        let mut records = self.records.clone();
        for record in &mut records {
            let mut name = std::mem::take(&mut record.name).into_bytes();
            strip(&mut name, own);
            record.name = String::from_utf8_lossy(&name).into_owned();
        }
        records
    }

    /// What was received; paths in the directory `own` of an experiment are shown without it.
    pub(in crate::verify) fn account(&self, own: &[u8]) -> Account {
        let mut events = self.events.clone();
        for name in events.iter_mut().filter_map(|event| event.name.as_mut()) {
            strip(name, own);
        }
        Account { listener: Listener::Ebpf, state: self.state.clone(), events }
    }
}

/// Takes the directory of an experiment out of a path.
fn strip(name: &mut Vec<u8>, own: &[u8]) {
    let own = [own, b"/"].concat();
    if let Some(at) = name.windows(own.len()).position(|part| part == own) {
        name.drain(at..at + own.len());
    }
}

/// The child: traces until the parent ends it, or ends itself.
fn trace(base: &Path, mut out: File) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut options = TraceOptions::new(vec![base.to_path_buf()]);
    options.channels = Channels { ebpf: true, inotify: false, required: true };
    // Each record by itself: repeats that the kernel side only counts would be reported after the barrier.
    options.raw = true;
    runtime.block_on(async {
        let mut session = match Session::start(options) {
            Ok(session) => session,
            // What to do instead is said for other commands.
            Err(Error::Channel { cause, .. }) => return out.write_all(format!("{cause}\n").as_bytes()),
            Err(error) => return out.write_all(format!("{error}\n").as_bytes()),
        };
        out.write_all(&[READY, b"\n"].concat())?;
        while !ending::is_asked() {
            let mut lines = Vec::new();
            for report in session.next().await.map_err(io::Error::other)? {
                if let Report::Raw(Raw::Ebpf { change, hook, tier, made_ns, .. }) = report {
                    let dev = change.id.map_or(0, |id| id.dev);
                    let (hook, tier) = (hook.into_owned(), tier.into_owned());
                    serde_json::to_writer(&mut lines, &Line { hook, tier, made_ns, dev, change: *change })?;
                    lines.push(b'\n');
                }
            }
            out.write_all(&lines)?;
        }
        Ok(())
    })
}

/// A change in the laboratory's words: its operation, how it was made, its path below the laboratory.
fn event(change: &Change, base: &[u8]) -> Event {
    let path = change.path.as_os_str().as_bytes();
    let below = path.strip_prefix(base).and_then(|rest| rest.strip_prefix(b"/")).unwrap_or(path);
    let mut what = vec![change.op.as_str().to_owned()];
    let ways = change.detail.iter().filter(|detail| **detail != change.op.as_str());
    what.extend(ways.map(|detail| detail.to_string()));
    Event { at: "", what, name: Some(below.to_vec()), cookie: 0, count: 1 }
}

/// A record for the kernel path; its name is visible text.
fn record(line: Line, event: &Event) -> Record {
    let Line { hook, tier, made_ns, dev, change } = line;
    let mut name = Vec::new();
    push_visible(&mut name, event.name.as_deref().unwrap_or_default());
    Record {
        made_ns,
        hook,
        tier,
        tid: change.actor.as_ref().map(|actor| actor.tid),
        op: change.op,
        what: event.what.join("|"),
        id: change.id.map(|id| (id.ino, dev)),
        name: String::from_utf8_lossy(&name).into_owned(),
        path: change.path,
    }
}
