//! What we answer ourselves, with authority, and what must never leave the network.
//!
//! A pure table built anew from the configuration and the names learnt so far; `lookup` takes a question and says what
//! to do with it. It knows nothing of clients, caches or upstreams.
//!
//! Sources of the rules: RFC 6303 and RFC 7793 (reverse zones of private and special addresses), RFC 6761, 6762,
//! 7686 and 8375 (special names), RFC 9462 §6.4 (`resolver.arpa`), RFC 2308 (negative answers), RFC 8020 (a name
//! above a known one exists).

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Names, route,
    wire::{CLASS_IN, Name, Query, Record, decimal_octet, rtype},
};
use crate::config::DnsConfig;

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// These records, never none.
    Answer { records: Vec<Record>, zone: Name },
    /// The name is ours and has no such record.
    NoData { zone: Name },
    /// The name would be ours and is not there.
    NoName { zone: Name },
    /// Not ours to answer, and not to be forwarded.
    Refused,
    /// A kind of question we don't take part in.
    NotImplemented,
    /// Ask an upstream.
    Forward,
}

/// The asker itself (wire form and lower case, as all names here).
const LOCALHOST: &[u8] = b"\x09localhost\0";

/// The names of homes, each its own.
const HOME_ARPA: &[u8] = b"\x04home\x04arpa\0";

/// Top-level names under which there is nothing to be found by DNS.
const NOTHING_UNDER: [&[u8]; 4] = [b"\x05local\0", b"\x05onion\0", b"\x07invalid\0", b"\x04test\0"];

/// The name by which a client looks for encrypted resolvers.
const RESOLVER_ARPA: &[u8] = b"\x08resolver\x04arpa\0";

/// IPv4 networks whose reverse names are not asked upstream: RFC 6303 §4.1, §4.2, RFC 7793.
const PRIVATE_V4: [(Ipv4Addr, u8); 11] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

/// IPv6 reverse zones that are not asked upstream (RFC 6303 §4.3 to §4.6), as the nibbles after `ip6.arpa`.
const PRIVATE_V6: [&str; 8] = [
    "00000000000000000000000000000000",
    "00000000000000000000000000000001",
    "fd",
    "fe8",
    "fe9",
    "fea",
    "feb",
    "20010db8",
];

const IN_ADDR: &[u8] = b"\x07in-addr\x04arpa\0";
const IP6: &[u8] = b"\x03ip6\x04arpa\0";

/// The network's own names.
#[derive(Debug)]
pub(super) struct Zone {
    forward: bool,
    domain: Option<Name>,
    local_only: bool,
    plain_names: bool,
    subnets: Vec<IpNet>,
    /// Networks whose reverse names are not ours and not withheld.
    reverse_upstream: Vec<IpNet>,
    /// Domains that have upstreams of their own (folded).
    elsewhere: Vec<Name>,
    /// Domains that are one address each, or nothing (folded).
    whole: Vec<(Name, Vec<IpAddr>)>,
    /// What aliases stand for, by folded wire form.
    aliases: HashMap<Box<[u8]>, Name>,
    /// TXT and SRV records, by folded wire form.
    fixed: HashMap<Box<[u8]>, Vec<Record>>,
    /// By folded wire form.
    addresses: HashMap<Box<[u8]>, Vec<IpAddr>>,
    /// The spelling of the name that an address answers to.
    pointers: HashMap<IpAddr, Name>,
    /// Names in `domain` that have no addresses but other records, or lie above ones that have records.
    above: HashSet<Box<[u8]>>,
}

impl Zone {
    /// Builds the table. What can't be a name is left out.
    pub(super) fn new(config: &DnsConfig, names: &Names) -> Zone {
        let domain = config.domain.as_deref().and_then(Name::from_text).map(|name| name.folded());
        let mut zone = Zone {
            forward: route::forwards_others(config),
            local_only: config.local_only,
            plain_names: config.forward_plain_names,
            reverse_upstream: config.reverse_upstream.clone(),
            elsewhere: domains(config),
            whole: whole(config),
            aliases: HashMap::new(),
            fixed: fixed(config),
            subnets: config.subnets.clone(),
            addresses: HashMap::new(),
            pointers: HashMap::new(),
            above: HashSet::new(),
            domain,
        };
        let listen = config.listen.iter().map(|&address| ("_gateway", address));
        let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        // RFC 6761 §6.3 knows it by no longer name.
        let plain = Name::from_text("localhost");
        zone.pointers.extend(localhost.into_iter().zip(plain.into_iter().cycle()));
        zone.add_all(localhost.into_iter().map(|address| ("localhost", address)));
        zone.add_all(config.hosts.iter().flat_map(|(ip, names)| names.iter().map(move |name| (name.as_str(), *ip))));
        zone.add_all(listen);
        zone.add_all(names.records.iter().map(|(name, ip)| (name.as_str(), *ip)));
        for (alias, target) in &config.aliases {
            if let (Some(alias), Some(target)) = (Name::from_text(alias), Name::from_text(target)) {
                let spellings = zone.spellings(alias).into_iter();
                zone.aliases.extend(spellings.map(|name| (name.folded().bytes().into(), target.clone())));
            }
        }
        let named: Vec<Box<[u8]>> = zone.fixed.keys().chain(zone.aliases.keys()).cloned().collect();
        zone.exists_above(named);
        zone
    }

