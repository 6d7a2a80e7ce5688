//! What the verbs need of a host beyond single steps; the real one is [`Kernel`].

use std::{future::Future, os::fd::OwnedFd};

use crate::{
    apply::{Executor, Kernel, StepError},
    host::Neighbour,
    model::{Ports, Protocol},
    observe::{
        ObserveError,
        listeners::{self, Listener},
        rules,
    },
    port::{self, Port, tap::TapError},
    registry::PortSpec,
};

/// Why a port was not made. No device is left.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// There is no tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The tap could not be set up or put on the bridge.
    #[error("cannot put tap {interface} on bridge {bridge}: {cause}")]
    Plug {
        /// The tap.
        interface: String,
        /// The bridge.
        bridge: String,
        /// Why.
        cause: Box<StepError>,
    },
}

/// A host: steps, ports, servers.
pub trait Host: Executor {
    /// Makes a tap on the bridge, up and forwarding. Returns it with one descriptor per queue.
    fn open_port(&self, spec: &PortSpec) -> impl Future<Output = Result<(Port, Vec<OwnedFd>), PortError>> + Send;
    /// Makes our table anew with these networks and forwards; removes it if there are no networks.
    fn replace_firewall(
        &self,
        networks: &[nat::Network],
        forwards: &[nat::Forward],
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Puts the forwards `after` in the place of those `before`, which must be exactly what the table has.
    fn change_forwards(
        &self,
        before: &[nat::Forward],
        after: &[nat::Forward],
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// A program on the host that listens on one of these ports, other than this one.
    fn listener(&self, protocol: Protocol, ports: Ports) -> Option<Listener>;
    /// Whether our table is there at all.
    fn has_firewall(&self) -> Result<bool, ObserveError>;
    /// Tells the servers whose MACs are on a network.
    fn set_ports(&self, network: &str, ports: Vec<dhcp::config::PortName>);
    /// The leases of a network.
    fn leases(&self, network: &str) -> Vec<dhcp::Lease>;
    /// Drops every lease of a network.
    fn forget(&self, network: &str) -> impl Future<Output = Result<(), dhcp::Error>> + Send;
    /// The host's neighbours.
    fn neighbours(&self) -> impl Future<Output = Result<Vec<Neighbour>, ObserveError>> + Send;
}

impl Host for Kernel {
    async fn open_port(&self, spec: &PortSpec) -> Result<(Port, Vec<OwnedFd>), PortError> {
        let tap = port::tap::create(spec.queues)?;
        let plugged = self.plug(&tap.name, port::host_side(spec.mac), spec.mtu, &spec.bridge).await;
        let index = plugged.map_err(|cause| PortError::Plug {
            interface: tap.name.clone(),
            bridge: spec.bridge.clone(),
            cause: Box::new(cause),
        })?;
        let port = Port {
            interface: tap.name,
            index,
            network: spec.network.to_string(),
            guest: spec.guest.clone(),
            mac: spec.mac,
            mtu: spec.mtu,
            queues: spec.queues,
        };
        Ok((port, tap.queues))
    }

    async fn replace_firewall(&self, networks: &[nat::Network], forwards: &[nat::Forward]) -> Result<(), StepError> {
        match networks {
            [] => nat::delete_table().await?,
            networks => nat::replace(networks, forwards).await?,
        }
        Ok(())
    }

    async fn change_forwards(&self, before: &[nat::Forward], after: &[nat::Forward]) -> Result<(), StepError> {
        Ok(nat::change_forwards(before, after).await?)
    }

    fn listener(&self, protocol: Protocol, ports: Ports) -> Option<Listener> {
        listeners::find(protocol, ports)
    }

    fn has_firewall(&self) -> Result<bool, ObserveError> {
        rules::has_table(nat::TABLE).map_err(ObserveError::Socket)
    }

    fn set_ports(&self, network: &str, ports: Vec<dhcp::config::PortName>) {
        self.services.set_ports(network, ports);
    }

    fn leases(&self, network: &str) -> Vec<dhcp::Lease> {
        self.services.leases(network)
    }

    async fn forget(&self, network: &str) -> Result<(), dhcp::Error> {
        self.services.forget(network).await
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, ObserveError> {
        self.netlink.neighbours().await
    }
}
