//! What the host's other programs may know of active networks.

use super::{Host, Verbs};
use crate::beside::Wish;

impl<H: Host> Verbs<H> {
    /// What the active networks would have the host's other programs know.
    pub fn wishes(&self) -> Vec<Wish> {
        let registry = self.registry();
        let live = registry.networks().filter_map(|(_, entry)| entry.live.as_ref());
        live.filter_map(|live| Wish::new(&live.network, &live.desired)).collect()
    }

    /// The domain of an active network, if it has one.
    pub fn domain(&self, network: &str) -> Option<String> {
        let registry = self.registry();
        let (_, live) = registry.find_live(network).ok()?;
        Some(live.network.domain.as_ref()?.name.clone())
    }
}
