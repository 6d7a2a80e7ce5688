//! EDGE: the executor that does steps on this host: rtnetlink, sysctls, `nft`, and the servers in this process.

use std::{
    fs, io,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use super::{Executor, Guards, Outcome, StepError, links, live};
use crate::{
    hooks::Hooks,
    host::HostState,
    model::MacAddr,
    observe::{Netlink, ObserveError},
    plan::{Step, Undo},
    registry::PortSpec,
    snoop::Snoop,
};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// This host.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) netlink: Netlink,
    pub(crate) services: dhcp::Services,
    pub(crate) guards: Arc<Guards>,
    pub(crate) snoop: Snoop,
    /// How often our table of the family inet was written anew.
    pub(crate) rewrites: AtomicU64,
    pub(crate) hooks: Hooks,
}

impl Kernel {
    /// The host that this process runs on, seen through `netlink`, with the servers behind `services`, whose leases
    /// `guards` watches, and with the user's `hooks`.
    pub fn new(netlink: Netlink, services: dhcp::Services, guards: Arc<Guards>, snoop: Snoop, hooks: Hooks) -> Self {
        Kernel { netlink, services, guards, snoop, rewrites: AtomicU64::new(0), hooks }
    }

    /// The time since this was first asked.
    pub(crate) fn now() -> Duration {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGUN.elapsed()
    }

    /// Sets a new tap up and puts it on its bridge.
    pub(crate) async fn plug(&self, tap: &str, index: u32, mac: MacAddr, spec: &PortSpec) -> Result<(), StepError> {
        let bridge = links::index_of(&self.netlink, &spec.bridge).await?;
        // Without this the host would speak IPv6 to the guest from the tap itself.
        disable_ipv6(tap)?;
        let place = links::Place {
            group: nat::guards::network_group(&spec.bridge),
            isolated: spec.isolated,
            pinned: spec.guards.then_some(spec.mac),
        };
        links::plug(&self.netlink, index, mac, spec.mtu, bridge, place).await
    }

    /// The index of a link that is there.
    pub(crate) async fn index_of(&self, link: &str) -> Result<u32, StepError> {
        links::index_of(&self.netlink, link).await
    }
}

impl Executor for Kernel {
    async fn observe(&self) -> Result<HostState, ObserveError> {
        self.netlink.observe().await
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
            Step::AddFirewall(network) => nat::add(network).await?,
            Step::EnableForwarding => write_sysctl(FORWARDING, "1")?,
            Step::KeepRouterAdvertisements { interface } => accept_ra(interface, "1", "2")?,
            Step::EnableForwarding6 => write_sysctl(FORWARDING_6, "1")?,
            Step::GuardPorts { network, bridge, sources } => {
                self.guards.enter(network, bridge, sources, |network: &str| self.services.leases(network)).await?;
            }
            Step::Live(step) => return live::run(self, step).await,
            Step::IsolatePort { index, isolated } => links::isolate(netlink, *index, *isolated).await?,
            Step::AttachPort { bridge, index } => {
                links::attach(netlink, bridge, *index).await?;
                if let Some(mac) = self.guards.mac(*index).await {
                    links::pin(netlink, *index, mac).await?;
                }
            }
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
            Undo::RemoveFirewall(network) => nat::remove(network, false).await?,
            Undo::RemoveTable => nat::delete_table().await?,
            Undo::DisableForwarding => write_sysctl(FORWARDING, "0")?,
            Undo::DisableForwarding6 => write_sysctl(FORWARDING_6, "0")?,
            Undo::RestoreRouterAdvertisements { interface } => accept_ra(interface, "2", "1")?,
        }
        Ok(())
    }
}

/// Keeps IPv6 off a link. A kernel without IPv6 has no such file, and nothing to keep off.
fn disable_ipv6(link: &str) -> Result<(), StepError> {
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
