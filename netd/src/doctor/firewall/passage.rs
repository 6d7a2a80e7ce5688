//! Whose a chain is, and the command that lets one kind of packet through it. Pure.

use super::{Need, Origin, Rules, Table, commands, rules::Hook, tables, who, word};

/// A base chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) family: &'a str,
    pub(crate) table: &'a str,
    pub(crate) chain: &'a str,
}

/// What is to get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What guests send to other networks.
    Out,
    /// The answers.
    Back,
    /// What guests of one network send to each other.
    Peers,
    /// Connections or datagrams to a port of guests on the bridge; an echo request where there is none.
    In(Option<(&'static str, u16)>),
    /// Connections or datagrams to a port of the host; an echo request where there is none.
    Host(Option<(&'static str, u16)>),
}

/// Whose chain it is, if that is known, and the command that lets the guests on the bridge through it, if there is one:
/// none where it is no chain for forwarded or delivered packets.
pub(crate) fn passage(
    rules: &Rules,
    place: Place<'_>,
    wanted: Wanted,
    bridge: &str,
) -> (Option<&'static str>, Option<String>) {
    let Ok((tables, _)) = tables(rules) else { return (None, None) };
    let is_it = |table: &&Table| {
        table.family == place.family && table.name == place.table && table.origin != Origin::IptablesLegacy
    };
    let Some(table) = tables.iter().find(is_it) else { return (None, None) };
    let hook = table.chains.get(place.chain).and_then(|chain| chain.hook);
    let (fitting, need) = match wanted {
        Wanted::Out => (Hook::Forward, Need::Out),
        Wanted::Back => (Hook::Forward, Need::Back),
        Wanted::Peers => (Hook::Forward, Need::Peers),
        Wanted::In(_) => (Hook::Forward, Need::Back),
        Wanted::Host(_) => (Hook::Input, Need::Dns),
    };
    let mend = (hook == Some(fitting)).then(|| match wanted {
        Wanted::Host(service) => to_host(table, place.chain, service, bridge),
        Wanted::In(service) => to_guests(table, place.chain, service, bridge),
        _ => commands(table, place.chain, &[need], bridge, false).join(" && "),
    });
    (who(table), mend)
}

/// firewalld lets into a zone what it lets through anywhere, so its zone is what there is to change.
fn to_guests(table: &Table, chain: &str, service: Option<(&str, u16)>, bridge: &str) -> String {
    if table.name == "firewalld" {
        return commands(table, chain, &[Need::Back], bridge, false).join(" && ");
    }
    let docker = chain == "FORWARD" && table.chains.contains_key("DOCKER-USER");
    match (table.origin, service) {
        (Origin::Nft, service) => {
            let place = format!("{} {} {}", table.family, word(&table.name), word(chain));
            let what = service.map_or_else(
                || "meta l4proto '{ icmp, ipv6-icmp }'".to_owned(),
                |(protocol, port)| format!("{protocol} dport {port}"),
            );
            format!("sudo nft insert rule {place} oifname {bridge} {what} accept")
        }
        (_, Some((protocol, port))) if who(table) == Some("ufw") && !docker => {
            format!("sudo ufw route allow out on {bridge} to any port {port} proto {protocol}")
        }
        (_, service) => {
            let what = service
                .map_or_else(|| "-p icmp".to_owned(), |(protocol, port)| format!("-p {protocol} --dport {port}"));
            let chain = if docker { "DOCKER-USER" } else { chain };
            format!("sudo iptables-nft -I {} -o {bridge} {what} -j ACCEPT", word(chain))
        }
    }
}

fn to_host(table: &Table, chain: &str, service: Option<(&str, u16)>, bridge: &str) -> String {
    if table.name == "firewalld" {
        return commands(table, chain, &[Need::Dns], bridge, false).join(" && ");
    }
    match (table.origin, service) {
        (Origin::Nft, Some((protocol, port))) => {
            let place = format!("{} {} {}", table.family, word(&table.name), word(chain));
            format!("sudo nft insert rule {place} iifname {bridge} {protocol} dport {port} accept")
        }
        (Origin::Nft, None) => {
            let place = format!("{} {} {}", table.family, word(&table.name), word(chain));
            format!("sudo nft insert rule {place} iifname {bridge} meta l4proto icmp accept")
        }
        (_, Some((protocol, port))) if who(table) == Some("ufw") => {
            format!("sudo ufw allow in on {bridge} to any port {port} proto {protocol}")
        }
        (_, Some((protocol, port))) => {
            format!("sudo iptables-nft -I {} -i {bridge} -p {protocol} --dport {port} -j ACCEPT", word(chain))
        }
        (_, None) => format!("sudo iptables-nft -I {} -i {bridge} -p icmp -j ACCEPT", word(chain)),
    }
}
