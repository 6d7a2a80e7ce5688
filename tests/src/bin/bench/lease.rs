//! EDGE: how long a guest waits for its address: the exchange alone, twenty at once, and all of it from the moment its
//! NIC is put on the bridge.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::Daemon,
    space::{Running, Space},
    wait,
};

use crate::{
    clients::{Wire, fresh_macs},
    peers::{Dnsmasq, Libvirt},
    table::Table,
};

/// What somebody who is never served is booked with.
const PATIENCE: Duration = Duration::from_secs(60);
const TUNED: &str = "dnsmasq --no-ping, STP off";
const AS_SHIPPED: &str = "libvirt's network (STP, dnsmasq's ping wait)";

/// A space with `eth0` on the bridge `virbr0` of a host.
fn attach(host: &Space) -> Result<Space> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let guest = Space::new("guest")?;
    let end = format!("g{}", NEXT.fetch_add(1, Ordering::Relaxed));
    host.connect(&end, &guest, "eth0")?;
    host.ip(&format!("link set {end} master virbr0"))?;
    Ok(guest)
}

/// The same, once the bridge port forwards: as for a guest that boots longer than that takes.
fn attached(host: &Space) -> Result<Space> {
    let guest = attach(host)?;
    wait::until_true("the bridge port forwards", PATIENCE, || {
        Ok(host.sh("bridge -d link show")?.lines().filter(|l| l.contains("state ")).all(|l| l.contains("forwarding")))
    })?;
    Ok(guest)
}

fn served(times: Vec<Option<Duration>>) -> Vec<Duration> {
    times.into_iter().map(|time| time.unwrap_or(PATIENCE)).collect()
}

/// DISCOVER to ACK of one new client on a quiet network. netd syncs the lease to disk first; dnsmasq does not.
pub(crate) fn one_exchange(table: &mut Table, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    netd.ok(&["net-start", "default"])?;
    let dnsmasq = Dnsmasq::new(&["--no-ping"])?;
    let guests = [attached(&netd.host)?, attached(&dnsmasq.host)?];
    let wires = [Wire::open(&guests[0])?, Wire::open(&guests[1])?];
    let mut times = [Vec::new(), Vec::new()];
    // Fewer clients than the pool has addresses, twice over: the second round finds known clients.
    let macs = fresh_macs(samples.min(240));
    for mac in macs.iter().cycle().take(samples) {
        for (wire, times) in wires.iter().zip(&mut times) {
            times.extend(served(wire.lease(&[*mac], PATIENCE)?));
        }
    }
    drop(wires);
    drop(guests);
    netd.finish()?;
    let [ours, theirs] = times;
    table.add("DISCOVER to ACK, one client", TUNED, ours, theirs);
    Ok(())
}

/// The last of twenty clients that ask in the same moment.
pub(crate) fn twenty_at_once(table: &mut Table, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    netd.ok(&["net-start", "default"])?;
    let libvirt = Libvirt::new()?;
    libvirt.virsh(&["net-start", "default"])?;
    let tuned = Dnsmasq::new(&["--no-ping"])?;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..samples {
        let macs = fresh_macs(20);
        for (host, times) in [&netd.host, &tuned.host, &libvirt.host].into_iter().zip(&mut times) {
            let guest = attached(host)?;
            let all = served(Wire::open(&guest)?.lease(&macs, PATIENCE)?);
            times.extend(all.into_iter().max());
        }
    }
    netd.finish()?;
    let [ours, tuned, shipped] = times;
    table.add("20 clients at once, last lease", TUNED, ours.clone(), tuned);
    table.add("20 clients at once, last lease", AS_SHIPPED, ours, shipped);
    Ok(())
}

/// From the NIC's attachment to the bridge to the address, with udhcpc as the client.
pub(crate) fn attach_to_lease(table: &mut Table, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    netd.ok(&["net-start", "default"])?;
    let libvirt = Libvirt::new()?;
    libvirt.virsh(&["net-start", "default"])?;
    let tuned = Dnsmasq::new(&["--no-ping"])?;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..samples {
        for (host, times) in [&netd.host, &tuned.host, &libvirt.host].into_iter().zip(&mut times) {
            let guest = attach(host)?;
            let begun = Instant::now();
            udhcpc(&guest)?;
            times.push(begun.elapsed());
        }
    }
    netd.finish()?;
    let [ours, tuned, shipped] = times;
    table.add("NIC attached to udhcpc's lease", TUNED, ours.clone(), tuned);
    table.add("NIC attached to udhcpc's lease", AS_SHIPPED, ours, shipped);
    Ok(())
}

/// Runs udhcpc to its first lease. It asks again every second, sooner than by default, to the peers' advantage.
fn udhcpc(guest: &Space) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/dhcp-script");
    let child = guest
        .command(tests::paths::tool("udhcpc")?)
        .args(["-i", "eth0", "-q", "-n", "-f", "-t", "30", "-T", "1", "-s", script])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .context("cannot start udhcpc")?;
    let status = Running(child).0.wait()?;
    ensure!(status.success(), "udhcpc got no lease: {status}");
    Ok(())
}
