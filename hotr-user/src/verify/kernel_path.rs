//! What the kernel really called for an operation, in order, each step with the field that decided it.
//!
//! In: records of the kernel programs, and the marks on inodes before and after. Out: sentences. What no program has seen and no
//! file of the kernel shows is no step.

use std::collections::{HashMap, VecDeque};

use hotr_common::delivery::NO_MEMORY;
use hotr_common::uapi::inotify::ON_CHILD;
use hotr_events::Op;
use hotr_events::mask::names;
use rustix::fs::inotify::ReadFlags;

/// Different steps that are given.
const SHOWN: usize = 10;

/// A change, as a kernel program saw it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// When its function returned, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) made_ns: u64,
    /// Function or tracepoint.
    pub(super) hook: String,
    /// `fentry`, `kprobe` or `tracepoint`.
    pub(super) tier: String,
    pub(super) tid: Option<u32>,
    pub(super) op: Op,
    /// The operation and how it was made.
    pub(super) what: String,
    /// Inode number and device.
    pub(super) id: Option<(u64, u64)>,
    /// Path below the experiment's directory.
    pub(super) name: String,
    /// The whole path.
    pub(super) path: std::path::PathBuf,
}

/// An event that the kernel offered to the laboratory's inotify instance.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub(super) time: u64,
    pub(super) tid: u32,
    pub(super) mask: u32,
    /// The watch, by the experiment's name.
    pub(super) at: &'static str,
    pub(super) ino: u64,
    /// Of `fsnotify_insert_event`.
    pub(super) result: i32,
    pub(super) unread: u32,
    pub(super) limit: u32,
}

/// The marks on an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// What the experiment calls the file.
    pub(super) name: String,
    pub(super) ino: u64,
    pub(super) dev: u64,
    /// `i_fsnotify_mask`, if a kernel program has read it.
    pub(super) asked: Option<u32>,
    /// Number of marks, likewise.
    pub(super) count: Option<u32>,
}

/// All that is known of one operation.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Marks on the watched and compared files before the operation.
    pub(super) before: Vec<Marks>,
    /// Marks on the changed files and their directories after it.
    pub(super) after: Vec<Marks>,
    pub(super) records: Vec<Record>,
    /// `None` where no program sees what is offered.
    pub(super) offers: Option<Vec<Offered>>,
    /// Offers whose records are missing.
    pub(super) lost: u64,
    /// What was read from the instance, as text.
    pub(super) received: String,
    /// The masks of the instance's own marks, by device and inode number (/proc/self/fdinfo).
    pub(super) own: Vec<(u64, u64, u32)>,
}

/// The steps.
pub(super) fn steps(seen: Seen) -> Vec<String> {
    let mut all: Vec<String> =
        seen.before.iter().map(|marks| format!("before: {}", marked(marks, &seen.own))).collect();
    let sees_offers = seen.offers.is_some();
    all.extend(shortened(calls(seen.records, seen.offers, seen.lost == 0)));
    if seen.lost > 0 {
        all.push(format!("{} records of offered events are missing", seen.lost));
    }
    if !sees_offers {
        all.push(format!("read from the inotify instance: {}", seen.received));
    }
    all.extend(seen.after.iter().map(|marks| format!("after: {}", marked(marks, &seen.own))));
    all
}

/// Marks in words.
fn marked(marks: &Marks, own: &[(u64, u64, u32)]) -> String {
    let file = format!("inode {} of {} ({})", marks.ino, device(marks.dev), marks.name);
    let own = own.iter().find(|(dev, ino, _)| (*dev, *ino) == (marks.dev, marks.ino)).map(|(.., mask)| *mask);
    match (marks.asked, marks.count, own) {
        (Some(_), Some(0), _) => format!("{file}: no marks, i_fsnotify_mask 0"),
        (Some(asked), Some(count), _) => {
            let marks = if count == 1 { "mark" } else { "marks" };
            format!("{file}: {count} {marks}, i_fsnotify_mask {asked:#x}")
        }
        (.., Some(mask)) => format!("{file}: a mark of this instance, mask {mask:#x} (fdinfo)"),
        _ => format!("{file}: no mark of this instance (fdinfo)"),
    }
}

