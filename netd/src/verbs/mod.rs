//! The verbs: what a front door calls. Each asks the registry for a decision, carries it out on the host and the disk,
//! and tells the registry what became of it.
//!
//! ```text
//! request ──► registry (decide) ──► store (record) ──► apply (do, verify) ──► store ──► registry ──► reply
//! ```
//!
//! Verbs that change something take turns; those that only look never wait for them. A verb that fails leaves the host
//! and the disk as they were. It opens no file, no socket and no device itself: [`Host`] and [`Store`] do.

mod adopt;
mod beside;
mod change;
mod error;
mod facts;
mod forwards;
mod heal;
mod hooks;
mod host;
mod insistence;
mod kept_ports;
mod metadata;
mod network_ports;
mod ports;
mod recover;
mod why;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use netd_api::{EventKind, Leases, NetworkReply, Networks};
use tokio::sync::{Mutex, MutexGuard, watch};

pub use change::How;
pub use error::VerbError;
pub use host::{CaptureError, Host};

use crate::{
    apply,
    events::{Bus, Listener, lifecycle},
    hooks::Operation,
    host::HostState,
    model::{MacAddr, Network, NetworkName},
    nss::Known,
    plan::{Ground, Step},
    port::Port,
    registry::{Live, Registry, Start, Stop},
    store::{Phase, Record, Store},
    xml,
};

/// The verbs on one host.
#[derive(Debug)]
pub struct Verbs<H> {
    host: H,
    store: Store,
    registry: RwLock<Registry>,
    turn: Mutex<()>,
    /// The port forwards in our table; only changed by who has the turn.
    applied: std::sync::Mutex<Vec<nat::Forward>>,
    /// Rung when a change is made that must be confirmed, or is confirmed.
    deadlines: watch::Sender<()>,
    heals: facts::Heals,
    /// How IPv4 and IPv6 forwarding were fought over.
    forwarding: std::sync::Mutex<[insistence::Insistence; 2]>,
    events: Bus,
}

impl<H: Host> Verbs<H> {
    /// The verbs on `host`, with nothing known yet: [`Verbs::recover`] comes next. What happens is told to `events`.
    pub fn new(host: H, store: Store, registry: Registry, events: Bus) -> Arc<Self> {
        Arc::new(Verbs {
            host,
            store,
            registry: RwLock::new(registry),
            turn: Mutex::default(),
            applied: std::sync::Mutex::default(),
            deadlines: watch::Sender::default(),
            heals: facts::Heals::default(),
            forwarding: std::sync::Mutex::default(),
            events,
        })
    }

