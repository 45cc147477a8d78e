//! A diagnosis on stdout: as JSON Lines ([`json`]), described in docs/diagnose.md, or for humans ([`human`]).

pub mod human;
pub mod json;
pub mod live;
pub mod page;
pub mod recording;
#[cfg(test)]
mod samples;
