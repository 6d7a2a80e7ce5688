//! What happens when something goes that a network is made of: a guest's tap is forgotten; a bridge, an address, a tap's
//! place on the bridge, the nftables table are put back.

use std::{collections::BTreeSet, sync::PoisonError};

use super::{Host, VerbError, Verbs, insistence::Answer};
use crate::{
    apply,
    events::healed,
    host::HostState,
    model::NetworkName,
    plan::{self, Bridge, Ground, InPlace, Step, Undo},
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
        let mut host = self.host.observe().await?;
        let known: Vec<u32> = self.registry().ports(None).iter().map(|port| port.index).collect();
        let gone: Vec<u32> =
            known.into_iter().filter(|index| !host.links.iter().any(|link| link.index == *index)).collect();
        self.forget_ports(&gone).await;
        let before = self.registry().firewalls();
        self.yield_forwarding(&mut host);
        for network in self.active() {
            self.restore(&network, &host).await?;
            self.has_forwarding(&network, &mut host);
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

    /// The same for those networks alone that these links are of: a bridge that was just made is not up yet, and nobody has
    /// to look at all others for that.
    pub async fn reconcile_links(&self, links: &BTreeSet<String>) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        let networks = self.registry().with_links(links);
        for name in networks {
            let focus = {
                let registry = self.registry();
                registry.desired(&registry.find_live(name.as_str())?.1.network)?.focus()
            };
            let mut host = self.host.observe_around(&focus).await?;
            // What is the host's and no link's is not looked at here.
            (host.forwarding, host.forwarding6) = (true, true);
            self.restore(&name, &host).await?;
        }
        Ok(())
    }

    /// The settings of the host that active networks hold and that have another value now, but for those that were
    /// yielded to another program. [`Verbs::reconcile`] puts them right.
    pub fn drift(&self) -> Vec<String> {
        let now = self.host.now();
        let wanted: Vec<(String, &'static str)> = {
            let registry = self.registry();
            let live = || registry.networks().filter_map(|(_, entry)| entry.live.as_ref()).map(|live| &live.desired);
            let mut wanted: Vec<_> = live().flat_map(plan::sysctls).collect();
            let [v4, v6] = &*self.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
            if live().any(|desired| desired.forwarding) && v4.would_put_right(now) {
                wanted.push((plan::FORWARDING.to_owned(), "1"));
            }
            if live().any(|desired| desired.forwarding6) && v6.would_put_right(now) {
                wanted.push((plan::FORWARDING6.to_owned(), "1"));
            }
            wanted
        };
        self.host.differing(&wanted)
    }

    /// Where forwarding is off and is to stay so for now, it is taken for on: nothing is planned about it.
    pub(super) fn yield_forwarding(&self, host: &mut HostState) {
        let now = self.host.now();
        let (v4, v6) = {
            let registry = self.registry();
            let live = || registry.networks().filter_map(|(_, entry)| entry.live.as_ref());
            (live().any(|live| live.desired.forwarding), live().any(|live| live.desired.forwarding6))
        };
        let mut fights = self.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
        let [fight4, fight6] = &mut *fights;
        let settings = [
            (v4, &mut host.forwarding, fight4, "net.ipv4.ip_forward"),
            (v6, &mut host.forwarding6, fight6, "net.ipv6.conf.all.forwarding"),
        ];
        for (wanted, is_on, fight, name) in settings {
            if !wanted || *is_on {
                continue;
            }
            match fight.off(now) {
                Answer::PutRight => {}
                Answer::Yield(said) => {
                    if let Some(pause) = said {
                        tracing::warn!(
                            "another program keeps turning {name} off, and wins: guests reach no other network; looking \
                             again in {} min",
                            pause.as_secs() / 60
                        );
                    }
                    *is_on = true;
                }
            }
        }
    }

    /// What a network needs of the host as a whole is in place once it was mended.
    pub(super) fn has_forwarding(&self, name: &NetworkName, host: &mut HostState) {
        if let Ok((_, live)) = self.registry().find_live(name.as_str()) {
            host.forwarding |= live.desired.forwarding;
            host.forwarding6 |= live.desired.forwarding6;
        }
    }

    pub(super) fn active(&self) -> Vec<NetworkName> {
        self.registry().networks().filter(|(_, entry)| entry.live.is_some()).map(|(name, _)| name.clone()).collect()
    }

    async fn restore(&self, name: &NetworkName, host: &HostState) -> Result<(), VerbError> {
        let ground = self.registry().find_live(name.as_str())?.1.desired.ground.clone();
        let mut in_place = InPlace { firewall: true, services: true, forwards: true };
        if let Ground::Own(Bridge { name: bridge, .. }) = ground
            && host.link(&bridge).is_none()
        {
            tracing::warn!("network {name}: bridge {bridge} was deleted; putting it back");
            // The servers' sockets were on the bridge that is gone. Those that could not be stopped are not started again.
            let stuck = apply::take_back(&self.host, &[Undo::StopServices { network: name.to_string() }]).await;
            stuck.iter().for_each(|failure| tracing::error!("network {name}: {failure}"));
            in_place.services = !stuck.is_empty();
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
        let steps = plan::plan(&live.desired, host, in_place);
        for step in steps.iter().filter(|step| !matches!(step, Step::StartServices(_))) {
            self.heals.step(step);
            tracing::warn!("network {name}: {step}");
        }
        let done = said_of(&live.desired.ground, host, &steps);
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
fn said_of(ground: &Ground, host: &HostState, steps: &[Step]) -> Option<String> {
    if let Ground::Own(Bridge { name: bridge, .. }) = ground
        && host.link(bridge).is_none()
    {
        return Some(format!("bridge {bridge} was deleted and is back"));
    }
    let steps = steps.iter().filter(|step| !matches!(step, Step::StartServices(_))).map(Step::to_string);
    let done = steps.collect::<Vec<_>>().join("; ");
    (!done.is_empty()).then_some(done)
}
