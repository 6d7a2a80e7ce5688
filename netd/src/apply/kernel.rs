//! EDGE: the executor that does steps on this host: rtnetlink, sysctls, `nft`, and the servers in this process.

use std::{fs, io};

use super::{Executor, Outcome, StepError, links};
use crate::{
    host::{HostState, Neighbour},
    observe::{Netlink, ObserveError},
    plan::{Step, Undo},
};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// This host.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) netlink: Netlink,
    pub(crate) services: dhcp::Services,
}

impl Kernel {
    /// The host that this process runs on, seen through `netlink`, with the servers behind `services`.
    pub fn new(netlink: Netlink, services: dhcp::Services) -> Self {
        Kernel { netlink, services }
    }

    /// The host's IPv4 neighbours.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, ObserveError> {
        self.netlink.neighbours().await
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
            Step::AddAddress { bridge, address } => links::add_address(netlink, bridge, *address).await?,
            Step::LinkUp { bridge } => links::up(netlink, bridge).await?,
            Step::AddRoute { bridge, route } => links::add_route(netlink, bridge, route).await?,
            Step::StartServices(config) => {
                let started = self.services.start(config.clone()).await?;
                return Ok(Outcome { dns_port: started.dns_port });
            }
            Step::AddFirewall(network) => nat::add(network).await?,
            Step::EnableForwarding => write_sysctl(FORWARDING, "1")?,
            Step::AttachPort { bridge, index } => links::attach(netlink, bridge, *index).await?,
        }
        Ok(Outcome::default())
    }

    async fn undo(&self, undo: &Undo) -> Result<(), StepError> {
        let netlink = &self.netlink;
        match undo {
            Undo::DeleteBridge { name, mac } => links::delete_bridge(netlink, name, *mac).await?,
            Undo::RemoveAddress { bridge, address } => links::remove_address(netlink, bridge, *address).await?,
            Undo::RemoveRoute { bridge, route } => links::remove_route(netlink, bridge, route).await?,
            Undo::StopServices { network } => self.services.stop(network).await,
            Undo::RemoveFirewall(network) => nat::remove(network, false).await?,
            Undo::RemoveTable => nat::delete_table().await?,
            Undo::DisableForwarding => write_sysctl(FORWARDING, "0")?,
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

fn write_sysctl(path: &str, value: &str) -> Result<(), StepError> {
    fs::write(path, value).map_err(|cause| StepError::Sysctl { path: path.to_owned(), cause })
}
