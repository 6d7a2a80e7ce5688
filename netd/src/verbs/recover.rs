//! What a daemon does when it starts: reads the definitions, adopts what an earlier daemon left running, finishes what
//! it left half done, and starts what should start.
//!
//! A running guest must not notice: bridges and ports of active networks are only ever mended, never remade; the
//! nftables table is replaced in one transaction.

use super::{Host, VerbError, Verbs, random_mac};
use crate::{
    apply,
    host::{HostState, LinkKind},
    model::{Network, NetworkName},
    plan::{self, Ground, InPlace, Others, Undo},
    port::Port,
    registry::{Live, shipped},
    store::{Found, Phase, Record},
    xml,
};

impl<H: Host> Verbs<H> {
    /// Brings host, disk and registry together. `first` is true where nothing has ever been defined.
    ///
    /// What is wrong with one network is logged and keeps no other from being served.
    pub async fn recover(&self, first: bool) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        let mut host = self.host.observe().await?;
        if first {
            let network = self.registry().define(shipped::network()?, &host, random_mac())?;
            self.save_definition(&network)?;
        }
        for found in self.store.load_definitions()? {
            self.load(found);
        }
        let (records, all_read) = self.store.load_records()?;
        let had_records = !records.is_empty() || !all_read;
        let (alive, dead): (Vec<_>, Vec<_>) =
            records.into_iter().map(|record| self.judge(record, &host)).partition(|found| found.live.is_some());
        let mut changing = Vec::new();
        for found in alive {
            let Some(live) = found.live else { continue };
            let (phase, name) = (found.record.phase, live.network.name.clone());
            let mut registry = self.registry_mut();
            registry.set_before(&name, found.record.before);
            registry.started(live);
            if phase == Phase::Changing {
                changing.push(name);
            }
        }
        let mut cleaned = Vec::new();
        for found in &dead {
            if self.clean_up(&found.record).await {
                cleaned.push(found.record.name.as_str());
            }
        }
        let stopped: Vec<(&str, String)> = dead.iter().filter_map(Judged::bridge).collect();
        self.adopt_ports(&host, &stopped).await?;
        let rewound = self.rewind_all(&changing, &host).await?;
        if rewound || !dead.is_empty() {
            host = self.host.observe().await?;
        }
        // Before the servers start: a lease given now opens the guards that are there.
        if had_records && let Err(error) = self.host.restore_guards(&self.guarded()).await {
            tracing::error!("cannot restore the ports' guards: {error}");
        }
        self.yield_forwarding(&mut host);
        self.mend_all(&mut host).await;
        self.recall().await;
        if had_records && let Err(error) = self.replace_firewall().await {
            tracing::error!("cannot restore the firewall rules: {error}");
            cleaned.clear();
        }
        // Not before now: until its rules are gone too, something of the network is left.
        for name in cleaned {
            self.store.remove_record(name)?;
        }
        self.snoop();
        if !self.store.autostarted() {
            self.autostart().await;
            self.store.set_autostarted()?;
        }
        Ok(())
    }

    fn load(&self, found: Found) {
        match read_definition(&found) {
            Ok(network) => {
                let name = network.name.clone();
                let mut registry = self.registry_mut();
                registry.defined(network);
                registry.set_autostart(&name, found.autostart);
            }
            Err(why) => tracing::error!("{} is passed over: {why}", found.path.display()),
        }
    }

    /// Whether the network of a record runs: it was all there, and its bridge still is.
    fn judge(&self, record: Record, host: &HostState) -> Judged {
        let network = match xml::parse(&record.xml) {
            Ok(network) => network,
            Err(error) => {
                tracing::error!("the record of network {} is broken: {error}", record.name);
                return Judged { record, live: None };
            }
        };
        if !matches!(record.phase, Phase::Active | Phase::Changing) {
            return Judged { record, live: None };
        }
        let desired = match self.registry().desired(&network) {
            Ok(desired) => desired,
            Err(error) => {
                tracing::error!("the record of network {} is incomplete: {error}", record.name);
                return Judged { record, live: None };
            }
        };
        if let Ground::Own(bridge) = &desired.ground {
            let before = record.before.as_ref().and_then(|before| xml::parse(&before.xml).ok());
            // A daemon that ended while it changed the MAC left the one or the other.
            let macs = [Some(bridge.mac), before.and_then(|before| before.mac)];
            let is_there = host
                .link(&bridge.name)
                .is_some_and(|link| matches!(link.kind, LinkKind::Bridge { .. }) && macs.contains(&link.mac));
            if !is_there {
                tracing::warn!("network {}: bridge {} has vanished; it is inactive now", record.name, bridge.name);
                return Judged { record, live: None };
            }
        }
        let live = Live { network, desired, journal: record.journal.clone() };
        Judged { record, live: Some(live) }
    }

    /// Ends what an earlier daemon was in the midst of: a change is taken back, a confirmed one written down. True if
    /// something on the host was changed for it.
    async fn rewind_all(&self, changing: &[NetworkName], host: &HostState) -> Result<bool, VerbError> {
        for name in changing {
            let (live, before) = {
                let registry = self.registry();
                let (_, live) = registry.find_live(name.as_str())?;
                (live.clone(), registry.before(name).cloned())
            };
            let Some(before) = before else { continue };
            tracing::warn!("network {name}: an earlier daemon ended while it changed it; taking the change back");
            let (restored, steps) = self.rewind(&live, &before, host, false)?;
            let whole = self.force(name, steps).await;
            {
                let mut registry = self.registry_mut();
                registry.started(restored);
                registry.set_before(name, None);
            }
            self.restore_definition(name, before.definition, false);
            if whole {
                self.save_live(name, Phase::Active)?;
            }
        }
        let confirmed: Vec<(NetworkName, Option<String>)> = {
            let registry = self.registry();
            let without_deadline = registry.unconfirmed().filter(|(_, before)| before.deadline.is_none());
            without_deadline.map(|(name, before)| (name.clone(), before.confirmed.clone())).collect()
        };
        for (name, definition) in confirmed {
            self.conclude(&name, definition.as_deref())?;
        }
        Ok(!changing.is_empty())
    }

    /// Takes away what is left of a network that does not run, but for its rules: the table is made anew a little
    /// later without them. True if it worked.
    async fn clean_up(&self, record: &Record) -> bool {
        let (others, hand_over) = match record.name.parse() {
            Ok(name) => {
                let registry = self.registry();
                (registry.others(&name), registry.hand_over(&name, &record.journal))
            }
            Err(_) => (Others::default(), Vec::new()),
        };
        for (heir, undo) in hand_over {
            self.registry_mut().inherit(&heir, undo);
            if let Err(error) = self.save_live(&heir, Phase::Active) {
                tracing::error!("network {}: {error}", record.name);
                return false;
            }
        }
        let undos: Vec<Undo> = plan::teardown(&record.journal, others)
            .into_iter()
            .filter(|undo| !matches!(undo, Undo::RemoveFirewall(_) | Undo::RemoveTable))
            .collect();
        let left = apply::take_back(&self.host, &undos).await;
        for failure in &left {
            tracing::error!("network {}: {failure}", record.name);
        }
        left.is_empty()
    }

    /// The ports of an earlier daemon that are still there, by index and name both.
    /// `stopped` are networks that the earlier daemon was stopping or starting, or whose bridge vanished, with that bridge:
    /// `host` is from before they were cleaned up.
    async fn adopt_ports(&self, host: &HostState, stopped: &[(&str, String)]) -> Result<(), VerbError> {
        for port in self.store.load_ports()? {
            // The daemon ended while it was being made, and nobody has it.
            if let Some(port) = port.made(host)
                && let Err(error) = self.host.delete_port(&port).await
            {
                tracing::error!("macvtap {} of network {} stays: {error}", port.interface, port.network);
                continue;
            }
            if self.is_ours(&port, host, stopped) {
                self.events.know_port(&port);
                self.registry_mut().port_added(port.clone());
                // Watched before it is looked at: its owner may end in between.
                self.host.watch(&port);
                self.remove_if_left(&port).await;
                // The network was being stopped.
                let left = port.macvtap.is_some() || port.host_bridge.is_some();
                if left && self.registry().find_live(&port.network).is_err() {
                    self.unplug(&port).await;
                }
            } else {
                self.registry_mut().unplugged(port.mac);
                self.store.remove_port(&port.interface)?;
            }
        }
        Ok(())
    }

    fn is_ours(&self, port: &Port, host: &HostState, stopped: &[(&str, String)]) -> bool {
        let Some(link) = host.links.iter().find(|link| link.index == port.index && link.name == port.interface) else {
            return false;
        };
        if port.macvtap.is_some() {
            return link.kind == LinkKind::Macvtap;
        }
        let registry = self.registry();
        let bridge = registry.find_live(&port.network).ok().and_then(|(_, live)| live.desired.bridge());
        let on = link.master.and_then(|master| host.link_name(master));
        let stopped = || stopped.iter().any(|(network, bridge)| *network == port.network && on == Some(bridge));
        // A network that was being stopped may have left it on a bridge of the host.
        link.kind == LinkKind::Tun && (on.is_none() || on == bridge || on == port.host_bridge.as_deref() || stopped())
    }

    async fn mend_all(&self, host: &mut HostState) {
        for name in self.active() {
            self.publish_ports(&name);
            self.mend(&name, host, InPlace { firewall: true, services: false, forwards: false }).await;
            self.has_forwarding(&name, host);
            tracing::info!("network {name} adopted");
        }
    }

    async fn autostart(&self) {
        let names = self.registry().to_autostart();
        for name in names {
            let started = match self.host.observe().await {
                Ok(host) => self.start_now(name.as_str(), &host).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = started {
                tracing::error!("cannot autostart network {name}: {error}");
            }
        }
    }
}

struct Judged {
    record: Record,
    live: Option<Live>,
}

impl Judged {
    /// The network and the bridge that its ports are or were on.
    fn bridge(&self) -> Option<(&str, String)> {
        let network = xml::parse(&self.record.xml).ok()?;
        let ground = plan::ground(&network)?;
        Some((self.record.name.as_str(), ground.bridge()?.to_owned()))
    }
}

/// Why a file in the directory of definitions defines nothing.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    File(String),
    #[error("{0}")]
    Xml(#[from] xml::Error),
    #[error("it defines network '{found}'; a definition of it must be called {found}.xml")]
    Name { found: String },
}

fn read_definition(found: &Found) -> Result<Network, Unreadable> {
    let text = found.text.as_ref().map_err(|error| Unreadable::File(error.to_string()))?;
    let network = xml::parse(text)?;
    if network.name.as_str() == found.stem {
        return Ok(network);
    }
    Err(Unreadable::Name { found: network.name.to_string() })
}
