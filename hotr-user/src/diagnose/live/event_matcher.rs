//! What became of changes where only system calls are seen: what a stand-in instance got for a change, and what the program
//! read.
//!
//! In: changes, events of the stand-ins, and events that the programs read from their own instances. Out: [`Fate`]s. An
//! event that the program read is one that it was sent. What a stand-in got was offered to the instance; when the queue of
//! that was seen empty afterwards, and the event was not read by itself, it was merged with an equal one that was read, or
//! dropped after an overflow that was read. Everything is a conclusion, and what fits none of this stays unknown.

use std::collections::{HashMap, VecDeque};

use hotr_common::delivery::Chunk;
use hotr_common::uapi::inotify::Q_OVERFLOW;

use super::expected_events::{Key, keys};
use super::instance::Instance;
use super::offers::OF_CHANGES;
use super::stand_in_instances::ReceivedEvent;
use super::verdict::{ReportedChange, Verdict};

/// The kernel queues an event at most so long before the call that makes the change ends.
const LATE_NS: u64 = 1_000_000_000;
/// The same where a cause depends on it.
const CLOSE_NS: u64 = 100_000_000;
/// Changes of an instance whose events may still be read although their verdicts are given; of more, the oldest are forgotten.
const MOST_OVER: usize = 16_384;
/// How long a change may take from the kernel to its judgement.
const TRANSIT_NS: u64 = 50_000_000;

struct StandInEvent {
    heard: ReceivedEvent,
    is_used: bool,
    /// [`EventMatcher::later`] had it.
    is_old: bool,
}

struct ReadEvent {
    time: u64,
    wd: i32,
    mask: u32,
    name: Box<[u8]>,
    /// The last change that it stands for.
    made: Option<u64>,
    is_old: bool,
}

impl StandInEvent {
    /// No change can claim it by itself any more.
    fn is_over(&self) -> bool {
        self.is_used || self.heard.mask & OF_CHANGES == 0
    }
}

impl ReadEvent {
    /// No change can be that of it by itself any more.
    fn is_over(&self) -> bool {
        self.made.is_some() || self.mask & OF_CHANGES == 0
    }
}

struct Waiting {
    made_ns: u64,
    key: Key,
    /// The stand-in got it.
    is_sent: bool,
    /// The event comes after the change, and may be that of others too.
    is_later: bool,
    verdicts: Vec<Verdict>,
}

/// What became of an event.
pub(super) enum Fate {
    /// It was read then, and is of these kinds.
    Read(u64, u32),
    /// An equal one that was unread stood for it.
    Merged,
    /// The queue was full.
    Dropped,
    /// It is in the queue.
    Unread,
    /// Nobody knows.
    Unknown,
}

/// Whether there is an event for a change.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is to make none.
    NoKey,
    /// There is one.
    Sent(Key),
    /// There is none.
    Nothing,
    /// There may have been one.
    Perhaps(Key),
}

/// An event that may settle a former change.
pub(super) struct Later {
    pub(super) slot: u32,
    pub(super) wd: i32,
    pub(super) mask: u32,
    pub(super) name: Box<[u8]>,
    /// When it was made at the latest.
    pub(super) until: u64,
}

#[derive(Default)]
struct Line {
    heard: VecDeque<StandInEvent>,
    /// So many of the first ones are used, or of no change.
    used: usize,
    got: VecDeque<ReadEvent>,
    /// So many of the first ones stand for a change, or for none.
    taken: usize,
    waiting: Vec<Waiting>,
    parts: HashMap<u32, Vec<u8>>,
    /// When the queue was seen empty: the last time that can be judged by, and later ones.
    empty_at: u64,
    empties: VecDeque<u64>,
    /// When an overflow was read, and the last change before it.
    overflow: Option<(u64, u64)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct EventMatcher {
    lines: HashMap<u32, Line>,
}

impl EventMatcher {
    /// An event of a stand-in.
    pub(super) fn receive(&mut self, slot: u32, heard: ReceivedEvent) {
        self.lines.entry(slot).or_default().heard.push_back(StandInEvent {
            heard,
            is_used: false,
            is_old: false,
        });
    }

