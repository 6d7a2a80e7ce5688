//! From a network as it runs to the same network as it should run, under its guests. Pure, as `plan` is.
//!
//! ```text
//! old Desired ──┐
//! new Desired ──┼─► steps: settings, what comes, servers and rules in place, what goes ──► (apply) ──► look again
//! HostState ────┘
//! ```
//!
//! The bridge is never taken down and no tap leaves it. What comes is there before what it replaces goes. The way back
//! is the same plan the other way round, from whatever the host looks like by then: that is how a change is taken back
//! by whoever notices that it did not work, the daemon that made it or the next.
//!
//! `section` edits one element of a network, for `net-update`.

mod section;
mod services;
mod step;

#[cfg(test)]
mod tests;

use ipnet::{IpNet, Ipv6Net};
use nat::guards::link_local;

pub use section::{Command, Edit, EditError};
pub use step::{LinkLocal, LiveStep};

use crate::{
    host::{HostState, Link, LinkKind},
    model::MacAddr,
    plan::{self, Bridge, Desired, Ground, Others, Place, PortVlan, PortWish, StaticRoute, Step, Undo},
    port::DEFAULT_MTU,
};

/// What the network shares with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// How what this network made the host do for all is taken back: that it routes, say.
    pub undos: Vec<Undo>,
    /// What other networks need.
    pub others: Others,
}

impl Shared {
    /// Of a network with this journal, beside others.
    pub fn of(journal: &[Undo], others: Others) -> Self {
        let shared = |undo: &&Undo| is_for_ipv4(undo) || is_for_ipv6(undo);
        Shared { undos: journal.iter().filter(shared).cloned().collect(), others }
    }

    fn to_take_back(&self, is: fn(&Undo) -> bool) -> impl Iterator<Item = &Undo> {
        self.undos.iter().filter(move |undo| is(undo) && !self.others.need(undo))
    }
}

/// What is there for networks that are routed by IPv4, whichever they are.
fn is_for_ipv4(undo: &Undo) -> bool {
    *undo == Undo::DisableForwarding
}

/// The same for IPv6.
fn is_for_ipv6(undo: &Undo) -> bool {
    matches!(undo, Undo::DisableForwarding6 | Undo::RestoreRouterAdvertisements { .. })
}

/// All port forwards of all networks, before and after.
#[derive(Clone, Copy, Debug)]
pub struct Forwards<'a> {
    /// What our table has.
    pub before: &'a [nat::Forward],
    /// What it should have.
    pub after: &'a [nat::Forward],
}

/// The steps that make the network `from` on this host the network `to`.
///
/// Without `forwards` what the kernel does not show is left out: servers, rules and guards. Whoever makes those anew
/// wants it so, and whoever looks whether a change was made.
pub fn plan(
    from: &Desired,
    to: &Desired,
    host: &HostState,
    shared: &Shared,
    forwards: Option<Forwards<'_>>,
) -> Vec<Step> {
    let (steps, gone) = match (&from.ground, &to.ground) {
        (Ground::Own(from_bridge), Ground::Own(to_bridge)) => {
            plan_bridge((from, from_bridge), (to, to_bridge), host, shared, forwards)
        }
        // There nothing is ours but the ports. From one ground to another no network changes.
        _ => (Vec::new(), Vec::new()),
    };
    let mut all = steps;
    plan_ports(&mut all, from, to, host);
    all.extend(gone);
    all
}

