//! From what was seen to one finding per stage, in the order in which a packet meets them. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use nat::trace::{Protocol, TABLE, Verdict, Walk, place, rule_text};

use super::{Facts, Question, Routing, Traced};
use crate::{
    doctor::{self, Finding, Place, Wanted},
    observe::way::{self, Way},
};

/// Every stage that something is known of.
pub(crate) fn explain(question: &Question, facts: &Facts) -> Vec<Finding> {
    let seen = Seen::new(question, facts);
    let mut ladder = vec![port(question, facts), address(question)];
    if let Some(peer) = &question.peer
        && peer.isolated
        && question.isolated
    {
        ladder.push(Finding::fail(
            "isolated",
            format!("if {} may talk to {}", question.port.interface, peer.interface),
            "both ports are isolated: they reach the host and what is behind it, but not each other",
            format!("netd net-edit {}", question.port.network),
        ));
    }
    if facts.port.is_none() {
        return ladder;
    }
    ladder.push(entered(question, facts, &seen));
    ladder.extend(on_the_bridge(question, facts, &seen));
    if question.peer.is_none()
        && let Some(routing) = &facts.routing
    {
        ladder.extend(routed(question, facts, routing));
    }
    ladder.extend(seen.there.iter().filter(|walk| walk.family != "bridge").filter_map(rules(question, facts, false)));
    ladder.extend(left(question, facts, &seen, &ladder));
    ladder.extend(answers(question, facts, &seen, &ladder));
    ladder
}

/// The walks of the question and those of its answers.
struct Seen<'a> {
    there: Vec<&'a Walk>,
    back: Vec<&'a Walk>,
}

impl<'a> Seen<'a> {
    fn new(question: &Question, facts: &'a Facts) -> Self {
        let mut answers = BTreeSet::new();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for walk in &facts.walks {
            if walk.matched && matches!(walk.place(), Some(place::ANSWER | place::ANSWERED)) {
                answers.insert(walk.id);
            }
            // The kernel may give the id of a packet that is gone to another one; the bridge gives one of its own.
            let from_guest = walk.place() == Some(place::PORT) || walk.packet.input == Some(question.port.index);
            if from_guest {
                answers.remove(&walk.id);
            }
            let is_back = answers.contains(&walk.id) || walk.packet.output == Some(question.port.index);
            if is_back { back.push(walk) } else { there.push(walk) }
        }
        Seen { there, back }
    }

    fn has(&self, place: &str) -> bool {
        self.there.iter().any(|walk| walk.place() == Some(place))
    }

    fn dropped(&self) -> bool {
        self.there.iter().any(|walk| walk.verdict == Verdict::Drop)
    }
}

/// Whether this is an answer on its last step, out by the tap with this index.
pub(super) fn is_delivered(walk: &Walk, port: u32) -> bool {
    walk.place() == Some(place::DELIVERED) && walk.packet.output == Some(port)
}

pub(super) fn link(facts: &Facts, index: Option<u32>) -> &str {
    index.and_then(|index| facts.links.get(&index)).map_or("another link", String::as_str)
}

pub(super) fn port(question: &Question, facts: &Facts) -> Finding {
    let interface = &question.port.interface;
    let (check, network) = ("port", &question.port.network);
    let title = match &question.bridge {
        Some(bridge) => format!("if {}'s port {interface} forwards on {bridge}", question.guest()),
        None => format!("if {}'s port {interface} is on a network", question.guest()),
    };
    let fail = |says: String, mend: String| Finding::fail(check, title.clone(), says, mend);
    let Some(bridge) = &question.bridge else {
        return fail(format!("network '{network}' is not active"), format!("netd net-start {network}"));
    };
    let Some(port) = &facts.port else {
        return fail(format!("there is no {interface} any more: the guest has ended"), "netd port-list".to_owned());
    };
    if facts.bridge.is_none() {
        return fail(
            format!("there is no {bridge}"),
            format!("netd net-destroy {network} && netd net-start {network}"),
        );
    }
    if !port.up {
        return fail(format!("{interface} is set down"), format!("sudo ip link set {interface} up"));
    }
    if port.master != facts.bridge {
        let says = match port.master {
            Some(other) => format!("it is on {}", link(facts, Some(other))),
            None => "it is on no bridge".to_owned(),
        };
        return fail(says, format!("sudo ip link set {interface} master {bridge}"));
    }
    if !port.carrier {
        return fail("nobody reads from it: the guest's NIC is down or unplugged".to_owned(), "netd port-list".into());
    }
    if !port.forwarding {
        let says = "the bridge holds it back: spanning tree is on and has not decided yet, or it blocks the port";
        return fail(says.to_owned(), format!("bridge -d link show dev {interface}"));
    }
    Finding::pass(check, title)
}

