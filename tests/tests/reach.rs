//! Who reaches whom, and who must not: two subnets, the host and the Internet.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netd_api::PortRequest;
use tests::{
    crowd::{self, Errand, Plug},
    daemon::Daemon,
    internet::{GATEWAY, HOST, Internet, PAGE, WEB},
    space::Space,
    station::Station,
    xml,
};

fn host_with_internet(name: &str) -> Result<(Daemon, Internet)> {
    let host = Space::new(name)?;
    let internet = Internet::connect(&host)?;
    Ok((Daemon::on(host)?, internet))
}

#[test]
fn a_guest_behind_nat_is_seen_as_the_host_and_is_not_reached_from_outside() -> Result<()> {
    let (mut netd, internet) = host_with_internet("nat")?;
    netd.ok(&["net-start", "default"])?;
    let guest = Station::plug(&netd, "default", "vm1")?;
    let address = guest.lease()?;
    assert_eq!(guest.fetch(WEB)?, PAGE);
    let visit = internet.visits().pop().context("a visit")?;
    assert_eq!(visit.source.ip(), HOST);
    assert!(visit.source.port() >= 1024, "{visit:?}");
    assert!(guest.reaches(&GATEWAY.to_string())?);

    // A way to the guests exists, but only answers may use it.
    internet.space.ip(&format!("route add 192.168.122.0/24 via {HOST}"))?;
    assert!(!internet.space.run("ping", &["-n", "-c1", "-W1", &address])?.status.success());
    assert!(netd.host.run("ping", &["-n", "-c1", "-W1", &address])?.status.success());
    drop(guest);
    netd.finish()
}

#[test]
fn guests_of_one_network_reach_each_other_and_those_of_two_nat_networks_do_not() -> Result<()> {
    let (mut netd, _internet) = host_with_internet("two")?;
    netd.create(&xml::nat("blue", "blue0", 100))?;
    netd.create(&xml::nat("green", "green0", 101))?;
    let plug = |network: &str, name: &str| {
        let station = Station::plug(&netd, network, name)?;
        let address = station.lease()?;
        anyhow::Ok((station, address))
    };
    let ((blue1, _), (_blue2, blue2_at), (green, green_at)) =
        (plug("blue", "blue1")?, plug("blue", "blue2")?, plug("green", "green1")?);
    assert!(blue1.reaches(&blue2_at)?);
    assert!(!blue1.reaches(&green_at)?);
    assert!(!green.reaches(&blue2_at)?);
    assert_eq!(blue1.fetch(WEB)?, PAGE);
    assert_eq!(green.fetch(WEB)?, PAGE);
    drop((blue1, _blue2, green));
    netd.finish()
}

#[test]
fn an_isolated_network_reaches_the_host_and_nothing_else() -> Result<()> {
    let (mut netd, internet) = host_with_internet("isolated")?;
    netd.create(&xml::isolated("red", "red0", 102))?;
    netd.create(&xml::nat("blue", "blue0", 103))?;
    let (red, red2, blue) =
        (Station::plug(&netd, "red", "r1")?, Station::plug(&netd, "red", "r2")?, Station::plug(&netd, "blue", "b1")?);
    let (red_at, red2_at, blue_at) = (red.lease()?, red2.lease()?, blue.lease()?);
    assert!(red.reaches(&red2_at)? && red.reaches("192.168.102.1")?);
    // No router is offered; a guest that sets one itself gets no further.
    assert_eq!(red.space.ip("route show default")?, "");
    red.space.ip("route add default via 192.168.102.1")?;
    assert!(!red.reaches(&GATEWAY.to_string())?);
    assert!(!red.reaches(&blue_at)?);
    assert!(!blue.reaches(&red_at)?);
    assert!(red.fetch(WEB).is_err());
    assert_eq!(internet.visits(), []);
    drop((red, red2, blue));
    netd.finish()
}

#[test]
fn a_routed_network_keeps_its_addresses_and_is_reached_from_outside() -> Result<()> {
    let (mut netd, internet) = host_with_internet("routed")?;
    internet.space.ip(&format!("route add 192.168.104.0/24 via {HOST}"))?;
    netd.create(&xml::network("gold", "gold0", "<forward mode='route'/>", 104, ""))?;
    let guest = Station::plug(&netd, "gold", "g1")?;
    let address = guest.lease()?;
    assert_eq!(guest.fetch(WEB)?, PAGE);
    assert_eq!(internet.visits()[0].source.ip().to_string(), address);
    assert!(internet.space.run("ping", &["-n", "-c1", "-W1", &address])?.status.success());
    drop(guest);
    netd.finish()
}

#[test]
fn an_open_network_has_no_firewall_rule_of_ours() -> Result<()> {
    let (mut netd, internet) = host_with_internet("open")?;
    internet.space.ip(&format!("route add 192.168.105.0/24 via {HOST}"))?;
    netd.create(&xml::network("free", "free0", "<forward mode='open'/>", 105, ""))?;
    let guest = Station::plug(&netd, "free", "f1")?;
    let address = guest.lease()?;
    assert_eq!(guest.fetch(WEB)?, PAGE);
    assert_eq!(internet.visits()[0].source.ip().to_string(), address);
    let rules = netd.host.sh("nft list ruleset")?;
    assert!(!rules.contains("192.168.105.") || !rules.contains("reject"), "{rules}");
    drop(guest);
    netd.finish()
}

#[test]
fn a_new_port_forwards_within_twenty_milliseconds() -> Result<()> {
    let (mut netd, _internet) = host_with_internet("quick")?;
    netd.ok(&["net-start", "default"])?;
    let mut times = Vec::new();
    for n in 0..11 {
        let request =
            PortRequest { network: "default".into(), guest: None, mac: None, queues: 1, guards: None, portgroup: None };
        let (port, mut fds) = netd_api::blocking::add_port(&netd.socket(), request)?;
        let added = Instant::now();
        let plugs = [Plug::new(&format!("q{n}"), &port.mac, fds.pop().context("a descriptor")?)?];
        // The lease is four packets through the new port, both ways; a frame that is lost costs seconds.
        crowd::run(&plugs, &Errand::default(), Duration::from_secs(5))?[0].address.context("no lease")?;
        times.push(added.elapsed());
    }
    times.sort();
    assert!(times[5] < Duration::from_millis(20), "{times:?}");
    netd.finish()
}

#[test]
fn what_others_keep_in_nftables_is_left_alone() -> Result<()> {
    let host = Space::new("others")?;
    host.sh("nft add table ip mine; nft add chain ip mine forward '{ type filter hook forward priority 0; }'; nft add rule ip mine forward counter accept")?;
    let mut netd = Daemon::on(host)?;
    let before = netd.host.sh("nft list table ip mine")?;
    netd.ok(&["net-start", "default"])?;
    netd.ok(&["net-destroy", "default"])?;
    assert_eq!(netd.host.sh("nft list table ip mine")?, before);
    netd.finish()
}
