//! Random documents made of the format's own words: every combination of elements and attributes is refused with an
//! error that has a line, or is kept by a round trip, and nothing panics on the way from there to a plan.

use std::path::Path;

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{parse, write};
use crate::{check::not_yet, plan};

/// An element: its attributes with values to choose from, and what may be in it.
struct Kind {
    name: &'static str,
    attributes: &'static [(&'static str, &'static [&'static str])],
    children: &'static [&'static str],
    text: &'static [&'static str],
}

const YES_NO: &[&str] = &["yes", "no", "yes", "no", "maybe"];
const ADDRESSES: &[&str] =
    &["10.0.0.1", "10.0.0.9", "10.0.0.0", "10.1.0.1", "fd00::1", "fd00::9", "fd01::1", "::", "x"];
const NAMES: &[&str] = &["a", "lab.example", "b_c", "é", "", "-"];
const NUMBERS: &[&str] = &["0", "1", "2", "100", "1000", "65536", "4294967295", "4294967296", "-1", ""];
const PORTS: &[&str] = &["1", "80", "1024", "65535", "0", "http"];
const DEVICES: &[&str] = &["eth0", "eth1", "br%d", "virbr%d", "br0", "a-name-that-is-too-long", "*"];

const fn kind(
    name: &'static str,
    attributes: &'static [(&'static str, &'static [&'static str])],
    children: &'static [&'static str],
    text: &'static [&'static str],
) -> Kind {
    Kind { name, attributes, children, text }
}

const KINDS: &[Kind] = &[
    kind("uuid", &[], &[], &["7a79c35c-44f8-4e9d-96d2-66fd9a9bf362", "x"]),
    kind("title", &[], &[], &["a title", "&lt;&amp;", "", " \t", "two\nlines"]),
    kind("description", &[], &[], &["text", "two\nlines\n", "&#13;]]&gt;", ""]),
    kind("metadata", &[], &["m:app", "plain"], &[]),
    kind("m:app", &[("xmlns:m", &["urn:m", "urn:n"]), ("m:a", &["b"])], &["m:app"], &["", "<![CDATA[<]]>"]),
    kind("plain", &[("xmlns", &["urn:o", "urn:o", ""])], &[], &[""]),
    kind(
        "forward",
        &[
            ("mode", &["nat", "route", "open", "none", "bridge", "private", "vepa", "passthrough", "hostdev", "x"]),
            ("dev", DEVICES),
        ],
        &["nat", "interface", "pf"],
        &[],
    ),
    kind("nat", &[("ipv6", YES_NO)], &["address", "port"], &[]),
    kind("address", &[("start", ADDRESSES), ("end", ADDRESSES)], &[], &[]),
    kind("port", &[("start", PORTS), ("end", PORTS), ("isolated", YES_NO)], &[], &[]),
    kind("interface", &[("dev", DEVICES)], &[], &[]),
    kind("pf", &[("dev", DEVICES)], &[], &[]),
    kind(
        "bridge",
        &[
            ("name", DEVICES),
            ("stp", &["on", "off"]),
            ("delay", NUMBERS),
            ("zone", NAMES),
            ("macTableManager", &["kernel", "libvirt"]),
        ],
        &[],
        &[],
    ),
    kind("mtu", &[("size", &["1400", "67", "9000"])], &[], &[]),
    kind("mac", &[("address", &["52:54:00:00:00:01", "01:00:00:00:00:00", "x"])], &[], &[]),
    kind("domain", &[("name", NAMES), ("localOnly", YES_NO), ("register", YES_NO)], &[], &[]),
    kind(
        "dns",
        &[("enable", YES_NO), ("forwardPlainNames", YES_NO)],
        &["forwarder", "txt", "srv", "hostname-host"],
        &[],
    ),
    kind("forwarder", &[("addr", ADDRESSES), ("domain", NAMES), ("port", PORTS)], &[], &[]),
    kind("txt", &[("name", NAMES), ("value", &["a&#10;b&#9;c", "'\"", ""])], &[], &[]),
    kind(
        "srv",
        &[
            ("service", NAMES),
            ("protocol", &["tcp", "udp"]),
            ("target", NAMES),
            ("domain", NAMES),
            ("port", PORTS),
            ("priority", NUMBERS),
            ("weight", NUMBERS),
        ],
        &[],
        &[],
    ),
    kind("hostname-host", &[("ip", ADDRESSES)], &["hostname"], &[]),
    kind("hostname", &[], &[], NAMES),
    kind("vlan", &[("trunk", YES_NO)], &["tag"], &[]),
    kind("tag", &[("id", NUMBERS), ("nativeMode", &["tagged", "untagged"])], &[], &[]),
    kind("bandwidth", &[], &["inbound", "outbound"], &[]),
    kind("inbound", &[("average", NUMBERS), ("peak", NUMBERS), ("burst", NUMBERS), ("floor", NUMBERS)], &[], &[]),
    kind("outbound", &[("average", NUMBERS), ("peak", NUMBERS), ("floor", NUMBERS)], &[], &[]),
    kind(
        "portgroup",
        &[("name", NAMES), ("default", YES_NO), ("trustGuestRxFilters", YES_NO)],
        &["vlan", "bandwidth"],
        &[],
    ),
    kind(
        "ip",
        &[
            ("address", ADDRESSES),
            ("family", &["ipv4", "ipv6", "ipv6"]),
            ("prefix", &["24", "64", "8", "0", "200"]),
            ("netmask", &["255.255.255.0", "255.0.255.0"]),
            ("localPtr", YES_NO),
        ],
        &["dhcp", "tftp"],
        &[],
    ),
    kind("tftp", &[("root", &["/srv", "srv"])], &[], &[]),
    kind("dhcp", &[], &["range", "host", "bootp"], &[]),
    kind("range", &[("start", ADDRESSES), ("end", ADDRESSES)], &["lease"], &[]),
    kind(
        "host",
        &[("mac", &["52:54:00:00:00:02", "x"]), ("name", NAMES), ("ip", ADDRESSES), ("id", &["00:01:02", "x"])],
        &["lease"],
        &[],
    ),
    kind("lease", &[("expiry", NUMBERS), ("unit", &["seconds", "minutes", "hours", "days"])], &[], &[]),
    kind("bootp", &[("file", NAMES), ("server", ADDRESSES)], &[], &[]),
    kind(
        "route",
        &[
            ("address", ADDRESSES),
            ("gateway", ADDRESSES),
            ("family", &["ipv6", "ipv4"]),
            ("prefix", &["24", "64", "0"]),
            ("metric", NUMBERS),
        ],
        &[],
        &[],
    ),
    kind("virtualport", &[("type", &["openvswitch", "x"])], &[], &[]),
    kind(
        "dnsmasq:options",
        &[("xmlns:dnsmasq", &["http://libvirt.org/schemas/network/dnsmasq/1.0"])],
        &["dnsmasq:option"],
        &[],
    ),
    kind(
        "dnsmasq:option",
        &[(
            "value",
            &[
                "no-ping",
                "dhcp-option=option:ntp-server,10.0.0.1",
                "dhcp-option=3",
                "host-record=a,b.c,10.0.0.7,fd00::7",
                "txt-record=a.b,c,d",
                "srv-host=_a._tcp.b,c,1,2,3",
                "server=/corp/10.0.0.1#54",
                "dhcp-option=,",
                "server=//",
                "srv-host=,,,,,",
                "cname=a,b",
                "=",
            ],
        )],
        &[],
        &[],
    ),
    kind("netd:forwards", &[("xmlns:netd", &["urn:netd:network:1"])], &["netd:forward"], &[]),
    kind(
        "netd:forward",
        &[("proto", &["tcp", "udp", "sctp"]), ("port", &["80", "80-90", "0"]), ("address", ADDRESSES)],
        &["netd:to"],
        &[],
    ),
    kind("netd:to", &[("guest", NAMES), ("ip", ADDRESSES), ("port", &["80", "1-11", "65535"])], &[], &[]),
];

