//! From the model to text: libvirt's order, two-space indent, single quotes. Each subject writes its own elements.

use std::fmt::{self, Write};

use super::{dns, dnsmasq, forward, forwards, ip, link, metadata, policy};
use crate::model::Network;

pub(super) fn network(network: &Network) -> String {
    let mut out = Out { text: String::new(), depth: 0 };
    let ours = !network.forwards.is_empty() || !network.policy.is_empty();
    let namespace = ours.then(|| super::NAMESPACE.to_owned());
    out.open(
        "network",
        &[
            ("xmlns:dnsmasq", (!network.dnsmasq.is_empty()).then(|| super::DNSMASQ_NAMESPACE.to_owned())),
            ("xmlns:netd", namespace),
            ("ipv6", yes_no(network.ipv6)),
            ("trustGuestRxFilters", yes_no(network.trust_guest_rx_filters)),
        ],
    );
    out.leaf("name", network.name.as_str());
    out.leaf("uuid", &network.uuid.to_string());
    for (name, text) in [("title", &network.title), ("description", &network.description)] {
        if let Some(text) = text {
            out.leaf(name, text);
        }
    }
    metadata::write(&mut out, &network.metadata);
    forward::write(&mut out, &network.forward);
    link::write_bridge(&mut out, &network.bridge, &network.forward);
    if network.mtu.is_some() {
        out.empty("mtu", &[("size", text(network.mtu))]);
    }
    if network.mac.is_some() {
        out.empty("mac", &[("address", text(network.mac))]);
    }
    if let Some(domain) = &network.domain {
        dns::write_domain(&mut out, domain);
    }
    dns::write(&mut out, &network.dns);
    if let Some(vlan) = &network.vlan {
        link::write_vlan(&mut out, vlan);
    }
    if let Some(bandwidth) = &network.bandwidth {
        link::write_bandwidth(&mut out, bandwidth);
    }
    if network.isolated_ports.is_some() {
        out.empty("port", &[("isolated", yes_no(network.isolated_ports))]);
    }
    for subnet in &network.subnets {
        ip::write(&mut out, subnet);
    }
    for route in &network.routes {
        ip::write_route(&mut out, route);
    }
    for group in &network.port_groups {
        link::write_port_group(&mut out, group);
    }
    dnsmasq::write(&mut out, &network.dnsmasq);
    forwards::write(&mut out, &network.forwards);
    policy::write(&mut out, &network.policy);
    out.close("network");
    out.text
}

/// An attribute's name and value; without a value it is not written.
pub(super) type Attribute<'a> = (&'a str, Option<String>);

/// `yes` or `no`, if there is a value.
pub(super) fn yes_no(value: Option<bool>) -> Option<String> {
    text(value.map(|value| if value { "yes" } else { "no" }))
}

pub(super) fn text(value: Option<impl fmt::Display>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// The text so far and how deep we are in it.
pub(super) struct Out {
    text: String,
    depth: usize,
}

impl Out {
    pub(super) fn open(&mut self, name: &str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes, ">\n");
        self.depth += 1;
    }

    pub(super) fn close(&mut self, name: &str) {
        self.depth -= 1;
        self.push(format_args!("{:indent$}</{name}>\n", "", indent = 2 * self.depth));
    }

    pub(super) fn empty(&mut self, name: &str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes, "/>\n");
    }

    pub(super) fn leaf(&mut self, name: &str, text: &str) {
        self.push(format_args!("{:indent$}<{name}>{}</{name}>\n", "", Escaped(text), indent = 2 * self.depth));
    }

    /// A line with this text and nothing else, as it is.
    pub(super) fn verbatim(&mut self, text: &str) {
        self.push(format_args!("{:indent$}{text}\n", "", indent = 2 * self.depth));
    }

    fn tag(&mut self, name: &str, attributes: &[Attribute<'_>], end: &str) {
        self.push(format_args!("{:indent$}<{name}", "", indent = 2 * self.depth));
        for (name, value) in attributes {
            if let Some(value) = value {
                self.push(format_args!(" {name}='{}'", EscapedAttribute(value)));
            }
        }
        self.text.push_str(end);
    }

    fn push(&mut self, piece: fmt::Arguments<'_>) {
        // a String takes everything
        let _: fmt::Result = self.text.write_fmt(piece);
    }
}

/// Text that comes back as it is when read, in an element or an attribute.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '\'' => f.write_str("&apos;")?,
                '"' => f.write_str("&quot;")?,
                // A reader takes it for the end of a line (XML 1.0 §2.11).
                '\r' => f.write_str("&#13;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The same in an attribute, where a reader takes any white space for a blank (XML 1.0 §3.3.3).
struct EscapedAttribute<'a>(&'a str);

impl fmt::Display for EscapedAttribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(['\n', '\t']) {
            let plain = piece.trim_end_matches(['\n', '\t']);
            Escaped(plain).fmt(f)?;
            match &piece[plain.len()..] {
                "\n" => f.write_str("&#10;")?,
                "\t" => f.write_str("&#9;")?,
                _ => {}
            }
        }
        Ok(())
    }
}
