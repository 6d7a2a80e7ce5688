//! Taking over what another manager runs: what it means in the state things are in.

use netd_api::AdoptedPort;

use super::{Refusal, Registry, Start};
use crate::{
    check::{Conflict, not_yet},
    host::{HostState, Link, LinkKind},
    model::{MacAddr, Network},
    plan::{self, InPlace, Step},
    port::Port,
};

impl Registry {
    /// What it takes to make a network that another manager runs ours: what it lacks. `ports` are taps on its bridge.
    pub fn adopt(
        &self,
        network: Network,
        ports: &[AdoptedPort],
        host: &HostState,
    ) -> Result<(Start, Vec<Port>), Refusal> {
        let not_there = |why: String| Refusal::NotThere { network: network.name.to_string(), why };
        not_yet::refuse(&network)?;
        self.refuse_conflicts(&network, Conflict::forbids_definition)?;
        if self.networks.get(&network.name).is_some_and(|entry| entry.live.is_some()) {
            return Err(Refusal::AlreadyActiveAs(network.name.to_string()));
        }
        let (Some(bridge), Some(mac)) = (&network.bridge.name, network.mac) else {
            return Err(not_there("its XML must name the bridge and its MAC address".into()));
        };
        let link = host.link(bridge.as_str()).filter(|link| matches!(link.kind, LinkKind::Bridge { .. }));
        let Some(link) = link else { return Err(not_there(format!("there is no bridge {bridge}"))) };
        if link.mac != Some(mac) {
            let has = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
            return Err(not_there(format!("bridge {bridge} has the MAC address {has}, not {mac}")));
        }
        for subnet in network.subnets.iter().map(|subnet| subnet.address) {
            if let Some(user) = host.in_use(subnet, &[bridge.as_str()]) {
                let subnet = subnet.trunc();
                return Err(Refusal::SubnetInUse { subnet, by: user.by, interface: user.interface });
            }
        }
        self.refuse_live_conflicts(&network)?;
        let desired = self.desired(&network)?;
        let steps = plan::plan(&desired, host, InPlace::default());
        let without = HostState { forwarding: host.forwarding, ..HostState::default() };
        let whole = plan::plan(&desired, &without, InPlace::default());
        // Its settings were another's, as the bridge was.
        let already = whole.into_iter().filter(|step| !steps.contains(step) && is_of_the_bridge(step)).collect();
        let ports = ports.iter().map(|port| self.adopted(&network, link, port, host)).collect::<Result<_, _>>()?;
        let start = Start { network: network.live(), definition: None, desired, steps, already, notices: Vec::new() };
        Ok((start, ports))
    }

    fn adopted(
        &self,
        network: &Network,
        bridge: &Link,
        wanted: &AdoptedPort,
        host: &HostState,
    ) -> Result<Port, Refusal> {
        let interface = &wanted.interface;
        let not_there = |why: String| Refusal::NotThere { network: network.name.to_string(), why };
        let mac: MacAddr = wanted.mac.parse().map_err(|error| not_there(format!("port {interface}: {error}")))?;
        let link = host.link(interface).ok_or_else(|| not_there(format!("there is no interface {interface}")))?;
        if link.kind != LinkKind::Tun || link.master != Some(bridge.index) {
            return Err(not_there(format!("{interface} is not a tap on bridge {}", bridge.name)));
        }
        if let Some(port) = self.ports.values().find(|port| port.mac == mac) {
            let (interface, network) = (port.interface.clone(), port.network.clone());
            return Err(Refusal::MacInUse { mac, interface, network });
        }
        Ok(Port {
            interface: interface.clone(),
            index: link.index,
            network: network.name.to_string(),
            guest: wanted.guest.clone(),
            mac,
            mtu: link.mtu,
            // What nobody but its owner knows; it is for people to look at.
            queues: 1,
            // The guest was free to use any address until now: guards could cut it.
            guards: false,
            group: None,
            host_bridge: None,
            macvtap: None,
            kept: false,
        })
    }
}

fn is_of_the_bridge(step: &Step) -> bool {
    matches!(step, Step::CreateBridge(_) | Step::AddAddress { .. } | Step::AddRoute { .. })
}