fn address(question: &Question) -> Finding {
    let title = format!("for an address of {}", question.guest());
    match question.source {
        Some(source) => Finding::pass("address", title).noting(source.to_string()),
        None => Finding::warn(
            "address",
            title,
            "no lease and no neighbour entry: it has not asked for an address, or nobody has heard of it; --from says \
             which to assume",
            format!("netd net-dhcp-leases {}", question.port.network),
        ),
    }
}

/// Whose packet it is, and that it came in.
fn entered(question: &Question, facts: &Facts, seen: &Seen<'_>) -> Finding {
    let (check, interface) = ("packet", &question.port.interface);
    let title = format!("for {} to {}", flow(question.protocol), question.target);
    let unsent = facts.no_probe.as_ref().map(|why| format!("no probe was sent: {why}; ")).unwrap_or_default();
    let entered = !seen.there.is_empty();
    match facts.traced {
        Traced::Probe if entered => {
            let from =
                seen.there.first().and_then(|walk| walk.packet.ports).map(|(from, _)| format!(" from port {from}"));
            Finding::pass(check, title)
                .noting(format!("a probe in the guest's name, sent by its {interface}{}", from.unwrap_or_default()))
        }
        Traced::Probe => Finding::fail(
            check,
            title,
            format!("a probe was sent by {interface} and did not get to the first rule"),
            format!("bridge -d link show dev {interface}; tc filter show dev {interface} ingress"),
        ),
        Traced::Guest | Traced::Passing => {
            Finding::pass(check, title).noting(format!("{unsent}the guest's own packet was traced"))
        }
        Traced::Nothing => Finding::warn(
            check,
            title,
            format!("{unsent}the guest sent none within {} s", question.patience),
            format!("netd why {} {} --wait 60", question.guest(), target(question)),
        ),
    }
}

pub(super) fn flow(protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp(port) => format!("TCP to port {port}"),
        Protocol::Udp(port) => format!("UDP to port {port}"),
        Protocol::Icmp => "an echo request".to_owned(),
    }
}

/// The target as it is typed.
fn target(question: &Question) -> String {
    let with_port = |port: u16, protocol: &str| match question.target {
        IpAddr::V4(address) => format!("{address}:{port}{protocol}"),
        IpAddr::V6(address) => format!("[{address}]:{port}{protocol}"),
    };
    match question.protocol {
        Protocol::Tcp(port) => with_port(port, ""),
        Protocol::Udp(port) => with_port(port, "/udp"),
        Protocol::Icmp => question.target.to_string(),
    }
}

