//! The files by which libvirt's NSS modules know guests: `BRIDGE.status`, the leases, and `BRIDGE.macs`, whose MACs are
//! whose. With them `getent hosts vm1`, `ssh vm1` and the like work on the host, through libnss-libvirt as it is.
//!
//! The modules (`libvirt` by the name a guest gave to DHCP, `libvirt_guest` by the guest's own) read every such file in
//! one directory, which is compiled into them. Here is what the files say; `files` writes them.

mod files;

use std::collections::BTreeMap;

pub use files::{Files, keep};

use dhcp::{Lease, Lease6};
use serde_json::{Value, json};

use crate::port::Port;

/// When a lease without end ends, for readers that take 0 for long ago: in the year 9999.
const NEVER: u64 = 253_402_300_799;

/// What the modules are to know of one active network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name of its bridge, which names its files.
    pub bridge: String,
    /// Its leases.
    pub leases: Vec<Lease>,
    /// Its IPv6 leases.
    pub leases6: Vec<Lease6>,
    /// The DUID of our DHCPv6 server.
    pub duid: Vec<u8>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// `BRIDGE.status`: an array of leases, as libvirt's helper for dnsmasq writes them.
fn status(known: &Known) -> String {
    let entries = known.leases.iter().map(|lease| {
        let mut entry = json!({
            "ip-address": lease.address.to_string(),
            "mac-address": lease.mac.to_string(),
            "expiry-time": lease.expiry.unwrap_or(NEVER),
        });
        if let Some(hostname) = &lease.hostname {
            entry["hostname"] = json!(hostname);
        }
        if let Some(id) = &lease.client_id {
            entry["client-id"] = json!(hex(id));
        }
        entry
    });
    let entries6 = known.leases6.iter().map(|lease| {
        let mut entry = json!({
            "iaid": lease.iaid.to_string(),
            "ip-address": lease.address.to_string(),
            "mac-address": lease.mac.to_string(),
            "client-id": hex(&lease.duid),
            "server-duid": hex(&known.duid),
            "expiry-time": lease.expiry.unwrap_or(NEVER),
        });
        if let Some(hostname) = &lease.hostname {
            entry["hostname"] = json!(hostname);
        }
        entry
    });
    text(entries.chain(entries6).collect())
}

/// `BRIDGE.macs`: an array of guests and their MACs.
fn macs(ports: &[Port]) -> String {
    let mut guests: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for port in ports {
        if let Some(guest) = &port.guest {
            guests.entry(guest).or_default().push(port.mac.to_string());
        }
    }
    text(guests.into_iter().map(|(domain, macs)| json!({ "domain": domain, "macs": macs })).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn text(entries: Vec<Value>) -> String {
    format!("{:#}\n", Value::Array(entries))
}

#[cfg(test)]
mod tests {
    use dhcp::config::Mac;

    use super::*;
    use crate::model::MacAddr;

    #[test]
    fn the_files_say_what_libvirts_modules_read() {
        let lease = |last, hostname: Option<&str>, client_id, expiry| Lease {
            mac: Mac([0x52, 0x54, 0, 0, 0, last]),
            address: std::net::Ipv4Addr::new(192, 168, 122, last),
            prefix: 24,
            hostname: hostname.map(str::to_owned),
            client_id,
            expiry,
        };
        let leases = vec![lease(7, Some("web"), Some(vec![1, 0x52]), Some(1_800_000_000)), lease(8, None, None, None)];
        let lease6 = Lease6 {
            mac: Mac([0x52, 0x54, 0, 0, 0, 7]),
            iaid: 4_000_000_000,
            address: "fd00::7".parse().unwrap(),
            prefix: 64,
            hostname: Some("web".into()),
            duid: vec![0, 3, 0, 1],
            expiry: Some(1_800_000_000),
        };
        let expected = r#"[
  {
    "client-id": "01:52",
    "expiry-time": 1800000000,
    "hostname": "web",
    "ip-address": "192.168.122.7",
    "mac-address": "52:54:00:00:00:07"
  },
  {
    "expiry-time": 253402300799,
    "ip-address": "192.168.122.8",
    "mac-address": "52:54:00:00:00:08"
  },
  {
    "client-id": "00:03:00:01",
    "expiry-time": 1800000000,
    "hostname": "web",
    "iaid": "4000000000",
    "ip-address": "fd00::7",
    "mac-address": "52:54:00:00:00:07",
    "server-duid": "00:04:01"
  }
]
"#;
        let known =
            Known { bridge: "virbr0".into(), leases, leases6: vec![lease6], duid: vec![0, 4, 1], ports: vec![] };
        assert_eq!(status(&known), expected);
        assert_eq!(status(&Known { leases: vec![], leases6: vec![], ..known }), "[]\n");

        let port = |last: u8, guest: Option<&str>| Port {
            interface: format!("vnet{last}"),
            index: last.into(),
            network: "default".into(),
            guest: guest.map(str::to_owned),
            mac: MacAddr([0x52, 0x54, 0, 0, 0, last]),
            mtu: 1500,
            queues: 1,
            guards: true,
            group: None,
            host_bridge: None,
            macvtap: None,
            kept: false,
        };
        let expected = r#"[
  {
    "domain": "vm1",
    "macs": [
      "52:54:00:00:00:01",
      "52:54:00:00:00:03"
    ]
  },
  {
    "domain": "vm2",
    "macs": [
      "52:54:00:00:00:02"
    ]
  }
]
"#;
        let ports = [port(1, Some("vm1")), port(2, Some("vm2")), port(3, Some("vm1")), port(4, None)];
        assert_eq!(macs(&ports), expected);
    }
}
