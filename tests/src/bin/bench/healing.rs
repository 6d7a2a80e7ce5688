//! EDGE: how long it takes until what another program has undone is as it was: from that program's end to the repair.
//!
//! libvirt puts none of it back, so there is no peer.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use netd_api::PortRequest;
use tests::daemon::Daemon;

use crate::table::Table;

/// Nothing takes this long but what is never put right.
const PATIENCE: Duration = Duration::from_secs(30);

/// Undoes one thing after the other, several times each.
pub(crate) fn repairs(table: &mut Table, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    netd.ok(&["net-start", "default"])?;
    let request =
        PortRequest { network: "default".into(), guest: Some("vm1".into()), queues: 1, ..PortRequest::default() };
    let (port, queues) = netd_api::blocking::add_port(&netd.socket(), request).context("a port")?;
    let tap = &port.interface;
    let on_bridge = || fs::read_link(format!("/sys/class/net/{tap}/master")).is_ok_and(|to| to.ends_with("virbr0"));
    let reads = |path: &str, wanted: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == wanted);

    let [mut bridge, mut taken, mut flushed, mut forwarding, mut own] = [const { Vec::new() }; 5];
    for _ in 0..samples {
        bridge.push(repair(&netd, "ip link delete virbr0", on_bridge)?);
        taken.push(repair(&netd, &format!("ip link set {tap} nomaster"), on_bridge)?);
        let rules = || {
            // Each look is a program's run, which is part of what is measured.
            let output = std::process::Command::new("nft").args(["list", "table", "inet", "netd"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        flushed.push(repair(&netd, "nft flush ruleset", rules)?);
        own.push(repair(&netd, "sysctl -qw net.ipv6.conf.virbr0.disable_ipv6=0", || {
            reads("/proc/sys/net/ipv6/conf/virbr0/disable_ipv6", "1")
        })?);
        // Turned off a second time within a minute it stays off, but for another daemon.
        netd.kill()?;
        netd.start()?;
        forwarding
            .push(repair(&netd, "sysctl -qw net.ipv4.ip_forward=0", || reads("/proc/sys/net/ipv4/ip_forward", "1"))?);
    }
    for (what, times) in [
        ("a deleted bridge, until the guest's port is on it", bridge),
        ("a port taken off its bridge", taken),
        ("a flushed ruleset", flushed),
        ("forwarding turned off", forwarding),
        ("a sysctl of the bridge", own),
    ] {
        told(table, what, times);
    }
    drop(queues);
    netd.finish()
}

/// Runs the command and waits until all is well.
fn repair(netd: &Daemon, command: &str, is_well: impl Fn() -> bool + Sync) -> Result<Duration> {
    netd.host.sh(command)?;
    let begun = Instant::now();
    netd.host.inside(|| {
        while !is_well() {
            ensure!(begun.elapsed() < PATIENCE, "what `{command}` undid is never put right");
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    })?;
    Ok(begun.elapsed())
}

fn told(table: &mut Table, what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64) * 1e3;
    let (median, longest) = (ms(times.get(times.len() / 2)), ms(times.last()));
    table.fact(&format!("put right: {what}"), &format!("{median:.1} ms, at most {longest:.1} ms (n={})", times.len()));
}
