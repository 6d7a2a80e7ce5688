//! A host made of values, for tests: it does steps on a [`HostState`], can be told to fail or to stop dead at any call,
//! and outlives the daemon that uses it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ipnet::IpNet;

use super::{Executor, Outcome, PortError, StepError, ports::made};
use crate::{
    change::LiveStep,
    hooks::{HookError, How, Operation},
    host::{Focus, HostState, Link, LinkAddress, LinkKind, Neighbour, Route},
    metrics::Traffic,
    model::{MacAddr, Ports, Protocol},
    observe::{ObserveError, listeners::Listener},
    plan::{self, Bridge, Place, Step, Undo, kernel_delay},
    port::{self, OnInterface, Port},
    registry::{Plug, PortSpec},
    shape::Shape,
    snoop::Seen,
    verbs::{CaptureError, Host},
    why::{self, WhyError},
};

/// A handle on the host; clones are the same host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<World>>);

/// Everything there is on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) host: HostState,
    /// Our table, by bridge; absent if there is none.
    pub(crate) table: Option<BTreeMap<String, nat::Network>>,
    /// The forwards in our table.
    pub(crate) forwards: Vec<nat::Forward>,
    /// The leases of every network.
    pub(crate) leases: Vec<dhcp::Lease>,
    /// The IPv6 leases of every network.
    pub(crate) leases6: Vec<dhcp::Lease6>,
    /// Networks whose servers run: in the daemon's process.
    pub(crate) services: BTreeSet<String>,
    /// What they serve.
    pub(crate) served: BTreeMap<String, dhcp::config::NetworkConfig>,
    /// What the ports of each network may send, where that was said.
    pub(crate) guarded: BTreeMap<String, nat::guards::Sources>,
    /// The time since this host booted.
    pub(crate) uptime: Duration,
    /// Where guests' addresses are listened for: network and bridge.
    pub(crate) listening: Vec<(String, String)>,
    /// Where DNS is served.
    pub(crate) dns_port: u16,
    /// The hooks that ran, each with how many networks were served and how many taps there were.
    pub(crate) hooked: Vec<String>,
    /// What the last of them read.
    pub(crate) hook_input: String,
    /// The operation at which hooks fail.
    pub(crate) refusing_hook: Option<Operation>,
    pub(crate) calls: usize,
    /// The time, since some moment.
    pub(crate) elapsed: Duration,
    pub(crate) trouble: Option<Trouble>,
    /// Macvtaps that somebody has open, by index.
    pub(crate) owned: BTreeSet<u32>,
    pub(crate) next_index: u32,
}

/// What goes wrong at the call with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It fails, having done nothing.
    Fail(usize),
    /// It never returns, having done nothing.
    HangBefore(usize),
    /// It never returns, having done all.
    HangAfter(usize),
}

/// What of the world must be as found after everything was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    host: HostState,
    table: Option<BTreeMap<String, nat::Network>>,
    forwards: Vec<nat::Forward>,
    services: BTreeSet<String>,
    served: BTreeMap<String, dhcp::config::NetworkConfig>,
}

impl Traces {
    /// The same with other taps: guests have those, not the networks.
    pub(crate) fn with_taps_of(mut self, fake: &Fake) -> Self {
        let world = fake.world();
        self.host.links.extend(world.host.links.iter().filter(|link| link.kind == LinkKind::Tun).cloned());
        self
    }
}

