//! The real `hotr watch`: one save is one reload, nothing is none, and bad input has a clear end.
//!
//! Every test runs the program on this machine's kernel, with real editors and tools, and waits for its lines. A
//! program that is missing fails its test with the package to install (`cargo xtask setup --tests`).

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

#[path = "watch/actions.rs"]
mod actions;
#[path = "watch/audits.rs"]
mod audits;
#[path = "watch/bad_input.rs"]
mod bad_input;
#[path = "watch/behind.rs"]
mod behind;
#[path = "watch/chosen.rs"]
mod chosen;
#[path = "watch/descendants.rs"]
mod descendants;
#[path = "watch/edits.rs"]
mod edits;
#[path = "watch/exchange.rs"]
mod exchange;
#[path = "watch/faults.rs"]
mod faults;
#[path = "watch/inherited.rs"]
mod inherited;
#[path = "watch/inject.rs"]
mod inject;
#[path = "watch/kept.rs"]
mod kept;
#[path = "watch/large.rs"]
mod large;
#[path = "watch/links.rs"]
mod links;
#[path = "watch/nothing.rs"]
mod nothing;
#[path = "watch/options.rs"]
mod options;
#[path = "watch/rollback.rs"]
mod rollback;
#[path = "watch/run.rs"]
mod run;
#[path = "watch/saves.rs"]
mod saves;
#[path = "watch/screen.rs"]
mod screen;
#[path = "watch/stream.rs"]
mod stream;
#[path = "watch/surroundings.rs"]
mod surroundings;