    /// Waits for the verb that runs and keeps others from starting: for a clean end of the daemon.
    pub async fn quiet(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Hears what happens from now on.
    pub fn listen(&self) -> Listener {
        self.events.listen()
    }

    // A panic while the lock was held cannot leave the registry half changed: its changes are single assignments.
    fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry_mut(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the active networks.
    pub(crate) fn active_networks(&self) -> Vec<String> {
        self.active().iter().map(NetworkName::to_string).collect()
    }

    /// The bridges of ours of the active networks.
    pub(crate) fn active_bridges(&self) -> Vec<String> {
        let registry = self.registry();
        let live = registry.networks().filter_map(|(_, entry)| entry.live.as_ref());
        let own = |live: &Live| match &live.desired.ground {
            Ground::Own(bridge) => Some(bridge.name.clone()),
            Ground::Host(_) | Ground::Interfaces(_) => None,
        };
        live.filter_map(own).collect()
    }

    /// What the host's resolver is to know of an active network.
    pub(crate) fn known_to_host(&self, network: &str) -> Option<Known> {
        let registry = self.registry();
        let (name, live) = registry.find_live(network).ok()?;
        // Elsewhere we give nobody an address.
        let Ground::Own(bridge) = &live.desired.ground else { return None };
        Some(Known {
            bridge: bridge.name.clone(),
            leases: self.host.leases(name.as_str()),
            leases6: self.host.leases6(name.as_str()),
            duid: self.host.duid(),
            ports: registry.ports(Some(name)).into_iter().cloned().collect(),
        })
    }

    /// Every network.
    pub fn list(&self) -> Networks {
        let registry = self.registry();
        Networks { networks: registry.networks().filter_map(|(name, _)| registry.view(name)).collect() }
    }

    /// One network.
    pub fn get(&self, key: &str) -> Result<NetworkReply, VerbError> {
        let registry = self.registry();
        let (name, _) = registry.find(key)?;
        reply(&registry, name, Vec::new())
    }

    /// The XML of one network: live if it is active, unless its definition is asked for and there is one.
    pub fn dump_xml(&self, key: &str, inactive: bool) -> Result<String, VerbError> {
        let registry = self.registry();
        let (_, entry) = registry.find(key)?;
        let definition = entry.definition.as_ref().filter(|_| inactive);
        Ok(definition.or(entry.network()).map(xml::write).unwrap_or_default())
    }

    /// Stores a definition.
    pub async fn define(&self, text: &str) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let network = xml::parse(text)?;
        self.registry().refuse_unconfirmed(&network.name)?;
        let host = self.look_for(Some(&network)).await?;
        let defined = self.registry().define(network, &host, random_mac());
        let network = defined.map_err(|refusal| refusal.in_text(text))?;
        self.save_definition(&network)?;
        let (name, uuid) = (network.name.clone(), network.uuid);
        self.registry_mut().defined(network);
        self.events.tell(lifecycle(name.as_str(), uuid, EventKind::Defined));
        reply(&self.registry(), &name, Vec::new())
    }

    /// Starts a network without storing it.
    pub async fn create(&self, text: &str) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let network = xml::parse(text)?;
        let host = self.look_for(Some(&network)).await?;
        let start = self.registry().create(network, &host, random_mac()).map_err(|refusal| refusal.in_text(text))?;
        self.carry_out_start(start).await
    }

