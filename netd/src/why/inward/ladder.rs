//! From what was seen of a flow to a guest to one finding per stage, in the order in which a packet meets them. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use nat::trace::{End, Protocol, TABLE, Verdict, Walk, place};

use super::{Arrival, Inward, InwardFacts};
use crate::{
    doctor::{self, Finding, Place, Wanted},
    observe::way::Way,
    why::{
        Facts, Question, Routing, Traced,
        ladder::{flow, guarded, link, lost, port, rule},
    },
};

/// Every stage that something is known of.
pub(crate) fn explain(question: &Inward, seen: &InwardFacts) -> Vec<Finding> {
    let (facts, source) = (&seen.facts, seen.source);
    let walks = Seen::new(question, source, seen.arrival == Arrival::Own, &facts.walks);
    let guest = question.guest(source);
    let mut ladder = Vec::new();
    if question.forwarded {
        ladder.push(
            Finding::pass("forward", format!("for a port forward of {} at {}", service(question), question.target))
                .noting(format!("it leads to {}", question.ends.iter().map(at).collect::<Vec<_>>().join(", "))),
        );
    }
    ladder.push(port(&guest, facts));
    if facts.port.is_none() {
        return ladder;
    }
    ladder.push(arrived(question, seen));
    if doctor::has_failure(&ladder) {
        return ladder;
    }
    ladder.push(entered(question, seen, &walks));
    ladder.extend(routed(question, facts, seen.arrival));
    ladder.extend(walks.there.iter().filter_map(rules(question, facts, seen.arrival, false)));
    ladder.extend(delivered(question, facts, &walks, &ladder));
    ladder.extend(answers(question, seen, &walks, &ladder));
    ladder
}

impl Inward {
    /// The flow as the guest would have it, for what both ways have in common.
    fn guest(&self, source: IpAddr) -> Question {
        let address = self.ends.first().map(|end| end.address);
        Question {
            port: self.port.clone(),
            bridge: self.bridge.clone(),
            isolated: false,
            source: address,
            known: address,
            target: source,
            protocol: self.protocol,
            peer: None,
            may_probe: self.may_probe,
            patience: self.patience,
        }
    }

    fn name(&self) -> &str {
        self.port.guest.as_deref().unwrap_or(&self.port.interface)
    }
}

/// The walks of the question and those of its answers.
pub(super) struct Seen<'a> {
    there: Vec<&'a Walk>,
    back: Vec<&'a Walk>,
    own: bool,
}

impl<'a> Seen<'a> {
    pub(super) fn new(question: &Inward, source: IpAddr, own: bool, walks: &'a [Walk]) -> Self {
        let mut answers = BTreeSet::new();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let from_guest = |walk: &Walk| question.ends.iter().any(|end| walk.packet.source == Some(end.address));
        for walk in walks {
            // The kernel may give the id of a packet that is gone to another one; the bridge gives one of its own.
            let begins = matches!(walk.place(), Some(place::CAME | place::SENT)) && walk.matched;
            if begins || (walk.packet.source == Some(source) && source != question.target) {
                answers.remove(&walk.id);
            }
            let answer = walk.matched && matches!(walk.place(), Some(place::PORT | place::ANSWER | place::ANSWERED));
            if answer || from_guest(walk) {
                answers.insert(walk.id);
            }
            if answers.contains(&walk.id) { back.push(walk) } else { there.push(walk) }
        }
        Seen { there, back, own }
    }

    fn dropped(&self) -> bool {
        self.there.iter().any(|walk| walk.verdict == Verdict::Drop)
    }

    /// The answer's last step: out of the host, or to the program that asked.
    fn answered(&self) -> Option<&'a Walk> {
        let last = if self.own { place::HOST } else { place::LEFT };
        self.back.iter().find(|walk| walk.place() == Some(last)).copied()
    }

    /// Whether the packet's fate is known.
    pub(super) fn has_ended(&self) -> bool {
        let dropped = |walks: &[&Walk]| walks.iter().any(|walk| walk.verdict == Verdict::Drop);
        dropped(&self.there) || dropped(&self.back) || self.answered().is_some()
    }
}