    /// Adds one source of names; a name an earlier source has is not touched.
    fn add_all<'a>(&mut self, records: impl Iterator<Item = (&'a str, IpAddr)>) {
        let mut fresh: HashMap<Box<[u8]>, Vec<IpAddr>> = HashMap::new();
        for (text, address) in records {
            let Some(name) = Name::from_text(text) else { continue };
            let spellings = self.spellings(name);
            let known = |name: &Name| self.addresses.contains_key(name.folded().bytes());
            let Some(canonical) = spellings.iter().rfind(|name| !known(name)) else { continue };
            self.pointers.entry(address).or_insert_with(|| canonical.clone());
            for name in spellings.iter().filter(|name| !known(name)) {
                let list = fresh.entry(name.folded().bytes().into()).or_default();
                if !list.contains(&address) {
                    list.push(address);
                }
            }
        }
        self.exists_above(fresh.keys().cloned().collect());
        self.addresses.extend(fresh);
    }

    /// Takes note of names that have records, and with them of those above, where they are in the domain.
    fn exists_above(&mut self, names: Vec<Box<[u8]>>) {
        let Some(domain) = &self.domain else { return };
        for name in names.iter().filter(|name| is_under(name, domain.bytes())) {
            let mut at = 0;
            while name[at..] != *domain.bytes() {
                self.above.insert(name[at..].into());
                at += 1 + usize::from(name[at]);
            }
        }
    }

    /// A guest is known by its first label and, where the network has a domain, in it. The last is the longest.
    fn spellings(&self, name: Name) -> Vec<Name> {
        let single = name.labels().count() == 1;
        match &self.domain {
            Some(domain) if single => {
                let full = name.under(domain);
                std::iter::once(name).chain(full).collect()
            }
            Some(domain) if is_under(name.folded().bytes(), domain.bytes()) => {
                let directly = name.labels().count() == domain.labels().count() + 1;
                directly.then(|| name.first_label()).into_iter().chain([name]).collect()
            }
            _ => vec![name],
        }
    }

    /// Decides on one question.
    pub(super) fn lookup(&self, query: &Query) -> Verdict {
        match query.qtype {
            rtype::TKEY | rtype::TSIG => return Verdict::NotImplemented,
            rtype::IXFR | rtype::AXFR => return Verdict::Refused,
            _ if query.qclass != CLASS_IN => return Verdict::Refused,
            _ => {}
        }
        let name = query.name.folded();
        let fixed = self.fixed.get(name.bytes());
        let matching: Vec<Record> = fixed
            .into_iter()
            .flatten()
            .filter(|r| query.qtype == rtype::ANY || r.rtype() == query.qtype)
            .cloned()
            .collect();
        if let Some(addresses) = self.addresses.get(name.bytes()) {
            return self.known(&name, addresses, matching, query.qtype);
        }
        if !matching.is_empty() {
            return self.known(&name, &[], matching, query.qtype);
        }
        if let Some(records) = self.alias(&name, query.qtype) {
            return self.known(&name, &[], records, query.qtype);
        }
        if fixed.is_none()
            && let Some((domain, addresses)) = self.whole_domain(&name)
        {
            let zone = domain.clone();
            return if addresses.is_empty() {
                Verdict::NoName { zone }
            } else {
                self.known(&name, addresses, Vec::new(), query.qtype)
            };
        }
        match self.unknown(&name, query.qtype) {
            Verdict::NoName { zone } if fixed.is_some() => Verdict::NoData { zone },
            verdict => verdict,
        }
    }

    /// What an alias stands for, with the addresses of that; none where that is nothing known.
    fn alias(&self, name: &Name, qtype: u16) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        let mut at = name.clone();
        // An alias of an alias is followed; of a circle nothing is known.
        for _ in 0..MOST_ALIASES {
            let Some(target) = self.aliases.get(at.bytes()) else { break };
            if records.is_empty() {
                records.push(Record::Alias(target.clone()));
            }
            at = target.folded();
        }
        let target = match records.first()? {
            Record::Alias(target) => target.clone(),
            _ => return None,
        };
        let addresses = self.addresses.get(at.bytes())?;
        if qtype != rtype::CNAME {
            let beyond = addresses.iter().map(|address| Record::Beyond(target.clone(), *address));
            records.extend(beyond.filter(|record| qtype == rtype::ANY || record.rtype() == qtype));
        }
        Some(records)
    }

    /// The domain that is one address, or nothing, and that has the name: the longest. What has upstreams of its own or is
    /// the network's domain is told apart before.
    fn whole_domain(&self, name: &Name) -> Option<&(Name, Vec<IpAddr>)> {
        let fits = self.whole.iter().filter(|(domain, _)| is_under(name.bytes(), domain.bytes()));
        let longest = fits.max_by_key(|(domain, _)| domain.labels().count())?;
        let labels = longest.0.labels().count();
        let elsewhere = |domain: &&Name| is_under(name.bytes(), domain.bytes()) && domain.labels().count() > labels;
        let theirs = self.elsewhere.iter().chain(&self.domain).find(elsewhere);
        theirs.is_none().then_some(longest)
    }

    /// A name that has nothing of that type.
    fn unknown(&self, name: &Name, qtype: u16) -> Verdict {
        if self.is_elsewhere(name) {
            return Verdict::Forward;
        }
        if let Some(verdict) = self.reverse(name, qtype) {
            return verdict;
        }
        if let Some(domain) = self.domain.as_ref().filter(|domain| is_under(name.bytes(), domain.bytes()))
            && let Some(verdict) = self.in_domain(name, domain, qtype)
        {
            return verdict;
        }
        if let Some(verdict) = special(name, qtype) {
            return verdict;
        }
        if name.labels().count() == 1 && !self.plain_names && !describes_delegation(qtype) {
            return Verdict::NoName { zone: Name::root() };
        }
        if self.forward { Verdict::Forward } else { Verdict::Refused }
    }

    /// Whether a domain with upstreams of its own has the name; a longer or equal one that is ours alone counts more.
    fn is_elsewhere(&self, name: &Name) -> bool {
        let own = self.domain.as_ref().filter(|domain| self.local_only && is_under(name.bytes(), domain.bytes()));
        let own = own.map_or(0, |domain| domain.labels().count());
        self.elsewhere.iter().any(|domain| is_under(name.bytes(), domain.bytes()) && domain.labels().count() > own)
    }

    /// A name with records: those of the type asked for, or none, but never an upstream's word about it.
    fn known(&self, name: &Name, addresses: &[IpAddr], fixed: Vec<Record>, qtype: u16) -> Verdict {
        let zone = self.zone_of(name);
        let records = addresses.iter().map(|&address| Record::Address(address));
        let mut records: Vec<Record> = records.filter(|r| qtype == rtype::ANY || r.rtype() == qtype).collect();
        records.extend(fixed);
        if self.domain.as_ref() == Some(name) {
            records.extend(apex(qtype));
        }
        if records.is_empty() { Verdict::NoData { zone } } else { Verdict::Answer { records, zone } }
    }

    /// The zone a known name is in: the domain, or else itself.
    fn zone_of(&self, name: &Name) -> Name {
        let domain = self.domain.as_ref().filter(|domain| is_under(name.bytes(), domain.bytes()));
        domain.unwrap_or(name).clone()
    }

    /// A name in the domain that has no address. `None`: the domain goes on upstream.
    fn in_domain(&self, name: &Name, domain: &Name, qtype: u16) -> Option<Verdict> {
        let zone = domain.clone();
        let ours_alone =
            self.local_only || !self.forward || domain.labels().count() == 1 || special(domain, 0).is_some();
        if !ours_alone {
            return None;
        }
        if name == domain {
            let records = apex(qtype);
            return Some(if records.is_empty() { Verdict::NoData { zone } } else { Verdict::Answer { records, zone } });
        }
        Some(if self.above.contains(name.bytes()) { Verdict::NoData { zone } } else { Verdict::NoName { zone } })
    }

    /// Reverse names: known addresses, then the network's subnets and the private ranges. `None`: not one of those.
    fn reverse(&self, name: &Name, qtype: u16) -> Option<Verdict> {
        if is_under(name.bytes(), IN_ADDR) {
            return self.reverse_v4(name, qtype);
        }
        if !is_under(name.bytes(), IP6) {
            return None;
        }
        let zone = self.zone_v6(name);
        match name.reversed_address() {
            Some(address) => self.pointer(name, address, zone, qtype),
            None => {
                let zone = zone?;
                Some(negative(name, zone, qtype, name.labels().count() < 34))
            }
        }
    }

    /// The reverse zone under ip6.arpa that a name is in and that is not asked upstream: cut where whole nibbles cover a
    /// subnet, or a private range.
    fn zone_v6(&self, name: &Name) -> Option<Name> {
        let mut labels: Vec<&[u8]> = name.labels().collect();
        labels.truncate(labels.len() - 2);
        labels.reverse();
        let nibbles: Vec<u8> = labels.iter().take(32).map_while(|label| nibble(label)).collect();
        let padded = (0..32).fold(0u128, |sum, at| sum << 4 | u128::from(nibbles.get(at).copied().unwrap_or(0)));
        let cut = |net: &Ipv6Net| usize::from(net.prefix_len().div_ceil(4));
        let covers = |net: &Ipv6Net| nibbles.len() >= cut(net) && net.contains(&Ipv6Addr::from(padded));
        if let Some(net) = self.subnets.iter().filter_map(in_v6).find(covers) {
            return Some(ancestor(name, 2 + cut(&net)));
        }
        private_v6(name).filter(|_| !self.reverse_upstream.iter().filter_map(in_v6).any(|net| covers(&net)))
    }

    fn reverse_v4(&self, name: &Name, qtype: u16) -> Option<Verdict> {
        let mut labels: Vec<&[u8]> = name.labels().collect();
        labels.truncate(labels.len() - 2);
        labels.reverse();
        let octets: Vec<u8> = labels.iter().take(4).map_while(|label| decimal_octet(label)).collect();
        let mut quad = [0; 4];
        quad[..octets.len()].copy_from_slice(&octets);
        let private = PRIVATE_V4.into_iter().filter_map(|(address, length)| Ipv4Net::new(address, length).ok());
        // A zone is cut where whole octets cover the network; names above the cut are the parents' and go upstream.
        let cut = |net: &Ipv4Net| usize::from(net.prefix_len().div_ceil(8));
        let covers = |net: &Ipv4Net| octets.len() >= cut(net) && net.contains(&Ipv4Addr::from(quad));
        let upstream = self.reverse_upstream.iter().filter_map(in_v4).any(|net| covers(&net));
        let mut zones = self.subnets.iter().filter_map(in_v4).chain(private.filter(|_| !upstream));
        let zone = zones.find(covers);
        let zone = zone.map(|net| ancestor(name, 2 + cut(&net)));
        if octets.len() == 4 && labels.len() == 4 {
            return self.pointer(name, IpAddr::V4(quad.into()), zone, qtype);
        }
        // Whole octets only: every name above an address exists (RFC 8020), every other doesn't.
        Some(negative(name, zone?, qtype, octets.len() == labels.len()))
    }

    /// A full reverse name; `zone` if it must not be asked upstream.
    fn pointer(&self, name: &Name, address: IpAddr, zone: Option<Name>, qtype: u16) -> Option<Verdict> {
        if let Some(target) = self.pointers.get(&address) {
            let zone = zone.unwrap_or_else(|| name.clone());
            if qtype == rtype::PTR || qtype == rtype::ANY {
                return Some(Verdict::Answer { records: vec![Record::Pointer(target.clone())], zone });
            }
            return Some(negative(name, zone, qtype, true));
        }
        Some(negative(name, zone?, qtype, false))
    }
}

