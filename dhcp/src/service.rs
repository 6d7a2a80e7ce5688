//! The front door for the daemon: start and stop the servers of a network, list and drop its leases.
//!
//! It decides nothing about packets or names; it owns the running tasks and the lease database, and hands values
//! between them.

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use crate::config::{Mac, NetworkConfig, PortName};

/// The servers of every network, and the one lease database behind them. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Services {}

/// What [`Services::start`] settled while starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Where DNS is served on the bridge's addresses, UDP and TCP: 53, or a high port when another program holds 53
    /// (redirect to it then). `None` if the network has no DNS.
    pub dns_port: Option<u16>,
}

/// One lease of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The client's hardware address: whose lease it is.
    pub mac: Mac,
    /// The leased address.
    pub address: Ipv4Addr,
    /// The prefix length of the subnet the address is on.
    pub prefix: u8,
    /// The name the client or its reservation gave.
    pub hostname: Option<String>,
    /// The client identifier (option 61), type byte included.
    pub client_id: Option<Vec<u8>>,
    /// End of the lease in seconds since the Unix epoch; `None` for a lease without end.
    pub expiry: Option<u64>,
}

/// Why the servers could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lease database can't be opened or made.
    #[error("failed to open the lease database {}: {cause}", path.display())]
    OpenDatabase {
        /// Its path.
        path: PathBuf,
        /// What SQLite or the file system said.
        cause: String,
    },
    /// The lease database refused a write.
    #[error("failed to write leases of network '{network}' to disk: {cause}")]
    Write {
        /// Whose leases.
        network: String,
        /// What SQLite or the file system said.
        cause: String,
    },
    /// The network's servers run already.
    #[error("the servers of network '{network}' are already running")]
    AlreadyRunning {
        /// Which network.
        network: String,
    },
    /// The DHCP sockets can't be opened.
    #[error("failed to listen for DHCP on bridge {bridge} of network '{network}': {cause}")]
    DhcpSocket {
        /// Which network.
        network: String,
        /// The bridge's interface name.
        bridge: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The DNS server can't be started.
    #[error("failed to serve DNS on bridge {bridge} of network '{network}': {cause}")]
    Dns {
        /// Which network.
        network: String,
        /// The bridge's interface name.
        bridge: String,
        /// What the DNS server said.
        cause: String,
    },
}

impl Services {
    /// Opens the lease database, making it if it isn't there, and loads every lease.
    ///
    /// A corrupt database is set aside under a new name, with a log line, and a fresh one made.
    pub async fn open(lease_db: &Path) -> Result<Services, Error> {
        Err(Error::OpenDatabase { path: lease_db.to_owned(), cause: "the lease store is not built in yet".into() })
    }

    /// Starts the servers of one network; their sockets are ready when this returns.
    ///
    /// The bridge must exist and carry its addresses. Leases of the network outside its subnet are dropped.
    pub async fn start(&self, config: NetworkConfig) -> Result<Started, Error> {
        Err(Error::DhcpSocket {
            network: config.network,
            bridge: config.bridge,
            cause: io::Error::from(io::ErrorKind::Unsupported),
        })
    }

    /// Stops the servers of one network; its sockets are closed when this returns, its leases stay on disk.
    /// Stopping what doesn't run does nothing.
    pub async fn stop(&self, network: &str) {
        let _ = network;
    }

    /// Replaces the network's list of ports: whose MACs we gave, and the guest names DNS and hostname rules go by.
    /// May be called before [`Services::start`].
    pub fn set_ports(&self, network: &str, ports: Vec<PortName>) {
        let _ = (network, ports);
    }

    /// The leases of one network that have not expired, sorted by MAC, whether its servers run or not.
    pub fn leases(&self, network: &str) -> Vec<Lease> {
        let _ = network;
        Vec::new()
    }

    /// Drops every lease and port name of one network, which has been undefined.
    pub async fn forget(&self, network: &str) -> Result<(), Error> {
        let _ = network;
        Ok(())
    }
}
