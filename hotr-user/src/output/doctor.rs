//! What `hotr doctor` found, on stdout: as JSON Lines ([`json`]) or for humans ([`human`]).

pub mod human;
pub mod json;
#[cfg(test)]
mod samples;
