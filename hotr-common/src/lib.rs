//! The contract between hotr's kernel programs and its user side: records, hooks, offsets, counters.
//!
//! Both sides compile this crate; nothing else describes the bytes that pass between them. Every struct is
//! `repr(C)`, has no implicit padding, and its size is asserted here.
#![no_std]

pub mod children;
pub mod config;
pub mod counters;
pub mod delivery;
pub mod hook;
pub mod offsets;
pub mod record;
pub mod rules;
pub mod tier;
pub mod uapi;
