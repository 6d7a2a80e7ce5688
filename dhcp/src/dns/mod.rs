//! DNS for one network: the local zone, the cache and the forwarder.
//!
//! ```text
//! query ─► wire ─► zone ──known or never forwarded──────────────────────────► answer of our own
//!                   └──► cache ──kept───────────────────────────────────────► the upstream's bytes, older TTLs
//!                          └──► resolver ──in flight, deadlines──► upstream ─► the upstream's bytes
//! ```
//!
//! `wire`, `zone`, `cache`, `resolver`, `route` and `upstream` are pure: bytes, values and `now` in, values out. `io` holds the
//! sockets and the watch on resolv.conf and decides nothing. No name is ever looked up by the host's own resolver.

mod cache;
mod io;
mod resolver;
mod route;
#[cfg(test)]
mod testing;
mod upstream;
mod wire;
mod zone;

use std::{
    io::Error as IoError,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::watch;

use crate::{config::DnsConfig, stats::Stats};

/// Names learnt from ports and leases, beside the fixed records of the configuration.
///
/// The lease table builds a new value on every change; the server swaps it in whole.
///
/// Whoever fills this answers for the names: one with dots shadows the public name it equals, so what a guest calls
/// itself belongs here as a single label. Fixed records, `localhost` and `_gateway` can't be overridden from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// A name (one label or more, any case, no final dot) and an address it stands for.
    pub records: Vec<(String, IpAddr)>,
}

/// Why a network's DNS can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no address to serve.
    #[error("DNS on bridge {bridge} has no address to listen on; give the network an <ip> or disable its DNS")]
    NoAddress {
        /// The bridge.
        bridge: String,
    },
    /// The bridge isn't there.
    #[error("DNS can't find bridge {bridge}: {source}")]
    NoBridge {
        /// The bridge.
        bridge: String,
        /// What the kernel said.
        source: IoError,
    },
    /// A socket can't be had.
    #[error("DNS on bridge {bridge} can't {step} on {address}: {source}")]
    Socket {
        /// The bridge.
        bridge: String,
        /// What was tried.
        step: &'static str,
        /// The address and port it was tried on.
        address: SocketAddr,
        /// What the kernel said.
        source: IoError,
    },
}

/// A network's DNS while it runs. Dropping it ends the service too, without waiting for the sockets to close.
#[derive(Debug)]
pub struct Running(io::Service);

impl Running {
    /// The port served, over UDP and TCP, on every address: 53, or a high one where something else holds 53. Then the
    /// caller redirects port 53 of these addresses to it.
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Goes on with another configuration, without a pause at the addresses that stay; nothing is changed on an error.
    /// The port may be another afterwards.
    pub async fn reconfigure(&mut self, config: DnsConfig) -> Result<(), Error> {
        self.0.reconfigure(config).await
    }

    /// Ends the service. The sockets are closed when this returns; queries in flight get no answer.
    pub async fn stop(self) {
        self.0.stop().await;
    }
}

/// Serves `config` on its addresses for packets that come in through `bridge` or from the host itself, and follows
/// `names` and the file that lists the upstreams. Must be called on a tokio runtime with time and I/O.
pub(crate) async fn serve(
    config: DnsConfig,
    bridge: &str,
    names: watch::Receiver<Arc<Names>>,
    stats: Arc<Stats>,
) -> Result<Running, Error> {
    let mut surroundings = io::Surroundings::default();
    surroundings.stats = stats;
    io::Service::start(config, bridge, names, surroundings).await.map(Running)
}
