//! The one place where the command line meets the engine.

use std::future::Future;

use hotr_events::ReportSink;
use hotr_user::diagnose::live;
use hotr_user::doctor::PlanRow;
use hotr_user::error::Error;
use hotr_user::kernel::load::{PlannedHook, Tier};
use hotr_user::kernel::table::is_optional;
use hotr_user::options::{TierChoice, TraceOptions};
use hotr_user::source::ebpf::{EbpfOptions, EbpfSource};

/// Traces until `end` is ready, the duration is over, or the reader of the reports has gone.
pub(super) async fn trace(
    options: TraceOptions,
    printer: &mut dyn ReportSink,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    hotr_user::session::run(options, printer, end).await
}

/// The same with the marks of another process.
pub(super) async fn trace_watcher(
    options: TraceOptions,
    pid: u32,
    printer: &mut dyn ReportSink,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut note = |text: &str| super::say(&format!("note: {text}"));
    live::trace(options, pid, printer, &mut note, end).await.map_err(|error| match error {
        live::TraceError::Trace(error) => anyhow::Error::new(error),
        other => anyhow::Error::new(other),
    })
}

/// Announces to other watchers what they missed.
pub(super) async fn relay(
    options: live::RelayOptions,
    printer: &mut dyn ReportSink,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut note = |text: &str| super::say(&format!("note: {text}"));
    live::relay(options, printer, &mut note, end).await.map_err(|error| match error {
        live::RelayError::Trace(error) => anyhow::Error::new(error),
        other => anyhow::Error::new(other),
    })
}

/// The attach plan of this machine, or why there is none. Which tier a hook gets is known only by attaching it:
/// the programs are attached without any watched root, and gone again when this returns.
pub(super) fn plan() -> Result<Vec<PlanRow>, String> {
    let options = EbpfOptions { tier: TierChoice::Auto, ring_bytes: RING_BYTES, window_ns: 0, sizes: &[] };
    let (mut source, kernel) = EbpfSource::load(options).map_err(|error| error.to_string())?;
    source.attach(kernel, TierChoice::Auto).map_err(|error| error.to_string())?;
    Ok(source.plan().iter().map(row).collect())
}

/// Room for nothing: without a root no record is made.
const RING_BYTES: u32 = 64 * 1024;

fn row(planned: &PlannedHook) -> PlanRow {
    PlanRow {
        hook: kebab(&format!("{:?}", planned.hook)),
        tier: planned.tier.map(Tier::as_str),
        attached_to: planned.tier.map_or_else(String::new, |_| planned.function.to_owned()),
        why: planned.why.clone(),
        optional: is_optional(planned.hook),
    }
}

/// `CopyFileRange` as `copy-file-range`.
fn kebab(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}
