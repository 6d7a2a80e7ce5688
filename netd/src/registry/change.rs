//! Requests to change a network that exists: what they come to, live and in its definition, and what waits for a word.

use super::{Conflict, Live, Refusal, Registry};
use crate::{
    change::{Edit, Shared},
    host::{HostState, LinkKind},
    model::{MacAddr, Network, NetworkName},
    plan::{self, Desired, Ground},
    port::Port,
    store::Before,
};

/// What an edit is to affect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affect {
    /// The live network.
    pub live: bool,
    /// The definition.
    pub config: bool,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of which network.
    pub name: NetworkName,
    /// Of what is live.
    pub live: Option<LiveChange>,
    /// The new definition, if it becomes another.
    pub definition: Option<Network>,
}

/// A change of a live network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveChange {
    /// As it will be.
    pub network: Network,
    /// What it is made of.
    pub from: Desired,
    /// What it will be made of.
    pub to: Desired,
    /// What it shares with others.
    pub shared: Shared,
}

/// What applying a file comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// The network is not active: define it so, and start it.
    Start(Box<Network>),
    /// It is.
    Change(Box<Change>),
}

impl Registry {
    /// What it takes to have this network, defined and active. One that says no UUID is the one of its name.
    pub fn apply(
        &self,
        mut network: Network,
        has_uuid: bool,
        host: &HostState,
        fresh: MacAddr,
    ) -> Result<Apply, Refusal> {
        if !has_uuid && let Some(known) = self.networks.get(&network.name).and_then(super::Entry::network) {
            network.uuid = known.uuid;
        }
        self.refuse_unconfirmed(&network.name)?;
        let network = self.define(network, host, fresh)?;
        let entry = self.networks.get(&network.name);
        let Some(live) = entry.and_then(|entry| entry.live.as_ref()) else {
            return Ok(Apply::Start(Box::new(network)));
        };
        let definition = entry.and_then(|entry| entry.definition.as_ref());
        let changed = (definition != Some(&network)).then(|| network.clone());
        let live = self.live_change(live, network.clone().live(), host)?;
        Ok(Apply::Change(Box::new(Change { name: network.name, live, definition: changed })))
    }

    /// What it takes to edit one section of the network `key`: of what is live, of its definition, or of both. Neither
    /// means what is current: live if it is active. Returns what is affected, too.
    pub fn update(
        &self,
        key: &str,
        edit: &Edit<'_>,
        affect: Affect,
        host: &HostState,
    ) -> Result<(Change, Affect), Refusal> {
        let (name, entry) = self.find(key)?;
        let affect = match affect {
            Affect { live: false, config: false } => {
                Affect { live: entry.live.is_some(), config: entry.live.is_none() }
            }
            affect => affect,
        };
        if affect.live && entry.live.is_none() {
            return Err(Refusal::NotRunning);
        }
        if affect.config && entry.definition.is_none() {
            return Err(Refusal::TransientConfig);
        }
        self.refuse_unconfirmed(name)?;
        let definition = match entry.definition.as_ref().filter(|_| affect.config) {
            Some(before) => {
                let after = edit.apply(before)?;
                self.refuse_conflicts(&after, Conflict::forbids_definition)?;
                (after != *before).then_some(after)
            }
            None => None,
        };
        let live = match entry.live.as_ref().filter(|_| affect.live) {
            Some(live) => {
                let mut after = edit.apply(&live.network)?;
                // What the edit took away is chosen again as it was.
                after.mac = after.mac.or(live.network.mac);
                after.bridge.name = after.bridge.name.or_else(|| live.network.bridge.name.clone());
                self.refuse_conflicts(&after, Conflict::forbids_definition)?;
                self.live_change(live, after.live(), host)?
            }
            None => None,
        };
        Ok((Change { name: name.clone(), live, definition }, affect))
    }

    /// The change from a live network to another form of it; none if it is the same. Checked as a start is, but that
    /// what the network has itself is in nobody's way.
    fn live_change(&self, live: &Live, network: Network, host: &HostState) -> Result<Option<LiveChange>, Refusal> {
        if network == live.network {
            return Ok(None);
        }
        let mut to = self.desired(&network)?;
        refuse_ground(&live.desired.ground, &to.ground, &network.name)?;
        self.refuse_for_ports(&network, &to, host)?;
        let name = &network.name;
        let from = self.with_ports(live);
        let dns_port = from.firewall.dns_redirect.as_ref().map(|redirect| redirect.port);
        to.redirect_dns(dns_port.filter(|_| to.services.dns.is_some()));
        let subnets = |desired: &Desired| desired.addresses.iter().map(|address| address.trunc()).collect::<Vec<_>>();
        let known = subnets(&from);
        for subnet in subnets(&to).into_iter().filter(|subnet| !known.contains(subnet)) {
            if let Some(user) = host.in_use(subnet, to.bridge().as_slice()) {
                return Err(Refusal::SubnetInUse { subnet, by: user.by, interface: user.interface });
            }
        }
        self.refuse_live_conflicts(&network)?;
        let shared = Shared::of(&live.journal, self.others(name));
        Ok(Some(LiveChange { network, from, to, shared }))
    }

