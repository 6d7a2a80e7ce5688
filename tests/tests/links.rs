//! VLANs on a bridge of the host, and limits on what guests send.
//!
//! Not every kernel has both: where this machine's has not, the file runs in the lab, on Debian's.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use netd_api::PortRequest;
use tests::{
    daemon::Daemon,
    debian_kernel::on_debian_kernel,
    space::Space,
    station::Station,
    wait::{self, PATIENCE},
};

/// A host with a bridge of its own.
fn host(name: &str, bridge: &str) -> Result<Daemon> {
    let host = Space::new(name)?;
    host.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
    host.ip(&format!("link add br0 type bridge forward_delay 0 {bridge}"))?;
    host.ip("link set br0 up")?;
    Daemon::on(host)
}

/// A guest with an address.
fn plug(netd: &Daemon, name: &str, group: Option<&str>, address: &str) -> Result<Station> {
    let request = PortRequest {
        network: "lan".into(),
        guest: Some(name.into()),
        queues: 1,
        guards: Some(false),
        portgroup: group.map(str::to_owned),
        ..PortRequest::default()
    };
    let station = Station::plug_with(netd, name, request)?;
    station.space.ip(&format!("address add {address} dev eth0"))?;
    Ok(station)
}

fn tap(station: &Station) -> Result<&str> {
    Ok(&station.port.as_ref().context("a station without a port")?.interface)
}

/// The VLANs of a port, as `bridge` says them.
fn vlans(netd: &Daemon, station: &Station) -> Result<String> {
    let text = netd.host.check("bridge", &["vlan", "show", "dev", tap(station)?])?;
    let words: Vec<&str> = text.lines().skip(1).flat_map(str::split_whitespace).skip(1).collect();
    Ok(words.join(" "))
}

fn reaches(from: &Station, address: &str) -> Result<()> {
    wait::until_true(&format!("{} reaches {address}", from.space.name()), PATIENCE, || from.reaches(address))
}

const VLANS: &str = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/>\
    <portgroup name='red'><vlan><tag id='10'/></vlan></portgroup>\
    <portgroup name='blue'><vlan><tag id='20'/></vlan></portgroup>\
    <portgroup name='all'><vlan trunk='yes'><tag id='10' nativeMode='untagged'/><tag id='20'/></vlan></portgroup>\
    </network>";

#[test]
fn a_port_reaches_its_vlans_and_no_other() -> Result<()> {
    on_debian_kernel(|| {
        let mut netd = host("vlans", "vlan_filtering 1")?;
        netd.create(VLANS)?;
        let red = plug(&netd, "red", Some("red"), "10.9.0.1/24")?;
        let red2 = plug(&netd, "red2", Some("red"), "10.9.0.2/24")?;
        let blue = plug(&netd, "blue", Some("blue"), "10.9.0.3/24")?;
        blue.space.ip("address add 10.20.0.3/24 dev eth0")?;
        let all = plug(&netd, "all", Some("all"), "10.9.0.4/24")?;
        all.space.ip("link add link eth0 name eth0.20 type vlan id 20")?;
        all.space.ip("address add 10.20.0.4/24 dev eth0.20")?;
        all.space.ip("link set eth0.20 up")?;
        let settled = |netd: &Daemon| {
            let found = [vlans(netd, &red)?, vlans(netd, &blue)?, vlans(netd, &all)?];
            let wanted = ["10 PVID Egress Untagged", "20 PVID Egress Untagged", "10 PVID Egress Untagged 20"];
            anyhow::Ok((found == wanted, found))
        };
        let (is_settled, found) = settled(&netd)?;
        ensure!(is_settled, "{found:?}");
        let traffic = || {
            reaches(&red, "10.9.0.2")?;
            ensure!(!red.reaches("10.9.0.3")? && !blue.reaches("10.9.0.1")?, "red and blue are two VLANs");
            // Its native VLAN comes without a tag, the other with one.
            reaches(&red2, "10.9.0.4")?;
            reaches(&all, "10.20.0.3")?;
            ensure!(!red.reaches("10.9.0.3")?);
            Ok(())
        };
        traffic()?;
        netd.kill()?;
        netd.start()?;
        let (is_settled, found) = settled(&netd)?;
        ensure!(is_settled, "after a restart: {found:?}");
        for station in [&red, &all] {
            netd.host.ip(&format!("link set dev {} nomaster", tap(station)?))?;
        }
        wait::until_true("the ports are back in their VLANs", PATIENCE, || Ok(settled(&netd)?.0))?;
        traffic()?;
        let own = netd.host.check("bridge", &["vlan", "show", "dev", "br0"])?;
        ensure!(own.contains("1 PVID Egress Untagged"), "the bridge's own do not stay: {own}");
        drop((red, red2, blue, all));
        netd.finish()
    })
}

