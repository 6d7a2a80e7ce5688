//! Addresses of guests that no lease tells of: from what they say on the wire.

use std::fs::{self, File};

use anyhow::{Context, Result};
use netd_api::PortRequest;
use serde_json::Value;
use tests::{
    daemon::Daemon,
    paths,
    space::Running,
    station::Station,
    wait::{self, PATIENCE},
};

/// A bridge with nothing on it: what a guest in bridge mode sees of the host.
const BARE: &str = "<network><name>bare</name><bridge name='bare0'/></network>";

fn plug(netd: &Daemon, guest: &str) -> Result<Station> {
    let request = PortRequest {
        network: "bare".into(),
        guest: Some(guest.into()),
        mac: None,
        queues: 1,
        guards: Some(false),
        ..PortRequest::default()
    };
    Station::plug_with(netd, guest, request)
}

/// The one of these addresses that `domifaddr` shows, whatever else it shows.
fn shown(netd: &Daemon, words: &[&str], address: &str) -> Result<Option<Value>> {
    let all = netd.json(&[&["domifaddr"], words].concat())?;
    let all = all.as_array().context("a list")?;
    Ok(all.iter().find(|entry| entry["address"] == address).cloned())
}

fn waited(netd: &Daemon, words: &[&str], address: &str) -> Result<Value> {
    wait::until(&format!("domifaddr shows {address}"), PATIENCE, || shown(netd, words, address))
}

#[test]
fn a_guest_with_an_address_of_its_own_is_found_by_what_it_says() -> Result<()> {
    let mut netd = Daemon::new("static")?;
    netd.create(BARE)?;
    let told = netd.host.dir().join("events");
    let mut command = netd.host.command(paths::program("netd")?);
    command.env("NETD_SOCKET", netd.socket()).args(["events", "--json"]).stdout(File::create(&told)?);
    let events = Running(command.spawn()?);
    let (one, two) = (plug(&netd, "vm1")?, plug(&netd, "vm2")?);
    one.space.ip("address add 10.9.9.1/24 dev eth0")?;
    two.space.ip("address add 10.9.9.2/24 dev eth0")?;
    wait::until_true("the guests reach each other", PATIENCE, || one.reaches("10.9.9.2"))?;
    // The host has no address there, so its own neighbour table knows nobody.
    assert_eq!(netd.host.ip("neigh show dev bare0")?, "");
    let seen = waited(&netd, &["vm1", "--source", "arp"], "10.9.9.1")?;
    let port = one.port.as_ref().context("a port")?;
    assert_eq!((&seen["interface"], &seen["mac"]), (&port.interface.clone().into(), &port.mac.clone().into()));
    assert_eq!((&seen["source"], &seen["protocol"]), (&"arp".into(), &"ipv4".into()));
    assert!(seen["age_seconds"].as_u64().is_some(), "{seen}");

    // Where nobody asked for leases and there is none, it is shown, and said.
    let output = netd.netd(&["domifaddr", "vm1"])?;
    let (text, note) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("10.9.9.1/0") && text.contains("s ago"), "{text}");
    assert!(note.contains("'vm1' has no lease"), "{note}");
    assert!(!netd.ok(&["domifaddr", "vm1", "--source", "lease"])?.contains("10.9.9.1"));
    assert!(shown(&netd, &["vm2", "--source", "any"], "10.9.9.1")?.is_none(), "it is another's");

    // Whoever waits for an address has this one, and whoever listens to events has heard of it.
    assert_eq!(netd.ok(&["wait", "vm1", "--for", "address", "--timeout", "10"])?.trim(), "10.9.9.1");
    wait::until_true("the event is told", PATIENCE, || {
        let seen = |line: &str| ["address_seen", "\"10.9.9.1\"", "\"vm1\""].iter().all(|word| line.contains(word));
        Ok(fs::read_to_string(&told)?.lines().any(seen))
    })?;
    drop(events);

    // Its link-local address was heard when it asked whether it may have it.
    let local = one.space.ip("-o -6 address show dev eth0 scope link")?;
    let local = local.split_whitespace().skip_while(|word| *word != "inet6").nth(1).context("a link-local address")?;
    let local = local.split('/').next().context("an address")?;
    assert_eq!(waited(&netd, &["vm1", "--source", "any"], local)?["source"], "nd");

    // An address that moves to another guest is that one's.
    one.space.ip("address flush dev eth0")?;
    two.space.ip("address flush dev eth0")?;
    two.space.ip("address add 10.9.9.1/24 dev eth0")?;
    one.space.ip("address add 10.9.9.3/24 dev eth0")?;
    wait::until_true("the guests reach each other again", PATIENCE, || two.reaches("10.9.9.3"))?;
    waited(&netd, &["vm2", "--source", "any"], "10.9.9.1")?;
    assert!(shown(&netd, &["vm1", "--source", "any"], "10.9.9.1")?.is_none());
    drop((one, two));
    netd.finish()
}