/// The domains of the configuration's forwarders.
fn domains(config: &DnsConfig) -> Vec<Name> {
    let domains = config.forwarders.iter().filter_map(|forwarder| forwarder.domain.as_deref());
    domains.filter_map(Name::from_text).map(|name| name.folded()).collect()
}

/// Aliases of aliases that are followed.
const MOST_ALIASES: usize = 8;

/// The configuration's whole domains, each with all its addresses.
fn whole(config: &DnsConfig) -> Vec<(Name, Vec<IpAddr>)> {
    let mut whole: Vec<(Name, Vec<IpAddr>)> = Vec::new();
    for (domain, address) in &config.whole_domains {
        let name = if domain == "." { Some(Name::root()) } else { Name::from_text(domain) };
        let Some(name) = name.map(|name| name.folded()) else { continue };
        match whole.iter_mut().find(|(known, _)| *known == name) {
            Some((_, addresses)) => addresses.extend(address),
            None => whole.push((name, address.iter().copied().collect())),
        }
    }
    whole
}

/// The configuration's TXT and SRV records.
fn fixed(config: &DnsConfig) -> HashMap<Box<[u8]>, Vec<Record>> {
    let mut fixed: HashMap<Box<[u8]>, Vec<Record>> = HashMap::new();
    let texts = config.texts.iter().map(|(name, text)| (name, Some(Record::Text(text.as_bytes().into()))));
    let services = config.services.iter().map(|service| {
        let target = service.target.as_deref().map_or_else(|| Some(Name::root()), Name::from_text);
        let (priority, weight, port) = (service.priority, service.weight, service.port);
        (&service.name, target.map(|target| Record::Service { priority, weight, port, target }))
    });
    for (name, record) in texts.chain(services) {
        if let (Some(name), Some(record)) = (Name::from_text(name), record) {
            fixed.entry(name.folded().bytes().into()).or_default().push(record);
        }
    }
    fixed
}

