//! Coming from libvirt: definitions and leases are brought along, and a network that runs is taken over under its guests.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::{
    daemon::Daemon,
    dhcp_client::{Client, Kind},
    internet::{Internet, PAGE, WEB},
    libvirt, paths,
    space::{Running, Space},
    station::Station,
    wait::{self, PATIENCE},
};

const MAC: &str = "52:54:00:11:22:33";

/// A host on which libvirt runs its `default` network; what libvirt started ends with it.
struct Host(Option<Daemon>);

impl Host {
    fn new(name: &str) -> Result<(Self, Running, Internet)> {
        let host = Space::new(name)?;
        let internet = Internet::connect(&host)?;
        libvirt::prepare(&host)?;
        let libvirtd = libvirt::start(&host)?;
        libvirt::virsh(&host, &["net-autostart", "default"])?;
        libvirt::virsh(&host, &["net-start", "default"])?;
        Ok((Host(Some(Daemon::on(host)?)), libvirtd, internet))
    }

    fn netd(&self) -> &Daemon {
        self.0.as_ref().expect("it is taken only when this is dropped")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(netd) = self.0.take() {
            libvirt::end_all(&netd.host);
        }
    }
}

/// The process ids of libvirt's dnsmasq.
fn dnsmasq(host: &Space) -> Result<Vec<u32>> {
    let of_libvirt = |line: &String| line.contains("dnsmasq") && line.contains("default.conf");
    Ok(host.processes()?.into_iter().filter(|(_, line)| of_libvirt(line)).map(|(pid, _)| pid).collect())
}

/// A ping that runs, twenty times a second.
struct Ping(Running);

impl Ping {
    fn start(space: &Space, address: &str) -> Result<Self> {
        let log = fs::File::create(space.dir().join(format!("ping-{address}")))?;
        let mut command: Command = space.command(paths::tool("ping")?);
        let child: Child = command.args(["-n", "-i", "0.05", address]).stdout(Stdio::from(log)).spawn()?;
        let answered = || Ok(fs::read_to_string(space.dir().join(format!("ping-{address}")))?.contains("icmp_seq=3 "));
        wait::until_true("the ping is answered", PATIENCE, answered)?;
        Ok(Ping(Running(child)))
    }

    /// How many were sent and how many answered.
    fn end(mut self, space: &Space, address: &str) -> Result<(u32, u32)> {
        self.0.signal(Signal::SIGINT);
        wait::until("ping ends", PATIENCE, || Ok(self.0.0.try_wait()?))?;
        let said = fs::read_to_string(space.dir().join(format!("ping-{address}")))?;
        let line = said.lines().find(|line| line.contains("packets transmitted")).context("ping sums up")?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        Ok((numbers.next().context("sent")?, numbers.next().context("received")?))
    }
}

/// A guest of libvirt's on a tap of its bridge, with a lease from dnsmasq.
fn guest(host: &Space) -> Result<Station> {
    let station = Station::on_tap(host, "virbr0", "vnet0", MAC)?;
    let port = format!(
        "<networkport><uuid>7b1f1c2e-5a5b-4a0e-9a37-0d5b0c8a2f11</uuid>\
         <owner><uuid>0e8a51b4-0f1f-4f0a-8f6c-6c0a3a5d7c55</uuid><name>vm1</name></owner>\
         <mac address='{MAC}'/></networkport>"
    );
    let file = host.dir().join("port.xml");
    fs::write(&file, port)?;
    libvirt::virsh(host, &["net-port-create", "default", file.to_str().context("UTF-8")?])?;
    wait::until_true("the bridge lets the guest through", Duration::from_secs(20), || {
        Ok(host.ip("-d link show dev vnet0")?.contains("state forwarding"))
    })?;
    Ok(station)
}

