//! From the model to text: libvirt's order, two-space indent, single quotes.

use std::fmt::{self, Write};

use super::{forwards, policy};
use crate::model::{Dhcp, Dns, Forward, LeaseTime, LeaseUnit, Network, Route, Subnet};

pub(super) fn network(network: &Network) -> String {
    let mut out = Out { text: String::new(), depth: 0 };
    let ours = !network.forwards.is_empty() || !network.policy.is_empty();
    let namespace = ours.then(|| super::NAMESPACE.to_owned());
    out.open("network", &[("xmlns:netd", namespace)]);
    out.leaf("name", network.name.as_str());
    out.leaf("uuid", &network.uuid.to_string());
    forward(&mut out, &network.forward);
    let bridge = &network.bridge;
    out.empty(
        "bridge",
        &[
            ("name", text(bridge.name.as_ref())),
            ("stp", Some(if bridge.stp { "on" } else { "off" }.to_owned())),
            ("delay", text(Some(bridge.delay))),
        ],
    );
    if network.mtu.is_some() {
        out.empty("mtu", &[("size", text(network.mtu))]);
    }
    if network.mac.is_some() {
        out.empty("mac", &[("address", text(network.mac))]);
    }
    if let Some(domain) = &network.domain {
        let local_only = domain.local_only.then(|| "yes".to_owned());
        out.empty("domain", &[("name", Some(domain.name.clone())), ("localOnly", local_only)]);
    }
    dns(&mut out, &network.dns);
    if let Some(isolated) = network.isolated_ports {
        out.empty("port", &[("isolated", Some(if isolated { "yes" } else { "no" }.to_owned()))]);
    }
    for subnet in &network.subnets {
        ip(&mut out, subnet);
    }
    for route in &network.routes {
        self::route(&mut out, route);
    }
    forwards::write(&mut out, &network.forwards);
    policy::write(&mut out, &network.policy);
    out.close("network");
    out.text
}

fn forward(out: &mut Out, forward: &Forward) {
    let (mode, dev) = match forward {
        Forward::Isolated => return,
        Forward::Nat(nat) => ("nat", nat.dev.clone()),
        Forward::Route { dev } => ("route", dev.clone()),
        Forward::Open => ("open", None),
    };
    let (addresses, ports) = match forward {
        Forward::Nat(nat) => (nat.addresses, nat.ports),
        _ => (None, None),
    };
    let attributes = [("dev", dev.clone()), ("mode", Some(mode.to_owned()))];
    if dev.is_none() && addresses.is_none() && ports.is_none() {
        return out.empty("forward", &attributes);
    }
    out.open("forward", &attributes);
    if addresses.is_some() || ports.is_some() {
        out.open("nat", &[]);
        if let Some((start, end)) = addresses {
            out.empty("address", &[("start", text(Some(start))), ("end", text(Some(end)))]);
        }
        if let Some((start, end)) = ports {
            out.empty("port", &[("start", text(Some(start))), ("end", text(Some(end)))]);
        }
        out.close("nat");
    }
    if dev.is_some() {
        out.empty("interface", &[("dev", dev)]);
    }
    out.close("forward");
}

fn dns(out: &mut Out, dns: &Dns) {
    let enable = (!dns.enable).then(|| "no".to_owned());
    if dns.hosts.is_empty() {
        if enable.is_some() {
            out.empty("dns", &[("enable", enable)]);
        }
        return;
    }
    out.open("dns", &[("enable", enable)]);
    for host in &dns.hosts {
        out.open("host", &[("ip", text(Some(host.ip)))]);
        for name in &host.names {
            out.leaf("hostname", name);
        }
        out.close("host");
    }
    out.close("dns");
}

fn ip(out: &mut Out, subnet: &Subnet) {
    let [netmask, prefix] = mask(subnet.address, subnet.written_as_netmask);
    let attributes = [("address", text(Some(subnet.address.addr()))), netmask, prefix];
    let Some(dhcp) = &subnet.dhcp else { return out.empty("ip", &attributes) };
    out.open("ip", &attributes);
    self::dhcp(out, dhcp);
    out.close("ip");
}

fn dhcp(out: &mut Out, dhcp: &Dhcp) {
    if dhcp.ranges.is_empty() && dhcp.hosts.is_empty() {
        return out.empty("dhcp", &[]);
    }
    out.open("dhcp", &[]);
    for range in &dhcp.ranges {
        let attributes = [("start", text(Some(range.start))), ("end", text(Some(range.end)))];
        with_lease(out, "range", &attributes, range.lease);
    }
    for host in &dhcp.hosts {
        let attributes = [("mac", text(host.mac)), ("name", host.name.clone()), ("ip", text(host.ip))];
        with_lease(out, "host", &attributes, host.lease);
    }
    out.close("dhcp");
}

fn with_lease(out: &mut Out, name: &str, attributes: &[Attribute<'_>], lease: Option<LeaseTime>) {
    let Some(lease) = lease else { return out.empty(name, attributes) };
    let unit = match lease.unit {
        LeaseUnit::Seconds => "seconds",
        LeaseUnit::Minutes => "minutes",
        LeaseUnit::Hours => "hours",
    };
    // 0 has no unit
    let unit = (lease.expiry != 0).then(|| unit.to_owned());
    out.open(name, attributes);
    out.empty("lease", &[("expiry", text(Some(lease.expiry))), ("unit", unit)]);
    out.close(name);
}

fn route(out: &mut Out, route: &Route) {
    let [netmask, prefix] = mask(route.destination, route.written_as_netmask);
    out.empty(
        "route",
        &[
            ("address", text(Some(route.destination.addr()))),
            netmask,
            prefix,
            ("gateway", text(Some(route.gateway))),
            ("metric", text(route.metric)),
        ],
    );
}

fn mask(net: ipnet::Ipv4Net, as_netmask: bool) -> [Attribute<'static>; 2] {
    [("netmask", text(as_netmask.then(|| net.netmask()))), ("prefix", text((!as_netmask).then(|| net.prefix_len())))]
}

/// An attribute's name and value; without a value it is not written.
pub(super) type Attribute<'a> = (&'a str, Option<String>);

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

    fn leaf(&mut self, name: &str, text: &str) {
        self.push(format_args!("{:indent$}<{name}>{}</{name}>\n", "", Escaped(text), indent = 2 * self.depth));
    }

    fn tag(&mut self, name: &str, attributes: &[Attribute<'_>], end: &str) {
        self.push(format_args!("{:indent$}<{name}", "", indent = 2 * self.depth));
        for (name, value) in attributes {
            if let Some(value) = value {
                self.push(format_args!(" {name}='{}'", Escaped(value)));
            }
        }
        self.text.push_str(end);
    }

    fn push(&mut self, piece: fmt::Arguments<'_>) {
        // a String takes everything
        let _: fmt::Result = self.text.write_fmt(piece);
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '\'' => f.write_str("&apos;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
