//! Who is told what becomes of clients and their leases: values, and the trait the daemon implements. There is no other
//! way to hear of it.

use std::{fmt, future::Future, net::IpAddr, pin::Pin};

use crate::config::Mac;

/// What became of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// The client.
    pub mac: Mac,
    /// The name it has or claims.
    pub hostname: Option<String>,
    /// What happened.
    pub kind: LeaseKind,
}

/// What happened to a client, and the address it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// It asks for any address. Whether it gets one is told next.
    Discovering,
    /// It was offered one.
    Offered(IpAddr),
    /// Its lease of this address began.
    Leased(IpAddr),
    /// Its lease goes on longer.
    Renewed(IpAddr),
    /// It gave its lease back.
    Released(IpAddr),
    /// The time of its lease is over.
    Expired(IpAddr),
    /// It found another machine using its address: the lease is over and nobody gets the address for a while.
    Declined(IpAddr),
    /// Its lease ended for another reason: it has another address now, or the network lost this one.
    Dropped(IpAddr),
}

impl LeaseKind {
    /// Whether a live lease began or ended with it.
    pub fn moves_an_address(self) -> bool {
        !matches!(self, LeaseKind::Discovering | LeaseKind::Offered(_) | LeaseKind::Renewed(_))
    }
}

/// Is told of all that happens to leases.
///
/// Acknowledgements wait for the future: when a client reads its ACK, whoever watches has done what the lease asks for.
/// So it is to be quick, and must not wait for anything that waits for the servers.
pub trait LeaseWatch: fmt::Debug + Send + Sync {
    /// This happened on a network, in this order. Calls about one network never overlap, and come in the order in which
    /// things happened. What began or ended is on disk; an offer may be on the wire already.
    fn changed<'a>(
        &'a self,
        network: &'a str,
        changes: &'a [LeaseChange],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}