    /// A part of what was read.
    pub(super) fn read(&mut self, chunk: &Chunk) {
        let line = self.lines.entry(chunk.slot).or_default();
        let so_far = line.parts.entry(chunk.tid).or_default();
        if chunk.at == 0 {
            so_far.clear();
        }
        let total = chunk.total as usize;
        if so_far.len() != chunk.at as usize || so_far.len() >= total {
            return;
        }
        let len = (total - so_far.len()).min(chunk.bytes.len());
        so_far.extend_from_slice(&chunk.bytes[..len]);
        if so_far.len() < total {
            return;
        }
        let bytes = line.parts.remove(&chunk.tid).unwrap_or_default();
        for (wd, mask, name) in events(&bytes) {
            line.got.push_back(ReadEvent {
                time: chunk.time,
                wd,
                mask,
                name: name.into(),
                made: None,
                is_old: false,
            });
        }
        if chunk.queued == 0 {
            line.empties.push_back(chunk.time);
        }
    }

    /// The queue was seen empty at that time, and what was read before has been handed over.
    pub(super) fn empty(&mut self, slot: u32, time: u64) {
        let line = self.lines.entry(slot).or_default();
        line.empties.push_back(time);
    }

    /// Whether events are awaited.
    pub(super) fn awaits(&self, slot: u32) -> bool {
        self.lines.get(&slot).is_some_and(|line| !line.waiting.is_empty())
    }

    /// Whether there seems to be an event for a change.
    pub(super) fn has(&self, instance: &Instance, made: &ReportedChange) -> bool {
        let Some(line) = self.lines.get(&instance.slot) else { return false };
        keys(made, instance).iter().any(|key| {
            let mut heard = line.heard.range(line.used..).chain(line.heard.range(..line.used).rev());
            heard.any(|echo| is_for(&echo.heard, key, made))
                || line.got.range(line.taken..).any(|got| is_got(got, key, made))
        })
    }

    /// Looks for the event of a change. `is_odd`: it was made in a way that may send none, so that an event of another
    /// change must not count.
    pub(super) fn claim(
        &mut self,
        instance: &Instance,
        made: &ReportedChange,
        is_odd: bool,
        since: impl Fn(&Key) -> Option<u64>,
    ) -> Claim {
        let keys = keys(made, instance);
        let Some(first) = keys.first().cloned() else { return Claim::NoKey };
        let line = self.lines.entry(instance.slot).or_default();
        let mut sent = None;
        // A rename has two, and the program reads both.
        for key in &keys {
            let fits = |echo: &&mut StandInEvent| !echo.is_used && is_for(&echo.heard, key, made);
            if let Some(echo) = line.heard.range_mut(line.used..).find(fits) {
                echo.is_used = true;
                sent = sent.or_else(|| Some(key.clone()));
            }
        }
        line.used += line.heard.range(line.used..).take_while(|echo| echo.is_over()).count();
        if let Some(key) = sent {
            return Claim::Sent(key);
        }
        let slack = if is_odd { CLOSE_NS } else { LATE_NS };
        for key in &keys {
            let is_near = |echo: &StandInEvent| {
                key.is(echo.heard.wd, echo.heard.mask, &echo.heard.name)
                    && echo.heard.until + slack >= made.made_ns
                    && echo.heard.after < made.made_ns
            };
            if line.heard.iter().rev().any(is_near) {
                return if is_odd { Claim::Perhaps(key.clone()) } else { Claim::Sent(key.clone()) };
            }
            if line.got.range(line.taken..).any(|got| is_got(got, key, made)) {
                return if is_odd { Claim::Perhaps(key.clone()) } else { Claim::Sent(key.clone()) };
            }
        }
        let was_there = |key: &Key| since(key).is_some_and(|since| since < made.made_ns);
        if keys.iter().all(was_there) { Claim::Nothing } else { Claim::Perhaps(first) }
    }

    /// The event of a change is looked for among those that are read.
    pub(super) fn wait(&mut self, slot: u32, key: Key, made_ns: u64, is_sent: bool, verdicts: Vec<Verdict>) {
        let line = self.lines.entry(slot).or_default();
        line.waiting.push(Waiting { made_ns, key, is_sent, is_later: false, verdicts });
    }