/// The kernel's own form of a device number as `major:minor` (include/linux/kdev_t.h).
fn device(dev: u64) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

/// What a change is notified as, in the call that makes it.
const fn notified_as(op: Op) -> u32 {
    let attributes = ReadFlags::ATTRIB;
    let events = match op {
        Op::Write => ReadFlags::MODIFY,
        Op::Attrib => attributes,
        // A new hard link changes the attributes of the file.
        Op::Create => ReadFlags::CREATE.union(attributes),
        // Both names, the file itself, and the attributes of a file that lost its name.
        Op::Rename => {
            ReadFlags::MOVED_FROM.union(ReadFlags::MOVED_TO).union(ReadFlags::MOVE_SELF).union(attributes)
        }
        // The name, and the end of the file and of its watch.
        Op::Remove => {
            ReadFlags::DELETE.union(ReadFlags::DELETE_SELF).union(ReadFlags::IGNORED).union(attributes)
        }
    };
    events.bits()
}

/// Records with the offers that their threads made since their changes before; offers of no record are steps by themselves.
fn calls(mut records: Vec<Record>, offers: Option<Vec<Offered>>, is_complete: bool) -> Vec<String> {
    let sees_offers = offers.is_some();
    records.sort_by_key(|record| record.made_ns);
    let mut waiting: HashMap<u32, VecDeque<Offered>> = HashMap::new();
    for offer in offers.unwrap_or_default() {
        waiting.entry(offer.tid).or_default().push_back(offer);
    }
    let mut timed: Vec<(u64, String)> = Vec::new();
    for record in records {
        let mut text = called(&record);
        let mut has_offers = false;
        let of_thread = record.tid.and_then(|tid| waiting.get_mut(&tid));
        if let Some(offers) = of_thread {
            while let Some(offer) = offers.pop_front_if(|offer| offer.time <= record.made_ns) {
                // What comes behind an offer of this call, and before its end, is within it.
                if !has_offers && offer.mask & notified_as(record.op) == 0 {
                    timed.push((offer.time, handled(&offer)));
                    continue;
                }
                has_offers = true;
                text = format!("{text} → {}", handled(&offer));
            }
        }
        if sees_offers && !has_offers && is_complete {
            text.push_str(" → offered to no watch of this instance");
        }
        timed.push((record.made_ns, text));
    }
    let rest = waiting.into_values().flatten().map(|offer| (offer.time, handled(&offer)));
    timed.extend(rest);
    timed.sort_by_key(|(time, _)| *time);
    timed.into_iter().map(|(_, text)| text).collect()
}

fn called(record: &Record) -> String {
    let Record { hook, tier, what, name, .. } = record;
    match record.id {
        Some((ino, dev)) => {
            format!("{hook} by {tier} (inode {ino} of {}, {name}): {what}", device(dev))
        }
        None => format!("{hook} by {tier} ({name}): {what}"),
    }
}

fn handled(offer: &Offered) -> String {
    let words = names(offer.mask & !ON_CHILD);
    let words: Vec<&str> = words.iter().map(|word| word.trim_start_matches("IN_")).collect();
    let end = match offer.result {
        0 => "queued".to_owned(),
        1 => "merged with an equal event".to_owned(),
        NO_MEMORY => "an overflow queued instead, for lack of memory".to_owned(),
        _ if offer.unread >= offer.limit => format!("not queued, q_len {} is max_events", offer.unread),
        other => format!("not queued, fsnotify_insert_event returned {other}"),
    };
    // IN_IGNORED is about no inode.
    let inode = if offer.ino == 0 { String::new() } else { format!(" inode {},", offer.ino) };
    format!("inotify_handle_inode_event({},{inode} watch on {}) → {end}", words.join("|"), offer.at)
}

