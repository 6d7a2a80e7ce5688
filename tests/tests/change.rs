//! Networks that change under their guests: nobody is cut, and what does not come to an end is as before.

use std::{
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    daemon::Daemon,
    internet::{Internet, WEB},
    paths,
    space::Space,
    station::Station,
    wait::{self, PATIENCE},
};

/// A network with parts of its own.
fn network(forward: &str, bridge: &str, before: &str, ip: &str, after: &str) -> String {
    format!(
        "<network><name>lan</name>{forward}<bridge name='br-lan'{bridge}/>{before}\
         <ip address='192.168.80.1' {ip}<range start='192.168.80.10' end='192.168.80.99'/></dhcp></ip>{after}</network>"
    )
}

const NAT: &str = "<forward mode='nat'/>";
const IP: &str = "prefix='24'><dhcp>";

fn plain() -> String {
    network(NAT, "", "", IP, "")
}

/// Echo requests, twenty in a second, until someone asks what became of them.
struct Ping(Child);

impl Ping {
    fn start(station: &Station, address: &str) -> Result<Self> {
        let mut command = station.space.command(paths::tool("ping")?);
        let child = command.args(["-n", "-i", "0.01", address]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
        Ok(Ping(child))
    }

    /// How many were answered, after some more; not one may be missing in between.
    fn end(self) -> Result<usize> {
        self.end_but_for(0)
    }

    /// The same, with so many that may be.
    fn end_but_for(mut self, may_be_lost: usize) -> Result<usize> {
        // Those that are on their way now still count.
        thread::sleep(Duration::from_millis(500));
        kill(Pid::from_raw(self.0.id().try_into()?), Signal::SIGINT)?;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().context("its output")?, &mut said)?;
        self.0.wait()?;
        let answered: Vec<usize> =
            said.lines().filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok()).collect();
        let last = answered.iter().max().copied().unwrap_or(0);
        let lost: Vec<usize> = (1..=last).filter(|number| !answered.contains(number)).collect();
        ensure!(lost.len() <= may_be_lost, "lost {lost:?} of {last}:\n{said}");
        let sent = said.lines().find_map(|line| line.split_once(" packets transmitted")?.0.parse::<usize>().ok());
        ensure!(sent.is_some_and(|sent| sent <= last + 1), "the last answered is {last}:\n{said}");
        Ok(last)
    }
}

/// Interfaces, by index: who is whose port.
fn links(host: &Space) -> Result<Vec<String>> {
    let text = host.ip("-o link show")?;
    let place = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let master = words.iter().position(|word| *word == "master").and_then(|at| words.get(at + 1));
        format!("{} {} {:?}", words[0], words[1], master)
    };
    Ok(text.lines().map(place).collect())
}

