//! What happens when something goes that a network is made of: a guest's tap is forgotten, a bridge is put back.

use super::{Host, VerbError, Verbs};
use crate::{
    apply,
    host::HostState,
    model::NetworkName,
    plan::{self, InPlace, Undo},
};

impl<H: Host> Verbs<H> {
    /// Takes note that a link is gone.
    pub async fn link_gone(&self, index: u32, name: &str) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        self.forget_ports(&[index]);
        let network = self.registry().on_bridge(name).cloned();
        match network {
            Some(network) => self.restore(&network).await,
            None => Ok(()),
        }
    }

    /// Looks at everything anew, after events were missed.
    pub async fn look_again(&self) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        let host = self.host.observe().await?;
        let known: Vec<u32> = self.registry().ports(None).iter().map(|port| port.index).collect();
        let gone: Vec<u32> =
            known.into_iter().filter(|index| !host.links.iter().any(|link| link.index == *index)).collect();
        self.forget_ports(&gone);
        for network in self.active() {
            self.restore(&network).await?;
        }
        Ok(())
    }

    pub(super) fn active(&self) -> Vec<NetworkName> {
        self.registry().networks().filter(|(_, entry)| entry.live.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// Puts back a network's bridge, if it is not there, and what was on it.
    async fn restore(&self, name: &NetworkName) -> Result<(), VerbError> {
        let host = self.host.observe().await?;
        let bridge = self.registry().find_live(name.as_str())?.1.desired.bridge.name.clone();
        if host.link(&bridge).is_some() {
            return Ok(());
        }
        tracing::warn!("network {name}: bridge {bridge} was deleted; putting it back");
        // The servers' sockets were on the bridge that is gone.
        apply::take_back(&self.host, &[Undo::StopServices { network: name.to_string() }]).await;
        let before = self.registry().firewalls();
        self.mend(name, &host).await;
        let after = self.registry().firewalls();
        if before != after {
            self.host.replace_firewall(&after).await?;
        }
        Ok(())
    }

    /// Gives an active network what it lacks, its servers included, and takes nothing away. What fails is logged.
    pub(super) async fn mend(&self, name: &NetworkName, host: &HostState) {
        let Some(mut live) = self.registry().find_live(name.as_str()).ok().map(|(_, live)| live.clone()) else {
            return;
        };
        match self.registry().desired(&live.network) {
            Ok(desired) => live.desired = desired,
            Err(error) => tracing::error!("network {name}: {error}"),
        }
        let steps = plan::plan(&live.desired, host, InPlace { firewall: true, services: false });
        let (outcome, failures) = apply::mend(&self.host, steps).await;
        for failure in failures {
            tracing::error!("network {name}: {failure}");
        }
        live.desired.redirect_dns(outcome.dns_port);
        self.registry_mut().started(live);
    }
}