/// What is other about a bridge of ours and all that is on it but the ports: what comes, and what goes after all came.
fn plan_bridge(
    (from, from_bridge): (&Desired, &Bridge),
    (to, to_bridge): (&Desired, &Bridge),
    host: &HostState,
    shared: &Shared,
    forwards: Option<Forwards<'_>>,
) -> (Vec<Step>, Vec<Step>) {
    // Every field, so that a new one is thought of here too.
    let Desired {
        ground: _,
        shape: _,
        addresses,
        ipv6,
        routes,
        forwarding,
        forwarding6,
        route_localnet,
        firewall,
        services,
        ports,
        sources,
    } = to;
    let name = &to_bridge.name;
    let Some(link) = host.link(name) else { return (Vec::new(), Vec::new()) };
    let mut steps = settings((from, from_bridge), (to, to_bridge), host, link);

    let present: Vec<_> = host.addresses_of(link.index).collect();
    if from.ipv6 != *ipv6 && *ipv6 && link.ipv6_disabled {
        steps.push(Step::EnableIpv6 { bridge: name.clone() });
    }
    for &address in addresses.iter().filter(|address| !present.contains(address)) {
        steps.push(Step::AddAddress { bridge: name.clone(), address });
    }
    for route in routes.iter().filter(|route| !plan::has_route(host, Some(link), route)) {
        let takes_over = from.routes.iter().any(|old| same_place(old, route) && plan::has_route(host, Some(link), old));
        let (bridge, route) = (name.clone(), route.clone());
        steps.push(if takes_over {
            Step::Live(LiveStep::ReplaceRoute { bridge, route })
        } else {
            Step::AddRoute { bridge, route }
        });
    }

    let localnet = link.route_localnet;
    if localnet && !route_localnet && from.route_localnet {
        steps.push(Step::RouteLocalnet { bridge: name.clone(), on: false });
    }
    if let Some(Forwards { before, after }) = forwards {
        if from.services != *services {
            steps.push(Step::Live(LiveStep::Reconfigure {
                config: Box::new(services.clone()),
                differences: services::differences(&from.services, services),
            }));
        }
        // Which port a server takes that was not there is known only when it runs.
        let dns_starts = from.services.dns.is_none() && services.dns.is_some();
        if from.firewall != *firewall || before != after || dns_starts {
            steps.push(Step::Live(LiveStep::SetFirewall {
                network: firewall.clone(),
                before: before.to_vec(),
                after: after.to_vec(),
            }));
        }
    }
    if !localnet && *route_localnet && !from.route_localnet {
        steps.push(Step::RouteLocalnet { bridge: name.clone(), on: true });
    }
    if forwards.is_some() && from.sources != *sources && !ports.is_empty() {
        steps.push(Step::GuardPorts {
            network: services.network.clone(),
            bridge: name.clone(),
            sources: sources.clone(),
        });
    }
    if *forwarding && !from.forwarding && !host.forwarding {
        steps.push(Step::EnableForwarding);
    }
    if *forwarding6 && !from.forwarding6 && !host.forwarding6 {
        steps.extend(plan::enable_forwarding6(host));
    }
    let mut gone = Vec::new();
    let take_back = |undo| Step::Live(LiveStep::TakeBack(undo));
    for route in &from.routes {
        let stays = routes.iter().any(|new| same_place(route, new));
        if !stays && plan::has_route(host, Some(link), route) {
            gone.push(take_back(Undo::RemoveRoute { bridge: name.clone(), route: route.clone() }));
        }
    }
    for &address in from.addresses.iter().filter(|address| !addresses.contains(address) && present.contains(address)) {
        gone.push(take_back(Undo::RemoveAddress { bridge: name.clone(), address }));
    }
    if from.ipv6 != *ipv6 && !ipv6 && !link.ipv6_disabled {
        gone.push(Step::DisableIpv6 { bridge: name.clone() });
    }
    if from.forwarding && !forwarding && host.forwarding {
        gone.extend(shared.to_take_back(is_for_ipv4).cloned().map(take_back));
    }
    if from.forwarding6 && !forwarding6 && host.forwarding6 {
        gone.extend(shared.to_take_back(is_for_ipv6).cloned().map(take_back));
    }
    (steps, gone)
}

/// What is other about the ports, and about how fast what they are on may be.
fn plan_ports(steps: &mut Vec<Step>, from: &Desired, to: &Desired, host: &HostState) {
    let found = |index: u32| host.shapes.get(&index).cloned().unwrap_or_default();
    let bridge = to.bridge().and_then(|name| host.link(name));
    if let Some(bridge) = bridge
        && from.shape != to.shape
        && found(bridge.index) != to.shape
    {
        steps.push(Step::ShapeBridge { bridge: bridge.name.clone(), shape: to.shape.clone() });
    }
    for wish in &to.ports {
        let Some(was) = from.ports.iter().find(|was| was.index == wish.index) else { continue };
        let Some(port) = host.links.iter().find(|link| link.index == wish.index) else { continue };
        let PortWish { index, place, shape } = wish;
        if was.shape != *shape && found(*index) != *shape {
            steps.push(Step::ShapePort { index: *index, shape: shape.clone() });
        }
        let Some(bridge) = bridge.filter(|bridge| port.master == Some(bridge.index)) else { continue };
        let place = in_full(&was.place, place, bridge, host);
        if was.place != wish.place && !plan::is_settled(port, &place, host) {
            steps.push(Step::SettlePort { index: *index, place });
            if let (Some(mac), None) = (was.place.pinned, wish.place.pinned) {
                steps.push(Step::Live(LiveStep::UnpinPort { index: *index, mac }));
            }
        }
    }
}

/// A port that was in VLANs of its own and is to be as the bridge has it is in the one that new ports are in.
fn in_full(was: &Place, place: &Place, bridge: &Link, host: &HostState) -> Place {
    let mut place = place.clone();
    if was.vlans.is_some() && place.vlans.is_none() {
        let new = host.default_vlans.get(&bridge.index).map(|&id| PortVlan { id, native: true, untagged: true });
        place.vlans = Some(new.into_iter().collect());
    }
    place
}