    /// The same of an event that comes after the change.
    pub(super) fn wait_later(&mut self, slot: u32, key: Key, made_ns: u64, verdict: Verdict) {
        let line = self.lines.entry(slot).or_default();
        line.waiting.push(Waiting { made_ns, key, is_sent: true, is_later: true, verdicts: vec![verdict] });
    }

    /// Events of these kinds that stand-ins got, or programs read, since the last call, or since then.
    pub(super) fn later(&mut self, kinds: u32, from: u64) -> Vec<Later> {
        let mut all = Vec::new();
        for (slot, line) in &mut self.lines {
            let fresh = line.heard.iter_mut().rev().map_while(|echo| {
                let is_new = !std::mem::replace(&mut echo.is_old, true);
                (is_new || echo.heard.until >= from).then_some(&echo.heard)
            });
            all.extend(fresh.map(|heard| Later {
                slot: *slot,
                wd: heard.wd,
                mask: heard.mask,
                name: heard.name.clone(),
                until: heard.until,
            }));
            let fresh = line.got.iter_mut().rev().map_while(|got| {
                let is_new = !std::mem::replace(&mut got.is_old, true);
                (is_new || got.time >= from).then_some(&*got)
            });
            all.extend(fresh.map(|got| Later {
                slot: *slot,
                wd: got.wd,
                mask: got.mask,
                name: got.name.clone(),
                until: got.time,
            }));
        }
        all.retain(|one: &Later| one.mask & kinds != 0);
        all
    }

    /// What is known by now. All changes up to `known` were judged.
    pub(super) fn settle(&mut self, known: u64) -> Vec<(Fate, u64, Vec<Verdict>)> {
        let known = known.saturating_sub(TRANSIT_NS);
        self.lines.values_mut().flat_map(|line| line.settle(known)).collect()
    }

    /// What is said of changes up to then that still wait. `is_unread` says of a slot whether there are unread events. What
    /// waited stays without its verdicts: an event of it that is read later is not that of another change.
    pub(super) fn rest(
        &mut self,
        until: u64,
        is_unread: impl Fn(u32) -> bool,
    ) -> Vec<(Fate, u64, Vec<Verdict>)> {
        let mut rest = Vec::new();
        for (slot, line) in &mut self.lines {
            let is_due = |one: &&mut Waiting| one.made_ns <= until && !one.verdicts.is_empty();
            let mut due = line.waiting.iter_mut().filter(is_due).peekable();
            let is_unread = due.peek().is_some() && is_unread(*slot);
            for one in due {
                let fate = if one.is_sent && is_unread { Fate::Unread } else { Fate::Unknown };
                rest.push((fate, one.made_ns, std::mem::take(&mut one.verdicts)));
            }
            let over = line.waiting.iter().filter(|one| one.verdicts.is_empty()).count();
            let mut too_many = over.saturating_sub(MOST_OVER);
            line.waiting.retain(|one| {
                let is_kept = !one.verdicts.is_empty() || too_many == 0;
                too_many -= usize::from(!is_kept);
                is_kept
            });
        }
        rest.sort_by_key(|(_, made, _)| *made);
        rest
    }

