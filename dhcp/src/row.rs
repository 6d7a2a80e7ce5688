//! A lease as it is stored and listed: with the wall clock's times. Values only; [`crate::store`] writes them.

use std::net::Ipv4Addr;

use crate::{
    config::{LeaseTime, Mac},
    leases::Binding,
    moment::Moment,
    v6::{row::Row6, table::Key},
};

/// One stored lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) hostname: Option<String>,
    pub(crate) client_id: Option<Vec<u8>>,
    pub(crate) granted: LeaseTime,
    /// Seconds since the Unix epoch; `None` for never.
    pub(crate) ends: Option<u64>,
}

/// A write to one network's leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Row),
    Delete(Mac),
    Put6(Row6),
    Delete6(Key),
    DeleteAll,
}

impl Row {
    pub(crate) fn new(binding: &Binding, prefix: u8, now: Moment) -> Self {
        Row {
            mac: binding.mac,
            address: binding.address,
            prefix,
            hostname: binding.hostname.clone(),
            client_id: binding.client_id.clone(),
            granted: binding.granted,
            ends: binding.ends.map(|ends| now.wall_of(ends)),
        }
    }

    pub(crate) fn into_binding(self, now: Moment) -> Binding {
        Binding {
            mac: self.mac,
            address: self.address,
            hostname: self.hostname,
            client_id: self.client_id,
            granted: self.granted,
            ends: self.ends.map(|ends| now.boot_of(ends, self.granted)),
        }
    }
}
