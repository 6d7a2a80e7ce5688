//! The front door for the daemon: start and stop the servers of a network, list and drop its leases.
//!
//! It decides nothing about packets or names; it owns the running tasks and the lease database, and hands values
//! between them.

mod import;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    config::{Mac, NetworkConfig, PortName, TftpConfig},
    dns,
    engine::Engine,
    io::{self, clock},
    network::Network,
    row::{Row, Write},
    stats::Counts,
    store::{Job, Store, Stored, WriteFailed},
    tftp,
    v4::policy::Policy,
    v6::{self, row::Row6},
    watch::LeaseWatch,
};

/// The servers of every network, and the one lease database behind them. A clone is another handle on the same.
///
/// Needs a tokio runtime with I/O and time. Dropping the last handle stops every server, without waiting for it.
#[derive(Clone, Debug)]
pub struct Services {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    /// Our DHCPv6 server's, the same on every network.
    duid: Arc<[u8]>,
    sites: Mutex<HashMap<String, Arc<Site>>>,
    watch: Option<Arc<dyn LeaseWatch>>,
}

/// A network and what runs for it.
#[derive(Debug)]
struct Site {
    network: Arc<Network>,
    running: tokio::sync::Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    dhcp: Option<io::server::Running>,
    ipv6: Option<io::server6::Running>,
    dns: Option<dns::Running>,
    tftp: Vec<(TftpConfig, tftp::Running)>,
}

impl Site {
    fn new(name: &str, engine: Engine, engine6: v6::engine::Engine, watch: Option<Arc<dyn LeaseWatch>>) -> Self {
        Site { network: Arc::new(Network::new(name, engine, engine6, watch)), running: tokio::sync::Mutex::default() }
    }
}

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