/// The guards, other rules for frames, and the way to another port.
fn on_the_bridge(question: &Question, facts: &Facts, seen: &Seen<'_>) -> Vec<Finding> {
    let mut ladder = Vec::new();
    let interface = &question.port.interface;
    let title = format!("if the guards of {interface} let it through");
    let guard = seen.there.iter().find(|walk| walk.family == "bridge" && walk.table == nat::TABLE);
    match guard {
        Some(walk) if walk.verdict == Verdict::Drop => ladder.push(guarded(question, walk, title)),
        _ if !question.port.guards && seen.has(place::PORT) => {
            ladder.push(Finding::pass("guards", title).noting("the port has none"));
        }
        Some(_) if seen.has(place::CHECKED) => ladder.push(Finding::pass("guards", title)),
        _ => {}
    }
    let others = |walk: &&&Walk| walk.family == "bridge" && walk.table != nat::TABLE;
    ladder.extend(seen.there.iter().filter(others).filter_map(rules(question, facts, false)));
    match (&question.peer, &facts.routing) {
        (Some(peer), _) => {
            let title = format!("if it is bridged to {}", peer.interface);
            if seen.has(place::BRIDGED) {
                ladder.push(Finding::pass("bridged", title));
            } else if seen.has(place::CHECKED) && !seen.dropped() {
                ladder.push(Finding::fail(
                    "bridged",
                    title,
                    "the bridge did not send it on: the ports are isolated from each other, or the bridge knows the MAC \
                     elsewhere",
                    format!("bridge fdb get {} br {}", peer.mac, question.bridge.as_deref().unwrap_or_default()),
                ));
            }
        }
        (None, Some(Routing { way: Way::Via { link, gateway: None }, .. }))
            if Some(*link) == facts.bridge && !way::is_for_many(question.target) =>
        {
            ladder.push(Finding::fail(
                "bridged",
                format!("for somebody at {} on network '{}'", question.target, question.port.network),
                "no port of the network is known to have the address",
                format!("netd net-dhcp-leases {}", question.port.network),
            ));
        }
        _ => {}
    }
    ladder
}

pub(super) fn guarded(question: &Question, walk: &Walk, title: String) -> Finding {
    let said = |address: Option<IpAddr>| address.map_or_else(|| "another".to_owned(), |address| address.to_string());
    let own = match question.known {
        Some(known) => format!("; its own is {known}"),
        None => "; it has none by DHCP".to_owned(),
    };
    let says = match walk.chain.as_str() {
        "bad_mac" => format!("they drop it: it is not sent from the port's MAC {}", question.port.mac),
        "bad_vlan" => "they drop it: it has a VLAN tag".to_owned(),
        "bad_ip" => {
            format!("they drop it: {} is not an address of the guest{own}", said(walk.packet.source))
        }
        "bad_dhcp" => "they drop it: only a DHCP server sends such".to_owned(),
        "bad_ra" => "they drop it: only a router sends such".to_owned(),
        other => format!("they drop it in chain {other}"),
    };
    Finding::fail(
        "guards",
        title,
        says,
        format!(
            "netd port-info {}: give the guest its address by DHCP, or add its port without guards",
            question.guest()
        ),
    )
}

