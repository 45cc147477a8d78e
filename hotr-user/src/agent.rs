//! `hotr agent`: one process with one set of kernel programs, and any number of subscribers who may have no privilege at all.
//!
//! In: directory descriptors that subscribers pass over a socket. Out: to each of them the changes below its directories, with
//! paths relative to each, and nothing that it could not have read by itself. docs/agent.md is the protocol.
//!
//! One thread reads the kernel's records ([`server`]). Each subscriber has a thread of its own ([`connection`]) which has the
//! subscriber's rights on files, so that the kernel itself decides what the subscriber may see ([`view`]), and which alone
//! waits for what the subscriber makes it wait for.

mod accounts;
mod actors;
mod admission;
mod client;
mod comparison;
mod connection;
mod engine;
mod error;
mod inbox;
mod known;
mod listener;
mod literal;
mod order;
mod outgoing;
mod peer;
mod place;
mod seen;
mod server;
mod subscription;
mod view;
mod wire;

pub use client::Client;
pub use error::{AgentError, ClientError};
pub use server::{AgentOptions, serve};
pub use subscription::{Subscription, Update};
pub use wire::{Event, Request, VERSION};

/// Where the agent listens, and subscribers look for it.
pub const SOCKET: &str = "/run/hotr/agent.sock";
