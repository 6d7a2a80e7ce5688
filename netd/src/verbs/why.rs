//! What becomes of one flow of a guest or to one: from the registry a question, from the host what was seen, the ladder.

use std::net::IpAddr;

use nat::trace::{End, Protocol};
use netd_api::{Explanation, Flow, Stage, StageVerdict, calls::Explain};

use super::{Host, VerbError, Verbs};
use crate::{
    doctor::{Finding, Verdict},
    model::ForwardError,
    plan,
    port::Port,
    registry::{Refusal, ports::seen},
    why::{
        self, Peer, Question, Traced,
        inward::{self, Inward},
    },
};

/// The longest a caller may wait for somebody's own packet, in seconds.
const MOST_PATIENCE: i64 = 600;

/// Every port, and every address known of one, by interface, what leases say first.
struct Known {
    ports: Vec<Port>,
    addresses: Vec<(String, IpAddr)>,
}

impl Known {
    fn port_at(&self, address: IpAddr) -> Option<&Port> {
        let (interface, _) = self.addresses.iter().find(|(_, known)| *known == address)?;
        self.ports.iter().find(|port| port.interface == *interface)
    }

    /// The addresses of these ports.
    fn of<'a>(&'a self, ports: &'a [&Port]) -> impl Iterator<Item = (&'a str, IpAddr)> {
        let is_theirs = |(on, _): &&(String, IpAddr)| ports.iter().any(|port| port.interface == *on);
        self.addresses.iter().filter(is_theirs).map(|(on, address)| (on.as_str(), *address))
    }
}

impl<H: Host> Verbs<H> {
    /// Follows one flow and says what stops it. Nothing of the host changes but for as long as it takes.
    pub async fn explain(&self, request: &Explain) -> Result<Explanation, VerbError> {
        if !(0..=MOST_PATIENCE).contains(&request.seconds) {
            return Err(argument("seconds", &request.seconds.to_string(), &format!("0 to {MOST_PATIENCE}")).into());
        }
        let flow = &request.flow;
        let known = self.known().await?;
        let sender: Option<IpAddr> = flow.sender.parse().ok();
        if let Some(sender) = sender
            && let Some(source) = &flow.source
        {
            return Err(argument("source", source, &format!("none: {sender} says it already")).into());
        }
        let (interface, traced, stages) = match sender.filter(|sender| known.port_at(*sender).is_none()) {
            Some(outsider) => {
                let question = self.inward(request, outsider, &known)?;
                let seen = self.host.follow_inward(&question).await?;
                (question.port.interface.clone(), seen.facts.traced.clone(), inward::explain(&question, &seen))
            }
            None => {
                let question = self.outward(request, sender, &known)?;
                let facts = self.host.follow(&question).await?;
                (question.port.interface.clone(), facts.traced.clone(), why::explain(&question, &facts))
            }
        };
        let traced = match traced {
            Traced::Probe => netd_api::Traced::Probe,
            Traced::Guest => netd_api::Traced::Guest,
            Traced::Passing => netd_api::Traced::Passing,
            Traced::Nothing => netd_api::Traced::Nothing,
        };
        Ok(Explanation { interface, traced, stages: stages.into_iter().map(stage).collect() })
    }

    async fn known(&self) -> Result<Known, VerbError> {
        let ports: Vec<Port> = self.registry().ports(None).into_iter().cloned().collect();
        let neighbours = self.host.neighbours().await?;
        let seen = seen(&ports, &neighbours, |mac| self.host.heard(mac));
        let all = self.leased(&ports).into_iter().chain(seen);
        let addresses = all.filter_map(|known| Some((known.interface, known.address.parse().ok()?))).collect();
        Ok(Known { ports, addresses })
    }

