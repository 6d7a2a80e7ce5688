//! From what a network wants to one nftables transaction.
//!
//! ```text
//! intent ──► ruleset (pure: nft objects) ──► apply (one `nft` transaction)
//! ```
//!
//! Everything lives in one table of ours, [`TABLE`]. The crate only ever writes: no rule is read back, matched or
//! recognised, so it does not matter how a release of `nft` prints them.

mod apply;
mod intent;
mod ruleset;

pub use apply::{Error, add, delete_table, rehearse, remove, replace};
pub use intent::{DnsRedirect, Mode, Network};
pub use ruleset::TABLE;
