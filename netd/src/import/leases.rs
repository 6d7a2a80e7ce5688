//! Leases as libvirt's helper and as dnsmasq itself write them. Pure.

use std::net::IpAddr;

use netd_api::Lease;
use serde::Deserialize;

use crate::model::{MacAddr, Network, printable};

/// One of the two formats.
pub(crate) type Reader = fn(&str) -> Result<Vec<Raw>, String>;

/// A lease as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    expiry: i64,
    mac: Option<String>,
    address: String,
    hostname: Option<String>,
    client_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    ip_address: String,
    mac_address: Option<String>,
    hostname: Option<String>,
    client_id: Option<String>,
    #[serde(default)]
    expiry_time: i64,
}

/// `BRIDGE.status`: JSON. An empty file is one without leases.
pub(crate) fn status(text: &str) -> Result<Vec<Raw>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> =
        serde_json::from_str(text).map_err(|error| format!("it is not a list of leases: {error}"))?;
    let raw = |Entry { ip_address, mac_address, hostname, client_id, expiry_time }| Raw {
        expiry: expiry_time,
        mac: mac_address,
        address: ip_address,
        hostname,
        client_id,
    };
    Ok(entries.into_iter().map(raw).collect())
}

/// dnsmasq's own: `EXPIRY MAC ADDRESS HOSTNAME|* CLIENTID|*`, and after a line `duid …` those of IPv6.
pub(crate) fn native(text: &str) -> Result<Vec<Raw>, String> {
    let mut leases = Vec::new();
    let or_none = |word: &str| (word != "*").then(|| word.to_owned());
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] | ["duid", ..] => {}
            [expiry, mac, address, hostname, rest @ ..] if expiry.parse::<i64>().is_ok() => leases.push(Raw {
                expiry: expiry.parse().unwrap_or_default(),
                mac: address.parse::<std::net::Ipv4Addr>().is_ok().then(|| (*mac).to_owned()),
                address: (*address).to_owned(),
                hostname: or_none(hostname),
                client_id: rest.first().and_then(|word| or_none(word)),
            }),
            _ => return Err(format!("line {} is no lease: {}", number + 1, printable(line))),
        }
    }
    Ok(leases)
}

/// Adds to `taken` the leases that the network can have; a sentence for each kind that it cannot.
pub(crate) fn fit(raw: Vec<Raw>, network: &Network, taken: &mut Vec<Lease>) -> Vec<String> {
    let (mut of_ipv6, mut left) = (0, Vec::new());
    for Raw { expiry, mac, address, hostname, client_id } in raw {
        let address = match address.parse() {
            Ok(IpAddr::V4(address)) => address,
            Ok(IpAddr::V6(_)) => {
                of_ipv6 += 1;
                continue;
            }
            Err(_) => {
                left.push(format!("'{}' is no address", printable(&address)));
                continue;
            }
        };
        let Some(mac) = mac.as_deref().and_then(|mac| mac.parse::<MacAddr>().ok()) else {
            left.push(format!("the lease of {address} names no MAC address"));
            continue;
        };
        let Some(subnet) = network.subnets.iter().find(|subnet| subnet.address.contains(&IpAddr::V4(address))) else {
            left.push(format!("{address} is on none of the network's subnets"));
            continue;
        };
        let is_hex =
            |text: &String| text.split(':').all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok());
        taken.retain(|lease: &Lease| lease.mac != mac.to_string() && lease.address != address.to_string());
        taken.push(Lease {
            expiry,
            mac: mac.to_string(),
            protocol: "ipv4".into(),
            address: address.to_string(),
            prefix: subnet.address.prefix_len(),
            hostname,
            client_id: client_id.filter(is_hex),
            iaid: None,
        });
    }
    if of_ipv6 > 0 {
        left.push(format!("{of_ipv6} leases of IPv6 are not imported: their guests ask again"));
    }
    left
}
