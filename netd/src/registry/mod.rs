//! Which networks and ports exist and in what state, and what each request means in that state. Pure: it decides,
//! `verbs` carries out and then tells it what became of it.
//!
//! ```text
//!              define                    start
//!   (nothing) ────────► defined ────────────────────► active, defined
//!       ▲  ▲    undefine   │    ◄────────────────────      │
//!       │  └───────────────┘            destroy            │ undefine
//!       │                     destroy                      ▼
//!       └──────────────────────────────────────── active, transient ◄── create ── (nothing)
//! ```
//!
//! A redefined active network stays as it was started; the definition is what the next start takes.

mod adopt;
pub(crate) mod change;
pub(crate) mod forwards;
pub mod metadata;
pub(crate) mod ports;
mod refusal;
pub mod shipped;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use uuid::Uuid;

pub use change::{Affect, Apply, Change, LiveChange};
pub use forwards::ForwardChange;
pub use ports::{Plug, PortRequest, PortSpec};
pub use refusal::Refusal;

use crate::{
    check::{Conflict, conflicts, not_yet},
    host::{Focus, HostState},
    model::{BridgeName, BridgeTemplate, Forward, MacAddr, Network, NetworkName},
    plan::{self, Desired, Ground, InPlace, Others, Step, Undo},
    port::Port,
    store::Before,
};

/// libvirt's limit for the N in `virbrN`.
const MOST_BRIDGES: u32 = 256;

/// All networks and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    networks: BTreeMap<NetworkName, Entry>,
    ports: BTreeMap<u32, Port>,
    /// The MACs of ports that are gone.
    unplugged: BTreeSet<MacAddr>,
    /// Changes that are made and may be taken back.
    unconfirmed: BTreeMap<NetworkName, Before>,
    resolv_conf: PathBuf,
}

/// A network: defined, active, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What is on disk.
    pub definition: Option<Network>,
    /// The daemon starts it when it starts.
    pub autostart: bool,
    /// What is on the host.
    pub live: Option<Live>,
}

/// A network on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// As it was started.
    pub network: Network,
    /// What it is made of; the ports are in the registry.
    pub desired: Desired,
    /// How to take it down.
    pub journal: Vec<Undo>,
}

/// What starting a network takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// As it will be live.
    pub network: Network,
    /// A definition to store first: something had to be chosen.
    pub definition: Option<Network>,
    /// What it will be made of.
    pub desired: Desired,
    /// The way there.
    pub steps: Vec<Step>,
    /// What is there already and ours from then on: undone when the network stops, not when starting it fails.
    pub already: Vec<Step>,
    /// What the user should know.
    pub notices: Vec<String>,
}

/// What stopping a network takes, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub name: NetworkName,
    /// Other networks that from now on have this to undo when they stop.
    pub hand_over: Vec<(NetworkName, Undo)>,
    /// What to undo.
    pub undos: Vec<Undo>,
    /// Nothing is left of the network afterwards: it has no definition.
    pub forget: bool,
}

impl Registry {
    /// No networks; those to come ask the resolvers listed in `resolv_conf`.
    pub fn new(resolv_conf: &Path) -> Self {
        Registry {
            networks: BTreeMap::new(),
            ports: BTreeMap::new(),
            unplugged: BTreeSet::new(),
            unconfirmed: BTreeMap::new(),
            resolv_conf: resolv_conf.to_owned(),
        }
    }

    /// Every network, by name.
    pub fn networks(&self) -> impl Iterator<Item = (&NetworkName, &Entry)> {
        self.networks.iter()
    }

    /// Whether a network of this name exists.
    pub fn contains(&self, name: &NetworkName) -> bool {
        self.networks.contains_key(name)
    }

    /// The network of this UUID or name, tried in this order.
    pub fn find(&self, key: &str) -> Result<(&NetworkName, &Entry), Refusal> {
        let by_uuid = Uuid::try_parse(key).ok().filter(|_| key.len() == 36);
        by_uuid
            .and_then(|uuid| self.networks.iter().find(|(_, entry)| entry.network().is_some_and(|n| n.uuid == uuid)))
            .or_else(|| self.networks.get_key_value(&key.parse::<NetworkName>().ok()?))
            .ok_or_else(|| Refusal::NoNetwork(key.to_owned()))
    }

