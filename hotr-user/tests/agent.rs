//! The real `hotr agent` and its subscribers: who learns what, and what becomes of those who ask wrongly.
//!
//! All of it needs root, and users without an entry: 54321 and 54323. What must not be reported is looked for after a later
//! change that is reported.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

#[path = "agent/attacks.rs"]
mod attacks;
#[path = "agent/client.rs"]
mod client;
#[path = "agent/fuzz.rs"]
mod fuzz;
#[path = "agent/garbage.rs"]
mod garbage;
#[path = "agent/only_names.rs"]
mod only_names;
#[path = "agent/places.rs"]
mod places;
#[path = "agent/reconnect.rs"]
mod reconnect;
#[path = "agent/refused.rs"]
mod refused;
#[path = "agent/resources.rs"]
mod resources;
#[path = "agent/rights.rs"]
mod rights;
#[path = "agent/roots.rs"]
mod roots;
#[path = "agent/run.rs"]
mod run;
#[path = "agent/slow.rs"]
mod slow;
#[path = "agent/socket.rs"]
mod socket;