/// Equal steps once, with their number; more than a reader wants are counted.
fn shortened(steps: Vec<String>) -> Vec<String> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut counted: Vec<(&str, u64)> = Vec::new();
    for step in &steps {
        let place = *places.entry(step).or_insert_with(|| {
            counted.push((step, 0));
            counted.len() - 1
        });
        counted[place].1 += 1;
    }
    let rest: u64 = counted.iter().skip(SHOWN).map(|(_, count)| count).sum();
    let shown = counted.iter().take(SHOWN);
    let mut all: Vec<String> = shown
        .map(|(step, count)| if *count > 1 { format!("{step} ×{count}") } else { (*step).to_owned() })
        .collect();
    if rest > 0 {
        all.push(format!("{rest} more steps"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(made_ns: u64, op: Op, ino: u64) -> Record {
        Record {
            made_ns,
            hook: "vfs_write".to_owned(),
            tier: "kprobe".to_owned(),
            tid: Some(7),
            op,
            what: op.as_str().to_owned(),
            id: Some((ino, 1)),
            name: "upper/f".to_owned(),
            path: "/upper/f".into(),
        }
    }

    fn offer(time: u64, mask: u32, result: i32) -> Offered {
        Offered { time, tid: 7, mask, at: "upper", ino: 131, result, unread: 4, limit: 4 }
    }

    #[test]
    fn an_offer_stands_behind_the_call_that_made_it() {
        let offers = vec![offer(1, 0x8, 0), offer(2, 0x0800_0002, 0), offer(5, 0x2, 2)];
        let seen = Seen {
            before: vec![Marks {
                name: "upper".to_owned(),
                ino: 130,
                dev: 1,
                asked: Some(2),
                count: Some(1),
            }],
            records: vec![record(3, Op::Write, 131), record(4, Op::Attrib, 131)],
            offers: Some(offers),
            ..Seen::default()
        };
        let wanted = [
            "before: inode 130 of 0:1 (upper): 1 mark, i_fsnotify_mask 0x2",
            "inotify_handle_inode_event(CLOSE_WRITE, inode 131, watch on upper) → queued",
            "vfs_write by kprobe (inode 131 of 0:1, upper/f): write → inotify_handle_inode_event(MODIFY, inode 131, watch on upper) → queued",
            "vfs_write by kprobe (inode 131 of 0:1, upper/f): attrib → offered to no watch of this instance",
            "inotify_handle_inode_event(MODIFY, inode 131, watch on upper) → not queued, q_len 4 is max_events",
        ];
        assert_eq!(steps(seen), wanted);
    }

    #[test]
    fn what_is_offered_within_a_call_stays_within_it() {
        let ignored = Offered { ino: 0, ..offer(2, 0x8000, 0) };
        let seen = Seen {
            records: vec![record(3, Op::Write, 131)],
            offers: Some(vec![offer(1, 0x2, 0), ignored]),
            ..Seen::default()
        };
        let wanted = "vfs_write by kprobe (inode 131 of 0:1, upper/f): write → inotify_handle_inode_event(MODIFY, inode 131, watch \
                      on upper) → queued → inotify_handle_inode_event(IGNORED, watch on upper) → queued";
        assert_eq!(steps(seen), [wanted]);
    }

    #[test]
    fn what_was_not_seen_is_no_step() {
        let after = Marks { name: "f".to_owned(), ino: 131, dev: 1, asked: None, count: None };
        let records = || vec![record(3, Op::Write, 131)];
        let blind = Seen {
            records: records(),
            received: "nothing".to_owned(),
            after: vec![after.clone(), Marks { ino: 132, ..after }],
            own: vec![(1, 132, 2)],
            ..Seen::default()
        };
        let call = "vfs_write by kprobe (inode 131 of 0:1, upper/f): write";
        let wanted = [
            call,
            "read from the inotify instance: nothing",
            "after: inode 131 of 0:1 (f): no mark of this instance (fdinfo)",
            "after: inode 132 of 0:1 (f): a mark of this instance, mask 0x2 (fdinfo)",
        ];
        assert_eq!(steps(blind), wanted);
        // A record that is missing may be that of an offer.
        let lossy = Seen { records: records(), offers: Some(Vec::new()), lost: 2, ..Seen::default() };
        assert_eq!(steps(lossy), [call, "2 records of offered events are missing"]);
    }

    #[test]
    fn many_equal_steps_are_one() {
        let steps = ["a", "b", "a"].map(str::to_owned).to_vec();
        assert_eq!(shortened(steps), ["a ×2", "b"]);
        let many: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        assert_eq!(shortened(many).last().map(String::as_str), Some("20 more steps"));
    }
}