/// Where one end is, as it would be typed.
fn at(end: &End) -> String {
    match end.protocol {
        Protocol::Tcp(port) | Protocol::Udp(port) => SocketAddr::new(end.address, port).to_string(),
        Protocol::Icmp => end.address.to_string(),
    }
}

/// As `forward-add` takes it.
fn service(question: &Inward) -> String {
    match question.protocol {
        Protocol::Tcp(port) => format!("tcp/{port}"),
        Protocol::Udp(port) => format!("udp/{port}"),
        Protocol::Icmp => "echo requests".to_owned(),
    }
}

fn arrived(question: &Inward, seen: &InwardFacts) -> Finding {
    let title = format!("how packets of {} come to the host", seen.source);
    let facts = &seen.facts;
    match seen.arrival {
        Arrival::Own => Finding::pass("arrival", title).noting("it is this host"),
        Arrival::Link(index) if Some(index) == facts.bridge => Finding::fail(
            "arrival",
            title,
            format!(
                "not at all: it is an address of network '{}' that no guest is known to have, and what is on one network \
                 reaches each other without the host",
                question.port.network
            ),
            format!("netd net-dhcp-leases {}", question.port.network),
        ),
        Arrival::Link(index) => {
            Finding::pass("arrival", title).noting(format!("by {}, by which it is answered", link(facts, Some(index))))
        }
        Arrival::Nowhere(_) => Finding::fail(
            "arrival",
            title,
            "the host has no route there, so no answer would come back",
            format!("{} route get {}", if seen.source.is_ipv4() { "ip" } else { "ip -6" }, seen.source),
        ),
    }
}

/// Whose packet it is.
fn entered(question: &Inward, seen: &InwardFacts, walks: &Seen<'_>) -> Finding {
    let facts = &seen.facts;
    let title = format!("for {} to {}", flow(question.protocol), question.target);
    let unsent = facts.no_probe.as_ref().map(|why| format!("no probe was sent: {why}; ")).unwrap_or_default();
    match facts.traced {
        Traced::Probe if !walks.there.is_empty() => Finding::pass("packet", title).noting(match seen.arrival {
            Arrival::Link(index) => {
                format!("a probe as if from {}, taken in by {}", seen.source, link(facts, Some(index)))
            }
            Arrival::Own | Arrival::Nowhere(_) => format!("a probe of this host's, from {}", seen.source),
        }),
        Traced::Probe => Finding::fail(
            "packet",
            title,
            "a probe was sent and did not get to the first rule",
            "nstat -az | grep -i discard; tc filter show dev LINK ingress",
        ),
        Traced::Guest | Traced::Passing => {
            Finding::pass("packet", title).noting(format!("{unsent}a packet of somebody's was traced"))
        }
        Traced::Nothing => Finding::warn(
            "packet",
            title,
            format!("{unsent}none came within {} s", question.patience),
            format!("netd why {} {} --wait 60", question.source, question.name()),
        ),
    }
}

