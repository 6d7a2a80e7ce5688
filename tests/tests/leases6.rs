//! IPv6 as a guest meets it: advertisements, leases of DHCPv6, names, and what the commands say of them.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::Daemon,
    paths,
    space::Running,
    station::Station,
    wait::{self, PATIENCE},
};

/// libvirt's own example of a network with DHCPv6, and a name for it.
const XML: &str = "<network><name>six</name><forward mode='route'/><bridge name='br-six'/><domain name='lab.example'/>
  <ip family='ipv6' address='2001:db8:ca2:2::1' prefix='64'>
    <dhcp><range start='2001:db8:ca2:2:1::10' end='2001:db8:ca2:2:1::ff'/></dhcp>
  </ip>
</network>\n";

/// Runs ISC's client in the foreground; it sets what it is given, and ends when dropped without giving it back.
fn dhclient(station: &Station, rest: &[&str]) -> Result<Running> {
    let file = |name: &str| station.space.dir().join(name);
    let script =
        "#!/bin/sh\n[ -n \"$new_ip6_address\" ] && ip -6 addr replace $new_ip6_address/128 dev eth0 nodad\nexit 0\n";
    fs::write(file("script"), script)?;
    let mut command = station.space.command(paths::tool("sh")?);
    let (script, conf, leases, pid) = (file("script"), file("conf"), file("leases"), file("pid"));
    let name = station.space.name().split('-').next().unwrap_or_default().to_owned();
    fs::write(&conf, format!("send fqdn.fqdn \"{name}.\";\nalso request dhcp6.fqdn;\n"))?;
    command.arg("-c").arg(format!(
        "chmod +x {0} && exec dhclient -6 -d {4} -sf {0} -cf {1} -lf {2} -pf {3} eth0",
        script.display(),
        conf.display(),
        leases.display(),
        pid.display(),
        rest.join(" ")
    ));
    let output = fs::File::create(file("client.out"))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(Running(command.spawn()?))
}

/// The global addresses of a guest, without prefix lengths.
fn addresses(station: &Station) -> Result<Vec<String>> {
    let text = station.space.ip("-6 -o address show dev eth0 scope global")?;
    let address = |line: &str| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned);
    Ok(text.lines().filter_map(address).collect())
}

/// Waits until the guest may ask: its link-local address is its own.
fn ready(station: &Station) -> Result<()> {
    wait::until_true("a link-local address", PATIENCE, || {
        Ok(!station.space.ip("-6 -o address show dev eth0 scope link -tentative")?.is_empty())
    })
}

/// The one lease that the command lists of a guest.
fn leased(netd: &Daemon, mac: &str) -> Result<Option<String>> {
    let listed = netd.ok(&["net-dhcp-leases", "six", "--mac", mac])?;
    let line = listed.lines().find(|line| line.contains("ipv6"));
    Ok(line.and_then(|line| line.split_whitespace().find(|word| word.ends_with("/64"))).map(str::to_owned))
}

#[test]
fn a_guest_gets_an_address_by_dhcpv6_and_every_command_and_name_has_it() -> Result<()> {
    let mut netd = Daemon::new("dhcp6")?;
    let file = netd.file("six.xml", XML)?;
    netd.ok(&["net-define", &file])?;
    netd.ok(&["net-start", "six"])?;
    let guest = Station::plug(&netd, "six", "vm1")?;
    ready(&guest)?;
    let client = dhclient(&guest, &[])?;
    let address = wait::until("an address", PATIENCE, || {
        Ok(addresses(&guest)?.into_iter().find(|address| address.starts_with("2001:db8:ca2:2:1:")))
    })
    .with_context(|| fs::read_to_string(guest.space.dir().join("client.out")).unwrap_or_default())?;
    // DHCPv6 gives it, and the guest makes none of its own of the prefix; but the way out is advertised.
    wait::until_true("the router", PATIENCE, || Ok(guest.space.ip("-6 route show default")?.contains("proto ra")))?;
    assert_eq!(addresses(&guest)?.len(), 1);
    assert!(guest.reaches("2001:db8:ca2:2::1")?);

    // As libvirt prints it.
    let mac = guest.mac()?;
    let listed = netd.ok(&["net-dhcp-leases", "six"])?;
    let lines: Vec<&str> = listed.lines().collect();
    let words: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(words[2..5], [&*mac, "ipv6", &format!("{address}/64")], "{listed}");
    assert!(words[6].starts_with("00:0"), "a DUID: {listed}");
    let shown = netd.ok(&["domifaddr", "vm1"])?;
    assert!(shown.contains(&format!("ipv6         {address}/64")), "{shown}");

    // By the guest's name, forward and back.
    let dig = |question: &str| {
        let answer = guest.space.sh(&format!("dig +short +tries=2 +time=3 @2001:db8:ca2:2::1 {question} || true"))?;
        Ok::<_, anyhow::Error>(answer.trim().to_owned())
    };
    wait::until_true("the name", PATIENCE, || Ok(dig("vm1.lab.example AAAA")? == address))?;
    assert_eq!(dig(&format!("-x {address}"))?, "vm1.lab.example.");

    // Nobody else may have it: the lease ranks above whoever would be first.
    let other = Station::plug(&netd, "six", "vm2")?;
    ready(&other)?;
    other.space.ip(&format!("address add {address}/64 dev eth0 nodad"))?;
    let ping = other.space.run("ping", &["-n", "-c1", "-W1", "-I", &address, "2001:db8:ca2:2::1"])?;
    assert!(!ping.status.success());
    assert!(guest.reaches("2001:db8:ca2:2::1")?);

    // A daemon that ends says nothing to guests, and the next one knows the lease.
    netd.kill()?;
    netd.start()?;
    assert_eq!(leased(&netd, &mac)?, Some(format!("{address}/64")));
    assert!(guest.space.ip("-6 route show default")?.contains("proto ra"));
    assert!(guest.reaches("2001:db8:ca2:2::1")?);

    drop(client);
    let release = dhclient(&guest, &["-r"])?;
    wait::until_true("the lease to be given back", PATIENCE, || Ok(leased(&netd, &mac)?.is_none()))?;
    wait::until_true("the name to go", PATIENCE, || Ok(dig("vm1.lab.example AAAA")?.is_empty()))?;
    // With the network goes the router.
    netd.ok(&["net-destroy", "six"])?;
    wait::until_true("the router to go", PATIENCE, || Ok(guest.space.ip("-6 route show default")?.is_empty()))?;
    drop((release, guest, other));
    netd.ok(&["net-undefine", "six"])?;
    netd.finish()
}