#[test]
fn every_attribute_changes_under_a_guest_that_loses_no_packet() -> Result<()> {
    let host = Space::new("attributes")?;
    let _internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    let apply = |xml: &str| -> Result<()> {
        let file = netd.file("lan.xml", xml)?;
        netd.ok(&["net-apply", &file])?;
        let again = netd.ok(&["net-apply", &file])?;
        ensure!(again.contains("nothing to change"), "{again}");
        Ok(())
    };
    apply(&plain())?;
    let station = Station::plug(&netd, "lan", "vm1")?;
    station.lease()?;
    let place = links(&netd.host)?;
    let to_the_host = Ping::start(&station, "192.168.80.1")?;
    let outside = Ping::start(&station, &WEB.to_string())?;
    let seen = |command: &str, part: &str| -> Result<()> {
        let text = netd.host.sh(command)?;
        ensure!(text.contains(part), "`{command}` has no '{part}':\n{text}");
        Ok(())
    };
    let dns = "<dns><host ip='192.168.80.5'><hostname>printer</hostname></host></dns>";
    let second = "<ip address='192.168.81.1' prefix='24'/>";
    let ipv6 = "<ip family='ipv6' address='fd00:80::1' prefix='64'/>";
    let route = |gateway: u8| format!("<route address='172.30.0.0' prefix='16' gateway='192.168.80.{gateway}'/>");
    let ports = "<forward mode='nat'><nat><port start='20000' end='30000'/></nat></forward>";
    let link = "ip -d link show br-lan";
    let still_nat: Vec<(String, &str, &str)> = vec![
        (network(NAT, "", "<mtu size='9000'/>", IP, ""), link, "mtu 9000"),
        (network(NAT, "", "<mtu size='1300'/>", IP, ""), "ip link show vnet0", "mtu 1300"),
        (plain(), "ip link show vnet0", "mtu 1500"),
        (network(NAT, " stp='on' delay='3'", "", IP, ""), link, "forward_delay 300"),
        (network(NAT, " stp='on' delay='5'", "", IP, ""), link, "forward_delay 500"),
        (plain(), link, "stp_state 0"),
        (network(NAT, "", "", IP, second), "ip addr show br-lan", "192.168.81.1/24"),
        (network(NAT, "", "", IP, ipv6), "ip -6 address show dev br-lan", "fd00:80::1/64"),
        (plain(), "ip -6 address show dev br-lan; echo end", "end"),
        (network(NAT, "", "", "prefix='23'><dhcp>", ""), "ip addr show br-lan", "192.168.80.1/23"),
        (network(NAT, "", "", IP, &route(2)), "ip route show", "172.30.0.0/16 via 192.168.80.2"),
        (network(NAT, "", "", IP, &route(3)), "ip route show", "172.30.0.0/16 via 192.168.80.3"),
        (network(NAT, "", "<domain name='lab.example'/>", IP, ""), "true", ""),
        (network(NAT, "", dns, IP, ""), "dig +short @192.168.80.1 printer", "192.168.80.5"),
        (network(NAT, "", "<dns enable='no'/>", IP, ""), "ss -Hlnu sport = 53; echo end", "end"),
        (network(ports, "", "", IP, ""), "nft list chain inet netd nat_br-lan", ":20000-30000"),
        (
            network("<forward mode='nat' dev='uplink'/>", "", "", IP, ""),
            "nft list table inet netd",
            "oifname \"uplink\"",
        ),
        (network(NAT, "", "<port isolated='yes'/>", IP, ""), "bridge -d link show dev vnet0", "isolated on"),
        (network(NAT, "", "", "prefix='24'><dhcp><host mac='52:54:00:00:00:09' ip='192.168.80.9'/>", ""), "true", ""),
        (plain(), "bridge -d link show dev vnet0", "isolated off"),
    ];
    for (xml, command, part) in &still_nat {
        apply(xml)?;
        seen(command, part)?;
    }
    let answered = outside.end()?;
    ensure!(answered > 20, "only {answered} to the Internet");
    // Without NAT there is no way out, which is as it should be; the host is still there.
    let other_modes = [
        ("<forward mode='route'/>", "ip saddr 192.168.80.0/24 return"),
        ("<forward mode='open'/>", "chain forwarded"),
        ("", "reject"),
        (NAT, "masquerade"),
    ];
    for (mode, part) in other_modes {
        apply(&network(mode, "", "", IP, ""))?;
        seen("nft list table inet netd", part)?;
    }
    let answered = to_the_host.end()?;
    ensure!(answered > 20, "only {answered} to the host");
    ensure!(links(&netd.host)? == place, "an interface was made anew or is elsewhere");
    ensure!(station.reaches(&WEB.to_string())?, "back to where it began");
    drop(station);
    netd.finish()
}

