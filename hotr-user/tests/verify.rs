//! The real `hotr verify` on this machine's kernel: its verdicts, that each can change, and that nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

#[path = "verify/bad_input.rs"]
mod bad_input;
#[path = "browser/chromium.rs"]
mod chromium;
#[path = "verify/compared.rs"]
mod compared;
#[path = "verify/expected.rs"]
mod expected;
#[path = "verify/kernel_path.rs"]
mod kernel_path;
#[path = "verify/left_behind.rs"]
mod left_behind;
#[path = "verify/machine.rs"]
mod machine;
#[path = "verify/report.rs"]
mod report;
#[path = "verify/run.rs"]
mod run;
#[path = "verify/self_test.rs"]
mod self_test;
#[path = "verify/strace.rs"]
mod strace;
#[path = "verify/verdicts.rs"]
mod verdicts;