/// What the kernel's routing says of the way from the host to the guest.
fn routed(question: &Inward, facts: &Facts, arrival: Arrival) -> Vec<Finding> {
    let Some(Routing { way, forwarding, .. }) = &facts.routing else { return Vec::new() };
    let mut ladder = Vec::new();
    let guest = question.ends.first().map_or(question.target, |end| end.address);
    let v4 = guest.is_ipv4();
    if arrival != Arrival::Own {
        let title = format!("for {} forwarding", if v4 { "IPv4" } else { "IPv6" });
        ladder.push(if *forwarding {
            Finding::pass("forwarding", title)
        } else {
            let sysctl = if v4 { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
            let says = "off: the host routes nothing to its guests";
            Finding::fail("forwarding", title, says, format!("sudo sysctl -w {sysctl}=1"))
        });
    }
    let title = format!("for a route to {guest}");
    let bridge = question.bridge.as_deref().unwrap_or_default();
    let show = format!("{} route get {guest}", if v4 { "ip" } else { "ip -6" });
    match way {
        Way::Via { link: index, .. } if Some(*index) == facts.bridge => {
            ladder.push(Finding::pass("route", title).noting(format!("dev {bridge}")));
        }
        Way::Via { link: index, .. } => {
            let says = format!("the host's way there is {} and not {bridge}", link(facts, Some(*index)));
            ladder.push(Finding::fail("route", title, says, show));
        }
        Way::Local => ladder.push(Finding::fail("route", title, "the host has the guest's address itself", show)),
        Way::Nowhere(_) if !forwarding => {}
        Way::Nowhere(_) => {
            ladder.push(Finding::fail("route", title, format!("there is none by {bridge}"), show));
        }
    }
    ladder
}

/// The finding of one base chain of anybody's but the trace itself.
fn rules<'a>(
    question: &'a Inward,
    facts: &'a Facts,
    arrival: Arrival,
    back: bool,
) -> impl FnMut(&&'a Walk) -> Option<Finding> {
    let mut told = BTreeSet::new();
    move |walk| {
        // A drop is told of each rule once: what is asked in vain is asked again.
        let dropped = (walk.verdict == Verdict::Drop).then(|| (walk.chain.clone(), walk.rule));
        if walk.table == TABLE || !told.insert((walk.family, walk.table.clone(), walk.base.clone(), dropped)) {
            return None;
        }
        let what = if back { "the answer" } else { "it" };
        let title = format!("if table {} {} chain {} lets {what} through", walk.family, walk.table, walk.base);
        match walk.verdict {
            Verdict::Drop => Some(stopped(question, facts, walk, title, (arrival, back))),
            Verdict::Taken => Some(Finding::warn(
                "rules",
                title,
                format!("{} hands it to another program, which decides", rule(facts, walk)),
                format!("sudo nft -a list chain {} {} {}", walk.family, walk.table, walk.chain),
            )),
            Verdict::Accept | Verdict::Onward => Some(Finding::pass("rules", title)),
        }
    }
}

fn stopped(question: &Inward, facts: &Facts, walk: &Walk, title: String, (arrival, back): (Arrival, bool)) -> Finding {
    let by = rule(facts, walk);
    let (network, name) = (&question.port.network, question.name());
    if walk.table == nat::TABLE && walk.family == "bridge" {
        let guest = question.guest(question.source);
        return guarded(&guest, walk, format!("if the guards of {} let the answer through", guest.port.interface));
    }
    if walk.table == nat::TABLE {
        let says = format!("netd's own {by}: by its forward mode network '{network}' lets in no connection from there");
        let mend = match question.protocol {
            Protocol::Tcp(port) => format!("netd forward-add {network} tcp/{port} {name}:{port}"),
            Protocol::Udp(port) => format!("netd forward-add {network} udp/{port} {name}:{port}"),
            Protocol::Icmp => format!("netd net-dumpxml {network}"),
        };
        return Finding::fail("rules", title, says, mend);
    }
    let service = question.ends.first().and_then(|end| match end.protocol {
        Protocol::Tcp(port) => Some(("tcp", port)),
        Protocol::Udp(port) => Some(("udp", port)),
        Protocol::Icmp => None,
    });
    let wanted = match (arrival, back) {
        (_, false) => Wanted::In(service),
        (Arrival::Own, true) => Wanted::Host(None),
        (_, true) => Wanted::Out,
    };
    let at = Place { family: walk.family, table: &walk.table, chain: &walk.base };
    let bridge = question.bridge.as_deref().unwrap_or_default();
    let (whose, mend) = facts.rules.as_ref().map_or((None, None), |rules| doctor::passage(rules, at, wanted, bridge));
    let whose = whose.map(|whose| format!(" ({whose})")).unwrap_or_default();
    let show = || format!("sudo nft -a list chain {} {} {}", walk.family, walk.table, walk.chain);
    let what = if back { "the answer" } else { "it" };
    Finding::fail("rules", title, format!("{by}{whose} drops {what}"), mend.unwrap_or_else(show))
}

