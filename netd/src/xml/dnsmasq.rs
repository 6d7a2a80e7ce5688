//! `<dnsmasq:options>`: reading what of dnsmasq's configuration means something here, and refusing the rest by name.

use std::{net::IpAddr, net::Ipv4Addr};

use super::{
    dns::domain_name,
    element::Element,
    error::{Error, Problem},
    write::Out,
};
use crate::model::{DhcpOption, DnsForwarder, DnsHost, DnsText, Dnsmasq, DnsmasqOption, printable};

/// What netd does whether it is asked to or not: it never pings an address before it offers it, answers for its subnet
/// alone, keeps private reverse names and names without a dot to itself, and never reads /etc/hosts.
const ALWAYS: [&str; 5] = ["no-ping", "dhcp-authoritative", "bogus-priv", "domain-needed", "no-hosts"];

/// How the values of a DHCP option are written as bytes.
#[derive(Clone, Copy)]
enum Form {
    Addresses,
    Text,
    Byte,
    Short,
    Long,
}

/// Options with a name in dnsmasq (`dnsmasq --help dhcp`): name, code, form. RFC 2132 but where noted.
const OPTIONS: [(&str, u8, Form); 24] = [
    ("time-offset", 2, Form::Long),
    ("router", 3, Form::Addresses),
    ("dns-server", 6, Form::Addresses),
    ("log-server", 7, Form::Addresses),
    ("lpr-server", 9, Form::Addresses),
    ("boot-file-size", 13, Form::Short),
    ("domain-name", 15, Form::Text),
    ("swap-server", 16, Form::Addresses),
    ("root-path", 17, Form::Text),
    ("extension-path", 18, Form::Text),
    ("ip-forward-enable", 19, Form::Byte),
    ("default-ttl", 23, Form::Byte),
    ("mtu", 26, Form::Short),
    ("broadcast", 28, Form::Addresses),
    ("nis-domain", 40, Form::Text),
    ("nis-server", 41, Form::Addresses),
    ("ntp-server", 42, Form::Addresses),
    ("netbios-ns", 44, Form::Addresses),
    ("netbios-nodetype", 46, Form::Byte),
    ("smtp-server", 69, Form::Addresses),
    ("tftp-server", 66, Form::Text),
    ("bootfile-name", 67, Form::Text),
    ("posix-timezone", 100, Form::Text), // RFC 4833
    ("tzdb-timezone", 101, Form::Text),  // RFC 4833
];

/// What the server says itself in every reply, or is between relays and it.
const OURS: [u8; 14] = [0, 1, 50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 82, 255];

/// Reads `<dnsmasq:options>`.
pub(super) fn options(element: Element<'_>) -> Result<Vec<DnsmasqOption>, Error> {
    element.attributes(&[])?;
    let mut options = Vec::new();
    for (_, child) in element.children(&["dnsmasq:option"])? {
        child.only(&["value"])?;
        let text = child.need("value", "the attribute 'value'")?;
        options.push(DnsmasqOption { text: text.to_owned(), meaning: meaning(child, text)? });
    }
    Ok(options)
}

fn meaning(element: Element<'_>, text: &str) -> Result<Vec<Dnsmasq>, Error> {
    if let Some(("address", value)) = text.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
        return domains(element, value);
    }
    one(element, text).map(|meaning| vec![meaning])
}

fn one(element: Element<'_>, text: &str) -> Result<Dnsmasq, Error> {
    let (name, value) =
        text.split_once('=').map_or((text.trim(), None), |(name, value)| (name.trim(), Some(value.trim())));
    match (name, value) {
        (name, None) if ALWAYS.contains(&name) => Ok(Dnsmasq::Always),
        ("dhcp-option", Some(value)) => dhcp_option(element, value, false).map(Dnsmasq::DhcpOption),
        ("dhcp-option-force", Some(value)) => dhcp_option(element, value, true).map(Dnsmasq::DhcpOption),
        ("host-record", Some(value)) => host_record(element, value),
        ("txt-record", Some(value)) => {
            let (name, value) = value.split_once(',').unwrap_or((value, ""));
            let name = domain_name(element, "txt-record", name)?;
            Ok(Dnsmasq::Text(DnsText { name, value: value.to_owned() }))
        }
        ("srv-host", Some(value)) => srv_host(element, value),
        ("server", Some(value)) => server(element, value),
        ("cname", Some(value)) => cname(element, value),
        ("log-queries", None) => Ok(Dnsmasq::LogQueries),
        (name, _) => {
            let name = printable(name);
            Err(element.error(Problem::Unsupported(format!("netd has nothing that does what dnsmasq's '{name}' does"))))
        }
    }
}

