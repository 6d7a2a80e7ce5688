//! Leases that another DHCP server made, brought along when a network moves to this one: the way to the disk.

use super::{Error, Lease, Services, Write, clock};
use crate::{config::LeaseTime, hostname, row::Row};

impl Services {
    /// Gives a network leases, whether its servers run or not; they are on the disk when this returns. A lease that is
    /// over, and one whose address or client has another lease here, is passed over. Returns how many were taken.
    pub async fn import(&self, network: &str, leases: Vec<Lease>) -> Result<usize, Error> {
        let site = self.site(network);
        let rows = leases.into_iter().map(Row::from).collect();
        let (submission, writes) = site.network.engine().import(rows, clock::now());
        let count = writes.iter().filter(|write| matches!(write, Write::Put(_))).count();
        let written = if writes.is_empty() { Ok(()) } else { self.write(&site.network, writes).await };
        site.network.engine().settle(submission, written.is_ok());
        site.network.publish(clock::now());
        site.network.tell(clock::now()).await;
        written.map(|()| count)
    }
}

impl From<Lease> for Row {
    /// How long it was granted for is not known here. A name that is none is dropped.
    fn from(lease: Lease) -> Self {
        let Lease { mac, address, prefix, hostname, client_id, expiry } = lease;
        let hostname = hostname.and_then(|name| hostname::sanitise(name.as_bytes()));
        Row { mac, address, prefix, hostname, client_id, granted: LeaseTime::Infinite, ends: expiry }
    }
}