    /// Forgets events that no change came for.
    pub(super) fn forget_before(&mut self, time: u64) {
        for line in self.lines.values_mut() {
            while line.heard.front().is_some_and(|echo| echo.heard.until < time) {
                line.heard.pop_front();
                line.used = line.used.saturating_sub(1);
            }
            while line.got.front().is_some_and(|got| got.time < time) {
                line.got.pop_front();
                line.taken = line.taken.saturating_sub(1);
            }
        }
    }
}

impl Line {
    fn settle(&mut self, known: u64) -> Vec<(Fate, u64, Vec<Verdict>)> {
        while self.empties.front().is_some_and(|&empty| empty <= known) {
            self.empty_at = self.empty_at.max(self.empties.pop_front().unwrap_or(0));
        }
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.waiting.sort_by_key(|one| one.made_ns);
        let mut out = Vec::new();
        let mut rest = Vec::new();
        for one in std::mem::take(&mut self.waiting) {
            if one.is_later {
                let fits =
                    |got: &&ReadEvent| got.time >= one.made_ns && one.key.is(got.wd, got.mask, &got.name);
                match self.got.iter().find(fits) {
                    Some(got) => out.push((Fate::Read(got.time, got.mask), one.made_ns, one.verdicts)),
                    None => rest.push(one),
                }
                continue;
            }
            let fits = |got: &&mut ReadEvent| got.made.is_none() && is_read(got, &one.key, one.made_ns);
            match self.got.range_mut(self.taken..).find(fits) {
                Some(got) => {
                    got.made = Some(one.made_ns);
                    out.push((Fate::Read(got.time, got.mask), one.made_ns, one.verdicts));
                }
                None => rest.push(one),
            }
        }
        self.note_overflow();
        self.taken += self.got.range(self.taken..).take_while(|got| got.is_over()).count();
        let (over, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|one| {
            // One that comes later may not have come.
            one.made_ns < self.empty_at
                && (!one.is_later || matches!(self.unread_no_more(one), Fate::Dropped))
        });
        self.waiting = rest;
        for one in over {
            out.push((self.unread_no_more(&one), one.made_ns, one.verdicts));
        }
        out
    }

    fn note_overflow(&mut self) {
        let mut last = 0;
        for got in &mut self.got {
            if got.mask & Q_OVERFLOW != 0 {
                if got.made.is_none() {
                    got.made = Some(last);
                    self.overflow = Some((got.time, last));
                }
            } else {
                last = last.max(got.made.unwrap_or(0));
            }
        }
    }