/// One IPv6 lease of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease6 {
    /// The client's hardware address.
    pub mac: Mac,
    /// The number that the client has for what the lease is for (IAID, RFC 8415 §12).
    pub iaid: u32,
    /// The leased address.
    pub address: Ipv6Addr,
    /// The prefix length of the subnet the address is on.
    pub prefix: u8,
    /// The name the client or its reservation gave.
    pub hostname: Option<String>,
    /// The client's DUID.
    pub duid: Vec<u8>,
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
    /// The network's servers do not run.
    #[error("the servers of network '{network}' are not running")]
    NotRunning {
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
        cause: std::io::Error,
    },
    /// TFTP can't be served.
    #[error("failed to serve the files of {} by TFTP on network '{network}': {cause}", root.display())]
    Tftp {
        /// Which network.
        network: String,
        /// The directory.
        root: PathBuf,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// The sockets for router advertisements and DHCPv6 can't be opened.
    #[error("failed to listen for IPv6 on bridge {bridge} of network '{network}': {cause}")]
    Ipv6Socket {
        /// Which network.
        network: String,
        /// The bridge's interface name.
        bridge: String,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// The DNS server can't be started.
    #[error("failed to start network '{network}': {cause}")]
    Dns {
        /// Which network.
        network: String,
        /// What the DNS server said.
        cause: dns::Error,
    },
}

/// Those of one network; none if one of them can't be.
fn serve_files(
    network: &str,
    bridge: &str,
    configs: impl Iterator<Item = TftpConfig>,
) -> Result<Vec<(TftpConfig, tftp::Running)>, Error> {
    let serve = |config: TftpConfig| match tftp::Running::start(&config, bridge) {
        Ok(running) => Ok((config, running)),
        Err(cause) => Err(Error::Tftp { network: network.to_owned(), root: config.root, cause }),
    };
    configs.map(serve).collect()
}

impl Services {
    /// Opens the lease database, making it if it isn't there, and loads every lease.
    ///
    /// A corrupt database is set aside under a new name, with a log line, and a fresh one made.
    pub async fn open(lease_db: &Path) -> Result<Services, Error> {
        Self::open_with(lease_db, None).await
    }

    /// The same, and `watch` is told of all that happens to clients and leases from then on; of a lease before its client
    /// is. What [`Services::leases`] lists when this returns is not told.
    pub async fn open_watched(lease_db: &Path, watch: Arc<dyn LeaseWatch>) -> Result<Services, Error> {
        Self::open_with(lease_db, Some(watch)).await
    }

    async fn open_with(lease_db: &Path, watch: Option<Arc<dyn LeaseWatch>>) -> Result<Services, Error> {
        let failed = |cause: String| Error::OpenDatabase { path: lease_db.to_owned(), cause };
        let path = lease_db.to_owned();
        let opened = tokio::task::spawn_blocking(move || Store::open(&path, &new_duid())).await;
        let (store, stored) =
            opened.map_err(|cause| failed(cause.to_string()))?.map_err(|cause| failed(cause.to_string()))?;

        let Stored { leases, leases6, duid } = stored;
        let mut rows: HashMap<String, (Vec<Row>, Vec<Row6>)> = HashMap::new();
        for (network, row) in leases {
            rows.entry(network).or_default().0.push(row);
        }
        for (network, row) in leases6 {
            rows.entry(network).or_default().1.push(row);
        }
        let (now, duid) = (clock::now(), Arc::<[u8]>::from(duid));
        let networks = rows.into_iter().map(|(name, (rows, rows6))| {
            let engine6 = v6::engine::Engine::new(rows6, duid.clone(), now);
            let site = Site::new(&name, Engine::new(rows, now), engine6, watch.clone());
            (name, Arc::new(site))
        });
        let sites = Mutex::new(networks.collect());
        Ok(Services { inner: Arc::new(Inner { store: Arc::new(store), duid, sites, watch }) })
    }

    /// Starts the servers of one network; their sockets are ready when this returns.
    ///
    /// The bridge must exist and carry its addresses. Leases of the network outside its subnet are dropped.
    pub async fn start(&self, config: NetworkConfig) -> Result<Started, Error> {
        let NetworkConfig { network: name, bridge, dhcp4, ipv6, dns, tftp } = config;
        let site = self.site(&name);
        let mut running = site.running.lock().await;
        if running.is_some() {
            return Err(Error::AlreadyRunning { network: name });
        }
        let tftp = serve_files(&name, &bridge, tftp.into_iter())?;
        let (serves_dhcp, serves_ipv6) = (dhcp4.is_some(), ipv6.is_some());
        let stray = site.network.engine().configure(dhcp4.map(Policy::new));
        if let Some((submission, writes)) = stray {
            let written = self.write(&site.network, writes).await;
            site.network.engine().settle(submission, written.is_ok());
            written?;
        }
        site.network.engine6().reconfigure(ipv6, clock::now());
        self.drop_strays6(&site.network).await?;
        site.network.publish(clock::now());
        site.network.tell(clock::now()).await;

        let dns = match dns {
            Some(dns) => Some(
                dns::serve(dns, &bridge, site.network.names(), site.network.stats.clone())
                    .await
                    .map_err(|cause| Error::Dns { network: name.clone(), cause })?,
            ),
            None => None,
        };
        let started = Started { dns_port: dns.as_ref().map(dns::Running::port) };
        let dhcp = if serves_dhcp {
            match io::server::Running::start(site.network.clone(), &bridge, self.inner.store.clone()) {
                Ok(dhcp) => Some(dhcp),
                Err(cause) => {
                    if let Some(dns) = dns {
                        dns.stop().await;
                    }
                    return Err(Error::DhcpSocket { network: name, bridge, cause });
                }
            }
        } else {
            None
        };
        let ipv6 = if serves_ipv6 {
            match io::server6::Running::start(site.network.clone(), &bridge, self.inner.store.clone()) {
                Ok(ipv6) => Some(ipv6),
                Err(cause) => {
                    if let Some(dhcp) = dhcp {
                        dhcp.stop().await;
                    }
                    if let Some(dns) = dns {
                        dns.stop().await;
                    }
                    return Err(Error::Ipv6Socket { network: name, bridge, cause });
                }
            }
        } else {
            None
        };
        *running = Some(Running { dhcp, ipv6, dns, tftp });
        Ok(started)
    }

    /// Goes on serving a network with another configuration: another policy for DHCP, other names and addresses for DNS.
    /// Sockets that stay in use are left alone, and every lease is kept. On an error everything is as it was.
    ///
    /// A client whose address is outside the new subnet is refused when it asks for more time (RFC 2131 §4.3.2), and
    /// asks for a new address then. Until [`Services::drop_strays`] its lease is not listed but remembered, so that the
    /// old configuration, should it come back, finds it. One that has an address other than the one reserved for it now
    /// keeps it until it asks again.
    pub async fn reconfigure(&self, config: NetworkConfig) -> Result<Started, Error> {
        let NetworkConfig { network: name, bridge, dhcp4, ipv6, dns, tftp } = config;
        let not_running = || Error::NotRunning { network: name.clone() };
        let site = self.known(&name).ok_or_else(not_running)?;
        let mut guard = site.running.lock().await;
        let running = guard.as_mut().ok_or_else(not_running)?;

        // What may fail comes first.
        let is_new = |config: &&TftpConfig| !running.tftp.iter().any(|(known, _)| known == *config);
        let new_tftp = serve_files(&name, &bridge, tftp.iter().filter(is_new).cloned())?;
        let new_dhcp = match (&running.dhcp, &dhcp4) {
            (None, Some(_)) => Some(
                io::server::Running::start(site.network.clone(), &bridge, self.inner.store.clone())
                    .map_err(|cause| Error::DhcpSocket { network: name.clone(), bridge: bridge.clone(), cause })?,
            ),
            _ => None,
        };
        let new_ipv6 = match (&running.ipv6, &ipv6) {
            (None, Some(_)) => {
                match io::server6::Running::start(site.network.clone(), &bridge, self.inner.store.clone()) {
                    Ok(ipv6) => Some(ipv6),
                    Err(cause) => {
                        if let Some(dhcp) = new_dhcp {
                            dhcp.stop().await;
                        }
                        return Err(Error::Ipv6Socket { network: name, bridge, cause });
                    }
                }
            }
            _ => None,
        };
        let serves_dns = dns.is_some();
        let served = match (&mut running.dns, dns) {
            (Some(service), Some(dns)) => service.reconfigure(dns).await.map(|()| None),
            (None, Some(dns)) => {
                dns::serve(dns, &bridge, site.network.names(), site.network.stats.clone()).await.map(Some)
            }
            (_, None) => Ok(None),
        };
        let new_dns = match served {
            Ok(new_dns) => new_dns,
            Err(cause) => {
                if let Some(dhcp) = new_dhcp {
                    dhcp.stop().await;
                }
                if let Some(ipv6) = new_ipv6 {
                    ipv6.stop().await;
                }
                return Err(Error::Dns { network: name, cause });
            }
        };

        let (serves_dhcp, serves_ipv6) = (dhcp4.is_some(), ipv6.is_some());
        site.network.engine().reconfigure(dhcp4.map(Policy::new));
        // One that ends says so to the guests, in the configuration it had.
        let old_ipv6 =
            if new_ipv6.is_some() || !serves_ipv6 { std::mem::replace(&mut running.ipv6, new_ipv6) } else { None };
        if let Some(ipv6) = old_ipv6 {
            ipv6.stop().await;
        }
        site.network.engine6().reconfigure(ipv6, clock::now());
        site.network.wake6.notify_one();
        let old_dns =
            if new_dns.is_some() || !serves_dns { std::mem::replace(&mut running.dns, new_dns) } else { None };
        let old_dhcp =
            if new_dhcp.is_some() || !serves_dhcp { std::mem::replace(&mut running.dhcp, new_dhcp) } else { None };
        let old_tftp = running.tftp.extract_if(.., |(config, _)| !tftp.contains(config)).collect::<Vec<_>>();
        running.tftp.extend(new_tftp);
        for (_, tftp) in old_tftp {
            tftp.stop().await;
        }
        if let Some(dhcp) = old_dhcp {
            dhcp.stop().await;
        }
        if let Some(dns) = old_dns {
            dns.stop().await;
        }
        site.network.publish(clock::now());
        site.network.tell(clock::now()).await;
        Ok(Started { dns_port: running.dns.as_ref().map(dns::Running::port) })
    }

    /// Drops the leases of a network that are outside its subnet: the configuration is there to stay.
    pub async fn drop_strays(&self, network: &str) -> Result<(), Error> {
        let Some(site) = self.known(network) else { return Ok(()) };
        let _running = site.running.lock().await;
        let stray = site.network.engine().drop_strays();
        if let Some((submission, writes)) = stray {
            let written = self.write(&site.network, writes).await;
            site.network.engine().settle(submission, written.is_ok());
            written?;
        }
        self.drop_strays6(&site.network).await
    }

    async fn drop_strays6(&self, network: &Network) -> Result<(), Error> {
        let stray = network.engine6().drop_strays(clock::now());
        let Some((submission, writes)) = stray else { return Ok(()) };
        let written = self.write(network, writes).await;
        network.engine6().settle(submission, written.is_ok());
        written
    }

    /// Stops the servers of one network; its sockets are closed when this returns, its leases stay on disk. Guests are
    /// told that we are no router any more.
    /// Stopping what doesn't run does nothing.
    pub async fn stop(&self, network: &str) {
        let Some(site) = self.known(network) else { return };
        let mut running = site.running.lock().await;
        if let Some(Running { dhcp, ipv6, dns, tftp }) = running.take() {
            for (_, server) in tftp {
                server.stop().await;
            }
            if let Some(dhcp) = dhcp {
                dhcp.stop().await;
            }
            if let Some(ipv6) = ipv6 {
                ipv6.stop().await;
            }
            if let Some(dns) = dns {
                dns.stop().await;
            }
        }
    }

    /// Replaces the network's list of ports: whose MACs we gave, and the guest names DNS and hostname rules go by.
    /// May be called before [`Services::start`].
    pub fn set_ports(&self, network: &str, ports: Vec<PortName>) {
        let site = self.site(network);
        site.network.engine().set_ports(ports.clone());
        site.network.engine6().set_ports(ports);
        site.network.publish(clock::now());
    }

    /// The leases of one network that have not expired, sorted by MAC, whether its servers run or not.
    pub fn leases(&self, network: &str) -> Vec<Lease> {
        let Some(site) = self.known(network) else { return Vec::new() };
        let rows = site.network.engine().leases(clock::now());
        rows.into_iter().map(Lease::from).collect()
    }

    /// The IPv6 leases of one network that have not expired, sorted by MAC, whether its servers run or not.
    pub fn leases6(&self, network: &str) -> Vec<Lease6> {
        let Some(site) = self.known(network) else { return Vec::new() };
        let rows = site.network.engine6().leases(clock::now());
        rows.into_iter().map(Lease6::from).collect()
    }

    /// Who has which address by a lease of one network, of either family.
    pub fn leased(&self, network: &str) -> Vec<(Mac, IpAddr)> {
        let leases = self.leases(network).into_iter().map(|lease| (lease.mac, lease.address.into()));
        leases.chain(self.leases6(network).into_iter().map(|lease| (lease.mac, lease.address.into()))).collect()
    }

    /// The DUID by which clients know our DHCPv6 server.
    pub fn duid(&self) -> &[u8] {
        &self.inner.duid
    }

    /// What the servers of one network have done since this process started; none if it never had any.
    pub fn counts(&self, network: &str) -> Option<Counts> {
        Some(self.known(network)?.network.stats.read())
    }

    /// Drops every lease and port name of one network, which has been undefined. On an error nothing is dropped.
    pub async fn forget(&self, network: &str) -> Result<(), Error> {
        let Some(site) = self.known(network) else { return Ok(()) };
        let running = site.running.lock().await;
        self.write(&site.network, vec![Write::DeleteAll]).await?;
        site.network.engine().forget();
        site.network.engine6().forget();
        site.network.publish(clock::now());
        site.network.tell(clock::now()).await;
        if running.is_none() {
            self.sites().remove(network);
        }
        Ok(())
    }

    /// Makes writes durable.
    async fn write(&self, network: &Network, writes: Vec<Write>) -> Result<(), Error> {
        let (answer, written) = oneshot::channel();
        let done = Box::new(move |result| {
            // Whoever asked has stopped waiting: nobody else wants to know.
            let _ = answer.send(result);
        });
        self.inner.store.submit(Job { network: network.name.clone(), writes, done });
        let result = written.await.unwrap_or_else(|_| Err(WriteFailed("the lease store has stopped".into())));
        result.map_err(|cause| Error::Write { network: network.name.to_string(), cause: cause.to_string() })
    }

    fn known(&self, network: &str) -> Option<Arc<Site>> {
        self.sites().get(network).cloned()
    }

    fn site(&self, network: &str) -> Arc<Site> {
        let new = || {
            let now = clock::now();
            let engine6 = v6::engine::Engine::new([], self.inner.duid.clone(), now);
            Arc::new(Site::new(network, Engine::new([], now), engine6, self.inner.watch.clone()))
        };
        self.sites().entry(network.to_owned()).or_insert_with(new).clone()
    }

    fn sites(&self) -> MutexGuard<'_, HashMap<String, Arc<Site>>> {
        self.inner.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Row> for Lease {
    fn from(row: Row) -> Self {
        let Row { mac, address, prefix, hostname, client_id, granted: _, ends } = row;
        Lease { mac, address, prefix, hostname, client_id, expiry: ends }
    }
}

impl From<Row6> for Lease6 {
    fn from(row: Row6) -> Self {
        let Row6 { key, address, prefix, duid, hostname, granted: _, ends } = row;
        Lease6 { mac: key.mac, iaid: key.iaid, address, prefix, hostname, duid, expiry: ends }
    }
}

/// A DUID for a server that has none yet: of a random UUID (RFC 6355), for no interface of a host is there for good.
fn new_duid() -> [u8; 18] {
    let mut duid: [u8; 18] = rand::random();
    duid[..2].copy_from_slice(&[0, 4]);
    // Version 4, variant 1 (RFC 9562 §5.4).
    duid[8] = duid[8] & 0x0f | 0x40;
    duid[10] = duid[10] & 0x3f | 0x80;
    duid
}