    /// Starts a defined network.
    pub async fn start(&self, key: &str) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let definition = self.registry().definition(key).cloned();
        let host = self.look_for(definition.as_ref()).await?;
        self.start_now(key, &host).await
    }

    /// What of the host decides whether this network can be there; all of it where that is not known before.
    async fn look_for(&self, network: Option<&Network>) -> Result<HostState, VerbError> {
        let focus = network.and_then(|network| self.registry().focus(network));
        if let Some(focus) = focus {
            let host = self.host.observe_around(&focus).await?;
            // Whoever turns IPv6 forwarding on has to know which of the host's interfaces learn routes.
            if host.forwarding6 || focus.subnets.iter().all(|subnet| subnet.addr().is_ipv4()) {
                return Ok(host);
            }
        }
        Ok(self.host.observe().await?)
    }

    async fn start_now(&self, key: &str, host: &HostState) -> Result<NetworkReply, VerbError> {
        let start = self.registry().start(key, host, random_mac())?;
        self.carry_out_start(start).await
    }

    async fn carry_out_start(&self, start: Start) -> Result<NetworkReply, VerbError> {
        let Start { network, definition, mut desired, steps, already, notices } = start;
        let (name, uuid) = (network.name.clone(), network.uuid);
        self.call_hooks(&network, Operation::Start).await?;
        if let Some(definition) = definition {
            self.save_definition(&definition)?;
            self.registry_mut().defined(definition);
        }
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        let others = self.registry().others(&name);
        let mut record = Record {
            name: name.to_string(),
            phase: Phase::Starting,
            xml: xml::write(&network),
            journal: crate::plan::unwind(&steps),
            before: None,
        };
        self.store.save_record(&record)?;
        self.publish_ports(&name);
        let done = match apply::apply(&self.host, &desired, steps, others).await {
            Ok(done) => done,
            Err(failed) => {
                self.after_failed_start(&name, &failed)?;
                self.tell_hooks(&network, Operation::Stopped).await;
                return Err(failed.error.into());
            }
        };
        // As applied: with DNS redirected where that turned out to be needed.
        if let Some(firewall) = done.iter().find_map(|step| match step {
            Step::AddFirewall(network) => Some(network.clone()),
            _ => None,
        }) {
            desired.firewall = firewall;
        }
        record.phase = Phase::Active;
        record.journal = crate::plan::unwind(already.iter().chain(&done));
        let own = crate::plan::unwind(&done);
        if let Err(error) = self.store.save_record(&record) {
            // Unrecorded, it would be nobody's after a crash.
            let undos = crate::plan::teardown(&own, others);
            let left = apply::take_back(&self.host, &undos).await;
            self.settle(&name, &left)?;
            self.tell_hooks(&network, Operation::Stopped).await;
            return Err(error.into());
        }
        self.registry_mut().started(Live { network: network.clone(), desired, journal: record.journal });
        let mut result = match network.bridge.name.as_ref() {
            Some(bridge) => self.sync_forwards_on(bridge.as_str()).await,
            None => Ok(()),
        };
        if result.is_ok() {
            result = self.call_hooks(&network, Operation::Started).await;
        }
        if let Err(error) = result {
            tracing::error!("network {name} not started: {error}");
            self.registry_mut().set_journal(&name, own);
            let stop = self.registry().stop(name.as_str())?;
            self.carry_out_stop(&stop).await?;
            return Err(error);
        }
        self.snoop();
        tracing::info!("network {name} started");
        self.events.tell(lifecycle(name.as_str(), uuid, EventKind::Started));
        reply(&self.registry(), &name, notices)
    }

    fn after_failed_start(&self, name: &NetworkName, failed: &apply::Failed) -> Result<(), VerbError> {
        tracing::error!("network {name} not started: {}", failed.error);
        self.settle(name, &failed.left)
    }

    /// The record of a network that was taken down: kept for the next daemon to try again if something is left.
    fn settle(&self, name: &NetworkName, left: &[apply::UndoError]) -> Result<(), VerbError> {
        for failure in left {
            tracing::error!("network {name}: {failure}; the daemon tries again when it starts next");
        }
        if left.is_empty() {
            self.store.remove_record(name.as_str())?;
        }
        Ok(())
    }

    /// Stops a network. Its definition, if it has one, and its guests' taps stay.
    pub async fn destroy(&self, key: &str) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let stop = self.registry().stop(key)?;
        let mut network = self.get(stop.name.as_str())?;
        self.carry_out_stop(&stop).await?;
        network.network.active = false;
        Ok(self.get(stop.name.as_str()).unwrap_or(network))
    }

    async fn carry_out_stop(&self, stop: &Stop) -> Result<(), VerbError> {
        let Stop { name, hand_over, undos, forget } = stop;
        for (heir, undo) in hand_over {
            self.registry_mut().inherit(heir, undo.clone());
            self.save_live(heir, Phase::Active)?;
        }
        let network = self.registry().find_live(name.as_str())?.1.network.clone();
        self.save_live(name, Phase::Stopping)?;
        for port in self.ports_to_unplug(name) {
            self.unplug(&port).await;
        }
        let left = apply::take_back(&self.host, undos).await;
        self.settle(name, &left)?;
        self.registry_mut().stopped(name);
        self.snoop();
        if let Some(bridge) = network.bridge.name.as_ref()
            && let Err(error) = self.sync_forwards_on(bridge.as_str()).await
        {
            // Nobody is there to be reached by what is left of them, and the next change tries again.
            tracing::error!("network {name}: {error}");
        }
        if *forget {
            self.forget(name).await?;
        }
        tracing::info!("network {name} stopped");
        self.events.tell(lifecycle(name.as_str(), network.uuid, EventKind::Stopped));
        self.tell_hooks(&network, Operation::Stopped).await;
        match left.into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(failure.into()),
        }
    }

    /// The ports that would not leave with a bridge of ours.
    fn ports_to_unplug(&self, name: &NetworkName) -> Vec<Port> {
        let registry = self.registry();
        match registry.find_live(name.as_str()) {
            Ok((_, live)) if !matches!(live.desired.ground, Ground::Own(_)) => {
                registry.ports_of(name).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    async fn unplug(&self, port: &Port) {
        if let Err(error) = self.host.unplug(port).await {
            tracing::error!("port {} of network {} stays plugged: {error}", port.interface, port.network);
        }
    }

    fn save_live(&self, name: &NetworkName, phase: Phase) -> Result<(), VerbError> {
        let record = {
            let registry = self.registry();
            let (_, live) = registry.find_live(name.as_str())?;
            Record {
                name: name.to_string(),
                phase,
                xml: xml::write(&live.network),
                journal: live.journal.clone(),
                before: registry.before(name).cloned(),
            }
        };
        Ok(self.store.save_record(&record)?)
    }

    /// Removes a definition. An active network stays active until it is stopped.
    pub async fn undefine(&self, key: &str) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let (name, remains) = self.registry().undefine(key)?;
        self.registry().refuse_unconfirmed(&name)?;
        let mut network = self.get(name.as_str())?;
        self.store.remove_definition(&name)?;
        self.registry_mut().undefined(&name);
        self.events.tell(lifecycle(name.as_str(), &network.network.uuid, EventKind::Undefined));
        if !remains {
            self.forget(&name).await?;
        }
        network.network.persistent = false;
        network.network.autostart = false;
        Ok(self.get(name.as_str()).unwrap_or(network))
    }

    async fn forget(&self, name: &NetworkName) -> Result<(), VerbError> {
        Ok(self.host.forget(name.as_str()).await.map_err(apply::StepError::from)?)
    }

    /// Says whether the daemon starts the network when it starts.
    pub async fn set_autostart(&self, key: &str, autostart: bool) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let name = self.registry().autostart(key)?;
        self.store.set_autostart(&name, autostart)?;
        self.registry_mut().set_autostart(&name, autostart);
        self.get(name.as_str())
    }

    /// The leases of one network, of one MAC if given.
    pub fn leases(&self, key: &str, mac: Option<&str>) -> Result<Leases, VerbError> {
        let name = self.registry().find(key)?.0.clone();
        let mac = mac.map(parse_mac).transpose()?;
        let leases = self.host.leases(name.as_str()).into_iter().map(lease);
        let mut leases: Vec<_> = leases.chain(self.host.leases6(name.as_str()).into_iter().map(lease6)).collect();
        leases.retain(|lease| mac.is_none_or(|mac| lease.mac == mac.to_string()));
        // Of one MAC, IPv4 before IPv6.
        leases.sort_by(|a, b| a.mac.cmp(&b.mac));
        Ok(Leases { leases })
    }

    fn save_definition(&self, network: &Network) -> Result<(), VerbError> {
        Ok(self.store.save_definition(&network.name, &xml::write(network))?)
    }
}

