//! Calls as no honest client makes them: every method with values of all kinds in its parameters, and bytes changed. Pure.
//!
//! Two tests take them: `hostile.rs` beside this on a host made of values, `tests/daemon/hostile.rs` on a real daemon.

use rand::{Rng, RngExt};
use serde_json::{Map, Value, json};

/// A call, ending as calls do.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// An answer may take its time, or never come: the call waits for something to happen, or says that it wants none.
    pub(crate) waits: bool,
}

const INTERFACE: &str = "io.netd.Networks";
const XML: &[&str] = &[
    "<network><name>default</name></network>",
    "<network><name>a</name><forward mode='nat'/><bridge name='br-a'/><ip address='172.20.1.1' prefix='24'><dhcp>\
     <range start='172.20.1.10' end='172.20.1.99'/></dhcp></ip></network>",
    "<network><name>a</name><bridge name='br-a'/><mtu size='1400'/><ip address='172.20.2.1' prefix='24'/></network>",
    "<network><name>b</name><forward mode='route'/><bridge name='br-b'/><ip family='ipv6' address='fd00:5::1' \
     prefix='64'/><portgroup name='g'><bandwidth><inbound average='100'/></bandwidth></portgroup></network>",
    "<network xmlns:n='urn:netd:network:1'><name>b</name><forward mode='nat'/><bridge name='br-b'/>\
     <ip address='172.20.3.1' prefix='24'/><n:guests talk='no'/><n:forwards><n:forward proto='tcp' port='80'>\
     <n:to guest='vm1'/></n:forward></n:forwards></network>",
    "<network><name>c</name><forward mode='bridge'/><bridge name='br-a'/></network>",
    "<host ip='172.20.1.5'><hostname>five</hostname></host>",
    "<range start='172.20.1.100' end='172.20.1.110'/>",
    "<host mac='52:54:00:00:00:01' name='g1' ip='172.20.1.5'/>",
    "<app xmlns='urn:app'/>",
    "<network",
    "",
];
const NETWORKS: &[&str] =
    &["default", "a", "b", "c", "nope", "", "../a", "7a79c35c-44f8-4e9d-96d2-66fd9a9bf362", "\u{0}"];
const GUESTS: &[&str] = &["vm1", "vm2", "", "a/b", "é", "vnet0", "x y"];
const MACS: &[&str] = &["52:54:00:00:00:01", "52:54:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "x", ""];
const ADDRESSES: &[&str] = &["172.20.1.5", "0.0.0.0", "::", "fd00:5::9", "127.0.0.1", "255.255.255.255", "1.1.1", ""];
const INTERFACES: &[&str] = &["vnet0", "vnet1", "lo", "br-a", "virbr0", "", "../x", "a-name-that-is-too-long"];
const SECTIONS: &[&str] = &[
    "bridge",
    "domain",
    "ip",
    "ip-dhcp-host",
    "ip-dhcp-range",
    "forward",
    "forward-interface",
    "forward-pf",
    "portgroup",
    "dns-host",
    "dns-txt",
    "dns-srv",
    "x",
];

/// What a parameter of this name is in a call that makes sense, or nearly.
fn fitting(random: &mut impl Rng, name: &str) -> Value {
    let interface = name == "port" && random.random_bool(0.5);
    let mut one_of = |values: &[&str]| json!(values[random.random_range(0..values.len())]);
    match name {
        "xml" | "text" => one_of(XML),
        "network" => one_of(NETWORKS),
        "guest" | "hostname" => one_of(GUESTS),
        "mac" => one_of(MACS),
        "address" => one_of(ADDRESSES),
        "port" if interface => one_of(INTERFACES),
        "source" => one_of(&["lease", "arp", "any", "172.20.1.5"]),
        "interface" => one_of(INTERFACES),
        "section" => one_of(SECTIONS),
        "command" => one_of(&["none", "modify", "delete", "add_first", "add_last"]),
        "protocol" => one_of(&["tcp", "udp", "ipv4", "ipv6"]),
        "kind" => one_of(&["title", "description", "element"]),
        "forms" => one_of(&["current", "live", "config", "both"]),
        "uri" => one_of(&["urn:app", ""]),
        "key" => one_of(&["app", "xml", ""]),
        "portgroup" => one_of(&["g", "nope"]),
        "client_id" => one_of(&["01:52:54:00:00:00:01", "zz", ""]),
        "autostart" | "inactive" | "guards" | "dry_run" | "live" | "config" | "probe" => json!(random.random_bool(0.5)),
        // A flow is waited for at most so long.
        "seconds" => json!(random.random_range(-1..2)),
        "forward" => parameters(random, &["network", "protocol", "first_port", "last_port", "address", "targets"]),
        "targets" => some(random, &["guest", "address", "port"]),
        "flow" => parameters(random, &["guest", "address", "protocol", "port", "source"]),
        "update" => parameters(random, &["network", "command", "section", "xml", "parent_index", "live", "config"]),
        "leases" => some(random, &["expiry", "mac", "protocol", "address", "prefix", "hostname", "client_id"]),
        "ports" => some(random, &["interface", "mac", "guest"]),
        _ => json!(number(random)),
    }
}

fn number(random: &mut impl Rng) -> i64 {
    [0, 1, 2, 22, 24, 80, 253, 254, 1500, 65535, 65536, -1, i64::from(u32::MAX), i64::MAX][random.random_range(0..14)]
}

fn some(random: &mut impl Rng, names: &[&str]) -> Value {
    (0..random.random_range(0..3)).map(|_| parameters(random, names)).collect()
}

/// Nearly always all of them, and nearly always what fits.
fn parameters(random: &mut impl Rng, names: &[&str]) -> Value {
    let mut all = Map::new();
    for name in names {
        match random.random_range(0..24) {
            0 => {}
            1 => drop(all.insert((*name).into(), anything(random, 3))),
            2 => drop(all.insert(format!("{name}s"), fitting(random, name))),
            _ => drop(all.insert((*name).into(), fitting(random, name))),
        }
    }
    Value::Object(all)
}

fn anything(random: &mut impl Rng, depth: usize) -> Value {
    match random.random_range(0..if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.random_bool(0.5)),
        2 => json!(number(random)),
        3 => json!(1e308),
        4 => json!(["", "x", "\u{0}\u{202e}", "<", "'; --", "%s%n"][random.random_range(0..6)]),
        5 => (0..random.random_range(0..4)).map(|_| anything(random, depth - 1)).collect(),
        6 => json!({ "x": anything(random, depth - 1), "": anything(random, depth - 1) }),
        // As deep as a reader may be led.
        _ => (0..random.random_range(0..100)).fold(Value::Null, |inner, _| json!([inner])),
    }
}

