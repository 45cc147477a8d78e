//! The lines of a recording as values: the other direction of the JSON printer.
//!
//! In: the bytes of a line. Out: a [`Line`], or nothing when it has none of their forms. What a form leaves open, such as a
//! field that is not known, is noticed by the reader, which writes the line again and compares.

mod wire;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use hotr_common::tier::Tier;

use crate::diagnose::finding::{Finding, Proof, Severity, Target};
use crate::diagnose::live::{Histogram, LiveReport, Machine, Mounted, Row, State, Summary, Use, Verdict};
use crate::diagnose::process::Kind;
use hotr_events::Cause;
use hotr_events::LossReason;
use hotr_events::mask::bits;
use hotr_events::{Change, Channel, Op};
use wire::{DeliveryLine, FindingLine, Header, MachineLine, RowLine, SummaryLine, TargetLine, Wire};

/// A report with what it has.
pub(super) enum Line {
    Ready(Tier, Vec<(Target, usize)>, Vec<PathBuf>),
    Note(String),
    Lost(LossReason, u64),
    Change(Box<Change>),
    Verdict(Box<Verdict>),
    Used(Use),
    Finding(Box<Finding>),
    Summary(Box<Summary>),
}

impl Line {
    pub(super) fn live_report(&self) -> LiveReport<'_> {
        match self {
            Self::Ready(tier, instances, paths) => {
                LiveReport::Ready { tier: *tier, instances: instances.clone(), paths: paths.clone() }
            }
            Self::Note(text) => LiveReport::Note(text.clone()),
            Self::Lost(reason, count) => LiveReport::Lost { reason: *reason, count: *count },
            Self::Change(change) => LiveReport::Change(change),
            Self::Verdict(verdict) => LiveReport::Verdict(verdict),
            Self::Used(used) => LiveReport::Used(used),
            Self::Finding(finding) => LiveReport::Finding(finding),
            Self::Summary(summary) => LiveReport::Summary(summary),
        }
    }
}