fn bad(element: Element<'_>, name: &str, value: &str, expected: &'static str) -> Error {
    element.bad(name, value, expected)
}

/// `[option:NAME|CODE][,VALUE…]`
fn dhcp_option(element: Element<'_>, text: &str, force: bool) -> Result<DhcpOption, Error> {
    let name = if force { "dhcp-option-force" } else { "dhcp-option" };
    let mut words = text.split(',').map(str::trim);
    let which = words.next().unwrap_or_default();
    let values: Vec<&str> = words.collect();
    let known = which.strip_prefix("option:");
    let by_name = known.and_then(|known| OPTIONS.iter().find(|(name, ..)| *name == known));
    let code = match (by_name, known) {
        (Some((_, code, _)), _) => Some(*code),
        (None, Some(number)) => number.parse().ok(),
        (None, None) => which.parse().ok(),
    };
    let Some(code) = code else {
        let what = if which.contains(':') { "tags, vendor classes, IPv6 or such names" } else { "such names" };
        let sentence = format!("netd has no '{name}' with {what}: '{}'", printable(which));
        return Err(element.error(Problem::Unsupported(sentence)));
    };
    if OURS.contains(&code) {
        let sentence = format!("DHCP option {code} is for the server to say, and netd says it");
        return Err(element.error(Problem::Unsupported(sentence)));
    }
    let form = OPTIONS.iter().find(|(_, known, _)| *known == code).map(|(.., form)| *form);
    let bytes = match form.or_else(|| guess(&values)) {
        _ if values.is_empty() => Some(Vec::new()),
        Some(form) => encode(form, &values),
        // dnsmasq: bytes in hex, or text
        None => Some(hex(&values).unwrap_or_else(|| values.join(",").trim_matches('"').as_bytes().to_vec())),
    };
    match bytes {
        Some(value) if value.len() <= 255 => Ok(DhcpOption { code, value, force }),
        Some(_) => Err(bad(element, name, text, "at most 255 bytes")),
        None => Err(bad(element, name, text, "of the form that this option has")),
    }
}

/// What dnsmasq takes the values of an option without a name for.
fn guess(values: &[&str]) -> Option<Form> {
    let all = |is: fn(&str) -> bool| !values.is_empty() && values.iter().all(|value| is(value));
    if all(|value| value.parse::<Ipv4Addr>().is_ok()) {
        return Some(Form::Addresses);
    }
    match values {
        [number] if number.parse::<u8>().is_ok() => Some(Form::Byte),
        [number] if number.parse::<u16>().is_ok() => Some(Form::Short),
        [number] if number.parse::<u32>().is_ok() => Some(Form::Long),
        _ => None,
    }
}

fn encode(form: Form, values: &[&str]) -> Option<Vec<u8>> {
    match (form, values) {
        (Form::Addresses, values) => {
            let addresses: Option<Vec<[u8; 4]>> =
                values.iter().map(|value| value.parse::<Ipv4Addr>().ok().map(|address| address.octets())).collect();
            Some(addresses?.concat())
        }
        (Form::Text, values) => Some(values.join(",").trim_matches('"').as_bytes().to_vec()),
        (Form::Byte, [value]) => Some(vec![value.parse().ok()?]),
        (Form::Short, [value]) => Some(value.parse::<u16>().ok()?.to_be_bytes().to_vec()),
        // an offset may be negative
        (Form::Long, [value]) => value
            .parse::<u32>()
            .map(u32::to_be_bytes)
            .or_else(|_| value.parse::<i32>().map(i32::to_be_bytes))
            .ok()
            .map(Vec::from),
        _ => None,
    }
}

fn hex(values: &[&str]) -> Option<Vec<u8>> {
    let [value] = values else { return None };
    let bytes: Option<Vec<u8>> =
        value.split(':').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() <= 2)).collect();
    bytes.filter(|bytes| bytes.len() > 1)
}

/// `NAME[,NAME…],ADDRESS[,ADDRESS]`
fn host_record(element: Element<'_>, text: &str) -> Result<Dnsmasq, Error> {
    let (mut names, mut addresses) = (Vec::new(), Vec::<IpAddr>::new());
    for word in text.split(',').map(str::trim) {
        match word.parse() {
            Ok(address) => addresses.push(address),
            Err(_) if addresses.is_empty() => names.push(domain_name(element, "host-record", word)?),
            Err(_) => return Err(bad(element, "host-record", text, "names and then addresses")),
        }
    }
    if names.is_empty() || addresses.is_empty() {
        return Err(bad(element, "host-record", text, "names and then addresses"));
    }
    Ok(Dnsmasq::Hosts(addresses.into_iter().map(|ip| DnsHost { ip, names: names.clone() }).collect()))
}