/// The names of a method's parameters; a method that is not listed has none.
fn names(method: &str) -> &'static [&'static str] {
    match method {
        "GetNetwork" | "StartNetwork" | "DestroyNetwork" | "UndefineNetwork" => &["network"],
        "ListPorts" | "ListForwards" | "ConfirmChange" | "Monitor" => &["network"],
        "DefineNetwork" | "CreateNetwork" => &["xml"],
        "SetAutostart" => &["network", "autostart"],
        "DumpXml" => &["network", "inactive"],
        "GetMetadata" => &["network", "kind", "uri", "inactive"],
        "SetMetadata" => &["network", "kind", "uri", "key", "text", "forms"],
        "ListLeases" => &["network", "mac"],
        "GetPorts" => &["port"],
        "AddPort" => &["network", "guest", "mac", "queues", "guards", "portgroup"],
        "CreatePort" => &["network", "guest", "mac"],
        "DeletePort" => &["interface"],
        "ListAddresses" => &["guest", "source"],
        "OpenCapture" => &["interface", "snaplen"],
        "AddForward" => &["forward"],
        "DeleteForward" => &["network", "protocol", "first_port", "last_port", "address"],
        "ImportLeases" => &["network", "leases"],
        "AdoptNetwork" => &["xml", "ports", "leases"],
        "ApplyNetwork" => &["xml", "dry_run", "confirm"],
        "UpdateNetwork" => &["update"],
        "Explain" => &["flow", "probe", "seconds"],
        _ => &[],
    }
}

impl Message {
    /// One call of one of these methods.
    pub(crate) fn random(random: &mut impl Rng, methods: &[String]) -> Self {
        let method = &methods[random.random_range(0..methods.len())];
        let mut call =
            json!({ "method": format!("{INTERFACE}.{method}"), "parameters": parameters(random, names(method)) });
        let odd = random.random_range(0..12);
        match odd {
            0 => call["more"] = json!(true),
            1 => call["oneway"] = json!(true),
            2 => call["upgrade"] = json!(true),
            3 => call["parameters"] = anything(random, 3),
            4 => drop(call.as_object_mut().map(|call| call.remove("parameters"))),
            _ => {}
        }
        let mut bytes = call.to_string().into_bytes();
        let broken = random.random_bool(0.2);
        if broken {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes.truncate(at + 1),
                    1 => bytes[at] = random.random(),
                    _ => bytes.insert(at, [b'"', b'{', b'[', b'}', b',', 0][random.random_range(0..6)]),
                }
            }
        }
        bytes.push(0);
        Message { bytes, waits: broken || odd < 5 || matches!(method.as_str(), "Explain" | "Monitor") }
    }
}
