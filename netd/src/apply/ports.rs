//! EDGE: makes and removes ports: taps on bridges, macvtaps on interfaces of the host.

use std::os::fd::OwnedFd;

use super::{Kernel, StepError, bridge_port, guards::Wanted, links, macvtap, shape};
use crate::{
    model::MacvtapMode,
    plan::Place,
    port::{
        self, OnInterface, Port,
        macvtap::MacvtapError,
        tap::{Tap, TapError},
    },
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
    /// There is no macvtap.
    #[error("cannot create a macvtap device on {interface}: {cause}")]
    Macvtap {
        /// The interface of the host.
        interface: String,
        /// Why.
        cause: Box<StepError>,
    },
    /// The macvtap's queues cannot be had.
    #[error(transparent)]
    Queues(#[from] MacvtapError),
    /// Its end could not be noticed.
    #[error("cannot watch macvtap {interface} for its guest's end: {cause}")]
    Watch {
        /// The macvtap.
        interface: String,
        /// Why.
        cause: std::io::Error,
    },
}

impl Kernel {
    /// Makes a tap on the bridge, up and forwarding.
    pub(crate) async fn open_tap(
        &self,
        spec: &PortSpec,
        bridge: &str,
        place: &Place,
    ) -> Result<(Port, Vec<OwnedFd>), PortError> {
        let tap = port::tap::create(spec.queues)?;
        let failed =
            |cause| PortError::Plug { interface: tap.name.clone(), bridge: bridge.to_owned(), cause: Box::new(cause) };
        let index = links::index_of(&self.netlink, &tap.name).await.map_err(failed)?;
        if spec.guards {
            let on = Some((bridge.to_owned(), spec.sources.clone()));
            let network = spec.network.as_str();
            let wanted = Wanted { interface: &tap.name, index, network, mac: spec.mac, on };
            self.guards.add(&wanted, |network: &str| self.services.leased(network)).await.map_err(failed)?;
        }
        let plugged = async {
            let mtu = self.plug(&tap, index, spec, bridge, place).await.map_err(failed)?;
            if spec.kept {
                port::tap::keep(&tap)?;
            }
            Ok(mtu)
        };
        match plugged.await {
            Ok(mtu) => Ok((made(spec, tap.name, index, mtu, None), tap.queues)),
            Err(cause) => {
                if let Err(left) = self.guards.remove(&tap.name, index).await {
                    tracing::error!("the guards of {} stay: {left}", tap.name);
                }
                Err(cause)
            }
        }
    }

    /// Sets a new tap up and puts it on its bridge; returns its MTU.
    async fn plug(
        &self,
        tap: &Tap,
        index: u32,
        spec: &PortSpec,
        bridge: &str,
        place: &Place,
    ) -> Result<u32, StepError> {
        let netlink = &self.netlink;
        let Some(master) = links::find(netlink, bridge).await? else {
            return Err(StepError::NoLink(bridge.to_owned()));
        };
        bridge_port::check_vlans(netlink, bridge, place).await?;
        let mtu = spec.mtu.unwrap_or(master.mtu);
        // Without this the host would speak IPv6 to the guest from the tap itself.
        super::kernel::disable_ipv6(&tap.name)?;
        links::plug(netlink, index, port::host_side(spec.mac), mtu, &master).await?;
        if *place != Place::default() {
            bridge_port::settle(netlink, index, place).await?;
        }
        if !spec.shape.is_free() {
            shape::shape(netlink, index, &spec.shape).await?;
        }
        links::up_by_index(netlink, index).await?;
        Ok(mtu)
    }

    /// Makes a macvtap on an interface of the host, up.
    pub(crate) async fn open_macvtap(
        &self,
        spec: &PortSpec,
        interface: &str,
        mode: MacvtapMode,
    ) -> Result<(Port, Vec<OwnedFd>), PortError> {
        let failed = |cause| PortError::Macvtap { interface: interface.to_owned(), cause: Box::new(cause) };
        let netlink = &self.netlink;
        let link = macvtap::create(netlink, interface, mode, spec.mac, spec.mtu).await.map_err(failed)?;
        let opened = async {
            // The host is no party to what the guest says there.
            super::kernel::disable_ipv6(&link.name).map_err(failed)?;
            let opened = port::macvtap::open(&link.name, link.index, spec.queues, &self.nodes)?;
            self.closings
                .watch(&opened.node, link.index)
                .map_err(|cause| PortError::Watch { interface: link.name.clone(), cause })?;
            if !spec.shape.is_free() {
                shape::shape(netlink, link.index, &spec.shape).await.map_err(failed)?;
            }
            links::up_by_index(netlink, link.index).await.map_err(failed)?;
            Ok(opened)
        };
        match opened.await {
            Ok(opened) => {
                let on = OnInterface { interface: interface.to_owned(), node: opened.node };
                Ok((made(spec, link.name, link.index, link.mtu, Some(on)), opened.queues))
            }
            Err(error) => {
                if let Err(left) = macvtap::delete(netlink, link.index, &link.name).await {
                    tracing::error!("macvtap {} stays: {left}", link.name);
                }
                Err(error)
            }
        }
    }

    /// Has word sent of the end of a macvtap's guest, also if it was before now.
    pub(crate) fn watch(&self, port: &Port) {
        if let Some(on) = &port.macvtap
            && let Err(error) = self.closings.watch(&on.node, port.index)
        {
            tracing::warn!("cannot watch macvtap {} for its guest's end: {error}", port.interface);
        }
    }

    /// Takes a port off what it is on; its guest still has it.
    pub(crate) async fn unplug(&self, port: &Port) -> Result<(), StepError> {
        match port.macvtap {
            Some(_) => links::down_by_index(&self.netlink, port.index).await,
            None => {
                bridge_port::detach(&self.netlink, port.index).await?;
                self.guards.unplug(&port.interface, port.index).await
            }
        }
    }

    /// Removes a macvtap.
    pub(crate) async fn delete_macvtap(&self, port: &Port) -> Result<(), StepError> {
        macvtap::delete(&self.netlink, port.index, &port.interface).await
    }
}

/// The port that was asked for, as this device.
pub(super) fn made(spec: &PortSpec, interface: String, index: u32, mtu: u32, macvtap: Option<OnInterface>) -> Port {
    Port {
        interface,
        index,
        network: spec.network.to_string(),
        guest: spec.guest.clone(),
        mac: spec.mac,
        mtu,
        queues: spec.queues,
        guards: spec.guards,
        group: spec.group.clone(),
        host_bridge: spec.host_bridge.clone(),
        macvtap,
        kept: spec.kept,
    }
}
