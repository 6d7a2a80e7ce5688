//! EDGE: the sockets of one network's DNS, the clock, and the watch on resolv.conf.
//!
//! Bytes come in, the resolver decides, bytes go out; nothing is decided here but who may talk to us at all: what came
//! in through the network's bridge, and the host itself. So it never is an open resolver on the uplink.

mod ask;
mod core;
mod lists;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::{
    collections::HashMap,
    io::{Error as IoError, ErrorKind},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rand::RngExt;
use tokio::{sync::watch, task::JoinSet};

use self::{
    core::Core,
    lists::Follower,
    tcp::{Seats, TcpPort},
    udp::{Subnets, UdpPort},
};
use super::{
    Error, Names,
    resolver::{Limits, Resolver},
    route::{self, Routes},
    upstream,
    zone::Zone,
};
use crate::{config::DnsConfig, stats::Stats};

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;

const PORT: u16 = 53;

/// How many high ports are tried where 53 is taken.
const HIGH_PORT_TRIES: usize = 32;

/// Where systemd-resolved lists the resolvers it asks itself (systemd-resolved.service(8)).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// What a service finds around it and how far it goes; tests have their own.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    behind_stub: PathBuf,
    limits: Limits,
    tcp: tcp::Patience,
    /// Where answers are counted.
    pub(super) stats: Arc<Stats>,
}

impl Default for Surroundings {
    fn default() -> Self {
        let behind_stub = Path::new(BEHIND_STUB).to_owned();
        Surroundings { behind_stub, limits: Limits::default(), tcp: tcp::Patience::default(), stats: Arc::default() }
    }
}

/// A running service.
#[derive(Debug)]
pub(super) struct Service {
    bridge: String,
    port: u16,
    core: Arc<Core>,
    door: Arc<Door>,
    seats: Arc<Seats>,
    surroundings: Surroundings,
    subnets: Subnets,
    naming: Arc<Naming>,
    /// What serves each address.
    serving: HashMap<IpAddr, JoinSet<()>>,
    /// What keeps the upstreams true, where there may be any.
    following: JoinSet<()>,
}