impl Fake {
    pub(crate) fn new() -> Self {
        let lo = link(1, "lo", LinkKind::Other);
        let eth0 = link(2, "eth0", LinkKind::Other);
        let address = |link, text: &str| LinkAddress { link, address: text.parse().unwrap() };
        let route = |text: &str, link| Route {
            destination: text.parse().unwrap(),
            gateway: None,
            link,
            metric: 0,
            from_router: text == "::/0",
        };
        let host = HostState {
            links: vec![lo, eth0],
            addresses: vec![address(1, "127.0.0.1/8"), address(2, "10.0.0.5/24")],
            routes: vec![route("0.0.0.0/0", Some(2)), route("10.0.0.0/24", Some(2)), route("::/0", Some(2))],
            ..HostState::default()
        };
        Fake(Arc::new(Mutex::new(World { host, next_index: 3, dns_port: 53, ..World::default() })))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(crate) fn traces(&self) -> Traces {
        let world = self.world();
        let mut host = world.host.clone();
        host.links.sort_by_key(|link| link.index);
        host.addresses.sort_by_key(|address| (address.link, address.address));
        host.routes.sort_by_key(|route| (route.link, route.destination, route.gateway, route.metric));
        Traces {
            host,
            table: world.table.clone(),
            forwards: world.forwards.clone(),
            services: world.services.clone(),
            served: world.served.clone(),
        }
    }

    /// The daemon's process ends, however it was: what lived in it is gone. What was to go wrong goes wrong no more.
    pub(crate) fn kill_daemon(&self) {
        self.end_daemon();
        self.world().trouble = None;
    }

    /// The same, with what is to go wrong still to come.
    pub(crate) fn end_daemon(&self) {
        let mut world = self.world();
        world.services.clear();
        world.served.clear();
        world.listening.clear();
    }

    /// The machine starts anew: nothing of anybody's networks is left.
    pub(crate) fn reboot(&self) {
        let fresh = Fake::new();
        let mut world = self.world();
        let (calls, trouble) = (world.calls, world.trouble);
        *world = World { calls, trouble, ..fresh.world().clone() };
    }

    /// A tap goes, as when its guest does.
    pub(crate) fn remove_link(&self, index: u32) {
        self.world().remove_link(index);
    }

    /// The trouble that the coming call is in for.
    fn next_call(&self) -> Result<Option<Trouble>, ()> {
        let mut world = self.world();
        world.calls += 1;
        let now = world.calls;
        match world.trouble {
            Some(Trouble::Fail(at)) if at == now => Err(()),
            Some(trouble @ (Trouble::HangBefore(at) | Trouble::HangAfter(at))) if at == now => Ok(Some(trouble)),
            _ => Ok(None),
        }
    }

    async fn call<T>(&self, act: impl FnOnce(&mut World) -> Result<T, StepError>) -> Result<T, StepError> {
        match self.next_call() {
            Err(()) => Err(StepError::Kernel(io::Error::other("told to fail"))),
            Ok(Some(Trouble::HangBefore(_))) => std::future::pending().await,
            Ok(Some(_)) => {
                act(&mut self.world())?;
                std::future::pending().await
            }
            Ok(None) => act(&mut self.world()),
        }
    }
}

/// What the kernel leaves of a port's settings when it leaves its bridge.
fn leave(port: &mut Link) {
    port.master = None;
    port.isolated = false;
    port.taught = false;
}

pub(crate) fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.into(),
        mac: None,
        mtu: 1500,
        up: false,
        kind,
        master: None,
        lower: None,
        isolated: false,
        taught: false,
        ipv6_disabled: kind == LinkKind::Other,
        accept_ra: 1,
        autoconf: true,
        route_localnet: false,
    }
}

impl World {
    fn link(&mut self, name: &str) -> Result<&mut Link, StepError> {
        let found = self.host.links.iter_mut().find(|link| link.name == name);
        found.ok_or_else(|| StepError::NoLink(name.to_owned()))
    }

    fn add_link(&mut self, name: &str, kind: LinkKind) -> Result<&mut Link, StepError> {
        if self.host.link(name).is_some() {
            return Err(StepError::Kernel(io::Error::from_raw_os_error(libc::EEXIST)));
        }
        let index = self.next_index;
        self.next_index += 1;
        self.host.links.push(link(index, name, kind));
        self.link(name)
    }

    fn remove_link(&mut self, index: u32) {
        self.host.links.retain(|link| link.index != index);
        self.host.addresses.retain(|address| address.link != index);
        self.host.routes.retain(|route| route.link != Some(index));
        for port in self.host.links.iter_mut().filter(|port| port.master == Some(index)) {
            leave(port);
            self.host.vlans.remove(&port.index);
        }
        self.host.vlans.remove(&index);
        self.host.shapes.remove(&index);
    }

    fn link_by_index(&mut self, index: u32) -> Option<&mut Link> {
        self.host.links.iter_mut().find(|link| link.index == index)
    }

    fn settle(&mut self, index: u32, place: &Place) {
        if let Some(port) = self.link_by_index(index) {
            assert!(port.master.is_some(), "only a bridge's port has such settings");
            (port.isolated, port.taught) = (place.isolated, place.taught);
        }
        if let Some(vlans) = &place.vlans {
            self.host.vlans.insert(index, vlans.clone());
        }
    }

