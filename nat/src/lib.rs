//! From what a network wants to one nftables transaction.
//!
//! ```text
//! intent ──► ruleset (pure: nft objects) ─┬─► apply: the whole table, and what all networks stand on, by `nft`
//!                                         └─► compile (pure) ──► table: one network or forward, by netlink
//! ```
//!
//! Everything lives in two tables of ours, both called [`TABLE`]: family `inet` for networks, family `bridge` for the
//! guards of ports ([`guards`]). The crate only ever writes, but for counters that people look at and the addresses that
//! ports have claimed: no rule is read back, matched or recognised, so it does not matter how a release of `nft` prints
//! them. For a user who asks what becomes of a flow, [`trace`] has two short-lived tables more, and shows rules in `nft`'s
//! words.

mod apply;
mod compile;
mod forwards;
pub mod guards;
mod intent;
mod nfnetlink;
mod policy;
mod ruleset;
mod socket;
mod table;
mod text;
pub mod trace;

pub use apply::{Error, delete_table, rehearse, replace};
pub use forwards::{Forward, Others, Protocol};
pub use intent::{DnsRedirect, Mode, Network};
pub use policy::{Allowed, Policy};
pub use ruleset::TABLE;
pub use table::Table;
pub use text::difference;
