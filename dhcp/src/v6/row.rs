//! An IPv6 lease as it is stored and listed: with the wall clock's times. Values only.

use std::net::Ipv6Addr;

use super::table::{Binding, Key};
use crate::{config::LeaseTime, moment::Moment};

/// One stored lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row6 {
    pub(crate) key: Key,
    pub(crate) address: Ipv6Addr,
    pub(crate) prefix: u8,
    pub(crate) duid: Vec<u8>,
    pub(crate) hostname: Option<String>,
    pub(crate) granted: LeaseTime,
    /// Seconds since the Unix epoch; `None` for never.
    pub(crate) ends: Option<u64>,
}

impl Row6 {
    pub(crate) fn new(binding: &Binding, prefix: u8, now: Moment) -> Self {
        Row6 {
            key: binding.key,
            address: binding.address,
            prefix,
            duid: binding.duid.clone(),
            hostname: binding.hostname.clone(),
            granted: binding.granted,
            ends: binding.ends.map(|ends| now.wall_of(ends)),
        }
    }

    pub(crate) fn into_binding(self, now: Moment) -> Binding {
        Binding {
            key: self.key,
            address: self.address,
            duid: self.duid,
            hostname: self.hostname,
            granted: self.granted,
            ends: self.ends.map(|ends| now.boot_of(ends, self.granted)),
        }
    }
}
