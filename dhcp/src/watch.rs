//! Who is told of lease changes before the clients are: values, and the trait the daemon implements.

use std::{fmt, future::Future, net::Ipv4Addr, pin::Pin};

use crate::config::Mac;

/// What a client has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// The client.
    pub mac: Mac,
    /// The address of its live lease; none when that has ended.
    pub address: Option<Ipv4Addr>,
}

/// Is told of every lease that begins, moves or ends. A lease that is merely extended is no change.
///
/// Replies wait for the future: when a client reads its ACK, whoever watches has done what the lease asks for. So it
/// is to be quick, and must not wait for anything that waits for the servers.
pub trait LeaseWatch: fmt::Debug + Send + Sync {
    /// These changes were made to the leases of a network, in the order of the MACs. Calls about one network never
    /// overlap, and come in the order of the changes.
    fn changed<'a>(
        &'a self,
        network: &'a str,
        changes: &'a [LeaseChange],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}