/// SOA and NS at the top of a zone of ours.
fn apex(qtype: u16) -> Vec<Record> {
    match qtype {
        rtype::SOA => vec![Record::Authority],
        rtype::NS => vec![Record::NameServer],
        rtype::ANY => vec![Record::Authority, Record::NameServer],
        _ => Vec::new(),
    }
}

/// No such record, or no such name; at the top of the zone there are SOA and NS.
fn negative(name: &Name, zone: Name, qtype: u16, exists: bool) -> Verdict {
    let records = if *name == zone { apex(qtype) } else { Vec::new() };
    match records.is_empty() {
        false => Verdict::Answer { records, zone },
        true if exists || *name == zone => Verdict::NoData { zone },
        true => Verdict::NoName { zone },
    }
}

/// Names set apart by the RFCs. `None`: an ordinary name.
fn special(name: &Name, qtype: u16) -> Option<Verdict> {
    if is_under(name.bytes(), RESOLVER_ARPA) {
        return Some(Verdict::NoData { zone: ancestor(name, 2) });
    }
    if is_under(name.bytes(), LOCALHOST) {
        // Every name under it is this machine (RFC 6761 §6.3).
        let zone = ancestor(name, 1);
        let records = match qtype {
            rtype::A => vec![Record::Address(Ipv4Addr::LOCALHOST.into())],
            rtype::AAAA => vec![Record::Address(Ipv6Addr::LOCALHOST.into())],
            _ => return Some(Verdict::NoData { zone }),
        };
        return Some(Verdict::Answer { records, zone });
    }
    if is_under(name.bytes(), HOME_ARPA) {
        // The delegation is insecure on purpose, and a validating guest must see that (RFC 8375 §4).
        let asks_delegation = name.bytes() == HOME_ARPA && qtype == rtype::DS;
        return (!asks_delegation).then(|| Verdict::NoName { zone: ancestor(name, 2) });
    }
    let nothing = NOTHING_UNDER.into_iter().any(|top| is_under(name.bytes(), top));
    nothing.then(|| Verdict::NoName { zone: ancestor(name, 1) })
}

