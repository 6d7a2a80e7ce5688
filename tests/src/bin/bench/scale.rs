//! EDGE: what many networks and ports cost: time to start and stop them, whether the last is as cheap as the first, what
//! memory they take, and how long a new daemon needs to take them over.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use netd_api::PortRequest;
use tests::daemon::Daemon;

use crate::{peers::Libvirt, table::Table};

/// A nat network with DHCP, one of up to 65,536 that do not overlap.
pub(crate) fn xml(number: usize, more: &str) -> String {
    let subnet = format!("10.{}.{}", number / 256, number % 256);
    format!(
        "<network{}><name>n{number}</name><uuid>00000000-0000-4000-8000-{number:012}</uuid><forward mode='nat'/><bridge name='br{number}'/>\
         <ip address='{subnet}.1' netmask='255.255.255.0'>\
         <dhcp><range start='{subnet}.10' end='{subnet}.199'/></dhcp></ip>{more}</network>",
        if more.is_empty() { "" } else { " xmlns:netd='urn:netd:network:1'" },
    )
}

/// Ten forwards of the host's ports to an address on network `number`: other ports for every network up to 1,000.
fn forwards(number: usize) -> String {
    let first = 10_000 + number * 10;
    let one = |port: usize| {
        format!(
            "<netd:forward proto='tcp' port='{port}'><netd:to ip='10.{}.{}.10' port='{port}'/></netd:forward>",
            number / 256,
            number % 256
        )
    };
    format!("<netd:forwards>{}</netd:forwards>", (first..first + 10).map(one).collect::<String>())
}

fn timed<T>(code: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    code()?;
    Ok(begun.elapsed())
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Starts, changes and stops one network beside `others` that run already, here and on libvirt, and kills the daemons.
///
/// libvirt changes no MTU of a network that runs: there it is stopped and started, which cuts its guests.
pub(crate) fn beside_others(table: &mut Table, others: usize, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    let mut libvirt = Libvirt::new()?;
    for number in 1..=others {
        let ours = netd.file("network.xml", &xml(number, ""))?;
        netd.ok(&["net-create", &ours])?;
        libvirt.virsh(&["net-create", &ours])?;
    }
    let file = netd.file("one.xml", &xml(0, ""))?;
    netd.ok(&["net-define", &file])?;
    libvirt.virsh(&["net-define", &file])?;
    let [mut starts, mut changes, mut ends] = [const { (Vec::new(), Vec::new()) }; 3];
    for sample in 0..samples {
        starts.0.push(timed(|| netd.ok(&["net-start", "n0"]))?);
        starts.1.push(timed(|| libvirt.virsh(&["net-start", "n0"]))?);
        let changed = netd.file("changed.xml", &xml(0, &format!("<mtu size='{}'/>", 1400 + sample % 2)))?;
        changes.0.push(timed(|| netd.ok(&["net-apply", &changed]))?);
        changes.1.push(timed(|| {
            libvirt.virsh(&["net-define", &changed])?;
            libvirt.virsh(&["net-destroy", "n0"])?;
            libvirt.virsh(&["net-start", "n0"])
        })?);
        ends.0.push(timed(|| netd.ok(&["net-destroy", "n0"]))?);
        ends.1.push(timed(|| libvirt.virsh(&["net-destroy", "n0"]))?);
    }
    let beside = format!("beside {others} networks");
    table.add(&format!("net-start {beside}"), "libvirtd, virsh", starts.0, starts.1);
    table.add(&format!("another MTU {beside}: net-apply"), "virsh net-define, -destroy, -start", changes.0, changes.1);
    table.add(&format!("net-destroy {beside}"), "libvirtd, virsh", ends.0, ends.1);
    let mut restarts = (Vec::new(), Vec::new());
    for _ in 0..samples.min(3) {
        netd.kill()?;
        restarts.0.push(netd.start()?);
        restarts.1.push(libvirt.restart(others)?);
    }
    table.add(&format!("killed daemon, {others} networks: served again"), "libvirtd", restarts.0, restarts.1);
    netd.finish()
}

/// Time per network and per port as their number grows, and the memory they take.
pub(crate) fn growth(table: &mut Table, networks: usize, ports_each: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    netd.ok(&["net-list"])?;
    let empty = resident(netd.pid()?)?;
    let mut starts = Vec::new();
    for number in 0..networks {
        let file = netd.file("network.xml", &xml(number, &forwards(number)))?;
        starts.push(timed(|| netd.ok(&["net-create", &file]))?);
    }
    let with_networks = resident(netd.pid()?)?;
    flatness(table, &format!("start of one of {networks} networks"), &starts);
    let each = (with_networks - empty) as f64 / networks as f64;
    table.fact(&format!("memory of one of {networks} networks"), &format!("{each:.1} KiB"));
    let mut plugs = Vec::new();
    let mut guests = Vec::new();
    for round in 0..ports_each {
        for number in 0..networks {
            let mac = format!("52:54:00:{round:02x}:{:02x}:{:02x}", number / 256, number % 256);
            let request = PortRequest {
                network: format!("n{number}"),
                guest: Some(format!("g{round}-{number}")),
                mac: Some(mac),
                queues: 1,
                ..PortRequest::default()
            };
            let begun = Instant::now();
            let (_, queues) = netd_api::blocking::add_port(&netd.socket(), request).context("a port")?;
            plugs.push(begun.elapsed());
            guests.push(queues);
        }
    }
    flatness(table, &format!("one of {} ports", plugs.len()), &plugs);
    crate::packets::beside_many(table, &netd)?;
    drop(guests);
    netd.finish()
}

/// The median of the last tenth beside that of the first.
fn flatness(table: &mut Table, what: &str, times: &[Duration]) {
    let tenth = (times.len() / 10).max(1);
    let (first, last) = (median(&times[..tenth]), median(&times[times.len() - tenth..]));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let ratio = last.as_secs_f64() / first.as_secs_f64();
    table.fact(what, &format!("first tenth {:.1} ms, last tenth {:.1} ms: {ratio:.2}x", ms(first), ms(last)));
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib = line.trim().trim_end_matches(" kB").parse()?;
    ensure!(kib > 0, "no memory at all");
    Ok(kib)
}
