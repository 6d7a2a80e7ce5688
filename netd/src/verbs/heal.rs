//! What happens when something goes that a network is made of: a guest's tap is forgotten; a bridge, an address, a tap's
//! place on the bridge, the nftables table are put back.

use super::{Host, VerbError, Verbs};
use crate::{
    apply,
    events::healed,
    host::HostState,
    model::NetworkName,
    plan::{self, InPlace, Step, Undo},
};

impl<H: Host> Verbs<H> {
    /// Takes note that a link is gone. True if it was a network's bridge: [`Verbs::reconcile`] puts it back.
    pub async fn link_gone(&self, index: u32, name: &str) -> bool {
        let _turn = self.turn.lock().await;
        self.forget_ports(&[index]).await;
        self.registry().on_bridge(name).is_some()
    }

    /// Compares every active network with the host and puts back what is missing.
    pub async fn reconcile(&self) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        let host = self.host.observe().await?;
        let known: Vec<u32> = self.registry().ports(None).iter().map(|port| port.index).collect();
        let gone: Vec<u32> =
            known.into_iter().filter(|index| !host.links.iter().any(|link| link.index == *index)).collect();
        self.forget_ports(&gone).await;
        let before = self.registry().firewalls();
        for network in self.active() {
            self.restore(&network, &host).await?;
        }
        // A new server may answer DNS on another port than the old one.
        let after = self.registry().firewalls();
        let flushed = !after.is_empty() && !self.host.has_firewall()?;
        if flushed {
            tracing::warn!("the nftables table was removed; putting it back");
        }
        if self.host.heal_guards().await? {
            self.heals.count("guards");
            self.events.tell(healed(None, "the ports' guards were removed and are back".into()));
        }
        if before != after || flushed {
            self.replace_firewall().await?;
        }
        if flushed {
            self.heals.count("firewall");
            self.events.tell(healed(None, "the firewall rules were removed and are back".into()));
        }
        Ok(())
    }

    pub(super) fn active(&self) -> Vec<NetworkName> {
        self.registry().networks().filter(|(_, entry)| entry.live.is_some()).map(|(name, _)| name.clone()).collect()
    }

    async fn restore(&self, name: &NetworkName, host: &HostState) -> Result<(), VerbError> {
        let bridge = self.registry().find_live(name.as_str())?.1.desired.bridge.name.clone();
        let mut in_place = InPlace { firewall: true, services: true, forwards: true };
        if host.link(&bridge).is_none() {
            tracing::warn!("network {name}: bridge {bridge} was deleted; putting it back");
            // The servers' sockets were on the bridge that is gone.
            apply::take_back(&self.host, &[Undo::StopServices { network: name.to_string() }]).await;
            in_place.services = false;
        }
        self.mend(name, host, in_place).await;
        Ok(())
    }

    /// Gives an active network what it lacks and takes nothing away. What fails is logged.
    pub(super) async fn mend(&self, name: &NetworkName, host: &HostState, in_place: InPlace) {
        let Some(mut live) = self.registry().find_live(name.as_str()).ok().map(|(_, live)| live.clone()) else {
            return;
        };
        match self.registry().desired(&live.network) {
            // The rules stay as they were applied, with DNS redirected or not.
            Ok(desired) => live.desired = plan::Desired { firewall: live.desired.firewall, ..desired },
            Err(error) => tracing::error!("network {name}: {error}"),
        }
        let mut steps = plan::plan(&live.desired, host, in_place);
        if steps.contains(&Step::EnableForwarding) {
            // Whoever turned it off since the network started knows why; starting the network again turns it on.
            tracing::warn!("network {name}: net.ipv4.ip_forward is off, so its guests reach no other network");
            steps.retain(|step| *step != Step::EnableForwarding);
        }
        if steps.contains(&Step::EnableForwarding6) {
            tracing::warn!("network {name}: net.ipv6.conf.all.forwarding is off, so its guests reach no other network");
            let is_6 = |step: &Step| matches!(step, Step::EnableForwarding6 | Step::KeepRouterAdvertisements { .. });
            steps.retain(|step| !is_6(step));
        }
        for step in steps.iter().filter(|step| !matches!(step, Step::StartServices(_))) {
            self.heals.step(step);
            tracing::warn!("network {name}: {step}");
        }
        let done = said_of(&live.desired.bridge.name, host, &steps);
        let (outcome, failures) = apply::mend(&self.host, steps).await;
        if let Some(done) = done.filter(|_| failures.is_empty()) {
            self.events.tell(healed(Some(name.as_str()), done));
        }
        for failure in failures {
            tracing::error!("network {name}: {failure}");
        }
        if !in_place.services {
            live.desired.redirect_dns(outcome.dns_port);
        }
        self.registry_mut().started(live);
    }
}

/// What is told of steps that put right what another program undid. Servers start with every daemon: that heals nothing.
fn said_of(bridge: &str, host: &HostState, steps: &[Step]) -> Option<String> {
    if host.link(bridge).is_none() {
        return Some(format!("bridge {bridge} was deleted and is back"));
    }
    let steps = steps.iter().filter(|step| !matches!(step, Step::StartServices(_))).map(Step::to_string);
    let done = steps.collect::<Vec<_>>().join("; ");
    (!done.is_empty()).then_some(done)
}
