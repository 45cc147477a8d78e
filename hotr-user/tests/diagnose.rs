//! The real `hotr diagnose` on real watchers: those that lost their file, those that are healthy, and bad input.
//!
//! Watchers are programs that a test starts, and ends by their id, or instances of the test's own process, which are
//! told apart by their descriptors. Every test runs the program on this machine's kernel.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

#[path = "diagnose/bad_input.rs"]
mod bad_input;
#[path = "diagnose/browser.rs"]
mod browser;
#[path = "browser/chromium.rs"]
mod chromium;
#[path = "diagnose/gone.rs"]
mod gone;
#[path = "diagnose/healthy.rs"]
mod healthy;
#[path = "diagnose/large.rs"]
mod large;
#[path = "diagnose/live.rs"]
mod live;
#[path = "diagnose/masks.rs"]
mod masks;
#[path = "diagnose/paths.rs"]
mod paths;
#[path = "diagnose/reader.rs"]
mod reader;
#[path = "diagnose/relay.rs"]
mod relay;
#[path = "diagnose/replay.rs"]
mod replay;
#[path = "diagnose/run.rs"]
mod run;
#[path = "diagnose/spaces.rs"]
mod spaces;
#[path = "diagnose/targets.rs"]
mod targets;
#[path = "diagnose/trace.rs"]
mod trace;
