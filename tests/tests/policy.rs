//! Whom guests may talk to: each other, and which services of the host.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
};

use anyhow::Result;
use tests::{
    daemon::Daemon,
    internet::{Internet, PAGE, WEB},
    paths,
    space::{Running, Space},
    station::Station,
    wait::{self, PATIENCE},
};

fn network(inside: &str) -> String {
    format!(
        "<network xmlns:netd='urn:netd:network:1'><name>lab</name><forward mode='nat'/><bridge name='br-lab'/>\
         <ip address='10.88.0.1' prefix='24'><dhcp><range start='10.88.0.10' end='10.88.0.99'/></dhcp></ip>{inside}</network>"
    )
}

/// Whether a TCP connection is taken.
fn connects(station: &Station, address: &str, port: u16) -> Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}");
    Ok(station.space.run("timeout", &["2", "bash", "-c", &script])?.status.success())
}

/// A listener on every address of a space, for as long as it is held.
fn listen(space: &Space, port: u16) -> Result<TcpListener> {
    space.inside(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))
}

#[test]
fn guests_that_may_not_talk_reach_the_host_and_the_internet_but_not_each_other_by_any_way() -> Result<()> {
    let host = Space::new("silent")?;
    let _internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.create(&network("<netd:guests talk='no'/>"))?;
    let (one, two) = (Station::plug(&netd, "lab", "one")?, Station::plug(&netd, "lab", "two")?);
    let addresses = (one.lease()?, two.lease()?);
    assert!(one.reaches("10.88.0.1")? && two.reaches("10.88.0.1")?);
    assert_eq!(one.fetch(WEB)?, PAGE);
    assert!(!one.reaches(&addresses.1)?, "over the bridge");
    // Around the bridge's isolation, by the host as a router.
    one.space.ip(&format!("route add {}/32 via 10.88.0.1", addresses.1))?;
    two.space.ip(&format!("route add {}/32 via 10.88.0.1", addresses.0))?;
    assert!(!one.reaches(&addresses.1)? && !two.reaches(&addresses.0)?, "through the host");
    // Nor by a port forward, which is for everybody else.
    let _web = listen(&two.space, 8080)?;
    netd.ok(&["forward-add", "lab", "tcp/8080", "two:8080"])?;
    assert!(!connects(&one, "10.88.0.1", 8080)?, "by a port forward");
    netd.host.sh("timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080'")?;
    assert!(netd.ok(&["port-info", "one"])?.contains("Isolated:       yes"));
    drop((one, two));
    netd.finish()
}

#[test]
fn without_a_policy_guests_talk_as_with_libvirt() -> Result<()> {
    let mut netd = Daemon::new("open")?;
    netd.create(&network(""))?;
    let (one, two) = (Station::plug(&netd, "lab", "one")?, Station::plug(&netd, "lab", "two")?);
    let address = two.lease()?;
    one.lease()?;
    assert!(one.reaches(&address)?);
    one.space.ip(&format!("route add {address}/32 via 10.88.0.1"))?;
    assert!(one.reaches(&address)?, "through the host");
    let _service = listen(&netd.host, 4000)?;
    assert!(connects(&one, "10.88.0.1", 4000)?);
    assert!(!netd.host.check("nft", &["list", "table", "inet", "netd"])?.contains("host_access"));
    drop((one, two));
    netd.finish()
}

#[test]
fn of_the_hosts_services_guests_reach_those_that_are_allowed() -> Result<()> {
    let host = Space::new("access")?;
    let _internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.create(&network("<netd:host-access><netd:allow protocol='tcp' port='4000-4001'/></netd:host-access>"))?;
    let guest = Station::plug(&netd, "lab", "one")?;
    let address = guest.lease()?;
    let _services = (listen(&netd.host, 4000)?, listen(&netd.host, 4002)?);
    assert!(connects(&guest, "10.88.0.1", 4000)?);
    assert!(!connects(&guest, "10.88.0.1", 4002)?);
    assert!(!guest.reaches("10.88.0.1")?, "nobody allowed icmp");
    // The host's other addresses are the host's too.
    assert!(!connects(&guest, "203.0.113.2", 4002)?);
    // DHCP, DNS and what is behind the host are as always.
    assert_eq!(guest.lease()?, address);
    let answer = guest.space.check("dig", &["+short", "+tries=2", "@10.88.0.1", "one"])?;
    assert_eq!(answer.trim(), address);
    assert_eq!(guest.fetch(WEB)?, PAGE);
    // What the host asks is answered.
    let _of_guest = listen(&guest.space, 4003)?;
    netd.host.sh(&format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/4003'"))?;
    assert!(netd.host.run("ping", &["-n", "-c", "1", "-W", "2", &address])?.status.success());

    // The rules are put back like all others, and a new daemon keeps them.
    netd.host.check("nft", &["flush", "ruleset"])?;
    wait::until_true("the rules are back", PATIENCE, || {
        Ok(netd.host.check("nft", &["list", "ruleset"])?.contains("host_br-lab"))
    })?;
    assert!(!connects(&guest, "10.88.0.1", 4002)?);
    netd.kill()?;
    netd.start()?;
    assert!(!connects(&guest, "10.88.0.1", 4002)? && connects(&guest, "10.88.0.1", 4000)?);
    drop(guest);
    netd.finish()
}

#[test]
fn dns_on_a_high_port_is_reached_though_nothing_is_allowed() -> Result<()> {
    let host = Space::new("taken")?;
    // Another program has port 53 of every address.
    let mut command = host.command(paths::tool("dnsmasq")?);
    let arguments = ["--conf-file=/dev/null", "--keep-in-foreground", "--no-resolv", "--pid-file=", "--port=53"];
    let other = Running(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    wait::until_true("port 53 is taken", PATIENCE, || Ok(host.sh("ss -lun")?.contains("0.0.0.0:53")))?;
    let mut netd = Daemon::on(host)?;
    netd.create(&network("<netd:host-access/>"))?;
    let guest = Station::plug(&netd, "lab", "one")?;
    let address = guest.lease()?;
    let answer = guest.space.check("dig", &["+short", "+tries=2", "@10.88.0.1", "one"])?;
    assert_eq!(answer.trim(), address);
    drop(guest);
    netd.finish()?;
    drop(other);
    Ok(())
}