/// `NAME[,TARGET[,PORT[,PRIORITY[,WEIGHT]]]]`
fn srv_host(element: Element<'_>, text: &str) -> Result<Dnsmasq, Error> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let number = |at: usize, otherwise: u16| match words.get(at) {
        None => Ok(otherwise),
        Some(word) => word.parse().map_err(|_| bad(element, "srv-host", text, "a name, a target and three numbers")),
    };
    let target = words.get(1).filter(|target| !target.is_empty());
    Ok(Dnsmasq::Service {
        name: domain_name(element, "srv-host", words[0])?,
        target: target.map(|target| domain_name(element, "srv-host", target)).transpose()?,
        port: number(2, u16::from(target.is_some()))?,
        priority: number(3, 0)?,
        weight: number(4, 0)?,
    })
}

/// `[/DOMAIN/][ADDRESS[#PORT]]`; one domain, as an element has it.
fn server(element: Element<'_>, text: &str) -> Result<Dnsmasq, Error> {
    let form = "an address with or without #PORT, or /DOMAIN/ before it";
    let (domain, server) = match text.strip_prefix('/') {
        Some(rest) => rest.split_once('/').ok_or_else(|| bad(element, "server", text, form))?,
        None => ("", text),
    };
    let domain = (!domain.is_empty()).then(|| domain_name(element, "server", domain)).transpose()?;
    let (address, port) = match server.split_once('#') {
        // '#' alone: the host's own
        Some(("", "")) => ("", None),
        Some((address, port)) => (address, Some(port.parse::<u16>().map_err(|_| bad(element, "server", text, form))?)),
        None => (server, None),
    };
    if address.is_empty() && (domain.is_none() || !server.starts_with('#')) {
        return Err(bad(element, "server", text, form));
    }
    let address = (!address.is_empty()).then(|| address.parse::<IpAddr>()).transpose();
    let address = address.map_err(|_| bad(element, "server", text, form))?;
    Ok(Dnsmasq::Forwarder(DnsForwarder { address, port, domain }))
}

/// `/DOMAIN[/DOMAIN…]/[ADDRESS]`, `#` for every name. `#` as the address, "all zeroes of either family", is none.
fn domains(element: Element<'_>, text: &str) -> Result<Vec<Dnsmasq>, Error> {
    let form = "/DOMAIN/ and an address or nothing behind it";
    let (names, address) = text
        .strip_prefix('/')
        .and_then(|rest| rest.rsplit_once('/'))
        .ok_or_else(|| bad(element, "address", text, form))?;
    let address = match address {
        "" => None,
        address => Some(address.parse::<IpAddr>().map_err(|_| bad(element, "address", text, form))?),
    };
    let names = names.split('/').map(|name| match name {
        "#" => Ok(".".to_owned()),
        name => domain_name(element, "address", name),
    });
    names.map(|name| Ok(Dnsmasq::Domain { name: name?, address })).collect()
}

/// `ALIAS[,ALIAS…],TARGET[,TTL]`; what is said of guests is never cached, so there is no TTL.
fn cname(element: Element<'_>, text: &str) -> Result<Dnsmasq, Error> {
    let mut words: Vec<&str> = text.split(',').map(str::trim).collect();
    if words.last().is_some_and(|word| word.parse::<u32>().is_ok()) {
        let sentence = "netd has no 'cname' with a TTL: what it knows itself is never cached".to_owned();
        return Err(element.error(Problem::Unsupported(sentence)));
    }
    let target = words.pop().filter(|_| !words.is_empty());
    let target = target.ok_or_else(|| bad(element, "cname", text, "one or more names and the one they stand for"))?;
    let name = |word: &str| domain_name(element, "cname", word);
    Ok(Dnsmasq::Aliases { aliases: words.into_iter().map(name).collect::<Result<_, _>>()?, target: name(target)? })
}

/// Writes them; nothing if there are none.
pub(super) fn write(out: &mut Out, options: &[DnsmasqOption]) {
    if options.is_empty() {
        return;
    }
    out.open("dnsmasq:options", &[]);
    for option in options {
        out.empty("dnsmasq:option", &[("value", Some(option.text.clone()))]);
    }
    out.close("dnsmasq:options");
}
