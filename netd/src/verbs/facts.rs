//! What metrics tell of networks and ports, gathered from the registry, the servers and one look at the host's links.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Host, VerbError, Verbs};
use crate::{
    metrics::{Facts, NetworkFacts, PortFacts},
    plan::Step,
    port::Port,
};

/// What was put back, counted.
#[derive(Debug, Default)]
pub(super) struct Heals([AtomicU64; WHAT.len()]);

/// What can be put back: bridges, addresses and routes on them, ports' places, limits, and our nftables tables.
const WHAT: [&str; 8] = ["bridge", "address", "route", "port", "bandwidth", "firewall", "guards", "other"];

impl Heals {
    /// A step that put something back.
    pub(super) fn step(&self, step: &Step) {
        self.count(match step {
            Step::CreateBridge(_) => "bridge",
            Step::AddAddress { .. } => "address",
            Step::AddRoute { .. } => "route",
            Step::AttachPort { .. } | Step::SettlePort { .. } | Step::PortUp { .. } => "port",
            Step::ShapeBridge { .. } | Step::ShapePort { .. } => "bandwidth",
            // What comes with a new bridge, and what a new daemon does anyway.
            Step::StartServices(_) | Step::GuardPorts { .. } | Step::AddFirewall(_) => return,
            _ => "other",
        });
    }

    /// One of the things there are.
    pub(super) fn count(&self, what: &str) {
        if let Some(at) = WHAT.iter().position(|known| *known == what) {
            self.0[at].fetch_add(1, Relaxed);
        }
    }

    fn read(&self) -> Vec<(&'static str, u64)> {
        WHAT.iter().zip(&self.0).map(|(what, count)| (*what, count.load(Relaxed))).collect()
    }
}

impl<H: Host> Verbs<H> {
    /// Everything that metrics tell, of a daemon that has been running for so long.
    pub async fn facts(&self, uptime: Duration) -> Result<Facts, VerbError> {
        let traffic = self.host.traffic().await?;
        let carried = |interface: &str| traffic.get(interface).copied();
        let (mut networks, ports): (Vec<NetworkFacts>, Vec<Port>) = {
            let registry = self.registry();
            let facts = |(name, entry): (&crate::model::NetworkName, &crate::registry::Entry)| {
                let live = entry.live.as_ref();
                NetworkFacts {
                    name: name.to_string(),
                    active: live.is_some(),
                    traffic: live.and_then(|live| carried(live.desired.bridge()?)),
                    ..NetworkFacts::default()
                }
            };
            (registry.networks().map(facts).collect(), registry.ports(None).into_iter().cloned().collect())
        };
        let mut on: HashMap<&str, u64> = HashMap::new();
        for port in &ports {
            *on.entry(&port.network).or_default() += 1;
        }
        for network in &mut networks {
            network.ports = on.get(network.name.as_str()).copied().unwrap_or_default();
            network.leases = (self.host.leases(&network.name).len() + self.host.leases6(&network.name).len()) as u64;
            network.servers = self.host.server_counts(&network.name);
        }
        let mut port_facts = Vec::new();
        for port in ports {
            port_facts.push(PortFacts {
                traffic: carried(&port.interface),
                dropped: self.host.dropped(&port).await,
                interface: port.interface,
                network: port.network,
                guest: port.guest,
            });
        }
        Ok(Facts {
            version: env!("CARGO_PKG_VERSION"),
            uptime,
            networks,
            ports: port_facts,
            rewrites: self.host.table_rewrites().await,
            heals: self.heals.read(),
        })
    }
}