/// The number of the format, when the line is a header.
pub(super) fn format(text: &[u8]) -> Option<u64> {
    let header: Header = serde_json::from_slice(text).ok()?;
    (header.r#type == "recording").then_some(header.format)
}

pub(super) fn machine(text: &[u8]) -> Option<Machine> {
    let line: MachineLine = serde_json::from_slice(text).ok()?;
    let mounts = line.mounts.into_iter().map(|mount| {
        Some(Mounted {
            path: path(mount.path, mount.path_b64)?,
            mount_point: path(mount.mount_point, mount.mount_point_b64)?,
            fs: mount.fs,
        })
    });
    Some(Machine {
        version: line.version,
        time: time(&line.time)?,
        kernel: line.kernel,
        btf: line.btf,
        lockdown: line.lockdown,
        max_user_watches: line.max_user_watches,
        max_user_instances: line.max_user_instances,
        max_queued_events: line.max_queued_events,
        mounts: mounts.collect::<Option<_>>()?,
    })
}

pub(super) fn line(text: &[u8]) -> Option<Line> {
    Some(match serde_json::from_slice(text).ok()? {
        Wire::Ready { tier, paths, paths_b64, instances } => {
            let tiers = [Tier::Fentry, Tier::Kprobe, Tier::Tracepoint];
            let instances = instances
                .into_iter()
                .map(|one| Some((target(one.target)?, one.watches)))
                .collect::<Option<_>>()?;
            let exact =
                paths_b64.map_or_else(|| vec![None; paths.len()], |all| all.into_iter().map(Some).collect());
            let paths =
                paths.into_iter().zip(exact).map(|(text, exact)| path(text, exact)).collect::<Option<_>>()?;
            Line::Ready(word(&tiers, |tier| tier.as_str(), &tier)?, instances, paths)
        }
        Wire::Note { text } => Line::Note(text),
        Wire::Loss { reason, count } => Line::Lost(reason, count),
        Wire::Change(mut change) => {
            change.seen_by = vec![Channel::Ebpf];
            Line::Change(change)
        }
        Wire::Delivery(line) => Line::Verdict(Box::new(verdict(*line)?)),
        Wire::Used { change, pid, opened_us, file_read_us } => {
            Line::Used(Use { change, pid, opened_us, file_read_us })
        }
        Wire::Finding(line) => Line::Finding(Box::new(finding(*line)?)),
        Wire::Summary(line) => Line::Summary(Box::new(summary(*line)?)),
    })
}

/// The value of this word.
fn word<T: Copy>(all: &[T], name: impl Fn(&T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|one| name(one) == text)
}

/// The same where there may be none.
fn maybe<T: Copy>(all: &[T], name: impl Fn(&T) -> &'static str, text: Option<&str>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| word(all, name, text).map(Some))
}

fn bytes(text: String, exact: Option<String>) -> Option<Vec<u8>> {
    match exact {
        Some(exact) => BASE64.decode(exact.as_bytes()).ok(),
        None => Some(text.into_bytes()),
    }
}

fn path(text: String, exact: Option<String>) -> Option<PathBuf> {
    Some(OsString::from_vec(bytes(text, exact)?).into())
}

fn maybe_path(text: Option<String>, exact: Option<String>) -> Option<Option<PathBuf>> {
    text.map_or(Some(None), |text| path(text, exact).map(Some))
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

fn op(text: &str) -> Option<Op> {
    word(&Op::ALL, |op| op.as_str(), text)
}

fn proof(text: &str) -> Option<Proof> {
    word(&[Proof::Proved, Proof::Inferred], |proof| proof.as_str(), text)
}

fn state(text: &str) -> Option<State> {
    word(&State::ALL, |state| state.as_str(), text)
}

fn cause(text: Option<&str>) -> Option<Option<Cause>> {
    maybe(&Cause::ALL, |cause| cause.as_str(), text)
}

fn target(line: TargetLine) -> Option<Target> {
    Some(Target {
        pid: line.pid,
        comm: bytes(line.comm.unwrap_or_default(), line.comm_b64)?,
        mechanism: maybe(&[Kind::Inotify, Kind::Fanotify], |kind| kind.as_str(), line.mechanism.as_deref())?,
        fd: line.fd,
        wd: line.wd,
        uid: line.uid,
        container: line.container,
    })
}

fn verdict(line: DeliveryLine) -> Option<Verdict> {
    let path = path(line.path, line.path_b64)?;
    let (time, op, target) = (time(&line.time)?, op(&line.op)?, target(line.target)?);
    let mut verdict = Verdict::new(line.change, time, op, path, target, state(&line.state)?);
    verdict.events = bits(&line.events)?;
    (verdict.queued_us, verdict.read_us) = (line.queued_us, line.read_us);
    verdict.queue = line.queue_length.zip(line.queue_limit);
    verdict.cause = cause(line.cause.as_deref())?;
    verdict.proof = proof(&line.proof)?;
    (verdict.watched_ino, verdict.path_ino) = (line.watched_ino, line.path_ino);
    verdict.mask = mask(line.mask)?;
    verdict.evidence = line.evidence;
    Some(verdict)
}

fn mask(names: Option<Vec<String>>) -> Option<Option<u32>> {
    names.map_or(Some(None), |names| bits(&names).map(Some))
}

fn finding(line: FindingLine) -> Option<Finding> {
    let severities = [Severity::Deaf, Severity::Lost, Severity::AtRisk, Severity::Note];
    let severity = word(&severities, |severity| severity.as_str(), &line.severity)?;
    let mut finding =
        Finding::new(severity, cause(Some(&line.cause))??, proof(&line.proof)?, target(line.target)?);
    finding.path = maybe_path(line.path, line.path_b64)?;
    finding.path_in_target = maybe_path(line.path_in_target, line.path_in_target_b64)?;
    (finding.watched_ino, finding.path_ino) = (line.watched_ino, line.path_ino);
    finding.mask = mask(line.mask)?;
    finding.watches = line.watches;
    (finding.evidence, finding.remedy) = (line.evidence, line.remedy);
    Some(finding)
}

fn summary(line: SummaryLine) -> Option<Summary> {
    let counts = [line.delivered, line.merged, line.dropped, line.never_sent, line.unread];
    let buckets: Vec<_> = line.read_us.iter().map(|one| (one.from, one.to, one.count)).collect();
    let row = |row: RowLine| {
        let (state, cause) = (state(&row.state)?, cause(row.cause.as_deref())?);
        Some(Row { state, cause, count: row.count, example: path(row.example, row.example_b64)? })
    };
    Some(Summary {
        changes: line.changes,
        counts: State::ALL.into_iter().zip(counts).filter(|(_, count)| *count != 0).collect(),
        unasked: line.unasked,
        undecided: line.undecided,
        reread: line.reread,
        records_lost: line.records_lost,
        read_us: Histogram::from_buckets(&buckets, line.read_us_max)?,
        rows: line.causes.into_iter().map(row).collect::<Option<_>>()?,
        took: Duration::from_millis(line.duration_ms),
    })
}
