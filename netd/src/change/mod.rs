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
    plan::{self, Bridge, Desired, Others, StaticRoute, Step, Undo},
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
    // Every field, so that a new one is thought of here too.
    let Desired {
        bridge,
        addresses,
        ipv6,
        routes,
        forwarding,
        forwarding6,
        route_localnet,
        firewall,
        services,
        ports,
        isolated,
        sources,
    } = to;
    let name = &bridge.name;
    let Some(link) = host.link(name) else { return Vec::new() };
    let mut steps = settings(from, to, host, link);

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
    for port in ports_on(ports, host, link) {
        if from.isolated != *isolated && port.isolated != *isolated {
            steps.push(Step::IsolatePort { index: port.index, isolated: *isolated });
        }
    }

    let take_back = |undo| Step::Live(LiveStep::TakeBack(undo));
    for route in &from.routes {
        let stays = routes.iter().any(|new| same_place(route, new));
        if !stays && plan::has_route(host, Some(link), route) {
            steps.push(take_back(Undo::RemoveRoute { bridge: name.clone(), route: route.clone() }));
        }
    }
    for &address in from.addresses.iter().filter(|address| !addresses.contains(address) && present.contains(address)) {
        steps.push(take_back(Undo::RemoveAddress { bridge: name.clone(), address }));
    }
    if from.ipv6 != *ipv6 && !ipv6 && !link.ipv6_disabled {
        steps.push(Step::DisableIpv6 { bridge: name.clone() });
    }
    if from.forwarding && !forwarding && host.forwarding {
        steps.extend(shared.to_take_back(is_for_ipv4).cloned().map(take_back));
    }
    if from.forwarding6 && !forwarding6 && host.forwarding6 {
        steps.extend(shared.to_take_back(is_for_ipv6).cloned().map(take_back));
    }
    steps
}

/// What of the bridge itself, and of the taps with it, is set.
fn settings(from: &Desired, to: &Desired, host: &HostState, link: &Link) -> Vec<Step> {
    let Bridge { name, mac, mtu, stp, delay } = &to.bridge;
    let mut steps = Vec::new();
    let bridge = || name.clone();
    if from.bridge.mac != *mac && link.mac != Some(*mac) {
        let address = |mac: MacAddr| IpNet::from(Ipv6Net::new_assert(link_local(mac.0), 64));
        let ipv6 = (from.ipv6 && to.ipv6).then(|| LinkLocal { old: address(from.bridge.mac), new: address(*mac) });
        steps.push(LiveStep::SetMac { bridge: bridge(), mac: *mac, ipv6 });
    }
    let tree = LinkKind::Bridge { stp: *stp, forward_delay: plan::kernel_delay(*delay) };
    let same_tree = match link.kind {
        LinkKind::Bridge { stp: false, .. } => !stp,
        kind => kind == tree,
    };
    if (from.bridge.stp, from.bridge.delay) != (*stp, *delay) && !same_tree {
        steps.push(LiveStep::SetSpanningTree { bridge: bridge(), on: *stp, delay: *delay });
    }
    if from.bridge.mtu != *mtu {
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
fn ports_on<'a>(ports: &'a [u32], host: &'a HostState, bridge: &'a Link) -> impl Iterator<Item = &'a Link> {
    let on = move |port: &&Link| ports.contains(&port.index) && port.master == Some(bridge.index);
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
            Undo::DeleteBridge { name, mac: _ } => Undo::DeleteBridge { name: name.clone(), mac: to.bridge.mac },
            Undo::RemoveFirewall(_) => Undo::RemoveFirewall(to.firewall.clone()),
            // What goes with the bridge, or is named by what does not change.
            Undo::RemoveAddress { .. }
            | Undo::RemoveRoute { .. }
            | Undo::StopServices { .. }
            | Undo::RemoveTable
            | Undo::DisableForwarding
            | Undo::DisableForwarding6
            | Undo::RestoreRouterAdvertisements { .. } => undo.clone(),
        })
        .collect();
    let mut added = Shared::of(&plan::unwind(steps), Others::default()).undos;
    added.retain(|undo| !kept.contains(undo));
    kept.splice(0..0, added);
    kept
}