    /// The active network of this UUID or name.
    pub fn find_live(&self, key: &str) -> Result<(&NetworkName, &Live), Refusal> {
        let (name, entry) = self.find(key)?;
        match &entry.live {
            Some(live) => Ok((name, live)),
            None => Err(Refusal::NotActive(name.to_string())),
        }
    }

    /// The network whose live bridge has this name.
    pub fn on_bridge(&self, bridge: &str) -> Option<&NetworkName> {
        let is_it = |entry: &Entry| entry.live.as_ref().is_some_and(|live| live.desired.bridge() == Some(bridge));
        self.networks.iter().find(|(_, entry)| is_it(entry)).map(|(name, _)| name)
    }

    /// The active networks that have one of these links: as their bridge or as a port.
    pub fn with_links(&self, links: &BTreeSet<String>) -> BTreeSet<NetworkName> {
        let bridges = links.iter().filter_map(|link| self.on_bridge(link));
        let ports = self.ports.values().filter(|port| links.contains(&port.interface));
        let ports = ports.filter_map(|port| Some(self.find(&port.network).ok()?.0));
        let live = |name: &&NetworkName| self.networks.get(*name).is_some_and(|entry| entry.live.is_some());
        bridges.chain(ports).filter(live).cloned().collect()
    }

    /// A network as clients see it.
    pub fn view(&self, name: &NetworkName) -> Option<netd_api::Network> {
        let entry = self.networks.get(name)?;
        let network = entry.network()?;
        let bridge = entry
            .live
            .as_ref()
            .and_then(|live| live.desired.bridge().map(str::to_owned))
            .or_else(|| network.bridge.name.as_ref().map(BridgeName::to_string));
        Some(netd_api::Network {
            name: name.to_string(),
            uuid: network.uuid.to_string(),
            active: entry.live.is_some(),
            persistent: entry.definition.is_some(),
            autostart: entry.autostart,
            bridge,
            title: network.title.clone(),
        })
    }

    /// A definition completed (MAC, bridge name) and found to fit beside the others. `fresh` is a MAC nobody has.
    pub fn define(&self, network: Network, host: &HostState, fresh: MacAddr) -> Result<Network, Refusal> {
        not_yet::refuse(&network)?;
        self.refuse_conflicts(&network, Conflict::forbids_definition)?;
        let before = self.networks.get(&network.name).and_then(Entry::network);
        self.complete(network, before, host, fresh)
    }

    /// What it takes to start the network `key` from its definition.
    pub fn start(&self, key: &str, host: &HostState, fresh: MacAddr) -> Result<Start, Refusal> {
        let (name, entry) = self.find(key)?;
        if entry.live.is_some() {
            return Err(Refusal::AlreadyActive(name.to_string()));
        }
        let definition = entry.definition.as_ref().ok_or_else(|| Refusal::NoNetwork(key.to_owned()))?;
        not_yet::refuse(definition)?;
        let mut network = self.complete(definition.clone(), Some(definition), host, fresh)?;
        let mut notices = Vec::new();
        if shipped::is_unchanged(&network) {
            let free = self.free_bridge(&network.name, None, host).ok();
            let (moved, said) =
                shipped::make_way(&network, host, |subnet| self.is_undefined_elsewhere(&network, subnet), free)
                    .ok_or_else(|| Refusal::NoSubnet(name.to_string()))?;
            (network, notices) = (moved, said);
        }
        let changed = (network != *definition).then(|| network.clone());
        self.start_from(network, changed, notices, host)
    }

