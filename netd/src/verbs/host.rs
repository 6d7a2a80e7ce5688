//! What the verbs need of a host beyond single steps; the real one is [`Kernel`].

use std::{
    collections::HashMap, future::Future, io, net::IpAddr, os::fd::OwnedFd, sync::atomic::Ordering, time::Duration,
};

use nat::guards::Sources;

use crate::{
    apply::{Executor, Kernel, PortError, StepError, guards::Wanted, links},
    hooks::{HookError, Operation},
    host::Neighbour,
    metrics::Traffic,
    model::{MacAddr, Ports, Protocol},
    observe::{
        self, ObserveError,
        listeners::{self, Listener},
        rules::{self, Family},
        sysctls,
    },
    packet::{self, Hear},
    port::{self, Port},
    registry::{Plug, PortSpec},
    snoop::Seen,
    why::{
        self, WhyError,
        inward::{Inward, InwardFacts},
    },
};

/// Why an interface cannot be heard.
#[derive(Debug, thiserror::Error)]
#[error("cannot capture on interface {interface}: {cause}")]
pub struct CaptureError {
    interface: String,
    cause: io::Error,
}

/// Room for frames of a capture that wait to be read, in bytes.
const CAPTURE_BUFFER: libc::c_int = 8 << 20;

/// A host: steps, ports, servers.
pub trait Host: Executor {
    /// Makes a tap or a macvtap, up and forwarding. Returns it with one descriptor per queue.
    fn open_port(&self, spec: &PortSpec) -> impl Future<Output = Result<(Port, Vec<OwnedFd>), PortError>> + Send;
    /// Has word sent of the end of a port's owner, where the kernel does not remove it by itself.
    fn watch(&self, port: &Port);
    /// Takes a port off what it is on; its owner still has it.
    fn unplug(&self, port: &Port) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Whether anyone has a port open; asked where the kernel does not remove it by itself.
    fn has_owner(&self, port: &Port) -> impl Future<Output = bool> + Send;
    /// Removes a port that the kernel keeps; it tells of its end as of any other's.
    fn delete_port(&self, port: &Port) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Makes our table anew with these networks and forwards; removes it if there are no networks.
    fn replace_firewall(
        &self,
        networks: &[nat::Network],
        forwards: &[nat::Forward],
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Puts the forwards `after` of some networks in the place of those `before`, which must be exactly what the table has
    /// of them; it has `others` of other networks.
    fn change_forwards(
        &self,
        before: &[nat::Forward],
        after: &[nat::Forward],
        others: nat::Others,
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// A program on the host that listens on one of these ports, other than this one.
    fn listener(&self, protocol: Protocol, ports: Ports) -> Option<Listener>;
    /// Guards these ports and no others: each with its network's bridge and sources, if that is active.
    fn restore_guards(
        &self,
        ports: &[(Port, Option<(String, Sources)>)],
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Puts the guards back if someone has removed them; true if that was so.
    fn heal_guards(&self) -> impl Future<Output = Result<bool, StepError>> + Send;
    /// A port is gone: nothing stays of its guards.
    fn port_gone(&self, port: &Port) -> impl Future<Output = Result<(), StepError>> + Send;
    /// What a port's guards dropped; `None` if there are none now.
    fn dropped(&self, port: &Port) -> impl Future<Output = Option<netd_api::Dropped>> + Send;
    /// Whether our table is there at all.
    fn has_firewall(&self) -> Result<bool, ObserveError>;
    /// Tells the servers whose MACs are on a network.
    fn set_ports(&self, network: &str, ports: Vec<dhcp::config::PortName>);
    /// The leases of a network.
    fn leases(&self, network: &str) -> Vec<dhcp::Lease>;
    /// Its IPv6 leases.
    fn leases6(&self, network: &str) -> Vec<dhcp::Lease6>;
    /// The DUID of our DHCPv6 server.
    fn duid(&self) -> Vec<u8>;
    /// Gives a network leases of another server. Returns how many were taken.
    fn import_leases(
        &self,
        network: &str,
        leases: Vec<dhcp::Lease>,
    ) -> impl Future<Output = Result<usize, dhcp::Error>> + Send;
    /// Drops every lease of a network.
    fn forget(&self, network: &str) -> impl Future<Output = Result<(), dhcp::Error>> + Send;
    /// Drops the leases of a network that are outside its subnet.
    fn drop_strays(&self, network: &str) -> impl Future<Output = Result<(), dhcp::Error>> + Send;
    /// Seconds since the machine booted, suspended or not.
    fn uptime(&self) -> u64;
    /// Listens for guests' addresses on these networks' bridges, and on no others.
    fn listen(&self, networks: &[(String, String)]);
    /// The addresses that the port with this MAC was heard to have, the last first.
    fn heard(&self, mac: MacAddr) -> Vec<Seen>;
    /// Takes note of the IPv6 addresses that these ports had before this daemon: those the kernel knows.
    fn recall(&self, ports: &[Port]) -> impl Future<Output = ()> + Send;
    /// A packet socket that hears the first bytes of every frame of an interface.
    fn open_capture(&self, interface: &str, snaplen: u32) -> Result<OwnedFd, CaptureError>;
    /// What every link has carried since it was made, by name.
    fn traffic(&self) -> impl Future<Output = Result<HashMap<String, Traffic>, ObserveError>> + Send;
    /// What the servers of a network have done.
    fn server_counts(&self, network: &str) -> Option<dhcp::Counts>;
    /// How often our nftables tables were written anew, by family.
    fn table_rewrites(&self) -> impl Future<Output = Vec<(&'static str, u64)>> + Send;
    /// Runs the user's hooks about a network, with `input` made only if there are any.
    fn call_hooks(
        &self,
        network: &str,
        operation: Operation,
        input: impl FnOnce() -> String + Send,
    ) -> impl Future<Output = Result<(), HookError>> + Send;
    /// The host's neighbours.
    fn neighbours(&self) -> impl Future<Output = Result<Vec<Neighbour>, ObserveError>> + Send;
    /// Those of these sysctls, path and value, that have another value now; those that do not exist have none.
    fn differing(&self, wanted: &[(String, &'static str)]) -> Vec<String>;
    /// The time since some moment, for how long something was left alone.
    fn now(&self) -> Duration;
    /// Looks at all that a flow passes, and traces a packet of it.
    fn follow(&self, question: &why::Question) -> impl Future<Output = Result<why::Facts, WhyError>> + Send;
    /// The same of a flow to a guest.
    fn follow_inward(&self, question: &Inward) -> impl Future<Output = Result<InwardFacts, WhyError>> + Send;
}

impl Host for Kernel {
    async fn open_port(&self, spec: &PortSpec) -> Result<(Port, Vec<OwnedFd>), PortError> {
        match &spec.plug {
            Plug::Tap { bridge, place } => self.open_tap(spec, bridge, place).await,
            Plug::Macvtap { interface, mode } => self.open_macvtap(spec, interface, *mode).await,
        }
    }

    fn watch(&self, port: &Port) {
        Kernel::watch(self, port);
    }

    async fn unplug(&self, port: &Port) -> Result<(), StepError> {
        Kernel::unplug(self, port).await
    }

    async fn has_owner(&self, port: &Port) -> bool {
        let Some(on) = port.macvtap.clone() else { return true };
        // It reads what every process of the host has open.
        tokio::task::spawn_blocking(move || port::macvtap::is_open(&on.node)).await.unwrap_or(true)
    }

    async fn delete_port(&self, port: &Port) -> Result<(), StepError> {
        match port.macvtap {
            Some(_) => self.delete_macvtap(port).await,
            None => links::delete_tap(&self.netlink, &port.interface, port.index).await,
        }
    }

    async fn replace_firewall(&self, networks: &[nat::Network], forwards: &[nat::Forward]) -> Result<(), StepError> {
        match networks {
            [] => nat::delete_table().await?,
            networks => {
                nat::replace(networks, forwards).await?;
                self.rewrites.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    async fn change_forwards(
        &self,
        before: &[nat::Forward],
        after: &[nat::Forward],
        others: nat::Others,
    ) -> Result<(), StepError> {
        Ok(self.table.change_forwards(before, after, others).await?)
    }

    fn listener(&self, protocol: Protocol, ports: Ports) -> Option<Listener> {
        listeners::find(protocol, ports)
    }

    async fn restore_guards(&self, ports: &[(Port, Option<(String, Sources)>)]) -> Result<(), StepError> {
        let wanted: Vec<Wanted<'_>> = ports.iter().map(|(port, on)| Wanted::new(port, on.clone())).collect();
        self.guards.restore(&wanted, |network: &str| self.services.leased(network)).await
    }

    async fn heal_guards(&self) -> Result<bool, StepError> {
        self.guards.heal().await
    }

    async fn port_gone(&self, port: &Port) -> Result<(), StepError> {
        if let Some(on) = &port.macvtap {
            port::macvtap::close(&self.nodes, &on.node);
        }
        self.guards.remove(&port.interface, port.index).await
    }

    async fn dropped(&self, port: &Port) -> Option<netd_api::Dropped> {
        self.guards.dropped(&port.interface).await.unwrap_or_else(|error| {
            tracing::warn!("cannot read the guards' counters of {}: {error}", port.interface);
            None
        })
    }

    fn has_firewall(&self) -> Result<bool, ObserveError> {
        rules::has_table(Family::Inet, nat::TABLE).map_err(ObserveError::Socket)
    }

    fn set_ports(&self, network: &str, ports: Vec<dhcp::config::PortName>) {
        let macs: Vec<MacAddr> = ports.iter().map(|port| MacAddr(port.mac.0)).collect();
        self.snoop.set_ports(network, &macs);
        self.services.set_ports(network, ports);
    }

    fn leases(&self, network: &str) -> Vec<dhcp::Lease> {
        self.services.leases(network)
    }

    fn leases6(&self, network: &str) -> Vec<dhcp::Lease6> {
        self.services.leases6(network)
    }

    fn duid(&self) -> Vec<u8> {
        self.services.duid().to_vec()
    }

    async fn import_leases(&self, network: &str, leases: Vec<dhcp::Lease>) -> Result<usize, dhcp::Error> {
        self.services.import(network, leases).await
    }

    async fn forget(&self, network: &str) -> Result<(), dhcp::Error> {
        self.services.forget(network).await
    }

    async fn drop_strays(&self, network: &str) -> Result<(), dhcp::Error> {
        self.services.drop_strays(network).await
    }

    fn uptime(&self) -> u64 {
        observe::uptime()
    }

    fn listen(&self, networks: &[(String, String)]) {
        self.snoop.listen(networks);
    }

    fn heard(&self, mac: MacAddr) -> Vec<Seen> {
        self.snoop.seen(mac)
    }

    async fn recall(&self, ports: &[Port]) {
        let neighbours = self.netlink.neighbours().await.unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Vec::new()
        });
        let claimed = self.guards.claimed().await;
        for port in ports {
            let claims = claimed.iter().filter(|(interface, ..)| *interface == port.interface);
            let claims = claims.map(|(_, address, age)| (IpAddr::from(*address), *age));
            let known = neighbours.iter().filter(|neighbour| neighbour.mac == port.mac && neighbour.address.is_ipv6());
            let known = known.map(|neighbour| (neighbour.address, Duration::from_secs(neighbour.age)));
            for (address, age) in claims.chain(known) {
                self.snoop.recall(&port.network, port.mac, address, age);
            }
        }
    }

    fn open_capture(&self, interface: &str, snaplen: u32) -> Result<OwnedFd, CaptureError> {
        packet::open(interface, Hear::Everything { snaplen, buffer: CAPTURE_BUFFER })
            .map_err(|cause| CaptureError { interface: interface.to_owned(), cause })
    }

    async fn traffic(&self) -> Result<HashMap<String, Traffic>, ObserveError> {
        self.netlink.traffic().await
    }

    fn server_counts(&self, network: &str) -> Option<dhcp::Counts> {
        self.services.counts(network)
    }

    async fn table_rewrites(&self) -> Vec<(&'static str, u64)> {
        let bridge = self.guards.rewrites().await;
        vec![("inet", self.rewrites.load(Ordering::Relaxed)), ("bridge", bridge)]
    }

    async fn call_hooks(
        &self,
        network: &str,
        operation: Operation,
        input: impl FnOnce() -> String + Send,
    ) -> Result<(), HookError> {
        if self.hooks.exist() { self.hooks.call(network, operation, &input()).await } else { Ok(()) }
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, ObserveError> {
        self.netlink.neighbours().await
    }

    fn differing(&self, wanted: &[(String, &'static str)]) -> Vec<String> {
        sysctls::differing(wanted)
    }

    fn now(&self) -> Duration {
        Kernel::now()
    }

    async fn follow(&self, question: &why::Question) -> Result<why::Facts, WhyError> {
        why::follow::follow(self, question).await
    }

    async fn follow_inward(&self, question: &Inward) -> Result<InwardFacts, WhyError> {
        why::inward::follow::follow(self, question).await
    }
}
