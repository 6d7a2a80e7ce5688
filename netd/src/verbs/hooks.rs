//! When the user's hooks are called, and with what.

use super::{Host, VerbError, Verbs};
use crate::{
    hooks::{self, HookPlug, HookPort, Operation},
    model::{Forward, MacAddr, Network},
    port::Port,
    registry::PortSpec,
    xml,
};

impl<H: Host> Verbs<H> {
    /// Asks the hooks about something that they may refuse.
    pub(super) async fn call_hooks(&self, network: &Network, operation: Operation) -> Result<(), VerbError> {
        let input = || hooks::input(&xml::write(network), None);
        Ok(self.host.call_hooks(network.name.as_str(), operation, input).await?)
    }

    /// Tells the hooks what is so already.
    pub(super) async fn tell_hooks(&self, network: &Network, operation: Operation) {
        if let Err(error) = self.call_hooks(network, operation).await {
            tracing::error!("network {}: {error}", network.name);
        }
    }

    /// Asks the hooks about a port that is not there yet.
    pub(super) async fn call_port_hooks(&self, spec: &PortSpec) -> Result<(), VerbError> {
        let network = self.registry().find_live(spec.network.as_str())?.1.network.clone();
        let plug = plug(&network, spec.plug.on());
        let port = HookPort { guest: spec.guest.as_deref(), mac: spec.mac, plug };
        let input = || hooks::input(&xml::write(&network), Some(port));
        Ok(self.host.call_hooks(spec.network.as_str(), Operation::PortCreated, input).await?)
    }

    /// Tells the hooks that a port is gone, or did not come into being.
    pub(super) async fn tell_port_hooks(&self, network: &str, guest: Option<&str>, mac: MacAddr, on: &str) {
        // A port may outlive its network; libvirt tells of its end with whatever network there is.
        let known = self.registry().find(network).ok().and_then(|(_, entry)| entry.network().cloned());
        let Some(known) = known else { return };
        let port = HookPort { guest, mac, plug: plug(&known, on) };
        let input = || hooks::input(&xml::write(&known), Some(port));
        if let Err(error) = self.host.call_hooks(network, Operation::PortDeleted, input).await {
            tracing::error!("network {network}: {error}");
        }
    }

    /// The same for a port that was there.
    pub(super) async fn tell_port_gone(&self, port: &Port) {
        let live = |registry: &crate::registry::Registry| {
            let (_, live) = registry.find_live(&port.network).ok()?;
            live.desired.bridge().map(str::to_owned)
        };
        let on = match &port.macvtap {
            Some(on) => on.interface.clone(),
            None => live(&self.registry()).unwrap_or_default(),
        };
        self.tell_port_hooks(&port.network, port.guest.as_deref(), port.mac, &on).await;
    }
}

/// What a port of this network is on: a bridge or an interface, by name.
fn plug<'a>(network: &Network, on: &'a str) -> HookPlug<'a> {
    match &network.forward {
        Forward::Macvtap(macvtap) => HookPlug::Direct { dev: on, mode: macvtap.mode.name() },
        Forward::Bridged => HookPlug::Bridge(on),
        Forward::Isolated | Forward::Nat(_) | Forward::Route { .. } | Forward::Open => HookPlug::Network(on),
    }
}
