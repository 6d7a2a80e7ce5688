//! Verbs about ports, and the bookkeeping when taps go.

use std::{collections::BTreeSet, ops::RangeInclusive, os::fd::OwnedFd};

use dhcp::config::{Mac, PortName};
use netd_api::{AddressSource, Addresses, PortDetails, PortInfo, Ports};

use super::{Host, VerbError, Verbs, random_mac};
use crate::{
    hooks::HookPort,
    model::NetworkName,
    port::Port,
    registry::{
        Live, PortRequest, PortSpec, Refusal,
        ports::{any, leased, seen},
    },
};

/// Bytes of a frame that can be asked for: headers at least, and no more than any frame has.
const SNAPLEN: RangeInclusive<u32> = 64..=262_144;

impl<H: Host> Verbs<H> {
    /// Makes a tap for a guest and puts it on the network's bridge. It forwards when this returns.
    ///
    /// The descriptors are the caller's: the port goes when the last copy of them is closed.
    pub async fn add_port(&self, request: &PortRequest) -> Result<(netd_api::Port, Vec<OwnedFd>), VerbError> {
        let _turn = self.turn.lock().await;
        let spec = self.registry().add_port(request, random_mac)?;
        self.call_port_hooks(&spec).await?;
        let (port, queues) = match self.open_port(&spec).await {
            Ok(opened) => opened,
            Err(error) => {
                let port = HookPort { guest: spec.guest.as_deref(), mac: spec.mac, bridge: &spec.bridge };
                self.tell_port_hooks(spec.network.as_str(), port).await;
                return Err(error);
            }
        };
        self.registry_mut().port_added(port.clone());
        self.events.port_up(&port);
        self.publish_ports(&spec.network);
        tracing::info!("port {} of network {} for {}", port.interface, port.network, port.mac);
        Ok((view(&port), queues))
    }

    async fn open_port(&self, spec: &PortSpec) -> Result<(Port, Vec<OwnedFd>), VerbError> {
        let (port, queues) = self.host.open_port(spec).await?;
        // If it cannot be kept for the next daemon the descriptors are dropped here, and the tap with them.
        self.store.save_port(&port)?;
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
            let isolated = |port: &Port| registry.find_live(&port.network).is_ok_and(|(_, live)| live.desired.isolated);
            registry.ports_named(key)?.into_iter().map(|port| (port.clone(), isolated(port))).collect()
        };
        let mut infos = Vec::new();
        for (port, isolated) in ports {
            let addresses = leased(std::slice::from_ref(&port), |network| self.host.leases(network));
            infos.push(PortInfo {
                port: view(&port),
                guards: port.guards,
                isolated,
                addresses: addresses.into_iter().map(|address| address.address).collect(),
                dropped: self.host.dropped(&port).await,
            });
        }
        Ok(PortDetails { ports: infos })
    }

    /// The guarded ports, each with its network's bridge and sources if that is active.
    pub(super) fn guarded(&self) -> Vec<(Port, Option<(String, nat::guards::Sources)>)> {
        self.registry().guarded()
    }

    /// The addresses of a guest.
    pub async fn addresses(&self, guest: &str, source: AddressSource) -> Result<Addresses, VerbError> {
        let ports: Vec<Port> = self.registry().ports_of_guest(guest)?.into_iter().cloned().collect();
        let leased = || leased(&ports, |network| self.host.leases(network));
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
            let bridge = |live: &Live| live.desired.bridge.name.clone();
            let active = registry.networks().filter_map(|(name, entry)| Some((name, entry.live.as_ref()?)));
            active.map(|(name, live)| (name.to_string(), bridge(live))).collect()
        };
        self.host.listen(&bridges);
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

fn view(port: &Port) -> netd_api::Port {
    netd_api::Port {
        interface: port.interface.clone(),
        network: port.network.clone(),
        guest: port.guest.clone(),
        mac: port.mac.to_string(),
        mtu: port.mtu,
        queues: port.queues,
    }
}
