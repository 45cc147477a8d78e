//! The forms of the lines of a recording, field by field.

use hotr_events::{Change, LossReason};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) r#type: String,
    pub(super) format: u64,
}

#[derive(Deserialize)]
pub(super) struct MachineLine {
    pub(super) version: String,
    pub(super) time: String,
    pub(super) kernel: String,
    pub(super) btf: bool,
    pub(super) lockdown: Option<String>,
    pub(super) max_user_watches: Option<u64>,
    pub(super) max_user_instances: Option<u64>,
    pub(super) max_queued_events: Option<u64>,
    pub(super) mounts: Vec<MountLine>,
}

#[derive(Deserialize)]
pub(super) struct MountLine {
    pub(super) path: String,
    pub(super) path_b64: Option<String>,
    pub(super) mount_point: String,
    pub(super) mount_point_b64: Option<String>,
    pub(super) fs: String,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Wire {
    Ready { tier: String, paths: Vec<String>, paths_b64: Option<Vec<String>>, instances: Vec<InstanceLine> },
    Note { text: String },
    Loss { reason: LossReason, count: u64 },
    Change(Box<Change>),
    Delivery(Box<DeliveryLine>),
    Used { change: u64, pid: u32, opened_us: Option<u64>, file_read_us: Option<u64> },
    Finding(Box<FindingLine>),
    Summary(Box<SummaryLine>),
}

#[derive(Deserialize)]
pub(super) struct InstanceLine {
    pub(super) target: TargetLine,
    pub(super) watches: usize,
}

#[derive(Deserialize)]
pub(super) struct TargetLine {
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<String>,
    pub(super) comm_b64: Option<String>,
    pub(super) mechanism: Option<String>,
    pub(super) fd: Option<i32>,
    pub(super) wd: Option<i32>,
    pub(super) uid: Option<u32>,
    pub(super) container: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DeliveryLine {
    pub(super) change: u64,
    pub(super) time: String,
    pub(super) op: String,
    pub(super) path: String,
    pub(super) path_b64: Option<String>,
    pub(super) target: TargetLine,
    pub(super) state: String,
    #[serde(default)]
    pub(super) events: Vec<String>,
    pub(super) queued_us: Option<i64>,
    pub(super) read_us: Option<u64>,
    pub(super) queue_length: Option<u32>,
    pub(super) queue_limit: Option<u32>,
    pub(super) cause: Option<String>,
    pub(super) proof: String,
    pub(super) watched_ino: Option<u64>,
    pub(super) path_ino: Option<u64>,
    pub(super) mask: Option<Vec<String>>,
    #[serde(default)]
    pub(super) evidence: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct FindingLine {
    pub(super) severity: String,
    pub(super) cause: String,
    pub(super) proof: String,
    pub(super) target: TargetLine,
    pub(super) path: Option<String>,
    pub(super) path_b64: Option<String>,
    pub(super) path_in_target: Option<String>,
    pub(super) path_in_target_b64: Option<String>,
    pub(super) watched_ino: Option<u64>,
    pub(super) path_ino: Option<u64>,
    pub(super) mask: Option<Vec<String>>,
    pub(super) watches: Option<usize>,
    pub(super) evidence: Vec<String>,
    pub(super) remedy: String,
}

#[derive(Deserialize)]
pub(super) struct SummaryLine {
    pub(super) changes: u64,
    pub(super) delivered: u64,
    pub(super) merged: u64,
    pub(super) dropped: u64,
    pub(super) never_sent: u64,
    pub(super) unread: u64,
    pub(super) unasked: u64,
    pub(super) reread: u64,
    pub(super) undecided: u64,
    pub(super) records_lost: u64,
    pub(super) read_us_max: Option<u64>,
    pub(super) read_us: Vec<BucketLine>,
    pub(super) causes: Vec<RowLine>,
    pub(super) duration_ms: u64,
}

#[derive(Deserialize)]
pub(super) struct BucketLine {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) count: u64,
}

#[derive(Deserialize)]
pub(super) struct RowLine {
    pub(super) state: String,
    pub(super) cause: Option<String>,
    pub(super) count: u64,
    pub(super) example: String,
    pub(super) example_b64: Option<String>,
}
