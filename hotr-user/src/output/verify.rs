//! What the laboratory found, on stdout: as JSON Lines ([`json`]), described in docs/verify.md, or for humans ([`human`]).

pub mod human;
pub mod json;
pub mod report;
#[cfg(test)]
mod samples;
