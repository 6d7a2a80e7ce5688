//! Ports: taps whose life is their descriptors, for any program that asks.

use std::time::Duration;

use anyhow::{Context, Result};
use netd_api::PortRequest;
use tests::{
    daemon::Daemon,
    guest::Guest,
    initramfs,
    internet::{Internet, PAGE, WEB},
    paths,
    space::Space,
    station::Station,
    wait::{self, PATIENCE},
    xml,
};

fn request(guest: &str) -> PortRequest {
    PortRequest {
        network: "default".into(),
        guest: Some(guest.into()),
        mac: None,
        queues: 1,
        guards: None,
        portgroup: None,
    }
}

#[test]
fn a_port_lives_as_long_as_its_descriptors() -> Result<()> {
    let mut netd = Daemon::new("life")?;
    netd.ok(&["net-start", "default"])?;
    let (port, fds) = netd_api::blocking::add_port(&netd.socket(), request("vm1"))?;
    let links = netd.host.ip("-o link show master virbr0")?;
    assert!(links.contains(&format!("{}:", port.interface)), "{links}");
    assert!(port.mac.starts_with("52:54:00:"), "{port:?}");
    let own = netd.host.sh(&format!("cat /sys/class/net/{}/address", port.interface))?;
    assert_eq!(own.trim(), format!("fe{}", &port.mac[2..]), "the host's side keeps the bridge's MAC stable");
    assert!(netd.ok(&["port-list"])?.contains(&port.mac));
    drop(fds);
    wait::until_true("the link is gone", Duration::from_secs(1), || {
        Ok(netd.host.ip("-o link show master virbr0")?.is_empty())
    })?;
    wait::until_true("the port is gone", Duration::from_secs(1), || Ok(!netd.ok(&["port-list"])?.contains(&port.mac)))?;
    netd.finish()
}

#[test]
fn a_port_may_have_several_queues() -> Result<()> {
    let mut netd = Daemon::new("queues")?;
    netd.ok(&["net-start", "default"])?;
    let (port, fds) = netd_api::blocking::add_port(&netd.socket(), PortRequest { queues: 4, ..request("vm1") })?;
    assert_eq!((port.queues, fds.len()), (4, 4));
    assert!(netd.host.ip(&format!("-d link show {}", port.interface))?.contains("multi_queue"));
    drop(fds);
    let refusal = netd_api::blocking::add_port(&netd.socket(), PortRequest { queues: 0, ..request("vm1") });
    assert!(refusal.is_err());
    netd.finish()
}

#[test]
fn a_mac_is_on_one_port_at_a_time() -> Result<()> {
    let mut netd = Daemon::new("mac")?;
    netd.ok(&["net-start", "default"])?;
    let with_mac = |guest: &str| PortRequest { mac: Some("52:54:00:aa:bb:cc".into()), ..request(guest) };
    let first = netd_api::blocking::add_port(&netd.socket(), with_mac("vm1"))?;
    let refusal = netd_api::blocking::add_port(&netd.socket(), with_mac("vm2")).expect_err("a second use").to_string();
    assert!(refusal.contains("52:54:00:aa:bb:cc") && refusal.contains(&first.0.interface), "{refusal}");
    assert_eq!(netd.json(&["port-list"])?.as_array().context("a list")?.len(), 1);
    drop(first);
    wait::until_true("the MAC is free again", PATIENCE, || {
        Ok(netd_api::blocking::add_port(&netd.socket(), with_mac("vm2")).is_ok())
    })?;
    netd.finish()
}

#[test]
fn a_network_that_is_stopped_under_its_guests_has_them_back_when_it_starts() -> Result<()> {
    let mut netd = Daemon::new("stopped")?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    let address = station.lease()?;
    netd.ok(&["net-destroy", "default"])?;
    assert!(!station.reaches("192.168.122.1")?);
    netd.ok(&["net-start", "default"])?;
    wait::until_true("the guest reaches the host again", PATIENCE, || station.reaches("192.168.122.1"))?;
    assert!(netd.host.run("ping", &["-n", "-c1", "-W1", &address])?.status.success());
    drop(station);
    netd.finish()
}

#[test]
fn a_port_on_a_network_that_is_not_active_is_refused() -> Result<()> {
    let mut netd = Daemon::new("inactive")?;
    let refusal = netd_api::blocking::add_port(&netd.socket(), request("vm1")).expect_err("no network").to_string();
    assert!(refusal.contains("network 'default' is not active"), "{refusal}");
    netd.finish()
}

#[test]
fn any_program_can_be_put_on_a_network_with_a_port_in_its_descriptors() -> Result<()> {
    let mut netd = Daemon::new("exec")?;
    netd.ok(&["net-start", "default"])?;
    let script = "test -e /proc/self/fd/3; readlink /proc/self/fd/3; exec netd port-list";
    let mut command = netd.host.command(paths::program("netd")?);
    command
        .env("NETD_SOCKET", netd.socket())
        .env("PATH", format!("{}:/usr/bin:/bin", paths::program("netd")?.parent().context("a directory")?.display()));
    let output = command.args(["port", "exec", "default", "--", "sh", "-ec", script]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("/dev/net/tun") && said.contains("vnet0"), "{output:?}");

    let missing = netd.refused(&["port", "exec", "default", "--", "no-such-program"])?;
    assert!(missing.contains("no-such-program"), "{missing}");
    netd.finish()
}

#[test]
fn qemu_on_a_port_boots_a_stock_guest_that_leases_and_fetches_a_page() -> Result<()> {
    let host = Space::new("qemu")?;
    let internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let image = initramfs::guest_image()?;
    let mut command = netd.host.command(paths::program("netd")?);
    command.env("NETD_SOCKET", netd.socket()).args(["port", "exec", "default", "--"]);
    command.arg(paths::tool("qemu-system-x86_64")?).args(["-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults"]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]);
    command.args(["-netdev", "tap,id=n0,fd=3", "-device", "virtio-net-pci,netdev=n0,romfile="]);
    command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
    command.args(["-append", "console=ttyS0 quiet guest.name=qemu1"]);
    let mut guest = Guest::start("qemu1", &mut command)?;
    let (address, _) = guest.lease()?;
    assert!(netd.ok(&["net-dhcp-leases", "default"])?.contains(&address));
    assert_eq!(guest.ok(&format!("wget -q -O - http://{WEB}/"))?, PAGE.trim());
    assert_eq!(internet.visits().len(), 1);
    assert!(guest.power_off()?.success());
    netd.finish()
}

#[test]
fn two_networks_cannot_share_a_bridge() -> Result<()> {
    let mut netd = Daemon::new("bridge")?;
    netd.create(&xml::nat("blue", "same0", 110))?;
    let file = netd.file("green.xml", &xml::nat("green", "same0", 111))?;
    let refusal = netd.refused(&["net-create", &file])?;
    assert!(refusal.contains("same0") && refusal.contains("blue"), "{refusal}");
    netd.finish()
}
