//! EDGE: which ports are guarded, and keeping the kernel's table the same. It decides nothing about packets; `nat` does.
//!
//! ```text
//! port plugged, gone ──┐
//! lease begins, ends ──┼──► what is wanted ──► elements, by netlink ──► (if that fails) the whole table, by nft
//! network up, down ────┘
//! ```
//!
//! One lock orders all changes. A DHCP reply waits for it with [`LeaseWatch`], so it is held for a change of the table
//! and never while waiting for a server or a link.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    time::Duration,
};

use dhcp::{LeaseChange, LeaseKind, LeaseWatch};
use nat::guards::{self, Elements, GuardedPort, Sources, Violation};
use tokio::sync::Mutex;

use super::StepError;
use crate::{model::MacAddr, observe::rules, port::Port};

/// The guards of every port.
#[derive(Debug)]
pub struct Guards {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    elements: Elements,
    /// The table is there, as far as we know.
    table: bool,
    /// How often it was written anew.
    rewrites: u64,
    /// By interface name, which is what the kernel's elements go by.
    ports: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    index: u32,
    network: String,
    /// The bridge of its network, while that is active.
    bridge: Option<String>,
    guarded: GuardedPort,
}

/// A port that is to be guarded.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) interface: &'a str,
    pub(crate) index: u32,
    pub(crate) network: &'a str,
    pub(crate) mac: MacAddr,
    /// The bridge of its network and what the port may say there; none while the network is not active.
    pub(crate) on: Option<(String, Sources)>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(port: &'a Port, on: Option<(String, Sources)>) -> Self {
        Wanted { interface: &port.interface, index: port.index, network: &port.network, mac: port.mac, on }
    }
}

/// Who has which address by a lease of a network, as it is now.
pub(crate) trait Leases: Fn(&str) -> Vec<(dhcp::config::Mac, IpAddr)> + Sync {}
impl<F: Fn(&str) -> Vec<(dhcp::config::Mac, IpAddr)> + Sync> Leases for F {}

impl Guards {
    /// No port is guarded yet.
    pub fn new() -> io::Result<Self> {
        let state = State { elements: Elements::open()?, table: false, rewrites: 0, ports: BTreeMap::new() };
        Ok(Guards { state: Mutex::new(state) })
    }