    /// The flow of a guest, by its name or its port's, or by the `address` it has.
    fn outward(&self, request: &Explain, address: Option<IpAddr>, known: &Known) -> Result<Question, VerbError> {
        let flow = &request.flow;
        let source = flow.source.as_deref().map(|text| parse("source", text, "an IP address")).transpose()?;
        let source = source.or(address);
        let registry = self.registry();
        let ports = match address.and_then(|address| known.port_at(address)) {
            Some(port) => vec![port],
            None => registry.ports_named(&flow.sender)?,
        };
        let own: Vec<(&str, IpAddr)> = known.of(&ports).collect();
        let target = match flow.target.parse::<IpAddr>() {
            Ok(target) => target,
            Err(_) => {
                let theirs = registry.ports_named(&flow.target)?;
                let families = source.map_or_else(
                    || own.iter().map(|(_, address)| address.is_ipv4()).collect(),
                    |source| vec![source.is_ipv4()],
                );
                let fits = |(_, address): &(&str, IpAddr)| {
                    !is_link_local(*address) && (families.is_empty() || families.contains(&address.is_ipv4()))
                };
                let found = known.of(&theirs).find(fits).map(|(_, address)| address);
                found.ok_or_else(|| no_address(&format!("guest '{}'", flow.target), source))?
            }
        };
        let of_family = |address: &IpAddr| {
            address.is_ipv4() == target.is_ipv4() && is_link_local(*address) == is_link_local(target)
        };
        // Of several ports the one that has the address that was named, else one that has any.
        let chosen = own
            .iter()
            .find(|(_, address)| source == Some(*address))
            .or_else(|| own.iter().find(|(_, address)| of_family(address)));
        let at = chosen.and_then(|(on, _)| ports.iter().position(|port| port.interface == *on)).unwrap_or(0);
        let Some(port) = ports.get(at).copied().cloned() else {
            return Err(Refusal::NoPort(flow.sender.clone()).into());
        };
        let peer = known.port_at(target).filter(|peer| peer.network == port.network && peer.index != port.index);
        let live = registry.find_live(&port.network).ok().map(|(_, live)| live);
        let isolated = live.is_some_and(|live| plan::isolates(&live.network));
        Ok(Question {
            bridge: live.and_then(|live| live.desired.bridge().map(str::to_owned)),
            isolated,
            source: source.or(chosen.map(|(_, address)| *address).filter(of_family)),
            known: own.iter().find(|(on, a)| *on == port.interface && of_family(a)).map(|(_, found)| *found),
            target,
            protocol: protocol(flow)?,
            peer: peer.map(|peer| Peer { interface: peer.interface.clone(), mac: peer.mac, isolated }),
            may_probe: request.probe,
            patience: request.seconds.unsigned_abs(),
            port,
        })
    }

    /// The flow of somebody who is no guest: to a guest's address, or to one of the host that a port forward has.
    fn inward(&self, request: &Explain, source: IpAddr, known: &Known) -> Result<Inward, VerbError> {
        let flow = &request.flow;
        let protocol = protocol(flow)?;
        let direct = |port: &Port, address| vec![End { interface: port.interface.clone(), address, protocol }];
        let (target, ends) = match flow.target.parse::<IpAddr>() {
            Ok(target) if target.is_ipv4() != source.is_ipv4() => {
                let family = if source.is_ipv4() { "an IPv4" } else { "an IPv6" };
                return Err(argument("target", &flow.target, &format!("{family} address, as the sender's is")).into());
            }
            Ok(target) => match known.port_at(target) {
                Some(port) => (target, direct(port, target)),
                None => (target, self.forwarded(target, protocol, known)?),
            },
            Err(_) => {
                let registry = self.registry();
                let ports = registry.ports_named(&flow.target)?;
                let fits = |address: &IpAddr| address.is_ipv4() == source.is_ipv4() && !is_link_local(*address);
                let found = known.of(&ports).find(|(_, address)| fits(address));
                let (interface, address) =
                    found.ok_or_else(|| no_address(&format!("guest '{}'", flow.target), Some(source)))?;
                (address, vec![End { interface: interface.to_owned(), address, protocol }])
            }
        };
        let first = ends.first().and_then(|end| known.ports.iter().find(|port| port.interface == end.interface));
        let port = first.cloned().ok_or(Refusal::NotToGuest { target, service: None })?;
        let registry = self.registry();
        let live = registry.find_live(&port.network).ok().map(|(_, live)| live);
        Ok(Inward {
            bridge: live.and_then(|live| live.desired.bridge().map(str::to_owned)),
            source,
            target,
            protocol,
            forwarded: ends.iter().all(|end| end.address != target),
            ends,
            may_probe: request.probe,
            patience: request.seconds.unsigned_abs(),
            port,
        })
    }