/// What of the bridge itself, and of the taps with it, is set.
fn settings(
    (from, was): (&Desired, &Bridge),
    (to, bridge): (&Desired, &Bridge),
    host: &HostState,
    link: &Link,
) -> Vec<Step> {
    let Bridge { name, mac, mtu, stp, delay } = bridge;
    let mut steps = Vec::new();
    let bridge = || name.clone();
    if was.mac != *mac && link.mac != Some(*mac) {
        let address = |mac: MacAddr| IpNet::from(Ipv6Net::new_assert(link_local(mac.0), 64));
        let ipv6 = (from.ipv6 && to.ipv6).then(|| LinkLocal { old: address(was.mac), new: address(*mac) });
        steps.push(LiveStep::SetMac { bridge: bridge(), mac: *mac, ipv6 });
    }
    let same_tree = match link.kind {
        LinkKind::Bridge { stp: false, .. } => !stp,
        LinkKind::Bridge { forward_delay, .. } => *stp && forward_delay == plan::kernel_delay(*delay),
        _ => false,
    };
    if (was.stp, was.delay) != (*stp, *delay) && !same_tree {
        steps.push(LiveStep::SetSpanningTree { bridge: bridge(), on: *stp, delay: *delay });
    }
    if was.mtu != *mtu {
        let mtu = mtu.unwrap_or(DEFAULT_MTU);
        let taps = ports_on(&to.ports, host, link)
            .filter(|port| port.mtu != mtu)
            .map(|port| LiveStep::SetPortMtu { index: port.index, mtu });
        let own = (link.mtu != mtu).then(|| LiveStep::SetMtu { bridge: bridge(), mtu });
        // Nobody may send what the next one cannot take: who gets more room gets it before the bridge uses it.
        if link.mtu < mtu {
            steps.extend(taps.chain(own));
        } else {
            steps.extend(own.into_iter().chain(taps));
        }
    }
    steps.into_iter().map(Step::Live).collect()
}

/// Of these taps those that are on the bridge.
fn ports_on<'a>(ports: &'a [PortWish], host: &'a HostState, bridge: &'a Link) -> impl Iterator<Item = &'a Link> {
    let on = move |port: &&Link| port.master == Some(bridge.index) && ports.iter().any(|wish| wish.index == port.index);
    host.links.iter().filter(on)
}

/// The kernel has one route of these two: what is looked up is the same.
fn same_place(a: &StaticRoute, b: &StaticRoute) -> bool {
    let metric = |route: &StaticRoute| route.metric.unwrap_or(route.usual_metric());
    (a.destination, metric(a)) == (b.destination, metric(b))
}

/// The plan back, from the network `to` that a change was on its way to, to the network `from` that it started at.
/// Of what the kernel does not show only what was `attempted` is taken back.
pub fn way_back(
    from: &Desired,
    to: &Desired,
    host: &HostState,
    attempted: &[Step],
    others: Others,
    forwards: Forwards<'_>,
) -> Vec<Step> {
    let tried = |is: fn(&Step) -> bool| attempted.iter().any(is);
    let shared = Shared::of(&plan::unwind(attempted), others);
    let swapped = Forwards { before: forwards.after, after: forwards.before };
    let mut steps = plan(to, from, host, &shared, Some(swapped));
    steps.retain(|step| match step {
        Step::Live(LiveStep::Reconfigure { .. }) => tried(|s| matches!(s, Step::Live(LiveStep::Reconfigure { .. }))),
        Step::Live(LiveStep::SetFirewall { .. }) => tried(|s| matches!(s, Step::Live(LiveStep::SetFirewall { .. }))),
        Step::GuardPorts { .. } => tried(|step| matches!(step, Step::GuardPorts { .. })),
        _ => true,
    });
    steps
}

/// How the network `to` is taken down one day, if `journal` is how `from` was, and these steps led from one to the other.
pub fn journal(journal: &[Undo], to: &Desired, steps: &[Step]) -> Vec<Undo> {
    let mut kept: Vec<Undo> = journal
        .iter()
        .filter(|undo| (to.forwarding || !is_for_ipv4(undo)) && (to.forwarding6 || !is_for_ipv6(undo)))
        .map(|undo| match undo {
            Undo::DeleteBridge { name, mac } => {
                let mac = if let Ground::Own(bridge) = &to.ground { bridge.mac } else { *mac };
                Undo::DeleteBridge { name: name.clone(), mac }
            }
            Undo::RemoveFirewall(_) => Undo::RemoveFirewall(to.firewall.clone()),
            // What goes with the bridge, or is named by what does not change.
            Undo::RemoveAddress { .. }
            | Undo::RemoveRoute { .. }
            | Undo::StopServices { .. }
            | Undo::RemoveTable
            | Undo::FreeBridge { .. }
            | Undo::DisableForwarding
            | Undo::DisableForwarding6
            | Undo::RestoreRouterAdvertisements { .. } => undo.clone(),
        })
        .collect();
    let unwound = plan::unwind(steps);
    let mut added = Shared::of(&unwound, Others::default()).undos;
    // A bridge of ours takes along what limits it.
    if matches!(to.ground, Ground::Host(_)) {
        added.extend(unwound.into_iter().filter(|undo| matches!(undo, Undo::FreeBridge { .. })));
    }
    added.retain(|undo| !kept.contains(undo));
    kept.splice(0..0, added);
    kept
}
