//! Verbs about ports, and the bookkeeping when taps go.

use std::{collections::BTreeSet, ops::RangeInclusive, os::fd::OwnedFd};

use dhcp::config::{Mac, PortName};
use netd_api::{AddressSource, Addresses, PortDetails, PortInfo, Ports};

use super::{Host, VerbError, Verbs, random_mac};
use crate::{
    model::NetworkName,
    plan::{self, Step},
    port::Port,
    registry::{
        Live, PortRequest, PortSpec, Refusal,
        ports::{any, leased, seen},
    },
};

/// Bytes of a frame that can be asked for: headers at least, and no more than any frame has.
const SNAPLEN: RangeInclusive<u32> = 64..=262_144;

impl<H: Host> Verbs<H> {
    /// Makes a tap for a guest and puts it on the network's bridge, or a macvtap on one of its interfaces. It forwards when
    /// this returns.
    ///
    /// The descriptors are the caller's: the port goes when the last copy of them is closed.
    pub async fn add_port(&self, request: &PortRequest) -> Result<(netd_api::Port, Vec<OwnedFd>), VerbError> {
        let _turn = self.turn.lock().await;
        let spec = self.registry().add_port(request, random_mac)?;
        self.call_port_hooks(&spec).await?;
        let (port, queues) = match self.open_port(&spec).await {
            Ok(opened) => opened,
            Err(error) => {
                self.tell_port_hooks(spec.network.as_str(), spec.guest.as_deref(), spec.mac, spec.plug.on()).await;
                return Err(error);
            }
        };
        self.registry_mut().port_added(port.clone());
        self.reshape(&spec.network).await;
        self.events.port_up(&port);
        self.publish_ports(&spec.network);
        tracing::info!("port {} of network {} for {}", port.interface, port.network, port.mac);
        Ok((view(&port), queues))
    }

    pub(super) async fn open_port(&self, spec: &PortSpec) -> Result<(Port, Vec<OwnedFd>), VerbError> {
        let unfinished = Port::unfinished(spec);
        if let Some(port) = &unfinished {
            self.store.save_port(port)?;
        }
        let opened = self.host.open_port(spec).await;
        if let (Some(port), Err(_)) = (&unfinished, &opened) {
            self.store.remove_port(&port.interface)?;
        }
        let (port, queues) = opened?;
        // If it cannot be kept for the next daemon the descriptors are dropped here, and a tap with them.
        if let Err(error) = self.store.save_port(&port) {
            if let Err(left) = self.host.delete_port(&port).await {
                tracing::error!("port {} stays: {left}", port.interface);
            }
            return Err(error.into());
        }
        if let Some(port) = &unfinished {
            self.store.remove_port(&port.interface)?;
        }
        Ok((port, queues))
    }

    /// The ports of one network, or of all.
    pub fn list_ports(&self, network: Option<&str>) -> Result<Ports, VerbError> {
        let registry = self.registry();
        let name = network.map(|key| registry.find(key)).transpose()?.map(|(name, _)| name);
        Ok(Ports { ports: registry.ports(name).into_iter().map(view).collect() })
    }

    /// One port by its interface name, or a guest's, with their guards.
    pub async fn port_info(&self, key: &str) -> Result<PortDetails, VerbError> {
        let ports: Vec<(Port, bool)> = {
            let registry = self.registry();
            let isolated = |port: &Port| {
                let Ok((_, live)) = registry.find_live(&port.network) else { return false };
                port.macvtap.is_none() && plan::isolates(&live.network)
            };
            registry.ports_named(key)?.into_iter().map(|port| (port.clone(), isolated(port))).collect()
        };
        let mut infos = Vec::new();
        for (port, isolated) in ports {
            let addresses = self.leased(std::slice::from_ref(&port));
            infos.push(PortInfo {
                port: view(&port),
                guards: port.guards,
                isolated,
                portgroup: port.group.clone(),
                macvtap: port.macvtap.as_ref().map(|on| on.interface.clone()),
                addresses: addresses.into_iter().map(|address| address.address).collect(),
                dropped: self.host.dropped(&port).await,
            });
        }
        Ok(PortDetails { ports: infos })
    }

    /// The addresses that leases say these ports have.
    pub(super) fn leased(&self, ports: &[Port]) -> Vec<netd_api::Address> {
        leased(ports, |network| self.host.leases(network), |network| self.host.leases6(network))
    }

    /// The guarded ports, each with its network's bridge and sources if that is active.
    pub(super) fn guarded(&self) -> Vec<(Port, Option<(String, nat::guards::Sources)>)> {
        self.registry().guarded()
    }