    /// The queue was empty after this change, and no event was left for it.
    fn unread_no_more(&self, one: &Waiting) -> Fate {
        let is_after = |&(read, last): &(u64, u64)| last < one.made_ns && one.made_ns <= read;
        if one.is_sent && self.overflow.as_ref().is_some_and(is_after) {
            return Fate::Dropped;
        }
        let equal = |got: &ReadEvent| {
            got.made.is_some() && is_read(got, &one.key, one.made_ns) && got.time + CLOSE_NS >= one.made_ns
        };
        if one.is_sent && self.got.iter().rev().any(equal) { Fate::Merged } else { Fate::Unknown }
    }
}

/// Whether an event that was read may be that of a change.
fn is_read(got: &ReadEvent, key: &Key, made_ns: u64) -> bool {
    key.is(got.wd, got.mask, &got.name) && got.time + LATE_NS >= made_ns
}

fn is_got(got: &ReadEvent, key: &Key, made: &ReportedChange) -> bool {
    got.made.is_none() && is_read(got, key, made.made_ns)
}

/// Whether an event of a stand-in may be that of a change.
fn is_for(heard: &ReceivedEvent, key: &Key, made: &ReportedChange) -> bool {
    key.is(heard.wd, heard.mask, &heard.name)
        && heard.after < made.made_ns
        && heard.until + CLOSE_NS >= made.made_ns
}

/// The events in a buffer.
fn events(mut bytes: &[u8]) -> impl Iterator<Item = (i32, u32, &[u8])> {
    const HEAD: usize = 16;
    std::iter::from_fn(move || {
        let word = |n: usize| Some(u32::from_ne_bytes(*bytes.get(4 * n..)?.first_chunk()?));
        let (wd, mask, len) = (word(0)?, word(1)?, word(3)? as usize);
        let name = bytes.get(HEAD..HEAD.checked_add(len)?)?;
        bytes = &bytes[HEAD + len..];
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Some((wd.cast_signed(), mask, &name[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(name: &str) -> Key {
        Key { wd: 1, kinds: 2, name: name.as_bytes().into(), ino: 7 }
    }

    /// A buffer of events: watch, kinds, name.
    fn buffer(all: &[(i32, u32, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (wd, mask, name) in all {
            for word in [wd.cast_unsigned(), *mask, 0, 16] {
                bytes.extend(word.to_ne_bytes());
            }
            let mut padded = name.as_bytes().to_vec();
            padded.resize(16, 0);
            bytes.extend(padded);
        }
        bytes
    }

    fn read(echoes: &mut EventMatcher, time: u64, queued: u32, bytes: &[u8]) {
        let total = u32::try_from(bytes.len()).unwrap();
        for (n, part) in bytes.chunks(hotr_common::delivery::CHUNK).enumerate() {
            let at = u32::try_from(n * hotr_common::delivery::CHUNK).unwrap();
            let mut chunk = Chunk {
                time,
                kind: 4,
                slot: 1,
                tid: 9,
                at,
                total,
                queued,
                bytes: [0; hotr_common::delivery::CHUNK],
            };
            chunk.bytes[..part.len()].copy_from_slice(part);
            echoes.read(&chunk);
        }
    }

    fn fates(echoes: &mut EventMatcher, known: u64) -> Vec<(&'static str, u64)> {
        let word = |fate: Fate| match fate {
            Fate::Read(..) => "read",
            Fate::Merged => "merged",
            Fate::Dropped => "dropped",
            Fate::Unread => "unread",
            Fate::Unknown => "unknown",
        };
        let mut all: Vec<_> =
            echoes.settle(known).into_iter().map(|(fate, made, _)| (word(fate), made)).collect();
        all.sort_by_key(|(_, made)| *made);
        all
    }

    #[test]
    fn what_was_not_read_of_equal_events_was_merged_once_the_queue_is_empty() {
        let mut echoes = EventMatcher::default();
        for made in [SECOND, SECOND + 1, SECOND + 2] {
            echoes.wait(1, key("a"), made, true, Vec::new());
        }
        read(&mut echoes, SECOND + 10, 1, &buffer(&[(1, 2, "a")]));
        assert_eq!(fates(&mut echoes, 2 * SECOND), [("read", SECOND)], "one is in the queue");
        read(&mut echoes, SECOND + 20, 0, &buffer(&[(1, 2, "a")]));
        assert_eq!(fates(&mut echoes, 2 * SECOND), [("read", SECOND + 1), ("merged", SECOND + 2)]);
    }

    #[test]
    fn what_follows_the_last_event_before_an_overflow_was_dropped() {
        let mut echoes = EventMatcher::default();
        for (made, name) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            echoes.wait(1, key(name), SECOND + made, true, Vec::new());
        }
        read(&mut echoes, SECOND + 10, 0, &buffer(&[(1, 2, "a"), (1, 2, "b"), (-1, Q_OVERFLOW, "")]));
        let want = [("read", 1), ("merged", 2), ("read", 3), ("dropped", 4)];
        assert_eq!(fates(&mut echoes, 2 * SECOND), want.map(|(word, made)| (word, SECOND + made)));
    }

    #[test]
    fn nothing_is_known_of_what_nobody_saw_read_or_sent() {
        let mut echoes = EventMatcher::default();
        echoes.wait(1, key("a"), SECOND, true, Vec::new());
        echoes.wait(1, key("b"), SECOND, false, Vec::new());
        assert_eq!(fates(&mut echoes, 2 * SECOND), []);
        echoes.empty(1, SECOND + 5);
        assert_eq!(fates(&mut echoes, 2 * SECOND), [("unknown", SECOND), ("unknown", SECOND)]);
    }

    #[test]
    fn an_event_that_comes_later_is_for_all_changes_before_it() {
        let mut echoes = EventMatcher::default();
        read(&mut echoes, SECOND - 5, 0, &buffer(&[(1, 2, "a")]));
        for made in [SECOND, SECOND + 1] {
            let made_ns = made;
            let line = echoes.lines.entry(1).or_default();
            line.waiting.push(Waiting {
                made_ns,
                key: key("a"),
                is_sent: true,
                is_later: true,
                verdicts: vec![],
            });
        }
        echoes.empty(1, SECOND + 5);
        assert_eq!(fates(&mut echoes, 2 * SECOND), [], "the file may be open");
        // More than one part.
        let many = vec![(1, 2, "x"); 40];
        read(&mut echoes, SECOND + 10, 0, &buffer(&[&many[..], &[(1, 2, "a")]].concat()));
        assert_eq!(fates(&mut echoes, 2 * SECOND), [("read", SECOND), ("read", SECOND + 1)]);
    }
}