fn reply(registry: &Registry, name: &NetworkName, notices: Vec<String>) -> Result<NetworkReply, VerbError> {
    match registry.view(name) {
        Some(network) => Ok(NetworkReply { network, notices }),
        None => Err(crate::registry::Refusal::NoNetwork(name.to_string()).into()),
    }
}

fn parse_mac(text: &str) -> Result<MacAddr, VerbError> {
    text.parse().map_err(|_| {
        VerbError::from(crate::registry::Refusal::Argument {
            what: "mac",
            value: text.to_owned(),
            expected: "a unicast MAC address like 52:54:00:12:34:56".into(),
        })
    })
}

fn lease(lease: dhcp::Lease) -> netd_api::Lease {
    netd_api::Lease {
        expiry: lease.expiry.map_or(0, |end| i64::try_from(end).unwrap_or(i64::MAX)),
        mac: MacAddr(lease.mac.0).to_string(),
        protocol: "ipv4".into(),
        address: lease.address.to_string(),
        prefix: lease.prefix,
        hostname: lease.hostname,
        client_id: lease.client_id.map(|bytes| hex(&bytes)),
        iaid: None,
    }
}

fn lease6(lease: dhcp::Lease6) -> netd_api::Lease {
    netd_api::Lease {
        expiry: lease.expiry.map_or(0, |end| i64::try_from(end).unwrap_or(i64::MAX)),
        mac: MacAddr(lease.mac.0).to_string(),
        protocol: "ipv6".into(),
        address: lease.address.to_string(),
        prefix: lease.prefix,
        hostname: lease.hostname,
        client_id: Some(hex(&lease.duid)),
        iaid: Some(lease.iaid.into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A MAC nobody is likely to have; whoever needs certainty checks.
fn random_mac() -> MacAddr {
    let [a, b, c, ..] = *uuid::Uuid::new_v4().as_bytes();
    crate::port::guest_mac([a, b, c])
}