    /// A link without limits has none, as the kernel tells it.
    fn shape(&mut self, index: u32, shape: &Shape) {
        if shape.is_free() {
            self.host.shapes.remove(&index);
        } else if self.link_by_index(index).is_some() {
            self.host.shapes.insert(index, shape.clone());
        }
    }

    fn set_bridge(&mut self, bridge: &Bridge) -> Result<(), StepError> {
        let forward_delay = if bridge.stp { kernel_delay(bridge.delay) } else { 1500 };
        let link = self.link(&bridge.name)?;
        link.kind = LinkKind::Bridge { stp: bridge.stp, forward_delay, vlan_filtering: false };
        link.mac = Some(bridge.mac);
        link.mtu = bridge.mtu.unwrap_or(1500);
        Ok(())
    }

    fn run(&mut self, step: &Step) -> Result<Outcome, StepError> {
        match step {
            Step::CreateBridge(bridge) => {
                let kind = LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: false };
                self.add_link(&bridge.name, kind)?;
                self.set_bridge(bridge)?;
            }
            Step::SetBridge(bridge) => self.set_bridge(bridge)?,
            Step::DisableIpv6 { bridge } => self.link(bridge)?.ipv6_disabled = true,
            Step::EnableIpv6 { bridge } => {
                let link = self.link(bridge)?;
                (link.ipv6_disabled, link.accept_ra, link.autoconf) = (false, 0, false);
            }
            Step::RouteLocalnet { bridge, on } => self.link(bridge)?.route_localnet = *on,
            Step::AddAddress { bridge, address } => {
                let up = self.link(bridge)?.up;
                let link = self.link(bridge)?.index;
                self.host.addresses.push(LinkAddress { link, address: *address });
                let connected = Route {
                    destination: address.trunc(),
                    gateway: None,
                    link: Some(link),
                    metric: 0,
                    from_router: false,
                };
                if up && !self.host.routes.contains(&connected) {
                    self.host.routes.push(connected);
                }
            }
            Step::LinkUp { bridge } => {
                let link = self.link(bridge)?;
                link.up = true;
                let index = link.index;
                let connected: Vec<Route> = self
                    .host
                    .addresses_of(index)
                    .map(|address| Route {
                        destination: address.trunc(),
                        gateway: None,
                        link: Some(index),
                        metric: 0,
                        from_router: false,
                    })
                    .collect();
                self.host.routes.extend(connected);
            }
            Step::AddRoute { bridge, route } => {
                let link = self.link(bridge)?;
                if !link.up {
                    return Err(StepError::Kernel(io::Error::from_raw_os_error(libc::ENETDOWN)));
                }
                let route = Route {
                    destination: route.destination,
                    gateway: Some(route.gateway),
                    link: Some(link.index),
                    metric: route.metric.unwrap_or(if route.gateway.is_ipv6() { 1024 } else { 0 }),
                    from_router: false,
                };
                self.host.routes.push(route);
            }
            Step::StartServices(config) => {
                self.link(&config.bridge)?;
                assert!(self.services.insert(config.network.clone()), "served twice: {}", config.network);
                self.served.insert(config.network.clone(), (**config).clone());
                return Ok(Outcome { dns_port: Some(self.dns_port) });
            }
            Step::AddFirewall(network) => {
                self.table.get_or_insert_default().insert(network.bridge.clone(), network.clone());
            }
            Step::EnableForwarding => self.host.forwarding = true,
            Step::GuardPorts { network, sources, .. } => drop(self.guarded.insert(network.clone(), sources.clone())),
            Step::Live(step) => return self.live(step),
            Step::KeepRouterAdvertisements { interface } => self.link(interface)?.accept_ra = 2,
            Step::EnableForwarding6 => {
                self.host.forwarding6 = true;
                // A router takes no routes from others, unless told to.
                let HostState { links, routes, .. } = &mut self.host;
                let keeps = |index| links.iter().any(|link| Some(link.index) == index && link.accept_ra == 2);
                routes.retain(|route| !route.from_router || keeps(route.link));
            }
            Step::ShapeBridge { bridge, shape } => {
                let index = self.link(bridge)?.index;
                self.shape(index, shape);
            }
            Step::SettlePort { index, place } => self.settle(*index, place),
            Step::AttachPort { bridge, index, place } => {
                let master = self.link(bridge)?.index;
                if let Some(port) = self.link_by_index(*index) {
                    port.master = Some(master);
                    self.settle(*index, place);
                }
            }
            Step::ShapePort { index, shape } => self.shape(*index, shape),
            Step::PortUp { index } => {
                if let Some(port) = self.link_by_index(*index) {
                    port.up = true;
                }
            }
        }
        Ok(Outcome::default())
    }

    fn live(&mut self, step: &LiveStep) -> Result<Outcome, StepError> {
        match step {
            LiveStep::SetMac { bridge, mac, .. } => self.link(bridge)?.mac = Some(*mac),
            LiveStep::SetMtu { bridge, mtu } => self.link(bridge)?.mtu = *mtu,
            LiveStep::SetPortMtu { index, mtu } => {
                self.host.links.iter_mut().filter(|link| link.index == *index).for_each(|link| link.mtu = *mtu);
            }
            LiveStep::SetSpanningTree { bridge, on, delay } => {
                let forward_delay = if *on { kernel_delay(*delay) } else { 1500 };
                self.link(bridge)?.kind = LinkKind::Bridge { stp: *on, forward_delay, vlan_filtering: false };
            }
            LiveStep::ReplaceRoute { bridge, route } => {
                let link = self.link(bridge)?.index;
                let metric = route.metric.unwrap_or(route.usual_metric());
                let is_it = |old: &&mut Route| {
                    old.link == Some(link) && old.destination == route.destination && old.metric == metric
                };
                let old = self.host.routes.iter_mut().find(is_it).expect("a route to replace");
                old.gateway = Some(route.gateway);
            }
            LiveStep::Reconfigure { config, .. } => {
                let served = self.served.get_mut(&config.network).expect("servers that run");
                *served = (**config).clone();
                return Ok(Outcome { dns_port: config.dns.as_ref().map(|_| self.dns_port) });
            }
            LiveStep::SetFirewall { network, before, after } => {
                let Some(table) = self.table.as_mut().filter(|_| self.forwards == *before) else {
                    return Err(StepError::Kernel(io::Error::other("the table is another")));
                };
                table.insert(network.bridge.clone(), network.clone());
                self.forwards = after.clone();
            }
            LiveStep::UnpinPort { .. } => {}
            LiveStep::TakeBack(undo) => self.undo(undo),
        }
        Ok(Outcome::default())
    }

    fn undo(&mut self, undo: &Undo) {
        match undo {
            Undo::DeleteBridge { name, mac } => {
                let ours = |link: &&Link| link.name == *name && link.mac == Some(*mac);
                if let Some(index) = self.host.links.iter().find(ours).map(|link| link.index) {
                    self.remove_link(index);
                }
            }
            Undo::RemoveAddress { bridge, address } => {
                if let Some(index) = self.host.link(bridge).map(|link| link.index) {
                    self.host.addresses.retain(|found| found.link != index || found.address != *address);
                    let on_it: Vec<IpNet> = self.host.addresses_of(index).map(|own| own.trunc()).collect();
                    self.host.routes.retain(|route| {
                        route.link != Some(index) || route.gateway.is_some() || on_it.contains(&route.destination)
                    });
                }
            }
            Undo::RemoveRoute { bridge, route } => {
                if let Some(index) = self.host.link(bridge).map(|link| link.index) {
                    self.host.routes.retain(|found| {
                        found.link != Some(index)
                            || found.destination != route.destination
                            || found.gateway != Some(route.gateway)
                            || found.metric != route.metric.unwrap_or(route.usual_metric())
                    });
                }
            }
            Undo::StopServices { network } => {
                self.services.remove(network);
                self.served.remove(network);
            }
            Undo::RemoveFirewall(network) => {
                if let Some(table) = &mut self.table {
                    table.remove(&network.bridge);
                }
            }
            Undo::RemoveTable => {
                self.table = None;
                self.forwards.clear();
            }
            Undo::FreeBridge { bridge } => {
                if let Some(index) = self.host.link(bridge).map(|link| link.index) {
                    self.shape(index, &Shape::default());
                }
            }
            Undo::DisableForwarding => self.host.forwarding = false,
            Undo::DisableForwarding6 => self.host.forwarding6 = false,
            Undo::RestoreRouterAdvertisements { interface } => {
                self.host.links.iter_mut().filter(|link| link.name == *interface).for_each(|link| link.accept_ra = 1);
            }
        }
    }
}