    /// What it takes to start a network that has no definition, or whose definition is another.
    pub fn create(&self, network: Network, host: &HostState, fresh: MacAddr) -> Result<Start, Refusal> {
        not_yet::refuse(&network)?;
        self.refuse_conflicts(&network, Conflict::forbids_definition)?;
        if self.networks.get(&network.name).is_some_and(|entry| entry.live.is_some()) {
            return Err(Refusal::AlreadyActiveAs(network.name.to_string()));
        }
        let network = self.complete(network, None, host, fresh)?;
        self.start_from(network, None, Vec::new(), host)
    }

    fn start_from(
        &self,
        network: Network,
        definition: Option<Network>,
        mut notices: Vec<String>,
        host: &HostState,
    ) -> Result<Start, Refusal> {
        let desired = self.desired(&network)?;
        match &desired.ground {
            Ground::Own(bridge) if host.link(&bridge.name).is_some() => {
                return Err(Refusal::BridgeInUse(bridge.name.clone()));
            }
            ground => {
                notices.extend(ground.missing(host).map(|missing| format!("network '{}': {missing}", network.name)))
            }
        }
        for &subnet in &desired.addresses {
            if let Some(user) = host.in_use(subnet, &[]) {
                return Err(Refusal::SubnetInUse { subnet: subnet.trunc(), by: user.by, interface: user.interface });
            }
        }
        self.refuse_live_conflicts(&network)?;
        let steps = plan::plan(&desired, host, InPlace::default());
        notices.extend(steps.iter().filter_map(|step| match step {
            Step::KeepRouterAdvertisements { interface } => Some(format!(
                "this host is an IPv6 router now and still takes its own routes from router advertisements on \
                 {interface}: net.ipv6.conf.{interface}.accept_ra is 2"
            )),
            _ => None,
        }));
        Ok(Start { network: network.live(), definition, desired, steps, already: Vec::new(), notices })
    }

    /// What of the host says whether a network can be defined and started; `None` for all of it: a bridge has to be
    /// named, or a subnet found.
    pub fn focus(&self, network: &Network) -> Option<Focus> {
        let names = match &network.forward {
            Forward::Macvtap(macvtap) => macvtap.interfaces.iter().cloned().collect(),
            _ => BTreeSet::from([network.bridge.name.as_ref()?.to_string()]),
        };
        let focus = Focus {
            names,
            indices: self.ports_of(&network.name).map(|port| port.index).collect(),
            subnets: network.subnets.iter().map(|subnet| subnet.address).collect(),
        };
        (!shipped::is_unchanged(network)).then_some(focus)
    }

    /// The definition of the network `key`, if it has one.
    pub fn definition(&self, key: &str) -> Option<&Network> {
        self.find(key).ok()?.1.definition.as_ref()
    }

    /// What a network is made of, with the ports that wait for it.
    pub fn desired(&self, network: &Network) -> Result<Desired, Refusal> {
        let ground = plan::ground(network).ok_or(Refusal::NoBridgeName(MOST_BRIDGES))?;
        let ports: Vec<&Port> = self.ports_of(&network.name).collect();
        Ok(plan::desired(network, ground, &self.resolv_conf, &ports))
    }

    /// What it takes to stop the network `key`.
    pub fn stop(&self, key: &str) -> Result<Stop, Refusal> {
        let (name, live) = self.find_live(key)?;
        let others = self.others(name);
        let undos = plan::teardown(&live.journal, others);
        Ok(Stop {
            name: name.clone(),
            hand_over: self.hand_over(name, &live.journal),
            undos,
            forget: self.networks.get(name).is_some_and(|entry| entry.definition.is_none()),
        })
    }

    /// What another active network must undo one day in place of `name`, whose journal this is, and which one.
    pub fn hand_over(&self, name: &NetworkName, journal: &[Undo]) -> Vec<(NetworkName, Undo)> {
        let heir = |undo: &Undo| match undo {
            Undo::DisableForwarding => self.forwarders(name).next(),
            Undo::DisableForwarding6 | Undo::RestoreRouterAdvertisements { .. } => self.forwarders6(name).next(),
            _ => None,
        };
        journal.iter().filter_map(|undo| Some((heir(undo)?.clone(), undo.clone()))).collect()
    }

