//! What hotr reports, as types: changes, what missed them and why, losses, reloads; and the JSON Lines that it writes of
//! them, which these types also read.
//!
//! A program that reads `hotr trace --json` or `hotr watch --json` parses each line into a [`Line`]:
//!
//! ```
//! use hotr_events::Line;
//!
//! let line = r#"{"type":"loss","channel":"inotify","reason":"queue-overflow","count":1,"why":"…"}"#;
//! let Ok(Line::Loss { reason, count, .. }) = serde_json::from_str(line) else { panic!() };
//! assert_eq!((reason.as_str(), count), ("queue-overflow", 1));
//! ```

mod cause;
mod change;
mod confirmed;
mod exact;
pub mod json;
mod line;
mod loss;
pub mod mask;
mod origin;
mod relay;
mod report;
mod totals;
mod watcher;
mod words;

pub use cause::Cause;
pub use change::{Actor, Change, Channel, Detail, FileId, FileType, Layer, Missed, Op, Written};
pub use confirmed::{ConfirmedChange, Evidence, Kind};
pub use line::{Line, RawLine};
pub use loss::LossReason;
pub use origin::{Origin, Parent};
pub use relay::{Refusal, Relay, RelayEvent, RelayTarget};
pub use report::{
    Alias, ChannelInfo, ChannelState, Raw, Reload, ReloadState, Report, ReportSink, Root, Trigger,
};
pub use totals::KernelTotals;
pub use watcher::{Proof, Watcher, WatcherId, WatcherState};
