//! Verbs about port forwards, and keeping the rules true to where guests are.
//!
//! ```text
//! add, delete, start, stop, a lease, a port ──► registry: where does each forward lead now? ──► the difference ──► nft
//! ```

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use netd_api::{ForwardReply, Forwards};

use super::{Host, VerbError, Verbs};
use crate::{
    events::forward_changed,
    model::{MacAddr, NetworkName},
    observe::listeners::Listener,
    plan::Step,
    registry::{
        Refusal,
        forwards::{ForwardChange, Whereabouts, ports, protocol, requested},
    },
    snoop::Seen,
    store::Phase,
};

impl<H: Host> Whereabouts for H {
    fn leases(&self, network: &str) -> Vec<dhcp::Lease> {
        Host::leases(self, network)
    }

    fn leases6(&self, network: &str) -> Vec<dhcp::Lease6> {
        Host::leases6(self, network)
    }

    fn heard(&self, mac: MacAddr) -> Vec<Seen> {
        Host::heard(self, mac)
    }
}

impl<H: Host> Verbs<H> {
    /// Forwards ports of the host to guests: at once where the network is active, for good where it is defined.
    pub async fn add_forward(&self, request: &netd_api::Forward) -> Result<ForwardReply, VerbError> {
        let _turn = self.turn.lock().await;
        let forward = requested(request).map_err(Refusal::Forward)?;
        let change = self.registry().add_forward(&request.network, forward)?;
        self.registry().refuse_unconfirmed(&change.name)?;
        let (name, forward) = (change.name.clone(), change.forward.clone());
        let listener = self.host.listener(forward.at().protocol, forward.at().ports);
        self.carry_out_forward(change).await?;
        tracing::info!("network {name}: port {} of the host is forwarded", forward.at());
        let view = self.registry().view_forward(&name, &forward, &self.host);
        let notices = self.notices(&name, &view, listener);
        Ok(ForwardReply { forward: view, notices })
    }

    /// Ends a forward. Connections that are open stay.
    pub async fn delete_forward(&self, request: netd_api::calls::DeleteForward) -> Result<ForwardReply, VerbError> {
        let _turn = self.turn.lock().await;
        let ports = ports(request.first_port, request.last_port).map_err(Refusal::Forward)?;
        let address = request.address.as_deref().map(crate::model::forward_address).transpose();
        let address = address.map_err(Refusal::Forward)?;
        let change = self.registry().delete_forward(&request.network, protocol(request.protocol), ports, address)?;
        self.registry().refuse_unconfirmed(&change.name)?;
        let (name, forward) = (change.name.clone(), change.forward.clone());
        let view = self.registry().view_forward(&name, &forward, &self.host);
        self.carry_out_forward(change).await?;
        tracing::info!("network {name}: port {} of the host is not forwarded any more", forward.at());
        Ok(ForwardReply { forward: view, notices: Vec::new() })
    }

    /// The forwards of one network, or of all.
    pub fn list_forwards(&self, network: Option<&str>) -> Result<Forwards, VerbError> {
        let forwards = self.registry().view_forwards(network, &self.host)?;
        Ok(Forwards { forwards })
    }

    /// Leases or ports may have changed, on these networks or on any: forwards follow.
    pub async fn follow_guests(&self, networks: Option<&BTreeSet<String>>) {
        let _turn = self.turn.lock().await;
        let result = match networks {
            Some(networks) => self.follow_guests_of(networks).await,
            None => self.sync_forwards().await,
        };
        if let Err(error) = result {
            tracing::error!("port forwards do not follow the guests: {error}");
        }
    }

    async fn follow_guests_of(&self, networks: &BTreeSet<String>) -> Result<(), VerbError> {
        for name in networks {
            let bridge =
                self.registry().find_live(name).ok().and_then(|(_, live)| live.desired.bridge().map(str::to_owned));
            if let Some(bridge) = bridge {
                self.sync_forwards_on(&bridge).await?;
            }
        }
        Ok(())
    }