impl Service {
    pub(super) async fn start(
        config: DnsConfig,
        bridge: &str,
        names: watch::Receiver<Arc<Names>>,
        surroundings: Surroundings,
    ) -> Result<Service, Error> {
        let index = index_of(bridge)?;
        let subnets: Subnets = Arc::new(RwLock::new(guests(&config)));
        let (port, sockets) = bind_all(&config.listen, bridge, index, &subnets)?;
        let zone = Zone::new(&config, &names.borrow());
        let resolver = Resolver::new(zone, route::forwards(&config), surroundings.limits, || rand::rng().random());
        let core = Arc::new(Core::new(resolver, surroundings.stats.clone()));
        core.log(config.log_queries);
        let mut service = Service {
            bridge: bridge.to_owned(),
            port,
            door: Arc::new(Door { bridge: bridge.to_owned(), index: AtomicU32::new(index) }),
            seats: Arc::new(Seats::new(surroundings.tcp)),
            surroundings,
            subnets,
            naming: Arc::new(Naming { config: Mutex::new(config.clone()), names: names.clone() }),
            serving: HashMap::new(),
            following: JoinSet::new(),
            core,
        };
        service.follow(&config).await;
        service.serve(sockets);
        service.core.spawn(follow_names(service.core.clone(), names, service.naming.clone()));
        service.core.spawn(core::keep_time(service.core.clone()));
        Ok(service)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Goes on with another configuration. The sockets of addresses that stay are left alone, and so is what was asked
    /// through them. On an error everything is as it was.
    pub(super) async fn reconfigure(&mut self, config: DnsConfig) -> Result<(), Error> {
        let index = index_of(&self.bridge)?;
        let added: Vec<IpAddr> = config.listen.iter().copied().filter(|a| !self.serving.contains_key(a)).collect();
        let (port, sockets) = match bind_at(&added, self.port, index, &self.subnets) {
            // Where another program has the port at a new address, all are served at another.
            Err((.., cause)) if cause.kind() == ErrorKind::AddrInUse => {
                bind_all(&config.listen, &self.bridge, index, &self.subnets)?
            }
            _ if config.listen.is_empty() => return Err(Error::NoAddress { bridge: self.bridge.clone() }),
            bound => bound.map_err(|refused| socket_error(&self.bridge, refused))?,
        };
        let moved = std::mem::replace(&mut self.port, port) != port;
        let mut gone: Vec<JoinSet<()>> = self
            .serving
            .extract_if(|address, _| moved || !config.listen.contains(address))
            .map(|(_, set)| set)
            .collect();
        *self.subnets.write().unwrap_or_else(PoisonError::into_inner) = guests(&config);
        self.serve(sockets);
        for tasks in &mut gone {
            tasks.shutdown().await;
        }
        self.core.log(config.log_queries);
        let before = self.naming.replace(&self.core, config.clone());
        let upstreams = |config: &DnsConfig| {
            let DnsConfig { listen, forward, forwarders, resolv_conf, .. } = config;
            (*forward, listen.clone(), forwarders.clone(), resolv_conf.clone())
        };
        if upstreams(&before) != upstreams(&config) {
            self.following.shutdown().await;
            self.core.change(|resolver, _, _| resolver.set_forward(route::forwards(&config)));
            self.follow(&config).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        if let Some(mut tasks) = self.core.close() {
            tasks.shutdown().await;
        }
        self.following.shutdown().await;
        for tasks in self.serving.values_mut() {
            tasks.shutdown().await;
        }
    }

    /// Learns whom to ask, and goes on learning it.
    async fn follow(&mut self, config: &DnsConfig) {
        if !route::asks_the_host(config) {
            set_routes(&self.core, Routes::new(config, &[]));
            return;
        }
        let follower = Follower::new(&config.resolv_conf, &self.surroundings.behind_stub).await;
        set_upstreams(&self.core, &follower, config);
        self.following.spawn(follow_lists(self.core.clone(), follower, config.clone()));
    }

    fn serve(&mut self, sockets: Vec<(IpAddr, UdpPort, TcpPort)>) {
        for (address, udp, tcp) in sockets {
            let mut tasks = JoinSet::new();
            tasks.spawn(udp::serve(udp, self.core.clone(), self.door.clone()));
            tasks.spawn(tcp::serve(tcp, self.core.clone(), self.door.clone(), self.seats.clone()));
            // Its predecessor at another port ends here too.
            self.serving.insert(address, tasks);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Dropping the sets ends their tasks.
        drop(self.core.close());
    }
}

/// Where guests are.
fn guests(config: &DnsConfig) -> Vec<IpNet> {
    config.subnets.iter().chain(&config.reverse_upstream).copied().collect()
}

/// What the network's own names are made of. One lock orders changes, so that the last word is the newest.
#[derive(Debug)]
struct Naming {
    config: Mutex<DnsConfig>,
    names: watch::Receiver<Arc<Names>>,
}

impl Naming {
    /// Puts another configuration in the place of the one there was, which is returned.
    fn replace(&self, core: &Arc<Core>, config: DnsConfig) -> DnsConfig {
        let mut current = self.config();
        let before = std::mem::replace(&mut *current, config);
        self.publish(core, &current);
        before
    }

    fn refresh(&self, core: &Arc<Core>) {
        self.publish(core, &self.config());
    }

    fn publish(&self, core: &Arc<Core>, config: &DnsConfig) {
        let zone = Zone::new(config, &self.names.borrow());
        core.change(|resolver, _, _| resolver.set_zone(zone));
    }

    fn config(&self) -> MutexGuard<'_, DnsConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Swaps the zone whenever a guest or a lease comes or goes.
async fn follow_names(core: Arc<Core>, mut names: watch::Receiver<Arc<Names>>, naming: Arc<Naming>) {
    while names.changed().await.is_ok() {
        naming.refresh(&core);
    }
}

/// Hands the resolver whom to ask whenever that changes.
async fn follow_lists(core: Arc<Core>, mut follower: Follower, config: DnsConfig) {
    while follower.changed().await {
        set_upstreams(&core, &follower, &config);
    }
}

fn set_upstreams(core: &Arc<Core>, follower: &Follower, config: &DnsConfig) {
    let lists = follower.lists();
    let index = |name: &str| if_nametoindex(name).ok();
    let listed = upstream::choose(&lists.listed, &lists.behind_stub, &config.listen, index);
    set_routes(core, Routes::new(config, &listed));
}

fn set_routes(core: &Arc<Core>, routes: Routes) {
    tracing::debug!(?routes, "DNS upstreams");
    core.change(|resolver, now, out| resolver.set_routes(routes, now, out));
}

fn index_of(bridge: &str) -> Result<u32, Error> {
    if_nametoindex(bridge).map_err(|errno| Error::NoBridge { bridge: bridge.to_owned(), source: errno.into() })
}

/// The sockets of some addresses, all at one port.
type Bound = (u16, Vec<(IpAddr, UdpPort, TcpPort)>);

/// What was tried, where, and what the kernel said.
type Refused = (&'static str, SocketAddr, IoError);

fn socket_error(bridge: &str, (step, address, source): Refused) -> Error {
    Error::Socket { bridge: bridge.to_owned(), step, address, source }
}

/// Port 53 on every address, or one high port on every address where something else holds 53 of any of them.
fn bind_all(listen: &[IpAddr], bridge: &str, index: u32, subnets: &Subnets) -> Result<Bound, Error> {
    if listen.is_empty() {
        return Err(Error::NoAddress { bridge: bridge.to_owned() });
    }
    let taken = |result: &Result<_, Refused>| matches!(result, Err((.., e)) if e.kind() == ErrorKind::AddrInUse);
    let mut result = bind_at(listen, PORT, index, subnets);
    for _ in 0..HIGH_PORT_TRIES {
        if !taken(&result) {
            break;
        }
        result = bind_at(listen, 0, index, subnets);
    }
    result.map_err(|refused| socket_error(bridge, refused))
}

/// One port on every address; 0 is one that the kernel chooses.
fn bind_at(listen: &[IpAddr], mut port: u16, index: u32, subnets: &Subnets) -> Result<Bound, Refused> {
    let place = |address: IpAddr| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => SocketAddrV6::new(address, 0, 0, index).into(),
        address => SocketAddr::new(address, 0),
    };
    let mut sockets = Vec::new();
    for &address in listen {
        let (udp, tcp) = bind_one(place(address), &mut port, subnets.clone())?;
        sockets.push((address, udp, tcp));
    }
    Ok((port, sockets))
}

/// Both sockets of one address. A `port` of 0 is replaced by the one the kernel gives.
fn bind_one(mut address: SocketAddr, port: &mut u16, subnets: Subnets) -> Result<(UdpPort, TcpPort), Refused> {
    address.set_port(*port);
    let (udp, got) = UdpPort::bind(address, subnets).map_err(|source| ("listen for UDP", address, source))?;
    *port = got;
    address.set_port(got);
    let tcp = TcpPort::bind(address).map_err(|source| ("listen for TCP", address, source))?;
    Ok((udp, tcp))
}

/// Who may talk to us.
#[derive(Debug)]
struct Door {
    bridge: String,
    index: AtomicU32,
}

impl Door {
    /// Whether what came in by this interface is for us. The bridge may have been made anew since we last looked.
    fn admits(&self, interface: u32) -> bool {
        if interface == LOOPBACK || interface == self.index.load(Ordering::Relaxed) {
            return true;
        }
        match if_nametoindex(self.bridge.as_str()) {
            Ok(index) => {
                self.index.store(index, Ordering::Relaxed);
                interface == index
            }
            Err(_) => false,
        }
    }
}
