//! The servers a guest meets first: DHCPv4, DHCPv6, router advertisements and DNS, and the leases between them.
//!
//! ```text
//! bytes ──► message ──► server(state, message, now) ──► (lease changes, replies) ──► durable ──► bytes
//! ```
//!
//! The daemon calls [`Services`]; everything behind it is reached only through it.

pub mod config;
pub mod dns;
mod engine;
mod hostname;
mod io;
mod leases;
mod limit;
mod moment;
mod network;
mod news;
mod ports;
mod ra;
mod report;
mod row;
mod service;
mod stats;
mod store;
#[cfg(test)]
mod testing;
mod tftp;
pub mod v4;
pub mod v6;
mod watch;

pub use service::{Error, Lease, Lease6, Services, Started};
pub use stats::{BOUNDS, Counts, Latency};
pub use watch::{LeaseChange, LeaseKind, LeaseWatch};
