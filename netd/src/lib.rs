//! netd gives a Linux host named virtual networks: a bridge, tap ports, NAT, DHCP and DNS.
//!
//! ```text
//! XML, CLI ──► model ──► check ─┐
//!         host ──► observe ─────┴► plan (pure: steps) ──► apply ──► journal ──► observe again, verify
//! ```

pub mod apply;
pub mod beside;
mod capture;
pub mod change;
pub mod check;
pub mod cli;
pub mod daemon;
pub mod doctor;
pub mod events;
pub mod hooks;
pub mod host;
mod import;
pub mod metrics;
pub mod model;
pub mod nss;
pub mod observe;
mod packet;
pub mod plan;
pub mod port;
pub mod registry;
pub mod server;
mod shape;
pub mod snoop;
mod sockets;
pub mod store;
pub mod verbs;
pub mod why;
pub mod xml;
