//! What becomes of one flow of a guest: from the registry a question, from the host what was seen, and the ladder.

use std::net::IpAddr;

use nat::trace::Protocol;
use netd_api::{Explanation, Flow, Stage, StageVerdict, calls::Explain};

use super::{Host, VerbError, Verbs};
use crate::{
    doctor::{Finding, Verdict},
    plan,
    port::Port,
    registry::{Refusal, ports::seen},
    why::{self, Peer, Question, Traced},
};

/// The longest a caller may wait for a guest's own packet, in seconds.
const MOST_PATIENCE: i64 = 600;

impl<H: Host> Verbs<H> {
    /// Follows one flow of a guest and says what stops it. Nothing of the host changes but for as long as it takes.
    pub async fn explain(&self, request: &Explain) -> Result<Explanation, VerbError> {
        let question = self.question(request).await?;
        let facts = self.host.follow(&question).await?;
        let stages = why::explain(&question, &facts).into_iter().map(stage).collect();
        let traced = match facts.traced {
            Traced::Probe => netd_api::Traced::Probe,
            Traced::Guest => netd_api::Traced::Guest,
            Traced::Nothing => netd_api::Traced::Nothing,
        };
        Ok(Explanation { interface: question.port.interface, traced, stages })
    }

    async fn question(&self, request: &Explain) -> Result<Question, VerbError> {
        let flow = &request.flow;
        let target: IpAddr = parse("address", &flow.address, "an IP address")?;
        let source = flow.source.as_deref().map(|text| parse("source", text, "an IP address")).transpose()?;
        let protocol = protocol(flow)?;
        if !(0..=MOST_PATIENCE).contains(&request.seconds) {
            return Err(argument("seconds", &request.seconds.to_string(), &format!("0 to {MOST_PATIENCE}")).into());
        }
        let mut ports: Vec<Port> = self.registry().ports_named(&flow.guest)?.into_iter().cloned().collect();
        let everyone: Vec<Port> = self.registry().ports(None).into_iter().cloned().collect();
        let neighbours = self.host.neighbours().await?;
        let addresses = |ports: &[Port]| {
            let seen = seen(ports, &neighbours, |mac| self.host.heard(mac));
            let known = self.leased(ports).into_iter().chain(seen);
            known.filter_map(|known| Some((known.interface, known.address.parse().ok()?))).collect::<Vec<_>>()
        };
        let own: Vec<(String, IpAddr)> = addresses(&ports);
        let of_family = |address: &IpAddr| address.is_ipv4() == target.is_ipv4();
        // Of several ports the one that has the address that was named, else one that has any.
        let chosen = own
            .iter()
            .find(|(_, address)| source == Some(*address))
            .or_else(|| own.iter().find(|(_, address)| of_family(address)));
        let interface = chosen.map(|(interface, _)| interface.clone());
        let at = ports.iter().position(|port| Some(&port.interface) == interface.as_ref()).unwrap_or(0);
        let port = ports.swap_remove(at);
        let peers: Vec<Port> = everyone
            .into_iter()
            .filter(|other| other.network == port.network && other.interface != port.interface)
            .collect();
        let peer = addresses(&peers).into_iter().find(|(_, address)| *address == target);
        let registry = self.registry();
        let live = registry.find_live(&port.network).ok().map(|(_, live)| live);
        let isolated = live.is_some_and(|live| plan::isolates(&live.network));
        let peer = peer.and_then(|(interface, _)| {
            let peer = peers.iter().find(|peer| peer.interface == interface)?;
            Some(Peer { interface, mac: peer.mac, isolated })
        });
        Ok(Question {
            bridge: live.and_then(|live| live.desired.bridge().map(str::to_owned)),
            isolated,
            source: source.or(chosen.map(|(_, address)| *address).filter(of_family)),
            known: own
                .iter()
                .find(|(on, address)| *on == port.interface && of_family(address))
                .map(|(_, found)| *found),
            target,
            protocol,
            peer,
            may_probe: request.probe,
            patience: request.seconds.unsigned_abs(),
            port,
        })
    }
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
