//! Rules of others that drop what guests send and get: Docker, ufw, firewalld, anybody's. Pure.
//!
//! An accept in our table cannot overrule a drop in another one, so the user has to let guests through there. Every
//! base chain that is not ours is asked about a few packets of every network: a connection to outside, its answer, a
//! question to the host's DNS. DHCP needs no asking: packet sockets come before these rules.

mod iptables;
mod nft;
mod passage;
mod rules;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr};

pub(crate) use passage::{Place, Wanted, passage};
use rules::{Blame, Chain, Hook, Origin, Packet, Table};

use super::{
    Finding,
    facts::{Facts, Known, Rules, Unseen},
    sockets,
};
use crate::{
    host::HostState,
    model::{Forward, Network},
    registry::shipped,
};

/// Somewhere outside: no rule we know of names it.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// The name of an uplink where the host has none yet.
const SOME_UPLINK: &str = "uplink";

/// The port that questions are redirected to where another program has port 53: any that no rule names.
const SOME_PORT: u16 = 50_053;

/// What of the host decides the way of a packet.
#[derive(Clone, Copy)]
struct Way<'a> {
    uplink: &'a str,
    /// Questions for port 53 arrive at another.
    redirected: bool,
    /// Frames between guests of one network come by.
    peers: bool,
}

/// What guests cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Out,
    Back,
    Dns,
    /// Only asked of these rules while `br_netfilter` is on.
    Peers,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Need::Out => "what guests send to other networks",
            Need::Back => "the answers they get",
            Need::Dns => "their DNS questions to the host",
            Need::Peers => "frames between guests of one network",
        }
    }
}

/// One finding, or one for each base chain that is in the way.
pub(super) fn foreign_rules(facts: &Facts) -> Vec<Finding> {
    let (check, title) = ("foreign-rules", "for rules of others that drop guests' packets");
    let (tables, mut findings) = match tables(&facts.rules) {
        Ok(tables) => tables,
        Err(unseen) => return vec![Finding::unseen(check, title, &unseen, "sudo nft list ruleset")],
    };
    let assumed = [assumed()];
    let networks: Vec<&Known> = match facts.networks.as_deref() {
        Ok(known) if !known.is_empty() => known.iter().collect(),
        _ => assumed.iter().flatten().collect(),
    };
    let way = Way {
        uplink: facts.host.as_ref().ok().and_then(uplink).unwrap_or(SOME_UPLINK),
        redirected: sockets::dns_is_redirected(&facts.listeners, &facts.networks),
        peers: facts.bridge_netfilter.as_ref().is_ok_and(|on| on.iter().any(|name| name == "bridge-nf-call-iptables")),
    };
    for table in tables.iter().filter(|table| !(table.family == "inet" && table.name == nat::TABLE)) {
        for (name, chain) in &table.chains {
            findings.extend(in_the_way(table, name, chain, &networks, way));
        }
    }
    if findings.is_empty() { vec![Finding::pass(check, title)] } else { findings }
}

/// Every table, and a finding where some could not be read.
fn tables(rules: &Rules) -> Result<(Vec<Table>, Vec<Finding>), Unseen> {
    let text = rules.nft.as_ref().map_err(Unseen::clone)?;
    let (mut tables, opaque) =
        nft::tables(text).map_err(|e| Unseen::Failed(format!("nft's answer is no JSON: {e}")))?;
    // iptables tells of its own tables what JSON does not.
    if let (true, Some(saved)) = (opaque, &rules.iptables_nft) {
        for readable in iptables::tables(saved, Origin::IptablesNft) {
            if let Some(table) = tables.iter_mut().find(|t| t.family == "ip" && t.name == readable.name) {
                *table = readable;
            }
        }
    }
    let mut findings = Vec::new();
    let names = rules.legacy_tables.join(", ");
    let title = "for rules of legacy iptables";
    match &rules.legacy {
        Ok(Some(saved)) => tables.extend(iptables::tables(saved, Origin::IptablesLegacy)),
        Ok(None) if rules.legacy_tables.is_empty() => {}
        Ok(None) => findings.push(Finding::warn(
            "foreign-rules",
            title,
            format!("the kernel has tables of it ({names}), and there is no iptables-legacy-save to read them"),
            "sudo apt install iptables && sudo netd doctor",
        )),
        Err(unseen) => findings.push(Finding::unseen("foreign-rules", title, unseen, "sudo iptables-legacy-save")),
    }
    Ok((tables, findings))
}

