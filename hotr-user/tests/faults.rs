//! The real program where things go wrong: roots that disappear, unexpected names, readers that stop, limits.
//!
//! Every test runs `hotr trace --json` on this machine's kernel, waits for its lines, and checks what each run owes
//! its reader: `ready` first, `summary` last, counters that add up. What needs eBPF, or root, says so when it
//! cannot be run.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

#[path = "faults/bounds.rs"]
mod bounds;
#[path = "faults/cgroup.rs"]
mod cgroup;
#[path = "faults/chosen.rs"]
mod chosen;
#[path = "faults/ending.rs"]
mod ending;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/losses.rs"]
mod losses;
#[path = "faults/lost_names.rs"]
mod lost_names;
#[path = "faults/mounted.rs"]
mod mounted;
#[path = "faults/names.rs"]
mod names;
#[path = "faults/output.rs"]
mod output;
#[path = "faults/paths.rs"]
mod paths;
#[path = "faults/place.rs"]
mod place;
#[path = "faults/reader.rs"]
mod reader;
#[path = "faults/refused.rs"]
mod refused;
#[path = "faults/requests.rs"]
mod requests;
#[path = "faults/roots.rs"]
mod roots;
#[path = "faults/run.rs"]
mod run;
#[path = "faults/storms.rs"]
mod storms;
#[path = "faults/witness.rs"]
mod witness;