    /// Host first, then the disk; on an error both are as before.
    async fn carry_out_forward(&self, change: ForwardChange) -> Result<(), VerbError> {
        let back = self.registry_mut().forward_changed(change.clone());
        let mut result = self.sync_forwards().await;
        if result.is_ok() {
            result = self.save_forwards(&change);
        }
        if result.is_err() {
            self.registry_mut().forward_changed(back.clone());
            let undone = self.sync_forwards().await.and_then(|()| self.save_forwards(&back));
            if let Err(error) = undone {
                tracing::error!("network {}: {error}", back.name);
            }
        }
        result
    }

    fn save_forwards(&self, change: &ForwardChange) -> Result<(), VerbError> {
        if let Some(definition) = &change.definition {
            self.save_definition(definition)?;
        }
        if change.live.is_some() {
            self.save_live(&change.name, Phase::Active)?;
        }
        Ok(())
    }

    fn notices(&self, name: &NetworkName, forward: &netd_api::Forward, listener: Option<Listener>) -> Vec<String> {
        let mut notices = Vec::new();
        if self.registry().find_live(name.as_str()).is_err() {
            notices.push(format!("network '{name}' is not active: the forward works when it is started"));
        } else {
            let absent = forward.targets.iter().filter(|target| target.address.is_none());
            for guest in absent.filter_map(|target| target.guest.as_deref()) {
                let what = if forward.address.as_deref().is_some_and(|address| address.contains(':')) {
                    "was not seen to have an IPv6 address"
                } else {
                    "has no address"
                };
                notices.push(format!(
                    "guest '{guest}' {what} on network '{name}' yet: connections are rejected until it has one"
                ));
            }
        }
        if forward.address.as_deref() == Some("::") {
            notices.push(
                "on this host itself ::1 does not lead there, for the kernel takes no answers to ::1 from a network: use \
                 another of the host's addresses"
                    .to_owned(),
            );
        }
        if let Some(Listener { port, program }) = listener {
            let who = match program {
                Some((name, pid)) => format!("{name} (pid {pid})"),
                None => "a program".to_owned(),
            };
            notices.push(format!("{who} on this host listens on port {port} too: the forward wins"));
        }
        notices
    }