    /// What a live network is made of, with the ports it has now.
    pub(crate) fn with_ports(&self, live: &Live) -> Desired {
        let ports: Vec<&Port> = self.ports_of(&live.network.name).collect();
        let shape = plan::network_shape(&live.network, &ports);
        let wishes = ports.iter().map(|port| plan::wish(&live.network, port)).collect();
        Desired { ports: wishes, shape, ..live.desired.clone() }
    }

    /// What a port would be refused for when it is plugged, it is refused for in a change under it.
    fn refuse_for_ports(&self, network: &Network, to: &Desired, host: &HostState) -> Result<(), Refusal> {
        let filters = |bridge: &str| {
            let kind = host.link(bridge).map(|link| link.kind);
            matches!(kind, None | Some(LinkKind::Bridge { vlan_filtering: true, .. }))
        };
        for port in self.ports_of(&network.name) {
            let group = plan::group(network, port.group.as_deref());
            if let Some(group) = &port.group
                && !network.port_groups.iter().any(|known| known.name == *group)
            {
                let (network, group) = (network.name.to_string(), group.clone());
                return Err(Refusal::NoPortGroup { network, group });
            }
            if port.guards && plan::is_trunk(network, group) {
                return Err(Refusal::NoGuardsOnTrunk(network.name.to_string()));
            }
        }
        if let Some(bridge) = to.bridge().filter(|bridge| !filters(bridge))
            && to.ports.iter().any(|wish| wish.place.vlans.is_some())
        {
            return Err(Refusal::NoVlanFiltering { network: network.name.to_string(), bridge: bridge.to_owned() });
        }
        self.refuse_floors(network, to)
    }

    /// While a change may still be taken back, nothing else changes the network.
    pub fn refuse_unconfirmed(&self, name: &NetworkName) -> Result<(), Refusal> {
        match self.unconfirmed.get(name) {
            Some(_) => Err(Refusal::Unconfirmed(name.to_string())),
            None => Ok(()),
        }
    }

    /// What the network comes back to unless its last change is confirmed.
    pub fn before(&self, name: &NetworkName) -> Option<&Before> {
        self.unconfirmed.get(name)
    }

    /// The change of the network waits for a word, or not any more.
    pub fn set_before(&mut self, name: &NetworkName, before: Option<Before>) {
        match before {
            Some(before) => drop(self.unconfirmed.insert(name.clone(), before)),
            None => drop(self.unconfirmed.remove(name)),
        }
    }

    /// Changes that wait for a word.
    pub fn unconfirmed(&self) -> impl Iterator<Item = (&NetworkName, &Before)> {
        self.unconfirmed.iter()
    }

    /// The change that is to be confirmed: of the network `key`, or the only one.
    pub fn confirm(&self, key: Option<&str>) -> Result<(NetworkName, Before), Refusal> {
        if let Some(key) = key {
            let (name, _) = self.find(key)?;
            let before = self.unconfirmed.get(name).ok_or_else(|| Refusal::NothingToConfirm(Some(name.to_string())))?;
            return Ok((name.clone(), before.clone()));
        }
        let mut waiting = self.unconfirmed.iter();
        match (waiting.next(), waiting.next()) {
            (None, _) => Err(Refusal::NothingToConfirm(None)),
            (Some((name, before)), None) => Ok((name.clone(), before.clone())),
            (Some(_), Some(_)) => {
                Err(Refusal::ConfirmWhich(self.unconfirmed.keys().map(NetworkName::to_string).collect()))
            }
        }
    }

    /// Every network's rules and forwards as they would be with this live network in the place of the one of its name.
    pub(crate) fn with_live(&self, live: Live) -> Registry {
        let mut other = self.clone();
        other.started(live);
        other
    }
}

/// What the ports of an active network are on stays what it is.
fn refuse_ground(is: &Ground, wanted: &Ground, network: &NetworkName) -> Result<(), Refusal> {
    let network = network.to_string();
    match (is, wanted) {
        (Ground::Own(is), Ground::Own(wanted)) if is.name == wanted.name => Ok(()),
        (Ground::Own(is), Ground::Own(wanted)) => {
            Err(Refusal::BridgeRename { network, bridge: is.name.clone(), wanted: wanted.name.clone() })
        }
        (is, wanted) if is == wanted => Ok(()),
        (is, wanted) => Err(Refusal::GroundChange { network, is: is.to_string(), wanted: wanted.to_string() }),
    }
}
