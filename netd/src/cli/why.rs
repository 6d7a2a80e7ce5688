//! `netd why`: words → question, answer → the ladder. The daemon follows the flow.

use std::{
    io::{self, IsTerminal},
    net::IpAddr,
    path::Path,
    str::FromStr,
};

use netd_api::{Explanation, Flow, Protocol, Stage, StageVerdict, Traced, calls::Explain};
use serde_json::{Value, json};

use super::{
    Output,
    args::WhyArgs,
    connect::connect,
    failure::{About, Failure},
};
use crate::doctor::{self, Verdict};

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// An address or a guest's name.
    target: String,
    /// Echo requests if absent.
    service: Option<(Protocol, u16)>,
}

impl FromStr for Destination {
    type Err = String;

    /// `ADDRESS`, `ADDRESS:PORT`, `ADDRESS:PORT/udp`; an IPv6 address before a port in brackets; or a guest's name for
    /// the address.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "expected ADDRESS|GUEST or ADDRESS|GUEST:PORT[/tcp|/udp], an IPv6 ADDRESS before a port in [ ]".to_owned()
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Destination { target: address.to_string(), service: None });
        }
        let (place, protocol) = match text.rsplit_once('/') {
            None => (text, None),
            Some((place, "tcp")) => (place, Some(Protocol::Tcp)),
            Some((place, "udp")) => (place, Some(Protocol::Udp)),
            Some(_) => return Err(wrong()),
        };
        let Some((place, port)) = place.rsplit_once(':') else {
            // A guest; without a port there is nothing that a protocol would say.
            let guest = Destination { target: place.to_owned(), service: None };
            return if place.is_empty() || protocol.is_some() { Err(wrong()) } else { Ok(guest) };
        };
        let bare = place.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
        let target = match bare.unwrap_or(place).parse::<IpAddr>() {
            Ok(address) if address.is_ipv6() == bare.is_some() => address.to_string(),
            // Neither is any guest called by what looks like half an address.
            Err(_) if bare.is_none() && !place.is_empty() && !place.contains(':') => place.to_owned(),
            _ => return Err(wrong()),
        };
        match port.parse() {
            Ok(port) if port > 0 => {
                Ok(Destination { target, service: Some((protocol.unwrap_or(Protocol::Tcp), port)) })
            }
            _ => Err(wrong()),
        }
    }
}

/// The answer, and whether nothing stops the flow.
pub(super) async fn explain(socket: &Path, args: &WhyArgs) -> Result<(Output, bool), Failure> {
    if args.icmp && args.destination.service.is_some() {
        return Err(Failure::new("--icmp is for an address without a port"));
    }
    let (protocol, port) = args.destination.service.unzip();
    let flow = Flow {
        sender: args.sender.clone(),
        target: args.destination.target.clone(),
        protocol,
        port: port.map(i64::from),
        source: args.from.map(|address| address.to_string()),
    };
    let request = Explain { flow, probe: !args.no_probe, seconds: i64::from(args.wait) };
    let failed =
        |e| Failure::client(format!("Failed to follow packets of {}", args.sender), About::Guest(&args.sender), &e);
    let mut client = connect(socket).await.map_err(failed)?;
    let answer = client.explain(request).await.map_err(failed)?;
    let passes = answer.stages.iter().all(|stage| stage.verdict != StageVerdict::Fail);
    let root = nix::unistd::geteuid().is_root();
    Ok((Output::new(text(&answer, root, io::stdout().is_terminal()), json(&answer, passes)), passes))
}

/// The ladder in the doctor's lines, and whose packet it was.
fn text(answer: &Explanation, root: bool, coloured: bool) -> String {
    let line = |stage: &Stage| {
        let verdict = match stage.verdict {
            StageVerdict::Pass => Verdict::Pass,
            StageVerdict::Warn => Verdict::Warn,
            StageVerdict::Fail => Verdict::Fail,
        };
        let mend = stage.mend.as_ref().map(|mend| if root { mend.replace(doctor::SUDO, "") } else { mend.clone() });
        doctor::line(&stage.title, verdict, stage.says.as_deref(), mend.as_deref(), coloured)
    };
    let whose = match answer.traced {
        Traced::Probe => "Traced: a probe in the sender's name, not a packet of its own",
        Traced::Guest => "Traced: the guest's own packet",
        Traced::Passing => "Traced: a packet to the guest, sent by somebody else",
        Traced::Nothing => "Traced: nothing; no packet came",
    };
    answer.stages.iter().map(line).collect::<String>() + whose
}

fn json(answer: &Explanation, passes: bool) -> Value {
    json!({ "ok": passes, "interface": answer.interface, "traced": answer.traced, "stages": answer.stages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Option<(String, Option<(Protocol, u16)>)> {
        text.parse::<Destination>().ok().map(|found| (found.target, found.service))
    }

    #[test]
    fn destinations_are_read_in_both_families() {
        assert_eq!(destination("1.1.1.1"), Some(("1.1.1.1".into(), None)));
        assert_eq!(destination("1.1.1.1:443"), Some(("1.1.1.1".into(), Some((Protocol::Tcp, 443)))));
        assert_eq!(destination("1.1.1.1:53/udp"), Some(("1.1.1.1".into(), Some((Protocol::Udp, 53)))));
        assert_eq!(destination("2001:db8::1"), Some(("2001:db8::1".into(), None)));
        assert_eq!(destination("[2001:db8::1]:80/tcp"), Some(("2001:db8::1".into(), Some((Protocol::Tcp, 80)))));
        assert_eq!(destination("vm1"), Some(("vm1".into(), None)));
        assert_eq!(destination("vm 1:22"), Some(("vm 1".into(), Some((Protocol::Tcp, 22)))));
    }

    #[test]
    fn what_is_no_destination_is_refused() {
        for text in [
            "",
            "vm2:",
            ":22",
            "vm2/udp",
            "2001:db8::1:zz",
            "[vm2]:22",
            "1.1.1.1:",
            "1.1.1.1:0",
            "1.1.1.1:65536",
            "1.1.1.1:53/icmp",
            "[1.1.1.1]:1",
            "1.1.1.1/udp",
        ] {
            assert_eq!(destination(text), None, "{text}");
        }
    }

    #[test]
    fn the_ladder_ends_with_whose_packet_it_was() {
        let stage = Stage {
            check: "rules".into(),
            title: "if table ip filter chain FORWARD lets it through".into(),
            verdict: StageVerdict::Fail,
            says: Some("policy drop (Docker) drops it".into()),
            mend: Some("sudo iptables-nft -I DOCKER-USER -i virbr0 -j ACCEPT".into()),
        };
        let answer = Explanation { interface: "vnet0".into(), traced: Traced::Probe, stages: vec![stage] };
        assert_eq!(
            text(&answer, true, false),
            "   NET: Checking if table ip filter chain FORWARD lets it through            : FAIL (policy drop (Docker) \
             drops it; run: iptables-nft -I DOCKER-USER -i virbr0 -j ACCEPT)\n\
             Traced: a probe in the sender's name, not a packet of its own"
        );
    }
}
