//! netd gives a Linux host named virtual networks: a bridge, tap ports, NAT, DHCP and DNS.
//!
//! ```text
//! XML, CLI ──► model ──► check ─┐
//!         host ──► observe ─────┴► plan (pure: steps) ──► apply ──► journal ──► observe again, verify
//! ```

pub mod check;
pub mod model;
pub mod xml;