    /// The network whose definition `key` may be removed, and whether anything of it remains.
    pub fn undefine(&self, key: &str) -> Result<(NetworkName, bool), Refusal> {
        let (name, entry) = self.find(key)?;
        if entry.definition.is_none() {
            return Err(Refusal::TransientUndefine);
        }
        Ok((name.clone(), entry.live.is_some()))
    }

    /// The network whose autostart may be set.
    pub fn autostart(&self, key: &str) -> Result<NetworkName, Refusal> {
        let (name, entry) = self.find(key)?;
        if entry.definition.is_none() {
            return Err(Refusal::TransientAutostart);
        }
        Ok(name.clone())
    }

    /// The networks to start with the daemon.
    pub fn to_autostart(&self) -> Vec<NetworkName> {
        let wanted = |entry: &Entry| entry.autostart && entry.live.is_none();
        self.networks.iter().filter(|(_, entry)| wanted(entry)).map(|(name, _)| name.clone()).collect()
    }

    /// What the other active networks need of what networks share.
    pub fn others(&self, name: &NetworkName) -> Others {
        Others {
            active: self.networks.iter().any(|(other, entry)| other != name && has_rules(entry)),
            forwarding: self.forwarders(name).next().is_some(),
            forwarding6: self.forwarders6(name).next().is_some(),
        }
    }

    /// The rules of every active network.
    pub fn firewalls(&self) -> Vec<nat::Network> {
        self.networks
            .values()
            .filter_map(|entry| entry.live.as_ref())
            .filter(|live| matches!(live.desired.ground, Ground::Own(_)))
            .map(|live| live.desired.firewall.clone())
            .collect()
    }

    /// Whether any active network has rules of its own.
    pub fn has_firewall(&self) -> bool {
        let own = |entry: &Entry| entry.live.as_ref().is_some_and(|live| matches!(live.desired.ground, Ground::Own(_)));
        self.networks.values().any(own)
    }

    fn forwarders(&self, except: &NetworkName) -> impl Iterator<Item = &NetworkName> {
        self.others_that(except, |live| live.desired.forwarding)
    }

    fn forwarders6(&self, except: &NetworkName) -> impl Iterator<Item = &NetworkName> {
        self.others_that(except, |live| live.desired.forwarding6)
    }

    fn others_that(&self, except: &NetworkName, is_so: fn(&Live) -> bool) -> impl Iterator<Item = &NetworkName> {
        let is_so = move |entry: &Entry| entry.live.as_ref().is_some_and(is_so);
        self.networks.iter().filter(move |(name, entry)| *name != except && is_so(entry)).map(|(name, _)| name)
    }

    /// The definition is on disk now.
    pub fn defined(&mut self, network: Network) {
        let entry = self.networks.entry(network.name.clone()).or_default();
        entry.definition = Some(network);
    }

    /// The definition is off the disk now.
    pub fn undefined(&mut self, name: &NetworkName) {
        self.change(name, |entry| {
            entry.definition = None;
            entry.autostart = false;
        });
    }

    /// The autostart link is there now, or gone.
    pub fn set_autostart(&mut self, name: &NetworkName, autostart: bool) {
        self.change(name, |entry| entry.autostart = autostart);
    }

    /// The network is on the host now.
    pub fn started(&mut self, live: Live) {
        let entry = self.networks.entry(live.network.name.clone()).or_default();
        entry.live = Some(live);
    }

    /// The network is off the host now.
    pub fn stopped(&mut self, name: &NetworkName) {
        self.unconfirmed.remove(name);
        self.change(name, |entry| entry.live = None);
    }

    /// The live network has these things to undo and no others.
    pub fn set_journal(&mut self, name: &NetworkName, journal: Vec<Undo>) {
        self.change(name, |entry| {
            if let Some(live) = entry.live.as_mut() {
                live.journal = journal;
            }
        });
    }

    /// The live network has one thing more to undo.
    pub fn inherit(&mut self, name: &NetworkName, undo: Undo) {
        self.change(name, |entry| {
            if let Some(live) = entry.live.as_mut().filter(|live| !live.journal.contains(&undo)) {
                live.journal.push(undo);
            }
        });
    }

