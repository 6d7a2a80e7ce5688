//! DHCPv4 (RFC 2131): bytes to message, message to decision, decision to bytes. Nothing here opens, waits or reads a
//! clock.
//!
//! ```text
//! frame::parse ─► Message::parse ─► Request ─► server::answer(policy, ports, table, request, now) ─► Decision
//!                                                 │ address: who may have which address             │
//!                                                 └ reply: options, size, where to send it          ▼
//!                                              frame::emit ◄─ Message::emit ◄────────────── changes, reply
//! ```
//!
//! Contract of the wire types: *parse* turns bytes into a value or says why not, *len* tells how many bytes a value
//! takes, *emit* writes it into a buffer of that length. No input makes any of them panic.

mod address;
mod boot;
mod fqdn;
pub mod frame;
mod message;
pub mod options;
pub(crate) mod policy;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod server;
mod writer;

pub(crate) use address::hash;
pub use message::{MIN_LEN, Message, Op, WireError};

#[cfg(test)]
mod tests;