/// The network every host gets, before it has any.
fn assumed() -> Option<Known> {
    Some(Known { network: shipped::network().ok()?, active: Some(false) })
}

/// The link of the default route that wins.
fn uplink(host: &HostState) -> Option<&str> {
    let defaults = host.routes.iter().filter(|route| route.destination.prefix_len() == 0 && route.link.is_some());
    host.link_name(defaults.min_by_key(|route| route.metric)?.link?)
}

/// Needs by what they are, with the bridges that have them and who denies it.
type Denied<'a> = BTreeMap<Need, (Vec<&'a str>, Blame)>;

fn in_the_way(table: &Table, name: &str, chain: &Chain, networks: &[&Known], way: Way<'_>) -> Option<Finding> {
    let hook = chain.hook?;
    let mut denied = Denied::new();
    for known in networks {
        let Some(bridge) = known.bridge() else { continue };
        let packets = packets(&known.network, bridge, way);
        for (need, packet) in packets.iter().filter(|(_, packet)| packet.hook == hook) {
            if let Some(blame) = rules::dropped(table, chain, packet) {
                let (bridges, _) = denied.entry(*need).or_insert_with(|| (Vec::new(), blame));
                bridges.push(bridge);
            }
        }
    }
    let (_, (bridges, blame)) = denied.first_key_value()?;
    let kind = if table.origin == Origin::IptablesLegacy { "legacy iptables table" } else { "table" };
    let title = format!("if {kind} {} {} chain {name} lets guests through", table.family, table.name);
    let what = denied.keys().map(|need| need.name()).collect::<Vec<_>>().join(", ");
    let whose = who(table).map(|who| format!(" ({who})")).unwrap_or_default();
    let stops = if blame.uncertain { "may stop" } else { "stops" };
    let says = format!("{}{whose} {stops} {what} (on {})", blame.by, bridges.join(", "));
    let mend = mend(table, name, &denied, way.redirected);
    Some(if denied.values().all(|(_, blame)| blame.uncertain) {
        Finding::warn("foreign-rules", title, says, mend)
    } else {
        Finding::fail("foreign-rules", title, says, mend)
    })
}

/// The packets a network needs to get through.
fn packets<'a>(network: &'a Network, bridge: &'a str, way: Way<'a>) -> Vec<(Need, Packet<'a>)> {
    let Some(subnet) = network.ipv4().next() else { return Vec::new() };
    // Not the host's own address: the one behind it, or before it.
    let guest = |skip| subnet.hosts().filter(|address| *address != subnet.addr()).nth(skip).unwrap_or(subnet.addr());
    let uplink = network.forward.dev().unwrap_or(way.uplink);
    let out = Packet {
        hook: Hook::Forward,
        input: bridge,
        output: Some(uplink),
        source: guest(0),
        destination: OUTSIDE,
        protocol: "tcp",
        source_port: 40_000,
        destination_port: 443,
        original_port: 443,
        state: "new",
    };
    let back = Packet {
        input: uplink,
        output: Some(bridge),
        source: out.destination,
        destination: out.source,
        source_port: out.destination_port,
        destination_port: out.source_port,
        original_port: out.source_port,
        state: "established",
        ..out.clone()
    };
    let dns = Packet {
        hook: Hook::Input,
        output: None,
        destination: subnet.addr(),
        protocol: "udp",
        destination_port: if way.redirected { SOME_PORT } else { 53 },
        original_port: 53,
        ..out.clone()
    };
    let peer = Packet { output: Some(bridge), destination: guest(1), ..out.clone() };
    let mut packets = Vec::new();
    if !matches!(network.forward, Forward::Isolated) {
        packets.extend([(Need::Out, out), (Need::Back, back)]);
    }
    if network.dns.enable {
        packets.push((Need::Dns, dns));
    }
    if way.peers {
        packets.push((Need::Peers, peer));
    }
    packets
}

