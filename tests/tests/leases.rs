//! DHCPv4 as clients people have see it: udhcpc, ISC dhclient and dhcpcd on ports and on veth ends.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use netd_api::PortRequest;
use tests::{
    crowd::{self, Errand, Plug},
    daemon::Daemon,
    dhcp_client::{Client, Kind},
    internet::{Internet, PAGE, WEB, WEB_NAME},
    sniffer::{ACK, DISCOVER, OFFER, REQUEST, Sniffer},
    space::Space,
    station::Station,
    wait::{self, PATIENCE},
    xml,
};

fn daemon() -> Result<Daemon> {
    let netd = Daemon::new("leases")?;
    netd.ok(&["net-start", "default"])?;
    Ok(netd)
}

/// Leases, renews and releases with one kind of client.
fn whole_life(kind: Kind, netd: &Daemon, station: &Station) -> Result<()> {
    let client = Client::start(kind, &station.space, "client1")?;
    let address = client.bound()?;
    assert!(address.starts_with("192.168.122."), "{address}");
    assert_eq!(station.address()?.as_deref(), Some(address.as_str()));
    let route = station.space.ip("route show default")?;
    assert!(route.starts_with("default via 192.168.122.1 dev eth0"), "{route}");
    let mac = station.mac()?;
    let leases = netd.ok(&["net-dhcp-leases", "default", "--mac", &mac])?;
    for part in [mac.as_str(), "ipv4", &format!("{address}/24"), "client1"] {
        assert!(leases.contains(part), "{part} is not in\n{leases}");
    }
    assert_eq!(client.renew()?, address);
    client.release()?;
    wait::until_true("the lease is gone", PATIENCE, || {
        Ok(!netd.ok(&["net-dhcp-leases", "default"])?.contains(&address))
    })
}

#[test]
fn udhcpc_on_a_port_leases_renews_and_releases() -> Result<()> {
    let mut netd = daemon()?;
    whole_life(Kind::Udhcpc, &netd, &Station::plug(&netd, "default", "vm1")?)?;
    netd.finish()
}

#[test]
fn dhclient_on_a_port_leases_renews_and_releases() -> Result<()> {
    let mut netd = daemon()?;
    whole_life(Kind::Dhclient, &netd, &Station::plug(&netd, "default", "vm1")?)?;
    netd.finish()
}

#[test]
fn dhcpcd_on_a_port_leases_renews_and_releases() -> Result<()> {
    let mut netd = daemon()?;
    whole_life(Kind::Dhcpcd, &netd, &Station::plug(&netd, "default", "vm1")?)?;
    netd.finish()
}

#[test]
fn every_client_on_a_veth_end_put_on_the_bridge_by_hand_is_served_too() -> Result<()> {
    let mut netd = daemon()?;
    for kind in Kind::ALL {
        let station = Station::by_hand(&netd, "virbr0", &format!("hand{kind:?}").to_lowercase())?;
        whole_life(kind, &netd, &station).with_context(|| format!("{kind:?}"))?;
    }
    netd.finish()
}

#[test]
fn the_lease_table_looks_as_virsh_shows_it() -> Result<()> {
    let mut netd = daemon()?;
    let station = Station::plug(&netd, "default", "vm1")?;
    let address = station.lease()?;
    let text = netd.ok(&["net-dhcp-leases", "default"])?;
    let lines: Vec<&str> = text.lines().collect();
    // Columns are as wide as their widest cell, so only their names are always the same.
    let names: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID"]);
    assert!(lines[1].chars().all(|c| c == '-') && lines[1].len() > 100, "{text}");
    let row: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(row[2..5], [&station.mac()?, "ipv4", &format!("{address}/24")]);

    let text = netd.ok(&["domifaddr", "vm1"])?;
    let port = station.port.as_ref().context("a port")?;
    let expected = format!(
        " Name       MAC address          Protocol     Address\n{}\n {:<10} {:<17}    {:<12} {}/24\n",
        "-".repeat(79),
        port.interface,
        port.mac,
        "ipv4",
        address
    );
    assert_eq!(text.trim_end(), expected.trim_end());
    station.reaches("192.168.122.1")?;
    let text = netd.ok(&["domifaddr", "vm1", "--source", "arp"])?;
    assert!(text.contains(&address), "{text}");
    drop(station);
    netd.finish()
}

#[test]
fn a_lease_is_the_ports_own_and_comes_back_after_a_restart_of_the_guest() -> Result<()> {
    let mut netd = daemon()?;
    let request = || PortRequest {
        network: "default".into(),
        guest: Some("vm1".into()),
        mac: Some("52:54:00:12:34:56".into()),
        queues: 1,
        guards: None,
        portgroup: None,
    };
    let station = Station::plug_with(&netd, "first", request())?;
    let address = station.lease()?;
    let other = Station::plug(&netd, "default", "vm2")?.lease()?;
    assert_ne!(address, other);
    drop(station);
    wait::until_true("the first port is gone", PATIENCE, || {
        Ok(!netd.ok(&["port-list"])?.contains("52:54:00:12:34:56"))
    })?;
    let again = Station::plug_with(&netd, "again", request())?;
    assert_eq!(again.lease()?, address);
    drop(again);
    netd.finish()
}