/// What the kernel's routing says, whether or not a packet got there.
fn routed(question: &Question, facts: &Facts, routing: &Routing) -> Vec<Finding> {
    let bridge = question.bridge.as_deref().unwrap_or_default();
    let v4 = question.target.is_ipv4();
    let mut ladder = Vec::new();
    if routing.way != Way::Local {
        let title = format!("for {} forwarding", if v4 { "IPv4" } else { "IPv6" });
        ladder.push(if routing.forwarding {
            Finding::pass("forwarding", title)
        } else {
            let sysctl = if v4 { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
            Finding::fail(
                "forwarding",
                title,
                "off: the host routes nothing for its guests",
                format!("sudo sysctl -w {sysctl}=1"),
            )
        });
    }
    let not_believed = matches!(routing.way, Way::Nowhere(libc::EXDEV | libc::EINVAL))
        && routing.rp_filter != 0
        && routing.back.is_some()
        && routing.back != facts.bridge;
    if not_believed || (v4 && routing.rp_filter != 0) {
        let title =
            format!("if {bridge} may come from {}", question.source.map_or("there".to_owned(), |s| s.to_string()));
        ladder.push(if not_believed {
            Finding::fail(
                "reverse-path",
                title,
                format!(
                    "reverse path filtering (rp_filter={}) drops it: the host's way there is {}",
                    routing.rp_filter,
                    link(facts, routing.back)
                ),
                format!("sudo sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{bridge}.rp_filter=0"),
            )
        } else {
            Finding::pass("reverse-path", title)
        });
    }
    let title = format!("for a route to {}", question.target);
    match &routing.way {
        Way::Local => ladder.push(Finding::pass("route", title).noting("it is this host")),
        Way::Via { link: index, gateway } => {
            let by = link(facts, Some(*index));
            let via = gateway.map(|gateway| format!("via {gateway} ")).unwrap_or_default();
            ladder.push(Finding::pass("route", title).noting(format!("{via}dev {by}")));
        }
        Way::Nowhere(_) if not_believed => {}
        // Without forwarding the kernel answers as if nobody could be reached.
        Way::Nowhere(libc::EHOSTUNREACH) if !routing.forwarding => {}
        Way::Nowhere(errno) => {
            let says = match *errno {
                libc::ENETUNREACH => "there is none: the host itself cannot get there",
                libc::EHOSTUNREACH => "a route says that it is unreachable",
                libc::EACCES => "a route or a rule prohibits it",
                _ => "the kernel would drop the packet: a blackhole route, or an address that cannot be",
            };
            let by = if v4 { "ip" } else { "ip -6" };
            ladder.push(Finding::fail("route", title, says, format!("{by} route get {}", question.target)));
        }
    }
    ladder
}

/// The finding of one base chain of anybody's but the trace itself.
fn rules<'a>(question: &'a Question, facts: &'a Facts, back: bool) -> impl FnMut(&&'a Walk) -> Option<Finding> {
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
            Verdict::Drop => Some(stopped(question, facts, walk, title, back)),
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

/// A rule in `nft`'s words, or the policy; and the chain, if it is not the base chain.
pub(super) fn rule(facts: &Facts, walk: &Walk) -> String {
    let chain = if walk.chain == walk.base { String::new() } else { format!(" in chain {}", walk.chain) };
    let Some(handle) = walk.rule else { return format!("policy drop{chain}") };
    let listing = facts.listings.get(&(walk.family.to_owned(), walk.table.clone()));
    match listing.and_then(|listing| rule_text(listing, handle)) {
        Some(text) => format!("rule '{text}'{chain}"),
        None => format!("the rule with handle {handle}{chain}"),
    }
}

fn stopped(question: &Question, facts: &Facts, walk: &Walk, title: String, back: bool) -> Finding {
    let by = rule(facts, walk);
    let bridge = question.bridge.as_deref().unwrap_or_default();
    if walk.table == nat::TABLE {
        let network = &question.port.network;
        return Finding::fail(
            "rules",
            title,
            format!("netd's own {by}: network '{network}' or the one it goes to does not allow it by its forward mode"),
            format!("netd net-dumpxml {network}"),
        );
    }
    let to_host = facts.routing.as_ref().is_some_and(|routing| routing.way == Way::Local);
    let wanted = if question.peer.is_some() {
        Wanted::Peers
    } else if back {
        Wanted::Back
    } else if to_host {
        Wanted::Host(match question.protocol {
            Protocol::Tcp(port) => Some(("tcp", port)),
            Protocol::Udp(port) => Some(("udp", port)),
            Protocol::Icmp => None,
        })
    } else {
        Wanted::Out
    };
    let at = Place { family: walk.family, table: &walk.table, chain: &walk.base };
    let (whose, mend) = facts.rules.as_ref().map_or((None, None), |rules| doctor::passage(rules, at, wanted, bridge));
    let whose = whose.map(|whose| format!(" ({whose})")).unwrap_or_default();
    let show = || format!("sudo nft -a list chain {} {} {}", walk.family, walk.table, walk.chain);
    Finding::fail(
        "rules",
        title,
        format!("{by}{whose} drops {}", if back { "the answer" } else { "it" }),
        mend.unwrap_or_else(show),
    )
}

/// How it left the host, or got to it; or that it is lost.
fn left(question: &Question, facts: &Facts, seen: &Seen<'_>, so_far: &[Finding]) -> Vec<Finding> {
    let mut ladder = Vec::new();
    let stopped = seen.dropped() || doctor::has_failure(so_far);
    if let Some(walk) = seen.there.iter().find(|walk| walk.place() == Some(place::LEFT)) {
        let by = link(facts, walk.packet.output);
        let from = walk.packet.source.map(|source| format!("from {source}")).unwrap_or_default();
        ladder.push(Finding::pass("left", format!("if it leaves by {by}")).noting(from));
        if let Some(hop) = facts.silent_hop {
            ladder.push(Finding::fail(
                "next-hop",
                format!("if the next hop {hop} answers"),
                format!("nobody at {hop} answers on {by}"),
                format!("ip neighbour show dev {by}"),
            ));
        }
    } else if seen.has(place::HOST) {
        ladder.push(Finding::pass("host", "if it gets to the host itself"));
    } else if !stopped && question.peer.is_none() && seen.has(place::CHECKED) {
        let last = seen.there.last().map(|walk| format!("table {} {} chain {}", walk.family, walk.table, walk.base));
        let (says, mend) = lost(facts, &last.unwrap_or_default());
        ladder.push(Finding::fail("left", "if it leaves the host", says, mend));
    }
    ladder
}

/// What is said of a packet that was last seen there and that no rule of nftables drops.
pub(super) fn lost(facts: &Facts, last: &str) -> (String, String) {
    let seen = format!("it was last seen in {last}, and no rule of nftables drops it");
    if let [by, ..] = facts.legacy_drops.as_slice() {
        let mend = if by.contains("ip6tables") { "sudo ip6tables-legacy-save -c" } else { "sudo netd doctor" };
        return (format!("{seen}; {by} dropped a packet meanwhile"), mend.to_owned());
    }
    match facts.legacy.as_slice() {
        [] => (seen, "nstat -az | grep -i discard".to_owned()),
        tables => (
            format!("{seen}; legacy iptables, which no trace shows, has rules in {}", tables.join(", ")),
            "sudo netd doctor".to_owned(),
        ),
    }
}

/// What became of the answers.
fn answers(question: &Question, facts: &Facts, seen: &Seen<'_>, so_far: &[Finding]) -> Vec<Finding> {
    let mut ladder: Vec<Finding> = seen
        .back
        .iter()
        .filter(|walk| walk.verdict == Verdict::Drop)
        .filter_map(rules(question, facts, true))
        .collect();
    let title = format!("for an answer to {}", question.guest());
    let delivered = seen.back.iter().find(|walk| is_delivered(walk, question.port.index));
    // Errors (RFC 792; RFC 4443 §3), not redirects: those come where all is well.
    let is_error =
        |kind: u8| if question.target.is_ipv4() { matches!(kind, 3 | 11 | 12) } else { (1..=4).contains(&kind) };
    let error = seen.back.iter().find_map(|walk| {
        let (kind, code) = walk.packet.icmp.filter(|(kind, _)| is_error(*kind))?;
        Some((walk.packet.source, kind, code))
    });
    // What stopped the question says so to the guest.
    if seen.dropped() || doctor::has_failure(so_far) {
        return ladder;
    }
    if let Some((from, kind, code)) = error {
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        ladder.push(Finding::fail(
            "answer",
            title,
            format!("{from} says that it cannot be delivered (ICMP type {kind}, code {code})"),
            format!("traceroute -n {}", question.target),
        ));
    } else if let Some(walk) = delivered {
        let finding = Finding::pass("answer", title);
        ladder.push(if walk.packet.reset {
            finding.noting(format!("{} refuses the connection: nothing listens on that port there", question.target))
        } else {
            finding
        });
    } else if ladder.is_empty() && facts.traced != Traced::Nothing {
        let says = match question.protocol {
            Protocol::Udp(_) => "none came; few services answer an empty datagram, and what this host does is right",
            _ => "none came: what this host does is right, and whoever is behind it is silent",
        };
        ladder.push(Finding::warn("answer", title, says, format!("traceroute -n {}", question.target)));
    }
    ladder
}