#[test]
fn reservations_and_prefixes_change_under_guests() -> Result<()> {
    let mut netd = Daemon::new("change6")?;
    netd.create(XML)?;
    let guest = Station::plug(&netd, "six", "vm1")?;
    ready(&guest)?;
    let mac = guest.mac()?;
    let host = "<host name='vm1' ip='2001:db8:ca2:2::77'/>";
    netd.ok(&["net-update", "six", "add", "ip-dhcp-host", host, "--live", "--parent-index", "0"])?;
    // Somebody else was first to use it; a lease ranks above that.
    let other = Station::plug(&netd, "six", "vm2")?;
    let stolen = "2001:db8:ca2:2::77";
    other.space.ip(&format!("address add {stolen}/64 dev eth0 nodad"))?;
    let works = |station: &Station| {
        let ping = station.space.run("ping", &["-n", "-c1", "-W1", "-I", stolen, "2001:db8:ca2:2::1"])?;
        anyhow::Ok(ping.status.success())
    };
    wait::until_true("the address to work for its first user", PATIENCE, || works(&other))?;
    let first = dhclient(&guest, &[])?;
    wait::until_true("its reservation", PATIENCE, || {
        Ok(leased(&netd, &mac)?.as_deref() == Some("2001:db8:ca2:2::77/64"))
    })?;
    wait::until_true("the address to work for its owner", PATIENCE, || {
        Ok(addresses(&guest)?.len() == 1 && works(&guest)?)
    })?;
    let dropped = || anyhow::Ok(!netd.ok(&["port-info", "vm2"])?.contains("IP 0,"));
    assert!(!dropped()?);
    assert!(!works(&other)? && dropped()?, "it is not the first user's any more");
    drop((first, other));
    netd.ok(&["net-update", "six", "delete", "ip-dhcp-host", host, "--live", "--parent-index", "0"])?;
    let range = "<range start='2001:db8:ca2:2:2::10' end='2001:db8:ca2:2:2::10'/>";
    netd.ok(&["net-update", "six", "add", "ip-dhcp-range", range, "--live", "--parent-index", "0"])?;
    assert!(netd.ok(&["net-dumpxml", "six"])?.contains("2001:db8:ca2:2:2::10"));

    // Another prefix, of which guests make addresses themselves: the old one is for nothing new.
    let slaac = |n: u8| {
        format!(
            "<network><name>six</name><forward mode='route'/><bridge name='br-six'/>\
             <ip family='ipv6' address='2001:db8:ca2:{n}::1' prefix='64'/></network>\n"
        )
    };
    for n in [3, 4] {
        let file = netd.file("six.xml", &slaac(n))?;
        netd.ok(&["net-apply", &file])?;
        let prefix = format!("2001:db8:ca2:{n}:");
        wait::until_true("an address of the prefix", PATIENCE, || {
            Ok(addresses(&guest)?.iter().any(|address| address.starts_with(&prefix)))
        })?;
    }
    wait::until_true("the old address to be deprecated", PATIENCE, || {
        let shown = guest.space.ip("-6 -o address show dev eth0 scope global deprecated")?;
        Ok(shown.contains("2001:db8:ca2:3:") && !shown.contains("2001:db8:ca2:4:"))
    })?;
    let listed = netd.ok(&["net-dhcp-leases", "six"])?;
    ensure!(!listed.contains("ipv6"), "{listed}");
    drop(guest);
    netd.finish()
}