/// Whether it got to the guest.
fn delivered(question: &Inward, facts: &Facts, walks: &Seen<'_>, so_far: &[Finding]) -> Vec<Finding> {
    let interfaces: Vec<&str> = question.ends.iter().map(|end| end.interface.as_str()).collect();
    let title = format!("if it gets to {} of {}", interfaces.join(" or "), question.name());
    let out_by = |walk: &Walk| walk.packet.output.and_then(|index| facts.links.get(&index)).map(String::as_str);
    let here = |walk: &&&Walk| walk.place() == Some(place::DELIVERED);
    if let Some(walk) = walks.there.iter().find(here) {
        let by = out_by(walk).unwrap_or_default();
        let as_what = match (walk.packet.source, walk.packet.target) {
            (Some(source), Some(target)) => format!("by {by}, from {source} to {target}"),
            _ => format!("by {by}"),
        };
        return if interfaces.contains(&by) {
            vec![Finding::pass("delivered", title).noting(as_what)]
        } else {
            let says = format!("the bridge sends it {as_what}: it knows the guest's MAC there");
            vec![Finding::fail("delivered", title, says, format!("bridge fdb show | grep -i {}", question.port.mac))]
        };
    }
    if walks.there.is_empty() || walks.dropped() || doctor::has_failure(so_far) {
        return Vec::new();
    }
    if let Some(hop) = facts.silent_hop {
        let bridge = question.bridge.as_deref().unwrap_or_default();
        return vec![Finding::fail(
            "next-hop",
            format!("if {hop} answers on {bridge}"),
            "nobody there says that it has the address: the guest's network is down, or it has another one".to_owned(),
            format!("ip neighbour show dev {bridge}"),
        )];
    }
    if walks.there.iter().any(|walk| walk.place() == Some(place::HOST)) {
        let says = "it stays with the host: no rule of a port forward took it".to_owned();
        return vec![Finding::fail("delivered", title, says, "netd forward-list".to_owned())];
    }
    let last = walks.there.last().map(|walk| format!("table {} {} chain {}", walk.family, walk.table, walk.base));
    let (says, mend) = lost(facts, &last.unwrap_or_default());
    vec![Finding::fail("delivered", title, says, mend)]
}

/// What became of the answers.
fn answers(question: &Inward, seen: &InwardFacts, walks: &Seen<'_>, so_far: &[Finding]) -> Vec<Finding> {
    let facts = &seen.facts;
    let mut ladder: Vec<Finding> = walks
        .back
        .iter()
        .filter(|walk| walk.verdict == Verdict::Drop)
        .filter_map(rules(question, facts, seen.arrival, true))
        .collect();
    // What stopped the question says so to whoever asked.
    if walks.there.is_empty() || walks.dropped() || doctor::has_failure(so_far) {
        return ladder;
    }
    let title = format!("for an answer of {}", question.name());
    // Errors: RFC 792; RFC 4443 §3.
    let is_error = |kind: u8| if seen.source.is_ipv4() { matches!(kind, 3 | 11 | 12) } else { (1..=4).contains(&kind) };
    let error = walks.back.iter().find_map(|walk| {
        let (kind, code) = walk.packet.icmp.filter(|(kind, _)| is_error(*kind))?;
        Some((walk.packet.source, kind, code))
    });
    if let Some((from, kind, code)) = error {
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        ladder.push(Finding::fail(
            "answer",
            title,
            format!("{from} says that it cannot be delivered (ICMP type {kind}, code {code})"),
            format!("netd capture {} -w -", question.name()),
        ));
    } else if let Some(walk) = walks.answered() {
        let finding = Finding::pass("answer", title);
        let refused = walk.packet.reset || walks.back.iter().any(|walk| walk.packet.reset);
        ladder.push(if refused {
            finding.noting(format!("{} refuses the connection: nothing listens on that port there", question.name()))
        } else {
            finding
        });
    } else if ladder.is_empty() {
        let says = match question.protocol {
            Protocol::Udp(_) => "none came; few services answer an empty datagram, and what this host does is right",
            _ => "none came: what this host does is right, and the guest, or a firewall in it, is silent",
        };
        ladder.push(Finding::warn("answer", title, says, format!("netd capture {} -w -", question.name())));
    }
    ladder
}