#[test]
fn guests_hear_of_another_mac_at_once() -> Result<()> {
    let mut netd = Daemon::new("mac")?;
    let ipv6 = "<ip family='ipv6' address='fd00:80::1' prefix='64'/>";
    let with = |mac: &str| network(NAT, "", &format!("<mac address='{mac}'/>"), IP, ipv6);
    let apply = |mac: &str| netd.ok(&["net-apply", &netd.file("lan.xml", &with(mac))?]);
    apply("52:54:00:77:77:70")?;
    let station = Station::plug(&netd, "lan", "vm1")?;
    station.lease()?;
    let place = links(&netd.host)?;
    let ping = Ping::start(&station, "192.168.80.1")?;
    wait::until_true("the guest knows the host", PATIENCE, || {
        Ok(station.space.ip("neigh show 192.168.80.1")?.contains("52:54:00:77:77:70"))
    })?;
    let macs = ["52:54:00:77:77:71", "52:54:00:77:77:72", "52:54:00:77:77:73"];
    for mac in macs {
        apply(mac)?;
        wait::until_true("the guest knows of the new MAC", PATIENCE, || {
            Ok(station.space.ip("neigh show 192.168.80.1")?.contains(mac))
        })?;
    }
    // Only what is on its way to the old one just then can be lost; asking for it anew takes a second or more.
    let answered = ping.end_but_for(5 * macs.len())?;
    ensure!(answered > 10, "only {answered}");
    ensure!(links(&netd.host)? == place);
    let own = netd.host.ip("-6 address show dev br-lan")?;
    ensure!(own.contains("fd00:80::1/64") && own.contains("fe80::5054:ff:fe77:7773/64"), "{own}");
    ensure!(!own.contains("fe77:7770"), "{own}");
    drop(station);
    netd.finish()
}

#[test]
fn a_reservation_made_live_is_for_the_next_discover_and_leases_stay() -> Result<()> {
    let mut netd = Daemon::new("reserve")?;
    netd.ok(&["net-start", "default"])?;
    let (first, second) = (Station::plug(&netd, "default", "vm1")?, Station::plug(&netd, "default", "vm2")?);
    let (had, other) = (first.lease()?, second.lease()?);
    let element = format!("<host mac='{}' ip='192.168.122.200'/>", first.mac()?);
    let said = netd.ok(&["net-update", "default", "add", "ip-dhcp-host", &element, "--live", "--config"])?;
    ensure!(said == "Updated network default persistent config and live state\n\n", "{said}");
    let leases = netd.ok(&["net-dhcp-leases", "default"])?;
    ensure!(leases.contains(&had) && leases.contains(&other), "{leases}");
    ensure!(first.reaches("192.168.122.1")? && second.reaches("192.168.122.1")?, "a lease that is there is good");
    ensure!(first.lease()? == "192.168.122.200", "{}", netd.ok(&["net-dhcp-leases", "default"])?);
    ensure!(second.lease()? == other);
    ensure!(first.reaches("192.168.122.1")?, "its guard has opened for the new address");
    let name = "<host ip='192.168.122.50'><hostname>printer</hostname></host>";
    netd.ok(&["net-update", "default", "add-first", "dns-host", name])?;
    ensure!(first.space.sh("dig +short @192.168.122.1 printer")? == "192.168.122.50\n");
    let xml = netd.ok(&["net-dumpxml", "default", "--inactive"])?;
    ensure!(xml.contains("192.168.122.200") && !xml.contains("printer"), "{xml}");
    drop((first, second));
    netd.finish()
}

#[test]
fn guests_of_a_subnet_that_moves_get_an_address_of_the_new_one() -> Result<()> {
    let mut netd = Daemon::new("move")?;
    let old = netd.file("old.xml", &plain())?;
    let new = netd.file("new.xml", &plain().replace("192.168.80.", "192.168.90."))?;
    netd.ok(&["net-apply", &old])?;
    let station = Station::plug(&netd, "lan", "vm1")?;
    let had = station.lease()?;
    netd.ok(&["net-apply", &new])?;
    ensure!(!netd.ok(&["net-dhcp-leases", "lan"])?.contains(&had));
    let has = station.lease()?;
    ensure!(has.starts_with("192.168.90."), "{has}");
    ensure!(station.reaches("192.168.90.1")?);
    let routes = netd.host.ip("route show dev br-lan")?;
    ensure!(!routes.contains("192.168.80.") && routes.contains("192.168.90.0/24"), "{routes}");
    drop(station);
    netd.finish()
}

