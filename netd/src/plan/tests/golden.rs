//! `tests/golden/plan`: each `NAME.xml`, and what becomes of it on an empty host, `NAME.plan`: the steps, what is served,
//! whose frames pass the guards, what the packet filter is asked for and the rules that come of it. `UPDATE_GOLDEN=1` writes the plans anew.

use std::{collections::BTreeSet, fmt::Write, fs, net::Ipv4Addr, path::PathBuf};

use dhcp::config::{Dhcp4Config, Dhcp6Config, DnsConfig, Ipv6Config, Mac, NetworkConfig};
use ipnet::IpNet;

use super::*;
use crate::{
    check::not_yet,
    model::To,
    plan,
    registry::{Live, Registry, forwards::Leased},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan")
}

fn plan_of(text: &str) -> String {
    let desired = desired_of(text);
    let steps = plan(&desired, &HostState::default(), InPlace::default());
    let mut out = show(&steps);
    ports(&mut out, &xml::parse(text).unwrap(), &desired);
    out.push_str("\nPorts may send from:\n");
    line(&mut out, "IPv4", &desired.sources.ipv4);
    line(&mut out, "IPv6", &desired.sources.ipv6);
    served(&mut out, &desired.services);
    // Where the bridge is the host's there are no rules.
    if matches!(desired.ground, Ground::Own(_)) {
        let intent = serde_json::to_string_pretty(&desired.firewall).unwrap();
        writeln!(out, "\nThe packet filter is asked for:\n{intent}").unwrap();
        let (forwards, rules) = rules_of(xml::parse(text).unwrap(), desired);
        list(&mut out, "forward", &forwards);
        out.push_str("\nIts rules:\n");
        rules.iter().for_each(|rule| writeln!(out, "  {rule}").unwrap());
    }
    out
}

/// The port forwards, with guests that have addresses from .201 on, and all that the network is in the table.
fn rules_of(network: Network, desired: Desired) -> (Vec<nat::Forward>, Vec<String>) {
    let guests: BTreeSet<String> = network
        .forwards
        .iter()
        .flat_map(|forward| forward.targets())
        .filter_map(|target| match &target.to {
            To::Guest(name) => Some(name.clone()),
            To::Address(_) => None,
        })
        .collect();
    let subnet = network.subnets.iter().find_map(|subnet| match subnet.address {
        IpNet::V4(subnet) => Some(subnet.addr().octets()),
        IpNet::V6(_) => None,
    });
    let leases = (201..).zip(guests).filter_map(|(last, name)| {
        let [a, b, c, _] = subnet?;
        let (mac, address) = (Mac([2, 0, 0, 0, 0, last]), Ipv4Addr::new(a, b, c, last));
        Some(dhcp::Lease { mac, address, prefix: 24, hostname: Some(name), client_id: None, expiry: None })
    });
    let leases: Vec<dhcp::Lease> = leases.collect();
    // In mode open a network has no rules.
    let nothing = nat::Network {
        bridge: desired.firewall.bridge.clone(),
        mode: nat::Mode::Open,
        subnets: Vec::new(),
        dns_redirect: None,
        policy: nat::Policy::default(),
    };
    let mut registry = Registry::new(Path::new("/etc/resolv.conf"));
    let firewall = desired.firewall.clone();
    registry.started(Live { network, desired, journal: Vec::new() });
    let forwards = registry.forwards(&Leased(leases));
    let difference = nat::difference((&nothing, &[]), (&firewall, &forwards));
    let rules = difference.iter().map(|line| line.strip_prefix("+ ").expect("nothing was there").to_owned()).collect();
    (forwards, rules)
}

/// What ports are on, and what one of each group is there.
fn ports(out: &mut String, network: &Network, desired: &Desired) {
    writeln!(out, "\nPorts are {}:", desired.ground).unwrap();
    let macvtap = matches!(desired.ground, Ground::Interfaces(_));
    let groups = network.port_groups.iter().map(|group| Some(group.name.clone()));
    for group in [None].into_iter().chain(groups) {
        let on = || crate::port::OnInterface { interface: "eth0".into(), node: PathBuf::new() };
        let port = Port { group: group.clone(), macvtap: macvtap.then(on), guards: false, ..port(1) };
        let PortWish { place, shape, .. } = wish(network, &port);
        let group = group.unwrap_or_else(|| "no group".into());
        let place = if macvtap { String::new() } else { format!("{place}, ") };
        let floor = plan::floor(plan::group(network, port.group.as_deref()));
        let floor = floor.map(|rate| format!(", {} kB/s for sure", rate / 1000)).unwrap_or_default();
        writeln!(out, "  {group}: {place}{shape}{floor}").unwrap();
    }
}