const TOP: &[&str] = &[
    "uuid",
    "title",
    "description",
    "metadata",
    "forward",
    "forward",
    "bridge",
    "bridge",
    "mtu",
    "mac",
    "domain",
    "dns",
    "vlan",
    "bandwidth",
    "port",
    "ip",
    "ip",
    "ip",
    "route",
    "virtualport",
    "portgroup",
    "netd:forwards",
    "dnsmasq:options",
];

fn one<'a>(random: &mut impl Rng, of: &[&'a str]) -> &'a str {
    // mostly the first few, which are the sound ones
    let end = if random.random_bool(0.7) { of.len().div_ceil(2) } else { of.len() };
    of[random.random_range(0..end)]
}

fn element(random: &mut impl Rng, name: &str, depth: u32, out: &mut String) {
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else { return };
    let written = if name == "hostname-host" { "host" } else { name };
    out.push_str(&format!("<{written}"));
    for (attribute, values) in kind.attributes {
        if random.random_bool(0.6) {
            out.push_str(&format!(" {attribute}='{}'", one(random, values).replace('\'', "&apos;")));
        }
    }
    out.push('>');
    if !kind.text.is_empty() {
        out.push_str(one(random, kind.text));
    }
    for child in kind.children {
        for _ in 0..random.random_range(0..3) {
            if depth < 4 && random.random_bool(0.6) {
                out.push_str(if random.random_bool(0.2) { "\n" } else { "" });
                element(random, child, depth + 1, out);
            }
        }
    }
    out.push_str(&format!("</{written}>"));
}

fn network(random: &mut impl Rng) -> String {
    let mut text = "<network".to_owned();
    for attribute in ["ipv6", "trustGuestRxFilters", "connections"] {
        if random.random_bool(0.1) {
            text.push_str(&format!(" {attribute}='{}'", one(random, YES_NO)));
        }
    }
    text.push_str("><name>a</name>\n");
    for _ in 0..random.random_range(0..5) {
        let name = TOP[random.random_range(0..TOP.len())];
        element(random, name, 0, &mut text);
        text.push('\n');
    }
    text.push_str("</network>");
    text
}

#[test]
fn documents_of_the_formats_own_words_are_refused_or_kept() {
    let mut random = StdRng::seed_from_u64(1122);
    let (mut kept, mut planned) = (0, 0);
    for _ in 0..30_000 {
        let text = network(&mut random);
        match parse(&text) {
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.contains(&format!("line {}", error.line)) && !message.contains('\n'),
                    "{text}\n{message}"
                );
                assert!(error.line as usize <= text.lines().count(), "{text}\n{message}");
            }
            Ok(network) => {
                kept += 1;
                let written = write(&network);
                let again = parse(&written).unwrap_or_else(|error| panic!("{error}\n{text}\n{written}"));
                // A UUID is made up where there is none, and then written.
                assert_eq!(again, network, "{text}\n{written}");
                assert_eq!(write(&again), written);
                let mut network = network;
                network.mac.get_or_insert_with(|| "52:54:00:aa:bb:cc".parse().unwrap());
                network.bridge.name.get_or_insert_with(|| "virbr0".parse().unwrap());
                if not_yet::refuse(&network).is_ok() {
                    planned += 1;
                    let ground = plan::ground(&network).unwrap();
                    plan::desired(&network, ground, Path::new("/etc/resolv.conf"), &[]);
                }
            }
        }
    }
    // Not all in vain.
    assert!(kept > 3000 && planned > 1000, "{kept} {planned}");
}