#[test]
fn reservations_are_kept_by_mac_and_by_name() -> Result<()> {
    let mut netd = Daemon::new("reserved")?;
    let text = xml::nat("blue", "blue0", 80).replace(
        "    </dhcp>",
        "      <host mac='52:54:00:00:00:07' name='seven' ip='192.168.80.7'/>\n      \
         <host name='eight' ip='192.168.80.108'/>\n    </dhcp>",
    );
    netd.create(&text)?;
    let plug = |name: &str, mac: Option<&str>| {
        let request = PortRequest {
            network: "blue".into(),
            mac: mac.map(str::to_owned),
            queues: 1,
            guest: None,
            guards: None,
            portgroup: None,
        };
        Station::plug_with(&netd, name, request)
    };
    let seven = plug("x", Some("52:54:00:00:00:07"))?;
    assert_eq!(seven.lease()?, "192.168.80.7");
    let eight = plug("eight", None)?;
    assert_eq!(eight.lease()?, "192.168.80.108");
    let nine = plug("nine", None)?;
    let address: Ipv4Addr = nine.lease()?.parse()?;
    assert!((10..=199).contains(&address.octets()[3]) && address.octets()[3] != 108, "{address}");
    assert!(netd.ok(&["net-dhcp-leases", "blue"])?.contains("seven"));
    drop((seven, eight, nine));
    netd.finish()
}

#[test]
fn a_host_firewall_that_drops_all_input_does_not_stop_leases() -> Result<()> {
    let host = Space::new("firewall")?;
    host.sh("nft add table inet strict; nft add chain inet strict input '{ type filter hook input priority 0; policy drop; }'")?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    station.lease()?;
    drop(station);
    netd.finish()
}

#[test]
fn udhcpc_waits_less_than_five_milliseconds_for_the_server() -> Result<()> {
    let mut netd = daemon()?;
    let sniffer = Sniffer::start(&netd.host)?;
    let mut times = Vec::new();
    for n in 0..7 {
        let begun = Instant::now();
        let station = Station::plug(&netd, "default", &format!("quick{n}"))?;
        station.lease()?;
        let mac = station.mac()?;
        let seen = |kind| sniffer.first(&mac, kind, begun).with_context(|| format!("no message {kind} was seen"));
        // Not from DISCOVER to ACK: in between udhcpc opens a packet socket, for which the kernel makes it wait.
        times.push((seen(OFFER)?.at - seen(DISCOVER)?.at) + (seen(ACK)?.at - seen(REQUEST)?.at));
    }
    times.sort();
    // The whole exchange with a commit to disk. Most runs may be disturbed by what else this machine does: two prove
    // that nothing in it waits.
    assert!(times[1] < Duration::from_millis(5), "{times:?}");
    netd.finish()
}

#[test]
fn the_first_guest_of_an_empty_network_is_answered_at_once_every_time() -> Result<()> {
    // A bridge that gets its first port has its carrier at once and its queue discipline a moment later: an OFFER
    // sent in between was swallowed without an error, and the guest asked again seconds later.
    let mut netd = daemon()?;
    for n in 0..40 {
        let request =
            PortRequest { network: "default".into(), guest: None, mac: None, queues: 1, guards: None, portgroup: None };
        let (port, mut fds) = netd_api::blocking::add_port(&netd.socket(), request)?;
        let plug = Plug::new(&format!("first{n}"), &port.mac, fds.pop().context("a descriptor")?)?;
        let reports = crowd::run(&[plug], &Errand::default(), PATIENCE)?;
        let after = reports[0].lease_after.context("no lease")?;
        assert!(after < Duration::from_secs(2), "guest {n} had to ask twice: {after:?}");
    }
    netd.finish()
}

#[test]
fn thirty_guests_at_once_lease_resolve_and_fetch_a_page() -> Result<()> {
    let host = Space::new("crowd")?;
    let internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let plugs = (0..30)
        .map(|n| {
            let name = format!("guest{n}");
            let request = PortRequest {
                network: "default".into(),
                guest: Some(name.clone()),
                mac: None,
                queues: 1,
                guards: None,
                portgroup: None,
            };
            let (port, mut fds) = netd_api::blocking::add_port(&netd.socket(), request)?;
            Plug::new(&name, &port.mac, fds.pop().context("a descriptor")?)
        })
        .collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let errand = Errand { resolve: Some(WEB_NAME.into()), fetch: true };
    let reports = crowd::run(&plugs, &errand, Duration::from_secs(20))?;
    let mut addresses: Vec<Ipv4Addr> = reports.iter().filter_map(|report| report.address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 30, "every guest has an address of its own: {reports:#?}");
    for report in &reports {
        assert_eq!((report.resolved, report.page.as_deref()), (Some(WEB), Some(PAGE)), "{report:#?}");
    }
    assert_eq!(internet.visits().len(), 30, "after {:?}", begun.elapsed());
    drop(plugs);
    netd.finish()
}