fn line(out: &mut String, what: &str, value: &dyn std::fmt::Debug) {
    writeln!(out, "  {what}: {value:?}").unwrap();
}

fn list<T: std::fmt::Debug>(out: &mut String, what: &str, values: &[T]) {
    for value in values {
        line(out, what, value);
    }
}

fn served(out: &mut String, config: &NetworkConfig) {
    if let Some(dhcp) = &config.dhcp4 {
        let Dhcp4Config { server, ranges, hosts, router, dns, domain, mtu, routes, boot, options } = dhcp;
        out.push_str("\nDHCPv4:\n");
        line(out, "server", server);
        list(out, "range", ranges);
        list(out, "host", hosts);
        line(out, "router", router);
        list(out, "dns", dns);
        line(out, "domain", domain);
        line(out, "mtu", mtu);
        list(out, "route", routes);
        list(out, "boot", boot.as_slice());
        list(out, "option", options);
    }
    if !config.tftp.is_empty() {
        out.push_str("\nTFTP:\n");
        list(out, "files", &config.tftp);
    }
    if let Some(Ipv6Config { prefixes, router, routes, dns, domain, mtu, dhcp }) = &config.ipv6 {
        out.push_str("\nRouter advertisements:\n");
        list(out, "prefix", prefixes);
        line(out, "router", router);
        list(out, "route", routes);
        list(out, "dns", dns);
        line(out, "domain", domain);
        line(out, "mtu", mtu);
        if let Some(Dhcp6Config { server, ranges, hosts }) = dhcp {
            out.push_str("\nDHCPv6:\n");
            line(out, "server", server);
            list(out, "range", ranges);
            list(out, "host", hosts);
        }
    }
    let Some(dns) = &config.dns else { return };
    let DnsConfig { listen, subnets, reverse_upstream, domain, local_only, hosts, texts, services, .. } = dns;
    out.push_str("\nDNS:\n");
    list(out, "on", listen);
    list(out, "reverse names of", subnets);
    list(out, "reverse names asked upstream of", reverse_upstream);
    line(out, "domain", domain);
    line(out, "domain is local only", local_only);
    list(out, "host", hosts);
    list(out, "text", texts);
    list(out, "service", services);
    line(out, "plain names go upstream", &dns.forward_plain_names);
    line(out, "the rest goes upstream", &dns.forward);
    list(out, "forwarder", &dns.forwarders);
}

fn inputs() -> Vec<(PathBuf, String)> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "xml") {
            let text = fs::read_to_string(&path).unwrap();
            inputs.push((path, text));
        }
    }
    inputs
}

#[test]
fn every_network_becomes_what_the_golden_files_have() {
    for (path, text) in inputs() {
        // What is not carried out yet has no plan.
        if not_yet::refuse(&xml::parse(&text).unwrap()).is_err() {
            continue;
        }
        let got = plan_of(&text);
        let expected = path.with_extension("plan");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(got, wanted, "{}: look at it, then UPDATE_GOLDEN=1", path.display());
    }
}

/// What a plan has nothing of: texts for people, what others keep, and what is as it is anyway.
const NOT_IN_A_PLAN: [&str; 4] = ["title", "description", "metadata", "uuid"];

/// The elements below the network, and their attributes after `@`.
fn parts(text: &str) -> BTreeSet<String> {
    let document = roxmltree::Document::parse(text).unwrap();
    let mut found = BTreeSet::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let names: Vec<&str> =
            node.ancestors().filter(roxmltree::Node::is_element).map(|node| node.tag_name().name()).collect();
        let path = names.into_iter().rev().skip(1).collect::<Vec<_>>();
        if path.first().is_none_or(|first| NOT_IN_A_PLAN.contains(first)) {
            continue;
        }
        let path = path.join("/");
        found.extend(node.attributes().map(|attribute| format!("{path}@{}", attribute.name())));
        found.insert(path);
    }
    found
}

#[test]
fn the_golden_files_have_every_element_and_attribute_that_is_carried_out() {
    let seen: BTreeSet<String> = inputs().iter().flat_map(|(_, text)| parts(text)).collect();
    // The XML's own golden files have all that is read.
    let mut missing = BTreeSet::new();
    for entry in fs::read_dir(folder().with_file_name("xml")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if not_yet::refuse(&xml::parse(&text).unwrap()).is_ok() {
            missing.extend(parts(&text));
        }
    }
    // libvirt tells how many guests use an interface; nobody asks for it.
    missing.remove("forward/interface@connections");
    missing.retain(|part| !seen.contains(part));
    assert_eq!(missing, BTreeSet::new(), "no plan in tests/golden/plan has them");
}