/// Whose table it is, by the names its owner is known to use.
fn who(table: &Table) -> Option<&'static str> {
    let has = |start: &str| table.chains.keys().any(|name| name.starts_with(start));
    if table.name == "firewalld" {
        Some("firewalld")
    } else if has("ufw-") {
        Some("ufw")
    } else if has("DOCKER") {
        Some("Docker")
    } else {
        None
    }
}

/// The one command that lets the bridges through.
fn mend(table: &Table, chain: &str, denied: &Denied<'_>, redirected: bool) -> String {
    let mut bridges: Vec<&str> = denied.values().flat_map(|(bridges, _)| bridges.iter().copied()).collect();
    bridges.sort_unstable();
    bridges.dedup();
    // What lets guests out lets them out to each other too.
    let covered = |need: &Need| *need == Need::Peers && denied.contains_key(&Need::Out);
    let needs: Vec<Need> = denied.keys().copied().filter(|need| !covered(need)).collect();
    match bridges.as_slice() {
        [bridge] => commands(table, chain, &needs, bridge, redirected).join(" && "),
        several => {
            let each = commands(table, chain, &needs, "$b", redirected).join(" && ");
            format!("for b in {}; do {each}; done", several.join(" "))
        }
    }
}

fn commands(table: &Table, chain: &str, needs: &[Need], bridge: &str, redirected: bool) -> Vec<String> {
    if table.name == "firewalld" {
        let zone = format!("sudo firewall-cmd --zone=trusted --change-interface={bridge}");
        return vec![zone.clone(), format!("{zone} --permanent")];
    }
    // Docker's own rules come after DOCKER-USER, which it leaves to others.
    let docker = chain == "FORWARD" && table.chains.contains_key("DOCKER-USER");
    // ufw has no word for answers, nor for the port that was asked before a redirect.
    let in_ufws_words = |need: &Need| *need == Need::Out || (*need == Need::Dns && !redirected);
    if !docker && who(table) == Some("ufw") && needs.iter().all(in_ufws_words) {
        let command = |need: &Need| match need {
            Need::Dns => format!("sudo ufw allow in on {bridge} to any port 53"),
            _ => format!("sudo ufw route allow in on {bridge}"),
        };
        return needs.iter().map(command).collect();
    }
    let chain = if docker { "DOCKER-USER" } else { chain };
    let program = match table.origin {
        Origin::Nft => return needs.iter().flat_map(|need| nft_commands(table, chain, *need, bridge)).collect(),
        Origin::IptablesNft => "iptables-nft",
        Origin::IptablesLegacy => "iptables-legacy",
    };
    needs
        .iter()
        .map(|need| {
            let what = match need {
                Need::Out => format!("-i {bridge}"),
                Need::Back => format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED"),
                // The port that was asked, whichever it was redirected to.
                Need::Dns => format!("-i {bridge} -m conntrack --ctorigdstport 53"),
                Need::Peers => format!("-i {bridge} -o {bridge}"),
            };
            let which = if table.name == "filter" { String::new() } else { format!(" -t {}", word(&table.name)) };
            format!("sudo {program}{which} -I {} {what} -j ACCEPT", word(chain))
        })
        .collect()
}

fn nft_commands(table: &Table, chain: &str, need: Need, bridge: &str) -> Vec<String> {
    let rules = match need {
        Need::Out => vec![format!("iifname {bridge}")],
        Need::Back => vec![format!("oifname {bridge} ct state established,related")],
        // Only behind one protocol does every nft take a port for one.
        Need::Dns => ["udp", "tcp"]
            .map(|protocol| format!("iifname {bridge} meta l4proto {protocol} ct original proto-dst 53"))
            .into(),
        Need::Peers => vec![format!("iifname {bridge} oifname {bridge}")],
    };
    let place = format!("{} {} {}", table.family, word(&table.name), word(chain));
    rules.into_iter().map(|rule| format!("sudo nft insert rule {place} {rule} accept")).collect()
}

/// One word to a shell. Whoever made the table chose the name.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}