#[test]
fn a_network_that_libvirt_runs_is_taken_over_without_cutting_its_guests() -> Result<()> {
    let (host, libvirtd, internet) = Host::new("adopt")?;
    let netd = host.netd();
    let guest = guest(&netd.host)?;
    let client = Client::start(Kind::Udhcpc, &guest.space, "vm1")?;
    let address = client.bound()?;
    let served = dnsmasq(&netd.host)?;
    ensure!(!served.is_empty(), "libvirt's dnsmasq does not run");
    let bridge = netd.host.ip("-o link show dev virbr0")?;
    // dnsmasq's helper writes a lease down a little after the client has it.
    wait::until_true("libvirt lists the lease", PATIENCE, || {
        Ok(libvirt::virsh(&netd.host, &["net-dhcp-leases", "default"])?.contains(MAC))
    })?;
    let planned = netd.ok(&["import", "--from-libvirt", "--adopt", "--dry-run"])?;
    assert!(planned.contains("bridge virbr0 would be taken over with vnet0 of vm1; 1 leases"), "{planned}");
    assert_eq!(dnsmasq(&netd.host)?, served, "a dry run ended dnsmasq");

    let (near, far) = (Ping::start(&guest.space, "192.168.122.1")?, Ping::start(&guest.space, &WEB.to_string())?);
    let said = netd.ok(&["import", "--from-libvirt", "--adopt"])?;
    println!("{said}");
    assert_eq!(client.renew()?, address);
    let (sent, received) = near.end(&guest.space, "192.168.122.1")?;
    assert_eq!(sent, received, "answers of the host were lost");
    let (sent, received) = far.end(&guest.space, &WEB.to_string())?;
    assert_eq!(sent, received, "answers of the Internet were lost");

    // The same bridge, ours now.
    assert_eq!(netd.host.ip("-o link show dev virbr0")?, bridge);
    assert!(dnsmasq(&netd.host)?.is_empty());
    let network = &netd.json(&["net-list"])?[0];
    assert_eq!((&network["name"], &network["autostart"]), (&json!("default"), &json!(true)));
    let uuid = libvirt::virsh(&netd.host, &["net-uuid", "default"])?;
    assert_eq!(network["uuid"], json!(uuid.trim()));
    let lease = &netd.json(&["net-dhcp-leases", "default"])?[0];
    assert_eq!((&lease["address"], &lease["mac"]), (&json!(address), &json!(MAC)));
    assert_eq!(netd.json(&["domifaddr", "vm1"])?[0]["address"], json!(address));
    assert_eq!(guest.fetch(WEB)?, PAGE);
    assert_eq!(internet.visits().len(), 1);

    // Nothing of libvirt's is left for it, and a new libvirtd leaves ours alone.
    for save in ["iptables-save", "ip6tables-save"] {
        let rules = netd.host.check(save, &[])?;
        assert!(!rules.contains("virbr0") && !rules.contains("192.168.122"), "{rules}");
    }
    drop(libvirtd);
    let _libvirtd = libvirt::start(&netd.host)?;
    assert!(libvirt::virsh(&netd.host, &["net-info", "default"])?.contains("Active:         no"));
    assert!(guest.reaches("192.168.122.1")? && guest.reaches(&WEB.to_string())?);
    assert_eq!(client.renew()?, address);

    // Once more changes nothing, and the network stops like any other.
    let again = netd.ok(&["import", "--from-libvirt", "--adopt"])?;
    assert!(again.contains("netd runs it already"), "{again}");
    netd.ok(&["net-destroy", "default"])?;
    assert!(!netd.host.ip("-o link show")?.contains("virbr0"));
    Ok(())
}

