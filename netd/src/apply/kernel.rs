//! EDGE: the executor that does steps on this host: rtnetlink, sysctls, `nft`, and the servers in this process.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use super::{Executor, Guards, Outcome, StepError, bridge_port, links, live, shape};
use crate::{
    hooks::Hooks,
    host::{Focus, HostState},
    observe::{Netlink, ObserveError},
    plan::{Step, Undo},
    port::closings::Closings,
    shape::Shape,
    snoop::Snoop,
};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// This host.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) netlink: Netlink,
    pub(crate) table: nat::Table,
    pub(crate) services: dhcp::Services,
    pub(crate) guards: Arc<Guards>,
    pub(crate) snoop: Snoop,
    /// How often our table of the family inet was written anew.
    pub(crate) rewrites: AtomicU64,
    pub(crate) hooks: Hooks,
    pub(crate) closings: Closings,
    /// Where device nodes of macvtaps are made.
    pub(crate) nodes: PathBuf,
}

impl Kernel {
    /// The host that this process runs on, seen through `netlink`, with the servers behind `services`, whose leases
    /// `guards` watches, and with the user's `hooks`; with device nodes of macvtaps in the directory `nodes`, watched by
    /// `closings`.
    pub fn new(
        netlink: Netlink,
        services: dhcp::Services,
        guards: Arc<Guards>,
        snoop: Snoop,
        hooks: Hooks,
        closings: Closings,
        nodes: PathBuf,
    ) -> io::Result<Self> {
        let table = nat::Table::open()?;
        Ok(Kernel { netlink, table, services, guards, snoop, rewrites: AtomicU64::new(0), hooks, closings, nodes })
    }

    /// The time since this was first asked.
    pub(crate) fn now() -> Duration {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGUN.elapsed()
    }
}

impl Executor for Kernel {
    async fn observe(&self) -> Result<HostState, ObserveError> {
        self.netlink.observe().await
    }

    async fn observe_around(&self, focus: &Focus) -> Result<HostState, ObserveError> {
        self.netlink.observe_around(focus).await
    }

    async fn run(&self, step: &Step) -> Result<Outcome, StepError> {
        let netlink = &self.netlink;
        match step {
            Step::CreateBridge(bridge) => links::create_bridge(netlink, bridge).await?,
            Step::SetBridge(bridge) => links::set_bridge(netlink, bridge).await?,
            Step::DisableIpv6 { bridge } => disable_ipv6(bridge)?,
            Step::EnableIpv6 { bridge } => enable_ipv6(bridge)?,
            Step::RouteLocalnet { bridge, on } => {
                let path = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
                write_sysctl(&path, if *on { "1" } else { "0" })?;
            }
            Step::AddAddress { bridge, address } => links::add_address(netlink, bridge, *address).await?,
            Step::LinkUp { bridge } => links::up(netlink, bridge).await?,
            Step::AddRoute { bridge, route } => links::add_route(netlink, bridge, route).await?,
            Step::StartServices(config) => {
                let started = self.services.start((**config).clone()).await?;
                return Ok(Outcome { dns_port: started.dns_port });
            }
            Step::AddFirewall(network) => self.table.add(network).await?,
            Step::EnableForwarding => write_sysctl(FORWARDING, "1")?,
            Step::KeepRouterAdvertisements { interface } => accept_ra(interface, "1", "2")?,
            Step::EnableForwarding6 => write_sysctl(FORWARDING_6, "1")?,
            Step::GuardPorts { network, bridge, sources } => {
                self.guards.enter(network, bridge, sources, |network: &str| self.services.leased(network)).await?;
            }
            Step::ShapeBridge { bridge, shape: wanted } => {
                let index = links::index_of(netlink, bridge).await?;
                shape::shape(netlink, index, wanted).await?;
            }
            Step::Live(step) => return live::run(self, step).await,
            Step::SettlePort { index, place } => {
                bridge_port::settle(netlink, *index, place).await?;
            }
            Step::AttachPort { bridge, index, place } => bridge_port::attach(netlink, bridge, *index, place).await?,
            Step::ShapePort { index, shape: wanted } => shape::shape(netlink, *index, wanted).await?,
            Step::PortUp { index } => links::up_by_index(netlink, *index).await?,
        }
        Ok(Outcome::default())
    }

    async fn undo(&self, undo: &Undo) -> Result<(), StepError> {
        let netlink = &self.netlink;
        match undo {
            Undo::DeleteBridge { name, mac } => {
                links::delete_bridge(netlink, name, *mac).await?;
                self.guards.leave(name).await?;
            }
            Undo::RemoveAddress { bridge, address } => links::remove_address(netlink, bridge, *address).await?,
            Undo::RemoveRoute { bridge, route } => links::remove_route(netlink, bridge, route).await?,
            Undo::StopServices { network } => self.services.stop(network).await,
            Undo::RemoveFirewall(network) => self.table.remove(network).await?,
            Undo::RemoveTable => nat::delete_table().await?,
            Undo::FreeBridge { bridge } => {
                if let Some(link) = links::find(netlink, bridge).await? {
                    shape::shape(netlink, link.index, &Shape::default()).await?;
                }
            }
            Undo::DisableForwarding => write_sysctl(FORWARDING, "0")?,
            Undo::DisableForwarding6 => write_sysctl(FORWARDING_6, "0")?,
            Undo::RestoreRouterAdvertisements { interface } => accept_ra(interface, "2", "1")?,
        }
        Ok(())
    }
}

/// Keeps IPv6 off a link. A kernel without IPv6 has no such file, and nothing to keep off.
pub(super) fn disable_ipv6(link: &str) -> Result<(), StepError> {
    match write_sysctl(&format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1") {
        Err(StepError::Sysctl { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Lets a bridge have IPv6: addresses of ours and the one of its own on the link, at once and without asking around.
fn enable_ipv6(bridge: &str) -> Result<(), StepError> {
    for (name, value) in [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")] {
        match write_sysctl(&format!("/proc/sys/net/ipv6/conf/{bridge}/{name}"), value) {
            Err(StepError::Sysctl { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(StepError::NoIpv6);
            }
            result => result?,
        }
    }
    Ok(())
}

/// Changes `accept_ra` of an interface; leaves it alone where it is not as it was, or not there any more.
fn accept_ra(interface: &str, from: &str, to: &str) -> Result<(), StepError> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra");
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == from => write_sysctl(&path, to),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(StepError::Sysctl { path, cause }),
    }
}

fn write_sysctl(path: &str, value: &str) -> Result<(), StepError> {
    fs::write(path, value).map_err(|cause| StepError::Sysctl { path: path.to_owned(), cause })
}
