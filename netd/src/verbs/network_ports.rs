//! Verbs about ports as libvirt has them: known by a UUID, described by XML.

use netd_api::{NetworkPort, NetworkPorts};
use uuid::Uuid;

use super::{Host, VerbError, Verbs, ports::view};
use crate::{
    model::Forward,
    plan,
    port::{
        Port,
        xml::{self, ShownPlug, ShownPort, WantedPort},
    },
    registry::{Entry, PortRequest, Refusal, Registry},
};

impl<H: Host> Verbs<H> {
    /// The ports of one network, as libvirt has them.
    pub fn network_ports(&self, key: &str) -> Result<NetworkPorts, VerbError> {
        let registry = self.registry();
        let (name, entry) = registry.find(key)?;
        let ports = registry.ports(Some(name)).into_iter().map(|port| shown(&registry, entry, port)).collect();
        Ok(NetworkPorts { ports })
    }

    /// Makes the port that the XML describes: one that stays until it is deleted.
    pub async fn create_network_port(&self, key: &str, text: &str) -> Result<NetworkPort, VerbError> {
        let wanted = xml::parse(text).map_err(Refusal::PortXml)?;
        let (network, uuid) = {
            let registry = self.registry();
            let (name, entry) = registry.find(key)?;
            let uuid = entry.network().map(|network| network.uuid).unwrap_or_default();
            let bridge = registry.view(name).and_then(|network| network.bridge).unwrap_or_default();
            check(&wanted, name.as_str(), uuid, &bridge)?;
            (name.to_string(), uuid)
        };
        let WantedPort { guest, mac, .. } = wanted;
        let mac = mac.map(|mac| mac.to_string());
        let request = PortRequest { network, guest, mac, queues: 1, guards: None, portgroup: None };
        let made = self.create_port(&request).await?;
        let registry = self.registry();
        let (_, entry) = registry.find(&made.network)?;
        let port = registry.ports_named(&made.interface)?.into_iter().next();
        match port {
            Some(port) => Ok(shown(&registry, entry, port)),
            // It went meanwhile: what was made is told, without what it was.
            None => Ok(NetworkPort { uuid: uuid.to_string(), port: made, xml: String::new() }),
        }
    }
}

fn shown(registry: &Registry, entry: &Entry, port: &Port) -> NetworkPort {
    let network = entry.live.as_ref().map(|live| &live.network).or(entry.network());
    let uuid = xml::uuid(network.map(|network| network.uuid).unwrap_or_default(), port.mac);
    let bridge = network.and_then(|network| registry.view(&network.name)?.bridge).unwrap_or_default();
    let mode = network.and_then(|network| match &network.forward {
        Forward::Macvtap(macvtap) => Some(macvtap.mode.name()),
        _ => None,
    });
    let mac = port.mac.to_string();
    let text = xml::write(&ShownPort {
        uuid,
        guest: port.guest.as_deref(),
        mac: &mac,
        isolated: port.macvtap.is_none() && network.is_some_and(plan::isolates),
        plug: match &port.macvtap {
            Some(on) => ShownPlug::Direct { dev: &on.interface, mode },
            None => ShownPlug::Network(&bridge),
        },
    });
    NetworkPort { uuid: uuid.to_string(), port: view(port), xml: text }
}

/// What was asked for in words that only describe must be so.
fn check(wanted: &WantedPort, network: &str, uuid: Uuid, bridge: &str) -> Result<(), Refusal> {
    if let Some(other) = wanted.bridge.as_deref().filter(|wanted| *wanted != bridge) {
        return Err(Refusal::PortMisfit(format!("the bridge of network '{network}' is {bridge}, not {other}")));
    }
    match (wanted.uuid, wanted.mac) {
        (Some(wanted), Some(mac)) if xml::uuid(uuid, mac) == wanted => Ok(()),
        (Some(_), _) => {
            Err(Refusal::PortMisfit("a port's UUID follows from its network and its MAC: leave <uuid> out".to_owned()))
        }
        (None, _) => Ok(()),
    }
}
