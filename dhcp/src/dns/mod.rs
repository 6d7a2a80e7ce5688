//! DNS for one network: the local zone, the cache and the forwarder.

use std::net::IpAddr;

/// Names learnt from ports and leases, beside the fixed records of the configuration.
///
/// The lease table builds a new value on every change; the server swaps it in whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// A name (one label or more, any case, no final dot) and an address it stands for.
    pub records: Vec<(String, IpAddr)>,
}
