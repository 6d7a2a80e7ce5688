//! Rules between networks. Pure: all problems, not the first.

use ipnet::IpNet;
use uuid::Uuid;

pub mod not_yet;

use crate::model::{BridgeName, HostPort, MacAddr, Network, NetworkName, Taken};

/// One thing that two networks cannot both have. Its `Display` is libvirt's sentence where libvirt has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another network has the name.
    #[error("operation failed: network '{name}' already exists with uuid {uuid}")]
    Name {
        /// The name.
        name: NetworkName,
        /// The other's UUID.
        uuid: Uuid,
    },
    /// Another network has the UUID.
    #[error("operation failed: network '{other}' is already defined with uuid {uuid}")]
    Uuid {
        /// The UUID.
        uuid: Uuid,
        /// The other network.
        other: NetworkName,
    },
    /// Another network has the bridge name.
    #[error("internal error: bridge name '{bridge}' already in use: network '{other}' has it")]
    Bridge {
        /// The bridge.
        bridge: BridgeName,
        /// The other network.
        other: NetworkName,
    },
    /// Another network's subnet has addresses in common.
    #[error("internal error: Network is already in use: subnet {subnet} overlaps {others} of network '{other}'")]
    Subnet {
        /// The new network's subnet.
        subnet: IpNet,
        /// The other's.
        others: IpNet,
        /// The other network.
        other: NetworkName,
    },
    /// Another network's bridge has the MAC address.
    #[error("operation failed: MAC address {mac} is already in use by network '{other}'")]
    Mac {
        /// The address.
        mac: MacAddr,
        /// The other network.
        other: NetworkName,
    },
    /// Another network forwards the port.
    #[error("operation failed: port {port} of the host is already forwarded by network '{other}'")]
    Forward {
        /// The first port of the host that both forward.
        port: HostPort,
        /// The other network.
        other: NetworkName,
    },
}

impl Conflict {
    /// The two cannot even be defined side by side. The others only matter when both are started.
    pub fn forbids_definition(&self) -> bool {
        matches!(
            self,
            Conflict::Name { .. } | Conflict::Uuid { .. } | Conflict::Bridge { .. } | Conflict::Forward { .. }
        )
    }
}

/// What keeps `new` from existing beside `others`. The one of them with its name *and* UUID is `new` as it was, and
/// no conflict.
pub fn conflicts<'a>(new: &Network, others: impl IntoIterator<Item = &'a Network>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for other in others {
        match (new.name == other.name, new.uuid == other.uuid) {
            (true, true) => continue,
            (true, false) => conflicts.push(Conflict::Name { name: new.name.clone(), uuid: other.uuid }),
            (false, true) => conflicts.push(Conflict::Uuid { uuid: new.uuid, other: other.name.clone() }),
            (false, false) => {}
        }
        // A bridge that is the host's can be had by many.
        let both_make_one = new.forward.has_own_bridge() && other.forward.has_own_bridge();
        let same = |name: &&BridgeName| both_make_one && other.bridge.name.as_ref() == Some(*name);
        if let Some(bridge) = new.bridge.name.as_ref().filter(same) {
            conflicts.push(Conflict::Bridge { bridge: bridge.clone(), other: other.name.clone() });
        }
        for subnet in new.subnets.iter().map(|s| s.address.trunc()) {
            for others in other.subnets.iter().map(|s| s.address.trunc()) {
                if subnet.contains(&others) || others.contains(&subnet) {
                    conflicts.push(Conflict::Subnet { subnet, others, other: other.name.clone() });
                }
            }
        }
        if let Some(mac) = new.mac.filter(|mac| other.mac == Some(*mac)) {
            conflicts.push(Conflict::Mac { mac, other: other.name.clone() });
        }
        if let Some(port) = forwarded_by_both(new, other) {
            conflicts.push(Conflict::Forward { port, other: other.name.clone() });
        }
    }
    conflicts
}

fn forwarded_by_both(new: &Network, other: &Network) -> Option<HostPort> {
    let ends = |network: &Network| {
        let ports = || network.forwards.iter().map(|forward| forward.at().ports);
        ports().map(|ports| ports.first()).min().zip(ports().map(|ports| ports.last()).max())
    };
    // Those of most networks are not even near each other.
    let ((first, last), (other_first, other_last)) = (ends(new)?, ends(other)?);
    if last < other_first || other_last < first {
        return None;
    }
    let mut taken = Taken::default();
    for forward in &other.forwards {
        taken.insert(forward.at());
    }
    new.forwards.iter().find_map(|forward| taken.insert(forward.at()))
}

#[cfg(test)]
mod tests;