impl Executor for Fake {
    async fn observe(&self) -> Result<HostState, ObserveError> {
        self.call(|world| Ok(world.host.clone()))
            .await
            .map_err(|_| ObserveError::Socket(io::Error::other("told to fail")))
    }

    async fn observe_around(&self, focus: &Focus) -> Result<HostState, ObserveError> {
        Ok(self.observe().await?.around(focus))
    }

    async fn run(&self, step: &Step) -> Result<Outcome, StepError> {
        self.call(|world| world.run(step)).await
    }

    async fn undo(&self, undo: &Undo) -> Result<(), StepError> {
        self.call(|world| {
            world.undo(undo);
            Ok(())
        })
        .await
    }
}

impl Host for Fake {
    async fn open_port(&self, spec: &PortSpec) -> Result<(Port, Vec<OwnedFd>), PortError> {
        let port = self
            .call(|world| {
                let (stem, on) = match &spec.plug {
                    Plug::Tap { bridge, .. } => ("vnet", bridge),
                    Plug::Macvtap { interface, .. } => ("macvtap", interface),
                };
                let taken = |n: &u32| world.host.link(&format!("{stem}{n}")).is_some();
                let interface = format!("{stem}{}", (0..).find(|n| !taken(n)).unwrap_or_default());
                let on = world.link(on)?.clone();
                let kind = if stem == "vnet" { LinkKind::Tun } else { LinkKind::Macvtap };
                let device = world.add_link(&interface, kind)?;
                device.mac = Some(if kind == LinkKind::Tun { port::host_side(spec.mac) } else { spec.mac });
                device.mtu = spec.mtu.unwrap_or(on.mtu);
                device.up = true;
                let (index, mtu) = (device.index, device.mtu);
                let mut macvtap = None;
                match &spec.plug {
                    Plug::Tap { place, .. } => {
                        device.master = Some(on.index);
                        world.settle(index, place);
                    }
                    Plug::Macvtap { interface, .. } => {
                        device.lower = Some(on.index);
                        macvtap =
                            Some(OnInterface { interface: interface.clone(), node: format!("/dev/tap{index}").into() });
                    }
                }
                world.shape(index, &spec.shape);
                world.owned.insert(index);
                Ok(made(spec, interface, index, mtu, macvtap))
            })
            .await
            .map_err(|cause| PortError::Plug {
                interface: "vnet".into(),
                bridge: format!("{:?}", spec.plug),
                cause: Box::new(cause),
            })?;
        Ok((port, Vec::new()))
    }