#[test]
fn ports_move_from_one_vlan_to_another_and_out_of_them_under_their_guests() -> Result<()> {
    on_debian_kernel(|| {
        let mut netd = host("moves", "vlan_filtering 1")?;
        let bridged = |vlan: &str| {
            format!("<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/>{vlan}</network>")
        };
        let tagged = |id: u16| bridged(&format!("<vlan><tag id='{id}'/></vlan>"));
        netd.create(&bridged(""))?;
        let one = plug(&netd, "one", None, "10.9.0.1/24")?;
        let _two = plug(&netd, "two", None, "10.9.0.2/24")?;
        for (xml, expected) in [
            (tagged(7), "7 PVID Egress Untagged"),
            (tagged(8), "8 PVID Egress Untagged"),
            (tagged(1), "1 PVID Egress Untagged"),
            (bridged(""), "1 PVID Egress Untagged"),
        ] {
            let file = netd.file("changed.xml", &xml)?;
            let said = netd.ok(&["net-apply", &file])?;
            let found = vlans(&netd, &one)?;
            ensure!(found == expected, "{found:?} and not {expected:?}: {said}");
            reaches(&one, "10.9.0.2")?;
        }
        let own = netd.host.check("bridge", &["vlan", "show", "dev", "br0"])?;
        ensure!(own.contains("1 PVID Egress Untagged"), "the bridge's own do not stay: {own}");
        drop((one, _two));
        netd.finish()
    })
}

const POLICED: &str = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/>\
    <bandwidth><inbound average='500'/><outbound average='1000' burst='64'/></bandwidth>\
    <portgroup name='slow' default='yes'><bandwidth><outbound average='200' burst='20'/></bandwidth></portgroup>\
    <portgroup name='any'/></network>";

/// Bytes a second that `slow` may send, and at once.
const SLOW: (f64, f64) = (200_000.0, 20_480.0);

#[test]
fn what_a_guest_sends_too_fast_is_dropped() -> Result<()> {
    on_debian_kernel(|| {
        let mut netd = host("policed", "")?;
        netd.create(POLICED)?;
        let filter = |link: &str| netd.host.check("tc", &["-s", "filter", "show", "dev", link, "parent", "ffff:"]);
        let bridge = filter("br0")?;
        ensure!(bridge.contains("rate 8Mbit burst 64Kb mtu 64Kb action drop"), "{bridge}");
        let classes = netd.host.check("tc", &["class", "show", "dev", "br0"])?;
        ensure!(classes.contains("htb 1:1 root rate 4Mbit"), "{classes}");
        let slow = plug(&netd, "slow", None, "10.9.0.1/24")?;
        let fast = plug(&netd, "fast", Some("any"), "10.9.0.2/24")?;
        let of_slow = filter(tap(&slow)?)?;
        ensure!(of_slow.contains("rate 1600Kbit burst 20Kb"), "{of_slow}");
        let of_fast = filter(tap(&fast)?)?;
        ensure!(!of_fast.contains("police"), "{of_fast}");

        // Taken away, it is back.
        netd.host.check("tc", &["qdisc", "delete", "dev", "br0", "ingress"])?;
        wait::until_true("the limit is back", PATIENCE, || Ok(filter("br0")?.contains("rate 8Mbit")))?;
        netd.kill()?;
        for link in ["br0", tap(&slow)?] {
            netd.host.check("tc", &["qdisc", "delete", "dev", link, "ingress"])?;
        }
        netd.start()?;
        let filter = |link: &str| netd.host.check("tc", &["-s", "filter", "show", "dev", link, "parent", "ffff:"]);
        ensure!(filter("br0")?.contains("rate 8Mbit"), "a new daemon does not limit the bridge");
        ensure!(filter(tap(&slow)?)?.contains("rate 1600Kbit"), "a new daemon does not limit the port");

        reaches(&slow, "10.9.0.2")?;
        let begun = Instant::now();
        let from_slow = flood(&slow, "10.9.0.1", &fast, "10.9.0.2")?;
        let most = SLOW.0 * begun.elapsed().as_secs_f64() + SLOW.1;
        ensure!(from_slow > 0 && (from_slow as f64) < most, "{from_slow} bytes got through, {most} might have");
        let of_slow = filter(tap(&slow)?)?;
        let dropped = of_slow.split("dropped ").filter_map(|text| text.split([',', ' ']).next()?.parse::<u64>().ok());
        ensure!(dropped.sum::<u64>() > 0, "the policer dropped nothing: {of_slow}");
        let from_fast = flood(&fast, "10.9.0.2", &slow, "10.9.0.1")?;
        ensure!(from_fast > from_slow, "{from_fast} bytes from the port without a limit, {from_slow} from the other");
        drop((slow, fast));
        wait::until_true("the ports are gone", PATIENCE, || Ok(netd.json(&["port-list"])? == serde_json::json!([])))?;
        netd.ok(&["net-destroy", "lan"])?;
        ensure!(!netd.host.check("tc", &["qdisc", "show", "dev", "br0"])?.contains("ingress"), "the limit stays");
        netd.finish()
    })
}

/// 2 MB of UDP from one to the other as fast as they go; what arrived, in bytes of payload.
fn flood(from: &Station, source: &str, to: &Station, target: &str) -> Result<u64> {
    const COUNT: usize = 2000;
    const SIZE: usize = 1000;
    let receiver = to.space.inside(|| Ok(UdpSocket::bind((target, 9))?))?;
    receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
    let sender = from.space.inside(|| {
        let sender = UdpSocket::bind((source, 0))?;
        sender.connect((target, 9))?;
        Ok(sender)
    })?;
    let is_sent = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                // A full queue is what this is about.
                let _ = sender.send(&[0x42; SIZE]);
                if number % 10 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            is_sent.store(true, Ordering::Relaxed);
        });
        let mut bytes = 0;
        let mut buffer = [0; 2 * SIZE];
        loop {
            match receiver.recv(&mut buffer) {
                Ok(length) => bytes += length as u64,
                Err(_) if is_sent.load(Ordering::Relaxed) => return Ok(bytes),
                Err(_) => {}
            }
        }
    })
}
