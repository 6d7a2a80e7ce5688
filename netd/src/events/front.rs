//! Where DHCP tells what becomes of leases: first whoever a client's acknowledgement must wait for, then everyone.

use std::{future::Future, pin::Pin, sync::Arc};

use dhcp::{LeaseChange, LeaseWatch};

use super::{Bus, lease};

/// The only watch on the leases of all networks.
#[derive(Debug)]
pub struct LeaseFront {
    /// The ports' guards, which must be open before the client hears of its address (decision 4).
    first: Arc<dyn LeaseWatch>,
    bus: Bus,
}

impl LeaseFront {
    /// Acknowledgements wait for `first`; then `bus` is told.
    pub fn new(first: Arc<dyn LeaseWatch>, bus: Bus) -> Self {
        LeaseFront { first, bus }
    }
}

impl LeaseWatch for LeaseFront {
    fn changed<'a>(
        &'a self,
        network: &'a str,
        changes: &'a [LeaseChange],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            self.first.changed(network, changes).await;
            for change in changes {
                self.bus.tell(lease(network, change));
            }
        })
    }
}