    fn watch(&self, _port: &Port) {}

    async fn unplug(&self, port: &Port) -> Result<(), StepError> {
        self.call(|world| {
            if let Some(link) = world.link_by_index(port.index) {
                if port.macvtap.is_some() { link.up = false } else { leave(link) }
            }
            world.host.vlans.remove(&port.index);
            Ok(())
        })
        .await
    }

    async fn has_owner(&self, port: &Port) -> bool {
        port.macvtap.is_none() || self.world().owned.contains(&port.index)
    }

    async fn delete_port(&self, port: &Port) -> Result<(), StepError> {
        self.call(|world| {
            world.remove_link(port.index);
            Ok(())
        })
        .await
    }

    async fn replace_firewall(&self, networks: &[nat::Network], forwards: &[nat::Forward]) -> Result<(), StepError> {
        self.call(|world| {
            world.forwards = forwards.to_vec();
            let rules: BTreeMap<_, _> = networks.iter().map(|n| (n.bridge.clone(), n.clone())).collect();
            world.table = (!rules.is_empty()).then_some(rules);
            Ok(())
        })
        .await
    }

    async fn change_forwards(
        &self,
        before: &[nat::Forward],
        after: &[nat::Forward],
        others: nat::Others,
    ) -> Result<(), StepError> {
        self.call(|world| {
            let spoken_of = |forward: &nat::Forward| before.iter().chain(after).any(|one| one.bridge == forward.bridge);
            let (these, those): (Vec<_>, Vec<_>) = world.forwards.iter().cloned().partition(spoken_of);
            assert_eq!(others, nat::Others::of(&those), "what is said of other networks is true");
            if world.table.is_none() || these != before {
                return Err(StepError::Kernel(io::Error::other("the table is another")));
            }
            world.forwards = those;
            world.forwards.extend_from_slice(after);
            world.forwards.sort();
            Ok(())
        })
        .await
    }