    pub(super) fn applied(&self) -> MutexGuard<'_, Vec<nat::Forward>> {
        // Replaced whole, so never half changed.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wanted(&self) -> Vec<nat::Forward> {
        self.registry().forwards(&self.host)
    }

    /// Makes the rules what the registry and the leases say, if they are not.
    pub(super) async fn sync_forwards(&self) -> Result<(), VerbError> {
        let (before, after) = (self.applied().clone(), self.wanted());
        self.put_forwards(before, after).await
    }

    /// The same for the forwards of the network on this bridge.
    pub(super) async fn sync_forwards_on(&self, bridge: &str) -> Result<(), VerbError> {
        let before: Vec<_> = self.applied().iter().filter(|forward| forward.bridge == bridge).cloned().collect();
        let after = self.registry().forwards_on(bridge, &self.host);
        self.put_forwards(before, after).await
    }

    /// Puts the forwards `after` of some networks in the place of those `before`, which are all that the table has of
    /// these networks.
    async fn put_forwards(&self, before: Vec<nat::Forward>, after: Vec<nat::Forward>) -> Result<(), VerbError> {
        if before == after {
            return Ok(());
        }
        if !self.registry().has_firewall() {
            // The table went with the last network.
            self.applied().clear();
            return Ok(());
        }
        let others = {
            let of = networks(before.iter().chain(&after));
            nat::Others::of(self.applied().iter().filter(|forward| !of.contains(forward.bridge.as_str())))
        };
        self.close_localnet(&before, &after).await;
        if let Err(error) = self.host.change_forwards(&before, &after, others).await {
            tracing::warn!("cannot change the port forwards alone, making the whole table anew: {error}");
            let firewalls = self.registry().firewalls();
            self.host.replace_firewall(&firewalls, &self.applied_with(&before, &after)).await?;
        }
        self.open_localnet(&before, after).await
    }

    /// Makes the whole table anew: after someone removed it, or when its networks changed.
    pub(super) async fn replace_firewall(&self) -> Result<(), VerbError> {
        let (before, after) = (self.applied().clone(), self.wanted());
        let firewalls = self.registry().firewalls();
        self.close_localnet(&before, &after).await;
        self.host.replace_firewall(&firewalls, &after).await?;
        self.open_localnet(&before, after).await
    }

    /// All forwards, with those `after` in the place of those `before`; sorted.
    fn applied_with(&self, before: &[nat::Forward], after: &[nat::Forward]) -> Vec<nat::Forward> {
        let gone = networks(before);
        let mut all: Vec<_> =
            self.applied().iter().filter(|forward| !gone.contains(forward.bridge.as_str())).cloned().collect();
        all.extend_from_slice(after);
        all.sort();
        all
    }

    fn tell_forwards(&self, before: &[nat::Forward], after: &[nat::Forward]) {
        let tell = |forward: &nat::Forward, detail: String| {
            // Those of a network that is stopped end with it.
            let network = self.registry().on_bridge(&forward.bridge).map(NetworkName::to_string);
            if let Some(network) = network {
                self.events.tell(forward_changed(Some(&network), detail));
            }
        };
        let known: BTreeSet<&nat::Forward> = before.iter().collect();
        for forward in after.iter().filter(|forward| !known.contains(forward)) {
            tell(forward, leads(forward));
        }
        let port = |forward: &nat::Forward| (forward.protocol, forward.address, forward.ports);
        let ports: BTreeSet<_> = after.iter().map(port).collect();
        for forward in before.iter().filter(|gone| !ports.contains(&port(gone))) {
            tell(forward, format!("{} is not forwarded any more", at(forward)));
        }
    }

    /// Before the rules that guard 127.0.0.1 go. A bridge that is gone took its setting along.
    async fn close_localnet(&self, before: &[nat::Forward], after: &[nat::Forward]) {
        for bridge in bridges(before).difference(&bridges(after)) {
            if self.registry().on_bridge(bridge).is_none() {
                continue;
            }
            let step = Step::RouteLocalnet { bridge: (*bridge).to_owned(), on: false };
            if let Err(error) = self.host.run(&step).await {
                tracing::error!("cannot {step}: {error}");
            }
        }
    }

    /// Once the rules that guard 127.0.0.1 are there.
    async fn open_localnet(&self, before: &[nat::Forward], after: Vec<nat::Forward>) -> Result<(), VerbError> {
        let mut result = Ok(());
        for bridge in bridges(&after).difference(&bridges(before)) {
            let step = Step::RouteLocalnet { bridge: (*bridge).to_owned(), on: true };
            result = result.and(self.host.run(&step).await.map(drop));
        }
        self.tell_forwards(before, &after);
        let mut applied = self.applied();
        let of = networks(before);
        applied.retain(|forward| !of.contains(forward.bridge.as_str()));
        applied.extend(after);
        applied.sort();
        Ok(result?)
    }
}

/// Where a forward leads, in a line.
fn leads(forward: &nat::Forward) -> String {
    let range = |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let (first, last) = forward.ports;
    let targets = forward.targets.iter();
    let to: Vec<String> = targets
        .map(|(address, port)| {
            let ports = range(*port, port.saturating_add(last - first));
            if address.is_ipv6() { format!("[{address}]:{ports}") } else { format!("{address}:{ports}") }
        })
        .collect();
    let to = if to.is_empty() { "nobody yet".to_owned() } else { to.join(", ") };
    format!("{} leads to {to}", at(forward))
}

/// The port of the host, as `forward-add` takes it.
fn at(forward: &nat::Forward) -> String {
    let (first, last) = forward.ports;
    let protocol = match forward.protocol {
        nat::Protocol::Tcp => "tcp",
        nat::Protocol::Udp => "udp",
    };
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match forward.address {
        Some(address) => format!("{protocol}/{ports} of {address}"),
        None => format!("{protocol}/{ports}"),
    }
}

/// The networks that forwards lead to, by their bridges.
fn networks<'a>(forwards: impl IntoIterator<Item = &'a nat::Forward>) -> BTreeSet<&'a str> {
    forwards.into_iter().map(|forward| forward.bridge.as_str()).collect()
}

/// Where connections from 127.0.0.1 may go.
fn bridges(forwards: &[nat::Forward]) -> BTreeSet<&str> {
    let is_ipv4 = |forward: &&nat::Forward| forward.address.is_none_or(|address| address.is_ipv4());
    forwards.iter().filter(is_ipv4).map(|forward| forward.bridge.as_str()).collect()
}

#[cfg(test)]
mod tests;