    /// Where the port forward of this leads: those of its targets that are guests with ports.
    fn forwarded(&self, target: IpAddr, protocol: Protocol, known: &Known) -> Result<Vec<End>, Refusal> {
        let (kind, port) = match protocol {
            Protocol::Tcp(port) => (nat::Protocol::Tcp, port),
            Protocol::Udp(port) => (nat::Protocol::Udp, port),
            Protocol::Icmp => return Err(Refusal::NotToGuest { target, service: None }),
        };
        if target.is_ipv6() && target.is_loopback() {
            return Err(Refusal::Forward(ForwardError::Loopback6));
        }
        let service = format!("{}/{port}", if kind == nat::Protocol::Tcp { "tcp" } else { "udp" });
        let forwards = self.wanted();
        let is_it = |forward: &&nat::Forward| {
            let (first, last) = forward.ports;
            let every = forward.address.is_none_or(|address| address.is_unspecified());
            let of_family = forward.address.is_none_or(|address| address.is_ipv4()) == target.is_ipv4();
            forward.protocol == kind
                && (first..=last).contains(&port)
                && of_family
                && (every || forward.address == Some(target))
        };
        let forward = forwards.iter().find(is_it);
        let forward = forward.ok_or_else(|| Refusal::NotToGuest { target, service: Some(service.clone()) })?;
        let end = |(address, first): &(IpAddr, u16)| {
            let port = first.saturating_add(port - forward.ports.0);
            let protocol = match kind {
                nat::Protocol::Tcp => Protocol::Tcp(port),
                nat::Protocol::Udp => Protocol::Udp(port),
            };
            Some(End { interface: known.port_at(*address)?.interface.clone(), address: *address, protocol })
        };
        let ends: Vec<End> = forward.targets.iter().filter_map(end).collect();
        if ends.is_empty() {
            return Err(no_address(&format!("the guest that {service} at {target} leads to"), Some(target)));
        }
        Ok(ends)
    }
}

/// Of one link and never routed (RFC 4291 §2.5.6).
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn no_address(who: &str, like: Option<IpAddr>) -> Refusal {
    let family = match like {
        Some(IpAddr::V4(_)) => "IPv4",
        Some(IpAddr::V6(_)) => "IPv6",
        None => "IP",
    };
    Refusal::NoAddress { who: who.to_owned(), family }
}

fn protocol(flow: &Flow) -> Result<Protocol, VerbError> {
    let port = flow
        .port
        .map(|port| match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(argument("port", &port.to_string(), "1 to 65535")),
        })
        .transpose()?;
    match (flow.protocol, port) {
        (Some(netd_api::Protocol::Tcp), Some(port)) => Ok(Protocol::Tcp(port)),
        (Some(netd_api::Protocol::Udp), Some(port)) => Ok(Protocol::Udp(port)),
        (None, None) => Ok(Protocol::Icmp),
        (Some(_), None) => Err(argument("port", "none", "a port from 1 to 65535 with a protocol").into()),
        (None, Some(port)) => Err(argument("protocol", "none", &format!("tcp or udp with port {port}")).into()),
    }
}

fn stage(finding: Finding) -> Stage {
    Stage {
        check: finding.check.to_owned(),
        title: finding.title,
        verdict: match finding.verdict {
            Verdict::Pass => StageVerdict::Pass,
            Verdict::Warn => StageVerdict::Warn,
            Verdict::Fail => StageVerdict::Fail,
        },
        says: finding.says,
        mend: finding.mend,
    }
}

fn parse(what: &'static str, text: &str, expected: &str) -> Result<IpAddr, VerbError> {
    text.parse().map_err(|_| argument(what, text, expected).into())
}

fn argument(what: &'static str, value: &str, expected: &str) -> Refusal {
    Refusal::Argument { what, value: value.to_owned(), expected: expected.to_owned() }
}