    /// The addresses of a guest.
    pub async fn addresses(&self, guest: &str, source: AddressSource) -> Result<Addresses, VerbError> {
        let ports: Vec<Port> = self.registry().ports_of_guest(guest)?.into_iter().cloned().collect();
        let leased = || self.leased(&ports);
        let seen = async || {
            let neighbours = self.host.neighbours().await?;
            Ok::<_, VerbError>(seen(&ports, &neighbours, |mac| self.host.heard(mac)))
        };
        let addresses = match source {
            AddressSource::Lease => leased(),
            AddressSource::Arp => seen().await?,
            AddressSource::Any => any(&ports, &leased(), &seen().await?),
        };
        Ok(Addresses { addresses })
    }

    /// Hears the first bytes of every frame of a port, or of an active network's bridge: a packet socket for the caller.
    pub fn open_capture(&self, interface: &str, snaplen: u32) -> Result<(netd_api::Capture, OwnedFd), VerbError> {
        if !SNAPLEN.contains(&snaplen) {
            let expected = format!("a number of bytes from {} to {}", SNAPLEN.start(), SNAPLEN.end());
            return Err(Refusal::Argument { what: "snaplen", value: snaplen.to_string(), expected }.into());
        }
        let capture = self.registry().interface(interface)?;
        let socket = self.host.open_capture(interface, snaplen)?;
        tracing::info!("a client captures what passes {interface} of network {}", capture.network);
        Ok((capture, socket))
    }

    /// Listens for guests' addresses on the bridges of the networks that are active, and on no others.
    pub(super) fn snoop(&self) {
        let bridges: Vec<(String, String)> = {
            let registry = self.registry();
            let on = |live: &Live| live.desired.bridge().map(str::to_owned);
            let active = registry.networks().filter_map(|(name, entry)| Some((name, on(entry.live.as_ref()?)?)));
            active.map(|(name, bridge)| (name.to_string(), bridge)).collect()
        };
        self.host.listen(&bridges);
    }

    /// Has the IPv6 addresses that adopted ports use known before port forwards are asked for.
    pub(super) async fn recall(&self) {
        let ports: Vec<Port> = self.registry().ports(None).into_iter().cloned().collect();
        if !ports.is_empty() {
            self.host.recall(&ports).await;
        }
    }

    pub(super) async fn forget_ports(&self, indices: &[u32]) {
        let mut networks = BTreeSet::new();
        for &index in indices {
            let Some(port) = self.registry_mut().port_gone(index) else { continue };
            if let Err(error) = self.store.remove_port(&port.interface) {
                // The next daemon finds the tap gone and tries again.
                tracing::warn!("{error}");
            }
            if let Err(error) = self.host.port_gone(&port).await {
                tracing::error!("the guards of port {} stay: {error}", port.interface);
            }
            tracing::info!("port {} of network {} is gone", port.interface, port.network);
            self.events.port_down(&port);
            self.tell_port_gone(&port).await;
            networks.insert(port.network);
        }
        for name in networks.iter().filter_map(|name| name.parse::<NetworkName>().ok()) {
            self.publish_ports(&name);
            self.reshape(&name).await;
        }
    }

    /// The ports of a network have changed, and with them who shares in how fast it may be.
    pub(super) async fn reshape(&self, name: &NetworkName) {
        let (bridge, shape) = {
            let mut registry = self.registry_mut();
            let Some((bridge, shape)) = registry.reshaped(name) else { return };
            (bridge, shape)
        };
        if let Err(error) = self.host.run(&Step::ShapeBridge { bridge, shape }).await {
            tracing::error!("network {name}: {error}");
        }
    }

    /// Removes a macvtap whose owner has ended: the kernel keeps it otherwise.
    pub async fn closed(&self, index: u32) {
        let _turn = self.turn.lock().await;
        let port = self.registry().ports(None).into_iter().find(|port| port.index == index).cloned();
        if let Some(port) = port {
            self.remove_if_left(&port).await;
        }
    }

    pub(super) async fn remove_if_left(&self, port: &Port) {
        if self.host.has_owner(port).await {
            return;
        }
        // The kernel then tells of its end, as it does of a tap's.
        if let Err(error) = self.host.delete_port(port).await {
            tracing::error!("macvtap {} of network {} stays: {error}", port.interface, port.network);
        }
    }

    pub(super) fn publish_ports(&self, network: &NetworkName) {
        let ports = self
            .registry()
            .ports_of(network)
            .map(|port| PortName { mac: Mac(port.mac.0), guest: port.guest.clone() })
            .collect();
        self.host.set_ports(network.as_str(), ports);
    }
}

pub(super) fn view(port: &Port) -> netd_api::Port {
    netd_api::Port {
        interface: port.interface.clone(),
        network: port.network.clone(),
        guest: port.guest.clone(),
        mac: port.mac.to_string(),
        mtu: port.mtu,
        queues: port.queues,
    }
}