    fn listener(&self, _protocol: Protocol, _ports: Ports) -> Option<Listener> {
        None
    }

    async fn restore_guards(&self, _ports: &[(Port, Option<(String, nat::guards::Sources)>)]) -> Result<(), StepError> {
        self.call(|_| Ok(())).await
    }

    async fn heal_guards(&self) -> Result<bool, StepError> {
        Ok(false)
    }

    async fn call_hooks(
        &self,
        network: &str,
        operation: Operation,
        input: impl FnOnce() -> String + Send,
    ) -> Result<(), HookError> {
        let mut world = self.world();
        let state = (world.services.len(), world.host.links.iter().filter(|link| link.kind == LinkKind::Tun).count());
        world.hooked.push(format!("{network} {} {state:?}", operation.name()));
        world.hook_input = input();
        match world.refusing_hook == Some(operation) {
            true => Err(HookError { command: "hook".into(), how: How::Status { status: 1, stderr: "no".into() } }),
            false => Ok(()),
        }
    }

    async fn port_gone(&self, _port: &Port) -> Result<(), StepError> {
        Ok(())
    }

    async fn dropped(&self, _port: &Port) -> Option<netd_api::Dropped> {
        None
    }

    fn has_firewall(&self) -> Result<bool, ObserveError> {
        Ok(self.world().table.is_some())
    }

    fn set_ports(&self, _network: &str, _ports: Vec<dhcp::config::PortName>) {}

    fn leases(&self, _network: &str) -> Vec<dhcp::Lease> {
        self.world().leases.clone()
    }

    fn leases6(&self, _network: &str) -> Vec<dhcp::Lease6> {
        self.world().leases6.clone()
    }

    fn duid(&self) -> Vec<u8> {
        vec![0, 4, 1]
    }

    async fn import_leases(&self, _network: &str, leases: Vec<dhcp::Lease>) -> Result<usize, dhcp::Error> {
        let count = leases.len();
        self.world().leases.extend(leases);
        Ok(count)
    }

    async fn forget(&self, _network: &str) -> Result<(), dhcp::Error> {
        Ok(())
    }

    async fn drop_strays(&self, _network: &str) -> Result<(), dhcp::Error> {
        Ok(())
    }

    fn uptime(&self) -> u64 {
        self.world().uptime.as_secs()
    }

    fn listen(&self, networks: &[(String, String)]) {
        self.world().listening = networks.to_vec();
    }

    fn heard(&self, _mac: MacAddr) -> Vec<Seen> {
        Vec::new()
    }

    async fn recall(&self, _ports: &[Port]) {}

    fn open_capture(&self, _interface: &str, _snaplen: u32) -> Result<OwnedFd, CaptureError> {
        unreachable!("a host made of values has no frames")
    }

    async fn traffic(&self) -> Result<HashMap<String, Traffic>, ObserveError> {
        Ok(HashMap::new())
    }

    fn server_counts(&self, _network: &str) -> Option<dhcp::Counts> {
        None
    }

    async fn table_rewrites(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, ObserveError> {
        Ok(Vec::new())
    }

    fn differing(&self, wanted: &[(String, &'static str)]) -> Vec<String> {
        let world = self.world();
        let differs = |(path, _): &&(String, &'static str)| path == plan::FORWARDING && !world.host.forwarding;
        wanted.iter().filter(differs).map(|(path, _)| path.clone()).collect()
    }

    fn now(&self) -> Duration {
        self.world().elapsed
    }

    async fn follow_inward(&self, _question: &why::inward::Inward) -> Result<why::inward::InwardFacts, WhyError> {
        unreachable!("a host made of values has no packets")
    }

    async fn follow(&self, _question: &why::Question) -> Result<why::Facts, WhyError> {
        Err(WhyError::Listen(io::Error::other("nobody can be heard here")))
    }
}