    fn change(&mut self, name: &NetworkName, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.networks.get_mut(name) {
            change(entry);
            if entry.definition.is_none() && entry.live.is_none() {
                self.networks.remove(name);
            }
        }
    }

    /// `network` with a MAC and a bridge name: its own, those it had `before`, or new ones.
    fn complete(
        &self,
        mut network: Network,
        before: Option<&Network>,
        host: &HostState,
        fresh: MacAddr,
    ) -> Result<Network, Refusal> {
        if !network.forward.has_own_bridge() {
            return Ok(network);
        }
        network.mac = network.mac.or_else(|| before.and_then(|before| before.mac)).or(Some(fresh));
        let template = network.bridge.template.take();
        if network.bridge.name.is_none() {
            let before = before.filter(|_| template.is_none()).and_then(|before| before.bridge.name.clone());
            network.bridge.name = match before {
                Some(name) => Some(name),
                None => Some(self.free_bridge(&network.name, template.as_ref(), host)?),
            };
        }
        Ok(network)
    }

    /// The first name of a template, else of `virbrN`, that no interface and no other network has.
    fn free_bridge(
        &self,
        own: &NetworkName,
        template: Option<&BridgeTemplate>,
        host: &HostState,
    ) -> Result<BridgeName, Refusal> {
        let taken = |name: &BridgeName| {
            host.link(name.as_str()).is_some()
                || self.others_than(own).any(|other| other.bridge.name.as_ref() == Some(name))
        };
        let name = |number| match template {
            Some(template) => template.name(number),
            None => format!("virbr{number}").parse().ok(),
        };
        (0..=MOST_BRIDGES).filter_map(name).find(|name| !taken(name)).ok_or(Refusal::NoBridgeName(MOST_BRIDGES))
    }

    fn is_undefined_elsewhere(&self, own: &Network, subnet: Ipv4Net) -> bool {
        let overlaps = |other: Ipv4Net| crate::host::overlap(other.trunc().into(), subnet.into());
        !self.others_than(&own.name).flat_map(Network::ipv4).any(overlaps)
    }

    /// Definitions and live forms of every other network.
    fn others_than(&self, own: &NetworkName) -> impl Iterator<Item = &Network> {
        self.networks.iter().filter(move |(name, _)| *name != own).flat_map(|(_, entry)| entry.forms())
    }

    fn refuse_conflicts(&self, network: &Network, counts: impl Fn(&Conflict) -> bool) -> Result<(), Refusal> {
        let forms = self.networks.values().flat_map(Entry::forms);
        let mut found: Vec<Conflict> = conflicts(network, forms).into_iter().filter(counts).collect();
        // Whoever has the UUID is named before whoever has the name, as libvirt does.
        found.sort_by_key(|conflict| !matches!(conflict, Conflict::Uuid { .. }));
        found.into_iter().next().map_or(Ok(()), |conflict| Err(conflict.into()))
    }

    fn refuse_live_conflicts(&self, network: &Network) -> Result<(), Refusal> {
        let live = self.networks.values().filter_map(|entry| entry.live.as_ref()).map(|live| &live.network);
        let matters = |c: &Conflict| matches!(c, Conflict::Mac { .. } | Conflict::Forward { .. });
        let conflict = conflicts(network, live).into_iter().find(matters);
        conflict.map_or(Ok(()), |conflict| Err(conflict.into()))
    }
}

/// Whether a network is active that has rules in our table.
fn has_rules(entry: &Entry) -> bool {
    entry.live.as_ref().is_some_and(|live| matches!(live.desired.ground, Ground::Own(_)))
}

impl Entry {
    /// The network as it is known best: live, else defined.
    pub fn network(&self) -> Option<&Network> {
        self.live.as_ref().map(|live| &live.network).or(self.definition.as_ref())
    }

    fn forms(&self) -> impl Iterator<Item = &Network> {
        self.definition.iter().chain(self.live.as_ref().map(|live| &live.network))
    }
}
