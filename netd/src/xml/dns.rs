//! `<domain>` and `<dns>`: reading and writing them.

use std::{collections::HashSet, net::IpAddr};

use super::{
    element::Element,
    error::{Error, Problem},
    write::{Out, text, yes_no},
};
use crate::model::{Dns, DnsForwarder, DnsHost, DnsService, DnsText, Domain};

/// Reads `<domain>`.
pub(super) fn domain(element: Element<'_>) -> Result<Domain, Error> {
    element.only(&["name", "localOnly", "register"])?;
    let name = element.need("name", "the attribute 'name'")?;
    let name = domain_name(element, "name", name)?;
    let local_only = element.yes_no("localOnly")?.unwrap_or(false);
    let register = element.yes_no("register")?;
    if register == Some(true) && !local_only {
        return Err(element.error(Problem::Together("register='yes' needs localOnly='yes'")));
    }
    Ok(Domain { name, local_only, register })
}

/// Reads `<dns>`.
pub(super) fn dns(element: Element<'_>) -> Result<Dns, Error> {
    element.attributes(&["enable", "forwardPlainNames"])?;
    let mut dns = Dns {
        enable: element.yes_no("enable")?.unwrap_or(true),
        forward_plain_names: element.yes_no("forwardPlainNames")?,
        ..Dns::default()
    };
    for (name, child) in element.children(&["forwarder", "txt", "srv", "host"])? {
        if !dns.enable {
            return Err(child.error(Problem::Together("records need <dns enable='yes'>")));
        }
        match name {
            "forwarder" => dns.forwarders.push(forwarder(child)?),
            "txt" => dns.texts.push(txt(child)?),
            "srv" => dns.services.push(srv(child)?),
            _ => dns.hosts.push(host(child)?),
        }
    }
    Ok(dns)
}

fn forwarder(element: Element<'_>) -> Result<DnsForwarder, Error> {
    element.only(&["addr", "domain", "port"])?;
    let address = element.get("addr").map(|address| element.ip("addr", address)).transpose()?;
    let is_link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    // a link-local one would need its interface
    if let Some(address) = address.filter(|a| a.is_unspecified() || a.is_multicast() || is_link_local(a)) {
        return Err(element.bad("addr", &address.to_string(), "the address of a resolver"));
    }
    let port = element.get("port").map(|port| element.number("port", port, PORTS, PORT)).transpose()?;
    let domain = element.get("domain").map(|domain| domain_name(element, "domain", domain)).transpose()?;
    if address.is_none() && domain.is_none() {
        return Err(element.error(Problem::Missing("an 'addr' or a 'domain'")));
    }
    if address.is_none() && port.is_some() {
        return Err(element.error(Problem::Together("a 'port' needs an 'addr'")));
    }
    Ok(DnsForwarder { address, port, domain })
}

const PORTS: (u16, u16) = (1, u16::MAX);
const PORT: &str = "a port between 1 and 65535";

fn txt(element: Element<'_>) -> Result<DnsText, Error> {
    element.only(&["name", "value"])?;
    let name = domain_name(element, "name", element.need("name", "the attribute 'name'")?)?;
    Ok(DnsText { name, value: element.need("value", "the attribute 'value'")?.to_owned() })
}

fn srv(element: Element<'_>) -> Result<DnsService, Error> {
    element.only(&["service", "protocol", "domain", "target", "port", "priority", "weight"])?;
    let word = |attribute: &'static str, missing| {
        let value = element.need(attribute, missing)?;
        let is_word = (1..=62).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !value.starts_with('-')
            && !value.ends_with('-');
        let expected = "a word of letters, digits and '-', without the underscore";
        if is_word { Ok(value.to_owned()) } else { Err(element.bad(attribute, value, expected)) }
    };
    let name = |attribute: &str| element.get(attribute).map(|value| domain_name(element, attribute, value)).transpose();
    let number = |attribute: &str| {
        let parsed = |value| element.number(attribute, value, (0, u16::MAX), "a number between 0 and 65535");
        element.get(attribute).map(parsed).transpose()
    };
    let service = DnsService {
        service: word("service", "the attribute 'service'")?,
        protocol: word("protocol", "the attribute 'protocol'")?,
        domain: name("domain")?,
        target: name("target")?,
        port: element.get("port").map(|port| element.number("port", port, PORTS, PORT)).transpose()?,
        priority: number("priority")?,
        weight: number("weight")?,
    };
    let of_target = service.port.is_some() || service.priority.is_some() || service.weight.is_some();
    if service.target.is_none() && of_target {
        return Err(element.error(Problem::Together("'port', 'priority' and 'weight' need a 'target'")));
    }
    Ok(service)
}

fn host(element: Element<'_>) -> Result<DnsHost, Error> {
    element.attributes(&["ip"])?;
    let ip = element.ip("ip", element.need("ip", "the attribute 'ip'")?)?;
    let (mut names, mut seen) = (Vec::new(), HashSet::new());
    for (_, child) in element.children(&["hostname"])? {
        let name = domain_name(child, "the text", &child.text()?)?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(child.error(Problem::Repeated { what: "the name", value: name }));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(element.error(Problem::Missing("a <hostname>")));
    }
    Ok(DnsHost { ip, names })
}

/// A domain name (RFC 1035 §2.3.1 and §2.3.4, with digits first and `_` allowed as everybody does); no final dot.
pub(super) fn domain_name(element: Element<'_>, what: &str, name: &str) -> Result<String, Error> {
    let plain = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if plain.len() > 253 || !plain.split('.').all(label) {
        let expected = "a domain name of letters, digits and '-', such as lab.example";
        return Err(element.bad(what, name, expected));
    }
    Ok(plain.to_owned())
}

/// Writes `<domain>`.
pub(super) fn write_domain(out: &mut Out, domain: &Domain) {
    let local_only = domain.local_only.then_some(true);
    out.empty(
        "domain",
        &[
            ("name", Some(domain.name.clone())),
            ("localOnly", yes_no(local_only)),
            ("register", yes_no(domain.register)),
        ],
    );
}

/// Writes `<dns>`; nothing if it says nothing.
pub(super) fn write(out: &mut Out, dns: &Dns) {
    let attributes =
        [("enable", yes_no((!dns.enable).then_some(false))), ("forwardPlainNames", yes_no(dns.forward_plain_names))];
    if dns.is_empty() {
        if attributes.iter().any(|(_, value)| value.is_some()) {
            out.empty("dns", &attributes);
        }
        return;
    }
    out.open("dns", &attributes);
    for forwarder in &dns.forwarders {
        let attributes =
            [("domain", forwarder.domain.clone()), ("addr", text(forwarder.address)), ("port", text(forwarder.port))];
        out.empty("forwarder", &attributes);
    }
    for txt in &dns.texts {
        out.empty("txt", &[("name", Some(txt.name.clone())), ("value", Some(txt.value.clone()))]);
    }
    for srv in &dns.services {
        out.empty(
            "srv",
            &[
                ("service", Some(srv.service.clone())),
                ("protocol", Some(srv.protocol.clone())),
                ("domain", srv.domain.clone()),
                ("target", srv.target.clone()),
                ("port", text(srv.port)),
                ("priority", text(srv.priority)),
                ("weight", text(srv.weight)),
            ],
        );
    }
    for host in &dns.hosts {
        out.open("host", &[("ip", text(Some(host.ip)))]);
        for name in &host.names {
            out.leaf("hostname", name);
        }
        out.close("host");
    }
    out.close("dns");
}
