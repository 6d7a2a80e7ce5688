//! The servers a guest meets first: DHCPv4 and DNS, and the lease table between them.
//!
//! ```text
//! bytes ──► message ──► server(state, message, now) ──► (lease changes, replies) ──► durable ──► bytes
//! ```

pub mod config;
pub mod dns;