/// All of a network that could be half changed.
fn state(netd: &Daemon) -> Result<Vec<String>> {
    let host = &netd.host;
    let texts = [
        netd.ok(&["net-dumpxml", "lan"])?,
        netd.ok(&["net-dumpxml", "lan", "--inactive"])?,
        host.sh("ip -o -d link show dev br-lan | sed 's/gc_timer.*//; s/hello_timer.*//'")?,
        host.sh("ip -o -4 address show dev br-lan; ip route show dev br-lan; sysctl -n net.ipv4.ip_forward")?,
        host.sh("nft list table inet netd; bridge -d link show dev vnet0 | grep -o 'isolated [a-z]*'")?,
        host.sh("cat /sys/class/net/vnet0/mtu /proc/sys/net/ipv4/conf/br-lan/route_localnet")?,
    ];
    let mut lines: Vec<String> = texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect();
    lines.sort();
    Ok(lines)
}

/// The kernel keeps the delay of a spanning tree that is off; nobody waits for it.
fn settle_delay(netd: &Daemon) -> Result<()> {
    netd.host.ip("link set br-lan type bridge forward_delay 200").map(drop)
}

/// Other in much that takes many steps.
fn much_changed() -> String {
    network(
        "<forward mode='route'/>",
        " stp='on' delay='2'",
        "<mtu size='1400'/><mac address='52:54:00:77:77:70'/><domain name='lab.example'/><port isolated='yes'/>",
        IP,
        "<ip address='192.168.81.1' prefix='24'/><route address='172.30.0.0' prefix='16' gateway='192.168.81.2'/>\
         <n:forwards xmlns:n='urn:netd:network:1'><n:forward proto='tcp' port='8080'><n:to guest='vm1' port='80'/>\
         </n:forward></n:forwards>",
    )
}

fn with_mac() -> String {
    network(NAT, "", "<mac address='52:54:00:77:77:70'/>", IP, "")
}

#[test]
fn a_daemon_killed_in_the_midst_leaves_the_old_network_or_the_new_one() -> Result<()> {
    let mut netd = Daemon::new("killed")?;
    let (old, new) = (netd.file("old.xml", &with_mac())?, netd.file("new.xml", &much_changed())?);
    netd.ok(&["net-apply", &old])?;
    let station = Station::plug(&netd, "lan", "vm1")?;
    station.lease()?;
    netd.ok(&["net-apply", &new])?;
    let after = state(&netd)?;
    netd.ok(&["net-apply", &old])?;
    let before = state(&netd)?;
    let place = links(&netd.host)?;
    let ping = Ping::start(&station, "192.168.80.1")?;
    let mut taken_back = 0;
    for delay in [0, 2, 5, 8, 12, 16, 20, 25, 30, 40, 60, 90] {
        let mut command = netd.host.command(paths::program("netd")?);
        command.env("NETD_SOCKET", netd.socket()).args(["net-apply", &new]);
        let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_millis(delay));
        netd.kill()?;
        client.wait()?;
        netd.start()?;
        let now = state(&netd)?;
        ensure!(now == before || now == after, "after {delay} ms: {now:#?}\nneither {before:#?}\nnor {after:#?}");
        taken_back += usize::from(now == before && netd.log().contains("taking the change back"));
        ensure!(links(&netd.host)? == place);
        netd.ok(&["net-apply", &old])?;
        ensure!(state(&netd)? == before, "after {delay} ms and back");
    }
    println!("{taken_back} of 12 were taken back by the next daemon");
    ping.end()?;
    drop(station);
    netd.finish()
}

