//! The tables that follow a flow to guests, from somewhere behind the host's links or from the host itself. Pure.

use std::net::IpAddr;

use super::{Protocol, family, mark, place, tables, there, tracked};

/// A flow to follow to one of several ports, and its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// Who sends it.
    pub source: IpAddr,
    /// The port it is sent from; any if absent.
    pub source_port: Option<u16>,
    /// Where it goes, before a port forward translates it.
    pub target: IpAddr,
    /// What it is.
    pub protocol: Protocol,
    /// The host sends it itself.
    pub own: bool,
    /// Where it may come out.
    pub ends: Vec<End>,
}

/// A guest's port, and what is for the guest there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The tap.
    pub interface: String,
    /// The guest's address.
    pub address: IpAddr,
    /// What the flow is to it.
    pub protocol: Protocol,
}

impl End {
    /// Answers, as they come from the port. Whom they are for may have been translated.
    fn answers(&self) -> String {
        let (ip, icmp) = family(self.address);
        let from = format!("iifname \"{}\" {ip} saddr {}", self.interface, self.address);
        match self.protocol {
            Protocol::Tcp(port) => format!("{from} tcp sport {port}"),
            Protocol::Udp(port) => format!("{from} udp sport {port}"),
            Protocol::Icmp => format!("{from} {icmp} type echo-reply"),
        }
    }
}

/// Both tables, as `nft` reads them.
pub(super) fn text(watch: &Arriving) -> String {
    let nothing = String::new;
    let there = mark(there(Some(watch.source), watch.source_port, watch.target, watch.protocol));
    let tracked: String =
        tracked(Some(watch.source), watch.source_port, watch.target, watch.protocol).into_iter().map(mark).collect();
    let (came, sent) = if watch.own { (nothing(), there) } else { (there, nothing()) };
    tables(
        &[
            (place::PORT, "prerouting", -1000, watch.ends.iter().map(|end| mark(end.answers())).collect()),
            (place::CHECKED, "prerouting", 1000, nothing()),
            (place::DELIVERED, "postrouting", 1000, nothing()),
        ],
        &[
            // Before the addresses are translated, and before conntrack.
            (place::CAME, "prerouting", -1000, came),
            (place::SENT, "output", -1000, sent),
            (place::ARRIVED, "prerouting", 1000, nothing()),
            (place::FORWARDED, "forward", 1000, nothing()),
            (place::HOST, "input", 1000, nothing()),
            (place::LEFT, "postrouting", 1000, nothing()),
            (place::ANSWER, "prerouting", -150, tracked.clone()),
            (place::ANSWERED, "output", -150, tracked),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_marked_where_it_comes_in_or_is_sent_and_its_answers_at_the_guest() {
        let end = End { interface: "vnet0".into(), address: [10, 9, 0, 7].into(), protocol: Protocol::Tcp(22) };
        let watch = Arriving {
            source: [198, 51, 100, 9].into(),
            source_port: Some(61_000),
            target: [203, 0, 113, 2].into(),
            protocol: Protocol::Tcp(2222),
            own: false,
            ends: vec![end],
        };
        let chain = |text: &str, name: &str| {
            let from = text.find(&format!("chain {name} ")).unwrap();
            text[from..].split('}').next().unwrap().to_owned()
        };
        let flow = "ip saddr 198.51.100.9 ip daddr 203.0.113.2 tcp sport 61000 tcp dport 2222 limit";
        let outside = text(&watch);
        assert!(chain(&outside, "came").contains(flow) && !chain(&outside, "sent").contains("nftrace"), "{outside}");
        assert!(outside.contains("iifname \"vnet0\" ip saddr 10.9.0.7 tcp sport 22 limit"), "{outside}");
        assert!(outside.contains("ct original ip daddr 203.0.113.2 ct original proto-dst 2222"), "{outside}");
        let own = text(&Arriving { own: true, ..watch });
        assert!(chain(&own, "sent").contains(flow) && !chain(&own, "came").contains("nftrace"), "{own}");
    }
}