#[test]
fn what_cannot_be_taken_over_is_left_running_as_it_was() -> Result<()> {
    let (host, _libvirtd, _internet) = Host::new("refuse")?;
    let netd = host.netd();
    let guest = guest(&netd.host)?;
    let client = Client::start(Kind::Udhcpc, &guest.space, "vm1")?;
    let address = client.bound()?;
    // Another network's bridge has the MAC that libvirt's has.
    let mac = netd.host.sh("cat /sys/class/net/virbr0/address")?;
    netd.create(&format!("<network><name>other</name><mac address='{}'/></network>", mac.trim()))?;
    let before = netd.ok(&["net-dumpxml", "default"])?;
    let served = dnsmasq(&netd.host)?;
    let ping = Ping::start(&guest.space, "192.168.122.1")?;
    let refused = netd.netd(&["import", "--from-libvirt", "--adopt"])?;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("network default is not imported") && said.contains("already in use by network 'other'"),
        "{said}"
    );
    let (sent, received) = ping.end(&guest.space, "192.168.122.1")?;
    assert_eq!(sent, received);
    let again = dnsmasq(&netd.host)?;
    assert!(!again.is_empty() && again != served, "dnsmasq was not started again: {served:?} {again:?}");
    assert_eq!(client.renew()?, address);
    assert_eq!(netd.ok(&["net-dumpxml", "default"])?, before);
    assert!(netd.host.check("iptables-save", &[])?.contains("LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0"));
    assert!(libvirt::virsh(&netd.host, &["net-info", "default"])?.contains("Active:         yes"));
    Ok(())
}

#[test]
fn files_of_another_machine_bring_networks_and_leases() -> Result<()> {
    let mut netd = Daemon::new("files")?;
    let root = netd.host.dir().join("old");
    let (networks, leases) = (root.join("etc/libvirt/qemu/networks"), root.join("var/lib/libvirt/dnsmasq"));
    fs::create_dir_all(networks.join("autostart"))?;
    fs::create_dir_all(&leases)?;
    let lab = "<network><name>lab</name><uuid>11111111-2222-3333-4444-555555555555</uuid><forward mode='nat'/>\
               <bridge name='virbr9'/><mac address='52:54:00:99:99:99'/><ip address='10.99.0.1' prefix='24'><dhcp>\
               <range start='10.99.0.100' end='10.99.0.200'/></dhcp></ip></network>";
    fs::write(networks.join("lab.xml"), lab)?;
    fs::write(networks.join("pool.xml"), lab.replace("<forward mode='nat'/>", "<forward mode='hostdev'/>"))?;
    std::os::unix::fs::symlink("/etc/libvirt/qemu/networks/lab.xml", networks.join("autostart/lab.xml"))?;
    let lease = json!([{ "ip-address": "10.99.0.177", "mac-address": MAC, "hostname": "vm1", "expiry-time": 4_000_000_000_u32 }]);
    fs::write(leases.join("virbr9.status"), lease.to_string())?;
    let words = ["import", "--from-libvirt", "--root", root.to_str().context("UTF-8")?];

    let planned = netd.netd(&[&words[..], &["--dry-run"]].concat())?;
    assert_eq!(planned.status.code(), Some(1), "something is left out");
    let said = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(said.contains("would be defined") && said.contains("1 leases would be imported"), "{said}");
    assert!(!netd.ok(&["net-list", "--all", "--name"])?.contains("lab"));

    let done = netd.netd(&words)?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(out.contains("marked as autostarted") && out.contains("1 leases imported"), "{out}");
    assert!(err.contains("pool.xml is not imported") && err.contains("SR-IOV"), "{err}");
    assert!(netd.ok(&["net-list", "--all", "--autostart", "--name"])?.contains("lab"));
    assert!(netd.ok(&["net-dumpxml", "lab"])?.contains("52:54:00:99:99:99"));
    netd.ok(&["net-start", "lab"])?;
    let request = netd_api::PortRequest {
        network: "lab".into(),
        mac: Some(MAC.into()),
        queues: 1,
        ..netd_api::PortRequest::default()
    };
    let station = Station::plug_with(&netd, "vm1", request)?;
    assert_eq!(station.lease()?, "10.99.0.177");
    drop(station);
    let again = netd.netd(&words)?;
    assert!(String::from_utf8_lossy(&again.stdout).contains("netd runs it already"));
    netd.finish()
}