#[test]
fn what_nobody_confirms_is_taken_back_also_by_the_next_daemon() -> Result<()> {
    let mut netd = Daemon::new("confirm")?;
    let (old, new) = (netd.file("old.xml", &with_mac())?, netd.file("new.xml", &much_changed())?);
    netd.ok(&["net-apply", &old])?;
    let station = Station::plug(&netd, "lan", "vm1")?;
    let address = station.lease()?;
    settle_delay(&netd)?;
    let before = state(&netd)?;
    let ping = Ping::start(&station, "192.168.80.1")?;
    for restart in [false, true] {
        let output = netd.netd(&["net-apply", &new, "--confirm", "2"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said == "note: 'netd confirm lan' keeps this; without it, it is taken back in 2 s\n", "{said}");
        ensure!(state(&netd)? != before, "it is live at once");
        ensure!(netd.refused(&["net-apply", &old])?.contains("is not confirmed"));
        if restart {
            netd.kill()?;
            netd.start()?;
        }
        wait::until_true("it is as before", PATIENCE, || Ok(state(&netd)? == before))?;
        ensure!(netd.refused(&["confirm"])?.contains("no change waits to be confirmed"));
        ensure!(netd.ok(&["net-dhcp-leases", "lan"])?.contains(&address), "its lease is still there");
    }
    netd.ok(&["net-apply", &new, "--confirm", "600"])?;
    ensure!(netd.ok(&["confirm"])? == "Change of network lan confirmed\n\n");
    ensure!(netd.ok(&["net-dumpxml", "lan", "--inactive"])?.contains("lab.example"));
    ping.end()?;
    drop(station);
    netd.finish()
}

#[test]
fn a_dry_run_and_a_refusal_touch_nothing() -> Result<()> {
    let mut netd = Daemon::new("dry")?;
    let (old, new) = (netd.file("old.xml", &with_mac())?, netd.file("new.xml", &much_changed())?);
    netd.ok(&["net-apply", &old])?;
    let station = Station::plug(&netd, "lan", "vm1")?;
    settle_delay(&netd)?;
    let before = state(&netd)?;
    let plan = netd.ok(&["net-apply", &new, "--dry-run"])?;
    for line in [
        "Network lan would change:",
        "  set the MTU of br-lan to 1400",
        "  add address 192.168.81.1/24 to br-lan",
        "  write the definition of network lan",
        "  - chain nat_br-lan: ip saddr 192.168.80.0/24 masquerade",
        "  + chain from_br-lan: ip saddr 192.168.81.0/24 return",
    ] {
        ensure!(plan.lines().any(|found| found == line), "no '{line}' in\n{plan}");
    }
    netd.host.ip("link add other type bridge")?;
    netd.host.ip("address add 192.168.81.9/24 dev other")?;
    let refused = netd.refused(&["net-apply", &new])?;
    ensure!(refused.contains("Network is already in use by interface other"), "{refused}");
    let renamed = netd.file("renamed.xml", &with_mac().replace("br-lan", "br-new"))?;
    let refused = netd.refused(&["net-apply", &renamed])?;
    ensure!(refused.contains("cannot become br-new while the network is active"), "{refused}");
    ensure!(state(&netd)? == before, "a refusal changed something");
    // Something that only the kernel finds wrong, in the middle of the steps.
    netd.host.ip("link delete other")?;
    netd.host.ip("route add blackhole 172.30.0.0/16")?;
    let refused = netd.refused(&["net-apply", &new])?;
    ensure!(refused.contains("cannot add route 172.30.0.0/16 via 192.168.81.2 dev br-lan: File exists"), "{refused}");
    ensure!(state(&netd)? == before, "what was done was not taken back");
    netd.host.ip("route delete blackhole 172.30.0.0/16")?;
    drop(station);
    netd.finish()
}