#[test]
fn addresses_are_heard_again_on_a_bridge_that_was_deleted_and_put_back() -> Result<()> {
    let mut netd = Daemon::new("healed")?;
    netd.create(BARE)?;
    let (one, two) = (plug(&netd, "vm1")?, plug(&netd, "vm2")?);
    netd.host.ip("link delete bare0")?;
    two.space.ip("address add 10.9.9.2/24 dev eth0")?;
    one.space.ip("address add 10.9.9.1/24 dev eth0")?;
    wait::until("the address is seen", PATIENCE, || {
        one.space.ip("neigh flush dev eth0")?;
        one.reaches("10.9.9.2")?;
        shown(&netd, &["vm1"], "10.9.9.1")
    })?;
    drop((one, two));
    netd.finish()
}

#[test]
fn a_lease_of_another_dhcp_server_is_seen_passing_by() -> Result<()> {
    let mut netd = Daemon::new("other")?;
    netd.create(BARE)?;
    let server = Station::by_hand(&netd, "bare0", "server")?;
    server.space.ip("address add 10.9.9.200/24 dev eth0")?;
    let mut command = server.space.command("/usr/sbin/dnsmasq");
    command.args(["--keep-in-foreground", "--no-ping", "--port=0", "--interface=eth0", "--dhcp-broadcast"]);
    command.args(["--dhcp-range=10.9.9.50,10.9.9.60,1h", "--conf-file=/dev/null", "--user=root"]);
    command.arg(format!("--dhcp-leasefile={}", server.space.dir().join("leases").display()));
    command.arg("--pid-file").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let dnsmasq = Running(command.spawn()?);
    let guest = plug(&netd, "vm1")?;
    let address = guest.lease()?;
    let seen = waited(&netd, &["vm1"], &address)?;
    assert!(seen["source"] == "dhcp" || seen["source"] == "arp", "{seen}");
    drop((guest, dnsmasq, server));
    netd.finish()
}

#[test]
fn a_lease_that_was_seen_in_use_says_when() -> Result<()> {
    let mut netd = Daemon::new("leased")?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    let address = station.lease()?;
    assert!(shown(&netd, &["vm1"], &address)?.context("the lease")?["age_seconds"].is_null());
    wait::until("the lease has an age", PATIENCE, || {
        station.reaches("192.168.122.1")?;
        let entry = shown(&netd, &["vm1", "--source", "any"], &address)?.context("the lease")?;
        assert_eq!((&entry["source"], &entry["prefix"]), (&"lease".into(), &24.into()));
        Ok(entry["age_seconds"].as_u64())
    })?;
    let refused = netd.refused(&["domifaddr", "vm1", "--source", "agent"])?;
    assert!(refused.contains("QEMU guest agent is not configured"), "{refused}");
    drop(station);
    netd.finish()
}