/// Types that ask about a top-level domain and not about a host: a validating guest needs them.
fn describes_delegation(qtype: u16) -> bool {
    use rtype::{DNSKEY, DS, NS, NSEC, NSEC3, NSEC3PARAM, SOA};
    [NS, SOA, DS, DNSKEY, NSEC, NSEC3, NSEC3PARAM].contains(&qtype)
}

fn in_v4(net: &IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    }
}

fn in_v6(net: &IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(*net),
    }
}

/// The hexadecimal digit that a label is.
fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The private IPv6 reverse zone a folded name is in.
fn private_v6(name: &Name) -> Option<Name> {
    let mut labels: Vec<&[u8]> = name.labels().collect();
    labels.truncate(labels.len() - 2);
    labels.reverse();
    let starts = |zone: &&&str| {
        zone.len() <= labels.len() && zone.bytes().zip(&labels).all(|(nibble, label)| **label == [nibble])
    };
    PRIVATE_V6.iter().find(starts).map(|zone| ancestor(name, 2 + zone.len()))
}

/// Whether a folded name is `domain` or under it, both in wire form.
fn is_under(name: &[u8], domain: &[u8]) -> bool {
    let mut rest = name;
    while rest.len() > domain.len() {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    rest == domain
}

/// The last `labels` labels of a name that has at least as many.
fn ancestor(name: &Name, labels: usize) -> Name {
    let skip = name.labels().count().saturating_sub(labels);
    name.ancestor(skip)
}

#[cfg(test)]
mod tests;