    /// Makes the table anew for these ports and no others.
    pub(crate) async fn restore(&self, ports: &[Wanted<'_>], leases: impl Leases) -> Result<(), StepError> {
        let mut state = self.state.lock().await;
        state.ports = ports.iter().map(|port| (port.interface.to_owned(), Entry::new(port, &leases))).collect();
        // An earlier daemon's, which may have others.
        state.table = rules::has_table(rules::Family::Bridge, nat::TABLE).map_err(StepError::Kernel)?;
        state.rewrite().await
    }

    /// Guards a port, before anything can come from it.
    pub(crate) async fn add(&self, port: &Wanted<'_>, leases: impl Leases) -> Result<(), StepError> {
        let mut state = self.state.lock().await;
        // Its name may have been another's, of whose end we have not heard yet.
        if let Some(before) = state.ports.remove(port.interface) {
            state.drop_entries(&[before]).await?;
        }
        let entry = Entry::new(port, &leases);
        let guarded = entry.guarded.clone();
        state.ports.insert(port.interface.to_owned(), entry);
        let changed = state.admit(guarded).await;
        if changed.is_err() {
            state.ports.remove(port.interface);
        }
        changed
    }

    /// The port with this index is gone; fine if it was not guarded.
    pub(crate) async fn remove(&self, interface: &str, index: u32) -> Result<(), StepError> {
        let mut state = self.state.lock().await;
        match state.ports.get(interface) {
            Some(entry) if entry.index == index => {}
            _ => return Ok(()),
        }
        let gone: Vec<Entry> = state.ports.remove(interface).into_iter().collect();
        state.drop_entries(&gone).await
    }

    /// The port with this index is on no bridge any more; fine if it was not guarded.
    pub(crate) async fn unplug(&self, interface: &str, index: u32) -> Result<(), StepError> {
        let mut state = self.state.lock().await;
        let mut left = Vec::new();
        if let Some(entry) = state.ports.get_mut(interface).filter(|e| e.index == index && e.bridge.is_some()) {
            left.push(entry.clone());
            entry.bridge = None;
        }
        if left.is_empty() {
            return Ok(());
        }
        if state.wanted().is_empty() { state.rewrite().await } else { state.drop_entries(&left).await }
    }

    /// The network is about to be active: its ports, which are on no bridge yet, are guarded.
    pub(crate) async fn enter(
        &self,
        network: &str,
        bridge: &str,
        sources: &Sources,
        leases: impl Leases,
    ) -> Result<(), StepError> {
        let mut state = self.state.lock().await;
        let leases = leases(network);
        for entry in state.ports.values_mut().filter(|entry| entry.network == network) {
            entry.bridge = Some(bridge.to_owned());
            entry.guarded.sources = sources.clone();
            (entry.guarded.addresses, entry.guarded.addresses6) = (Vec::new(), Vec::new());
            own(&leases, entry.guarded.mac).for_each(|address| gain(&mut entry.guarded, address));
        }
        state.rewrite().await
    }

    /// The bridge is gone: nothing stays of its ports' guards, and with the last of all ports goes the table.
    pub(crate) async fn leave(&self, bridge: &str) -> Result<(), StepError> {
        let mut state = self.state.lock().await;
        let mut left = Vec::new();
        for entry in state.ports.values_mut().filter(|entry| entry.bridge.as_deref() == Some(bridge)) {
            left.push(entry.clone());
            entry.bridge = None;
        }
        if state.wanted().is_empty() { state.rewrite().await } else { state.drop_entries(&left).await }
    }

    /// Puts the table back if someone has removed it. True if that was so.
    pub(crate) async fn heal(&self) -> Result<bool, StepError> {
        let mut state = self.state.lock().await;
        if !state.table || rules::has_table(rules::Family::Bridge, nat::TABLE).map_err(StepError::Kernel)? {
            return Ok(false);
        }
        tracing::warn!("the nftables table of the ports' guards was removed; putting it back");
        state.rewrite().await?;
        Ok(true)
    }

    /// The IPv6 addresses that ports have claimed, and how long ago they last spoke for them.
    pub(crate) async fn claimed(&self) -> Vec<(String, Ipv6Addr, Duration)> {
        // Without the table nobody has claimed anything.
        self.state.lock().await.elements.claimed().unwrap_or_default()
    }

    /// How often the table was written anew.
    pub(crate) async fn rewrites(&self) -> u64 {
        self.state.lock().await.rewrites
    }

    /// What was dropped of a port's frames; `None` if it is not guarded now.
    pub(crate) async fn dropped(&self, interface: &str) -> io::Result<Option<netd_api::Dropped>> {
        let mut state = self.state.lock().await;
        if state.ports.get(interface).is_none_or(|entry| entry.bridge.is_none()) {
            return Ok(None);
        }
        let mut dropped = netd_api::Dropped::default();
        for (violation, packets) in state.elements.counts(interface)? {
            *match violation {
                Violation::Mac => &mut dropped.mac,
                Violation::Vlan => &mut dropped.vlan,
                Violation::Arp => &mut dropped.arp,
                Violation::Ip => &mut dropped.ip,
                Violation::Nd => &mut dropped.nd,
                Violation::Dhcp => &mut dropped.dhcp,
                Violation::Ra => &mut dropped.ra,
            } = packets;
        }
        Ok(Some(dropped))
    }
}

impl LeaseWatch for Guards {
    fn changed<'a>(
        &'a self,
        network: &'a str,
        changes: &'a [LeaseChange],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if !changes.iter().any(|change| change.kind.moves_an_address()) {
                return;
            }
            let mut state = self.state.lock().await;
            let (mut before, mut after) = (Vec::new(), Vec::new());
            for entry in state.ports.values_mut().filter(|entry| entry.network == network) {
                let old = entry.guarded.clone();
                let own = changes.iter().filter(|change| change.mac.0 == old.mac);
                own.for_each(|change| follow(&mut entry.guarded, change.kind));
                if old == entry.guarded {
                    continue;
                }
                if entry.bridge.is_some() {
                    before.push(old);
                    after.push(entry.guarded.clone());
                }
            }
            for (old, new) in before.iter().zip(&after).filter(|(old, new)| old.addresses6 != new.addresses6) {
                // A lease ranks above what anybody has claimed.
                if new.addresses6.iter().any(|address| !old.addresses6.contains(address)) {
                    state.evict(new);
                }
            }
            if !after.is_empty()
                && let Err(error) = state.change(&before, &after, &[]).await
            {
                tracing::error!("network {network}: cannot open a port's guards for its new address: {error}");
            }
        })
    }
}

