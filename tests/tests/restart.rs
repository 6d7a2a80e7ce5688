//! A daemon that is killed loses nothing, and the next one finds things as they are.

use std::{io::Read, process::Stdio, thread, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tests::{
    daemon::Daemon,
    internet::{Internet, PAGE, WEB},
    space::{Running, Space},
    station::Station,
    wait::{self, PATIENCE},
    xml,
};

#[test]
fn guests_keep_talking_while_no_daemon_runs_and_the_next_one_serves_them() -> Result<()> {
    let host = Space::new("killed")?;
    let _internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let (vm1, vm2) = (Station::plug(&netd, "default", "vm1")?, Station::plug(&netd, "default", "vm2")?);
    let (address1, address2) = (vm1.lease()?, vm2.lease()?);
    let seen = |netd: &Daemon| {
        anyhow::Ok((
            netd.ok(&["net-list", "--all"])?,
            netd.json(&["port-list"])?,
            netd.json(&["net-dhcp-leases", "default"])?,
        ))
    };
    let before = seen(&netd)?;
    netd.kill()?;
    assert!(vm1.reaches(&address2)?);
    assert_eq!(vm2.fetch(WEB)?, PAGE);
    netd.start()?;
    assert_eq!(seen(&netd)?, before);
    assert_eq!(vm2.fetch(WEB)?, PAGE);
    // Names, leases and new ports are served again.
    assert_eq!(vm1.space.sh("dig +short +time=2 @192.168.122.1 vm2")?.trim(), address2);
    assert_eq!(vm1.lease()?, address1);
    let vm3 = Station::plug(&netd, "default", "vm3")?;
    let address3 = vm3.lease()?;
    assert!(vm1.reaches(&address3)?);
    drop((vm1, vm2, vm3));
    netd.finish()
}

#[test]
fn what_happens_while_no_daemon_runs_is_seen_by_the_next_one() -> Result<()> {
    let mut netd = Daemon::new("meanwhile")?;
    netd.ok(&["net-start", "default"])?;
    netd.create(&xml::nat("blue", "blue0", 130))?;
    let (gone, stays) = (Station::plug(&netd, "default", "gone")?, Station::plug(&netd, "blue", "stays")?);
    stays.lease()?;
    netd.kill()?;
    drop(gone);
    netd.host.sh("nft flush ruleset; ip link del virbr0")?;
    netd.start()?;
    let ports = netd.json(&["port-list"])?;
    assert_eq!(ports.as_array().context("a list")?.len(), 1, "{ports}");
    wait::until_true("the firewall rules are back", PATIENCE, || {
        Ok(netd.host.sh("nft list ruleset")?.contains("blue0"))
    })?;
    assert!(stays.reaches("192.168.130.1")?);
    drop(stays);
    netd.finish()
}

#[test]
fn a_daemon_killed_beside_a_hundred_networks_takes_all_of_them_over_and_no_packet_is_lost() -> Result<()> {
    let host = Space::new("hundred")?;
    let _internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    for number in 1..100 {
        netd.create(&xml::nat(&format!("n{number}"), &format!("br{number}"), 130 + number))?;
    }
    let vm1 = Station::plug(&netd, "default", "vm1")?;
    vm1.lease()?;
    let ping = vm1
        .space
        .command(tests::paths::tool("ping")?)
        .args(["-n", "-q", "-i", "0.02", &WEB.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ping = Running(ping);
    for _ in 0..3 {
        netd.kill()?;
        netd.start()?;
        assert_eq!(netd.ok(&["net-list", "--name"])?.split_whitespace().count(), 100);
    }
    ping.signal(Signal::SIGINT);
    let mut summary = String::new();
    ping.0.stdout.take().context("its output")?.read_to_string(&mut summary)?;
    ping.0.wait()?;
    assert!(summary.contains(" 0% packet loss"), "{summary}");
    drop(vm1);
    netd.finish()
}

#[test]
fn what_others_break_is_put_back() -> Result<()> {
    let host = Space::new("broken")?;
    let _internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let vm1 = Station::plug(&netd, "default", "vm1")?;
    vm1.lease()?;
    let tap = vm1.port.as_ref().context("a port")?.interface.clone();
    netd.host.sh("nft flush ruleset")?;
    wait::until_true("the ruleset is back", PATIENCE, || Ok(netd.host.sh("nft list ruleset")?.contains("masquerade")))?;
    assert_eq!(vm1.fetch(WEB)?, PAGE);
    netd.host.ip(&format!("link set {tap} nomaster"))?;
    wait::until_true("the tap is on the bridge again", PATIENCE, || {
        Ok(netd.host.ip("-o link show master virbr0")?.contains(&tap))
    })?;
    netd.host.ip("link del virbr0")?;
    wait::until_true("the bridge is back with its address and its port", PATIENCE, || {
        let link = netd.host.run("ip", &["-o", "-4", "address", "show", "dev", "virbr0"])?;
        Ok(String::from_utf8_lossy(&link.stdout).contains("192.168.122.1/24")
            && netd.host.ip("-o link show master virbr0")?.contains(&tap))
    })?;
    wait::until_true("the guest reaches the Internet again", PATIENCE, || Ok(vm1.fetch(WEB).is_ok()))?;
    vm1.lease()?;
    drop(vm1);
    netd.finish()
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_start_or_stop_leaves_what_the_next_one_can_use() -> Result<()> {
    let mut netd = Daemon::new("anywhere")?;
    for verb in ["net-start", "net-destroy"] {
        for delay in [0, 2, 5, 10, 15, 20, 30, 50] {
            // Wherever the last round was cut off: make the state that the verb needs.
            let wanted = if verb == "net-start" { "net-destroy" } else { "net-start" };
            netd.netd(&[wanted, "default"])?;
            let mut command = netd.host.command(tests::paths::program("netd")?);
            command.env("NETD_SOCKET", netd.socket()).args([verb, "default"]);
            let mut client = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
            thread::sleep(Duration::from_millis(delay));
            netd.kill()?;
            client.wait()?;
            netd.start().with_context(|| format!("after {verb} was cut off after {delay} ms"))?;
            let list = netd.ok(&["net-list", "--name"])?;
            let active = list.trim() == "default";
            assert_eq!(netd.host.ip("-o link")?.contains("virbr0"), active, "{verb}, {delay} ms: {list}");
            assert_eq!(netd.host.sh("nft list ruleset")?.contains("virbr0"), active, "{verb}, {delay} ms: {list}");
        }
    }
    netd.finish()
}
