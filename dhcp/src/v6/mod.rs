//! DHCPv6 (RFC 8415): bytes to message, message to decision, decision to bytes. Nothing here opens, waits or reads a
//! clock.
//!
//! ```text
//! frame::parse ─► message::parse ─► Request ─► server::answer(policy, ports, table, request, now) ─► Decision
//!                  (out of relays)                │ address: who may have which address             │
//!                                                 └ reply: options, and back through the relays     ▼
//!                                     frame::datagram ◄─ Reply::emit ◄──────────────────── changes, reply
//! ```
//!
//! A lease belongs to a hardware address and the number its client has for the interface (decision 12).

mod address;
pub(crate) mod engine;
pub mod frame;
pub mod message;
pub(crate) mod name;
mod news;
mod policy;
pub(crate) mod reply;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod row;
mod server;
pub(crate) mod table;

#[cfg(test)]
mod tests;