impl Entry {
    fn new(port: &Wanted<'_>, leases: &impl Leases) -> Self {
        let (bridge, sources) = port.on.clone().unzip();
        let mut guarded = GuardedPort {
            interface: port.interface.to_owned(),
            mac: port.mac.0,
            addresses: Vec::new(),
            addresses6: Vec::new(),
            sources: sources.unwrap_or_default(),
        };
        own(&leases(port.network), port.mac.0).for_each(|address| gain(&mut guarded, address));
        Entry { index: port.index, network: port.network.to_owned(), bridge, guarded }
    }
}

impl State {
    /// The ports that the table should have.
    fn wanted(&self) -> Vec<GuardedPort> {
        self.ports.values().filter(|entry| entry.bridge.is_some()).map(|entry| entry.guarded.clone()).collect()
    }

    /// A port that is in `ports` already comes to the table, with its network's chains if it is the first that needs
    /// them, and with the addresses its MAC makes, whoever has claimed those.
    async fn admit(&mut self, port: GuardedPort) -> Result<(), StepError> {
        if self.table {
            let is_first = self.wanted().iter().filter(|other| other.sources == port.sources).count() == 1;
            if is_first && let Err(error) = guards::add_network(&port.sources).await {
                tracing::debug!("guards: {error}");
            }
            self.evict(&port);
        }
        self.change(&[], &[port], &[]).await
    }

    /// What is the port's own is nobody else's any more.
    fn evict(&mut self, port: &GuardedPort) {
        if !self.table {
            return;
        }
        match self.elements.evict(port) {
            Ok(evicted) => {
                for (interface, address) in evicted {
                    let why = if port.addresses6.contains(&address) { "lease" } else { "MAC" };
                    tracing::warn!("{interface} used {address}, which is {}'s by its {why}", port.interface);
                }
            }
            Err(error) => tracing::debug!("guards: {error}"),
        }
    }

    /// The table loses the elements of ports that are no more, and what only they needed.
    async fn drop_entries(&mut self, entries: &[Entry]) -> Result<(), StepError> {
        let before: Vec<GuardedPort> = entries.iter().map(|entry| entry.guarded.clone()).collect();
        let still = self.wanted();
        let mut gone: Vec<Sources> = Vec::new();
        for port in &before {
            if !gone.contains(&port.sources) && !still.iter().any(|other| other.sources == port.sources) {
                gone.push(port.sources.clone());
            }
        }
        if self.table
            && let Err(error) = self.elements.release(&before)
        {
            tracing::debug!("guards: {error}");
        }
        self.change(&before, &[], &gone).await
    }

    async fn change(
        &mut self,
        before: &[GuardedPort],
        after: &[GuardedPort],
        gone: &[Sources],
    ) -> Result<(), StepError> {
        if self.table {
            match self.elements.update(before, after, gone) {
                Ok(()) => return Ok(()),
                // Someone has flushed the ruleset.
                Err(error) => tracing::debug!("guards: {error}; making the table anew"),
            }
        }
        self.rewrite().await
    }

    async fn rewrite(&mut self) -> Result<(), StepError> {
        let ports = self.wanted();
        if !ports.is_empty() {
            guards::replace(&mut self.elements, &ports).await?;
            self.rewrites += 1;
        } else if self.table {
            guards::delete().await?;
        }
        self.table = !ports.is_empty();
        Ok(())
    }
}

/// What a port may use after its lease has changed. A client has one IPv4 lease and any number of IPv6 ones.
fn follow(port: &mut GuardedPort, kind: LeaseKind) {
    match kind {
        LeaseKind::Leased(address) => {
            if address.is_ipv4() {
                port.addresses.clear();
            }
            gain(port, address);
        }
        LeaseKind::Released(address)
        | LeaseKind::Expired(address)
        | LeaseKind::Declined(address)
        | LeaseKind::Dropped(address) => {
            port.addresses.retain(|known| IpAddr::V4(*known) != address);
            port.addresses6.retain(|known| IpAddr::V6(*known) != address);
        }
        LeaseKind::Discovering | LeaseKind::Offered(_) | LeaseKind::Renewed(_) => {}
    }
}

fn gain(port: &mut GuardedPort, address: IpAddr) {
    match address {
        IpAddr::V4(address) => port.addresses.push(address),
        IpAddr::V6(address) => port.addresses6.push(address),
    }
}

fn own(leases: &[(dhcp::config::Mac, IpAddr)], mac: [u8; 6]) -> impl Iterator<Item = IpAddr> {
    leases.iter().filter(move |(owner, _)| owner.0 == mac).map(|(_, address)| *address)
}
