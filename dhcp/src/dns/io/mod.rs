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
    io::{Error as IoError, ErrorKind},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rand::RngExt;
use tokio::sync::watch;

use self::{
    core::Core,
    lists::Follower,
    tcp::{Seats, TcpPort},
    udp::UdpPort,
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
    port: u16,
    core: Arc<Core>,
}

impl Service {
    pub(super) async fn start(
        config: DnsConfig,
        bridge: &str,
        names: watch::Receiver<Arc<Names>>,
        surroundings: Surroundings,
    ) -> Result<Service, Error> {
        let index = if_nametoindex(bridge)
            .map_err(|errno| Error::NoBridge { bridge: bridge.to_owned(), source: errno.into() })?;
        let (port, sockets) = bind_all(&config, bridge, index)?;
        let zone = Zone::new(&config, &names.borrow());
        let resolver = Resolver::new(zone, route::forwards(&config), surroundings.limits, || rand::rng().random());
        let core = Arc::new(Core::new(resolver, surroundings.stats));
        let door = Arc::new(Door { bridge: bridge.to_owned(), index: AtomicU32::new(index) });
        let seats = Arc::new(Seats::new(surroundings.tcp));
        if route::asks_the_host(&config) {
            let follower = Follower::new(&config.resolv_conf, &surroundings.behind_stub).await;
            set_upstreams(&core, &follower, &config);
            core.spawn(follow_lists(core.clone(), follower, config.clone()));
        } else {
            set_routes(&core, Routes::new(&config, &[]));
        }
        for (udp, tcp) in sockets {
            core.spawn(udp::serve(udp, core.clone(), door.clone()));
            core.spawn(tcp::serve(tcp, core.clone(), door.clone(), seats.clone()));
        }
        core.spawn(follow_names(core.clone(), names, config));
        core.spawn(core::keep_time(core.clone()));
        Ok(Service { port, core })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) async fn stop(self) {
        if let Some(mut tasks) = self.core.close() {
            tasks.shutdown().await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Dropping the set ends its tasks.
        drop(self.core.close());
    }
}

/// Swaps the zone whenever a guest or a lease comes or goes.
async fn follow_names(core: Arc<Core>, mut names: watch::Receiver<Arc<Names>>, config: DnsConfig) {
    while names.changed().await.is_ok() {
        let zone = Zone::new(&config, &names.borrow_and_update());
        core.change(|resolver, _, _| resolver.set_zone(zone));
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

/// Port 53 on every address, or one high port on every address where something else holds 53 of any of them.
fn bind_all(config: &DnsConfig, bridge: &str, index: u32) -> Result<(u16, Vec<(UdpPort, TcpPort)>), Error> {
    if config.listen.is_empty() {
        return Err(Error::NoAddress { bridge: bridge.to_owned() });
    }
    let place = |address: IpAddr, port| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => SocketAddrV6::new(address, port, 0, index).into(),
        address => SocketAddr::new(address, port),
    };
    let subnets: Arc<[IpNet]> = config.subnets.iter().chain(&config.reverse_upstream).copied().collect();
    let attempt = |mut port| {
        let bind = |&address: &IpAddr| bind_one(place(address, 0), &mut port, subnets.clone());
        let sockets: Result<Vec<_>, _> = config.listen.iter().map(bind).collect();
        sockets.map(|sockets| (port, sockets))
    };
    let taken =
        |result: &Result<_, (_, _, IoError)>| matches!(result, Err((.., e)) if e.kind() == ErrorKind::AddrInUse);
    let mut result = attempt(PORT);
    for _ in 0..HIGH_PORT_TRIES {
        if !taken(&result) {
            break;
        }
        result = attempt(0);
    }
    result.map_err(|(step, address, source)| Error::Socket { bridge: bridge.to_owned(), step, address, source })
}

/// Both sockets of one address. A `port` of 0 is replaced by the one the kernel gives.
fn bind_one(
    mut address: SocketAddr,
    port: &mut u16,
    subnets: Arc<[IpNet]>,
) -> Result<(UdpPort, TcpPort), (&'static str, SocketAddr, IoError)> {
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
