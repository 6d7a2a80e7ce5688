//! EDGE: what a packet from a guest to the Internet costs on our bridge and NAT, beside a bridge and a masquerade rule made
//! by hand: the guest is a namespace on a veth pair, so that no tap and no monitor blurs it.

use std::process::Stdio;

use anyhow::{Context, Result};
use tests::{
    daemon::Daemon,
    space::{Running, Space},
    wait::{self, PATIENCE},
};

use crate::table::Table;

/// Where iperf3 listens: on "the Internet" of every host here.
const SERVER: &str = "198.51.100.80";
const BY_HAND: &str = "bridge and masquerade by hand";

/// A host's way out and a machine there.
struct Uplink {
    _server: Running,
    _space: Space,
}

impl Uplink {
    fn of(host: &Space) -> Result<Self> {
        let space = Space::new("internet")?;
        host.connect("uplink", &space, "eth0")?;
        host.ip("address add 203.0.113.2/30 dev uplink")?;
        host.ip("route add default via 203.0.113.1")?;
        space.ip("address add 203.0.113.1/30 dev eth0")?;
        space.ip(&format!("address add {SERVER}/32 dev lo"))?;
        let server = space
            .command(tests::paths::tool("iperf3")?)
            .args(["-s", "-4", "-B", SERVER])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start iperf3")?;
        wait::until_true("iperf3 listens", PATIENCE, || Ok(space.sh("ss -Hltn 'sport = :5201'")?.contains(":5201")))?;
        Ok(Uplink { _server: Running(server), _space: space })
    }
}

/// A machine on a bridge of a host.
fn guest(host: &Space, bridge: &str, subnet: &str) -> Result<Space> {
    let guest = Space::new("guest")?;
    host.connect("guest0", &guest, "eth0")?;
    host.ip(&format!("link set guest0 master {bridge}"))?;
    guest.ip(&format!("address add {subnet}.250/24 dev eth0"))?;
    guest.ip(&format!("route add default via {subnet}.1"))?;
    Ok(guest)
}

fn by_hand() -> Result<(Space, Uplink, Space)> {
    let host = Space::new("hand")?;
    let uplink = Uplink::of(&host)?;
    host.ip("link add br0 type bridge")?;
    host.ip("address add 172.31.0.1/24 dev br0")?;
    host.ip("link set br0 up")?;
    host.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    host.sh("nft -f - <<'END'
table ip hand {
  chain post {
    type nat hook postrouting priority 100
    ip saddr 172.31.0.0/24 oifname != br0 masquerade
  }
}
END")?;
    let guest = guest(&host, "br0", "172.31.0")?;
    Ok((host, uplink, guest))
}

/// TCP in bits per second.
fn tcp(guest: &Space) -> Result<f64> {
    let report = iperf(guest, &["-t", "2"])?;
    report
        .pointer("/end/sum_received/bits_per_second")
        .and_then(serde_json::Value::as_f64)
        .with_context(|| format!("no rate in {report}"))
}

/// 64-byte datagrams that arrived, per second.
fn udp(guest: &Space) -> Result<f64> {
    let report = iperf(guest, &["-t", "2", "-u", "-b", "0", "-l", "64"])?;
    let figure = |name: &str| {
        report
            .pointer(&format!("/end/sum/{name}"))
            .and_then(serde_json::Value::as_f64)
            .with_context(|| format!("no {name} in {report}"))
    };
    Ok((figure("packets")? - figure("lost_packets")?) / figure("seconds")?)
}

fn iperf(guest: &Space, more: &[&str]) -> Result<serde_json::Value> {
    let mut words = vec!["-c", SERVER, "-4", "-J"];
    words.extend(more);
    serde_json::from_str(&guest.check("iperf3", &words)?).context("iperf3 printed no JSON")
}

fn in_turns(table: &mut Table, what: &str, ours: &Space, samples: usize) -> Result<()> {
    let (_host, _uplink, theirs) = by_hand()?;
    let (mut streams, mut datagrams) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..samples {
        for (guest, index) in [(ours, 0), (&theirs, 1)] {
            streams[index].push(tcp(guest)? / 1e9);
            datagrams[index].push(udp(guest)? / 1e3);
        }
    }
    let [ours, theirs] = streams;
    table.add_rate(&format!("TCP through NAT, {what}"), BY_HAND, "Gbit/s", ours, theirs);
    let [ours, theirs] = datagrams;
    table.add_rate(&format!("64-byte UDP through NAT, {what}"), BY_HAND, "thousand/s", ours, theirs);
    Ok(())
}

/// With one network.
pub(crate) fn beside_one(table: &mut Table, samples: usize) -> Result<()> {
    let host = Space::new("bench")?;
    let _uplink = Uplink::of(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let guest = guest(&netd.host, "virbr0", "192.168.122")?;
    in_turns(table, "one network", &guest, samples)?;
    drop(guest);
    wait::until_true("the guest's end is gone", PATIENCE, || Ok(!netd.host.ip("-o link")?.contains("guest0")))?;
    netd.finish()
}

/// With as many networks, ports and forwards as there are: the guest joins the first network.
pub(crate) fn beside_many(table: &mut Table, netd: &Daemon) -> Result<()> {
    let _uplink = Uplink::of(&netd.host)?;
    let guest = guest(&netd.host, "br0", "10.0.0")?;
    let networks = netd.ok(&["net-list", "--name"])?.split_whitespace().count();
    let what = format!("{networks} networks, {} forwards", networks * 10);
    in_turns(table, &what, &guest, 3)?;
    drop(guest);
    wait::until_true("the guest's end is gone", PATIENCE, || Ok(!netd.host.ip("-o link")?.contains("guest0")))
}
