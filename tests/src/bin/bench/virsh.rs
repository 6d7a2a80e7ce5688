//! EDGE: the same virsh here and beside libvirtd: how long its commands take, and what clients that wait cost in memory.

use std::{
    fs,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    front_door::{FrontDoor, SOCKET},
    space::Space,
    wait::PATIENCE,
    wire::{Wire, procedure},
};

use crate::{peers::Libvirt, table::Table};

/// Clients that are connected and ask nothing.
const IDLE: usize = 100;

fn timed<T>(code: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    code()?;
    Ok(begun.elapsed())
}

fn virsh(host: &Space, args: &[&str]) -> Result<Duration> {
    timed(|| host.check("virsh", args))
}

fn client(host: &Space) -> Result<Wire> {
    let stream = host.inside(|| UnixStream::connect(SOCKET).with_context(|| format!("connecting to {SOCKET}")))?;
    Wire::open(stream, PATIENCE, "qemu:///system")
}

/// What `virsh net-list --all` asks when it is connected: the list, and three things of each network.
fn list(wire: &mut Wire) -> Result<()> {
    let listed = wire.call(procedure::CONNECT_LIST_ALL_NETWORKS, &[0, 0, 0, 1, 0, 0, 0, 3])?;
    ensure!(listed.status == 0 && listed.word(0)? == 1 && listed.string(4)? == "default", "{listed:?}");
    let network = &listed.payload[4..listed.payload.len() - 4];
    for asked in [procedure::NETWORK_GET_AUTOSTART, procedure::NETWORK_IS_PERSISTENT, procedure::NETWORK_IS_ACTIVE] {
        let answer = wire.call(asked, network)?;
        ensure!(answer.status == 0, "{answer:?}");
    }
    Ok(())
}

/// VmRSS of the one process on a host whose program is this, in KiB.
fn resident(host: &Space, program: &str) -> Result<u64> {
    let (pid, _) = host
        .processes()?
        .into_iter()
        .find(|(_, line)| line.split(' ').next().is_some_and(|path| path.ends_with(program)))
        .with_context(|| format!("{program} does not run on {}", host.name()))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).context("VmRSS in kB")
}

/// Lists, starts and stops `default` by virsh here and there, in turns.
pub(crate) fn commands(table: &mut Table, samples: usize) -> Result<()> {
    let mut ours = FrontDoor::new("bench")?;
    let theirs = Libvirt::new()?;
    let [mut our_list, mut their_list, mut our_calls, mut their_calls] = [const { Vec::new() }; 4];
    let [mut our_start, mut their_start, mut our_end, mut their_end] = [const { Vec::new() }; 4];
    let (mut our_wire, mut their_wire) = (client(ours.host())?, client(&theirs.host)?);
    for _ in 0..samples {
        our_list.push(virsh(ours.host(), &["net-list", "--all"])?);
        their_list.push(virsh(&theirs.host, &["net-list", "--all"])?);
        our_start.push(virsh(ours.host(), &["net-start", "default"])?);
        their_start.push(virsh(&theirs.host, &["net-start", "default"])?);
        our_end.push(virsh(ours.host(), &["net-destroy", "default"])?);
        their_end.push(virsh(&theirs.host, &["net-destroy", "default"])?);
        for _ in 0..20 {
            our_calls.push(timed(|| list(&mut our_wire))?);
            their_calls.push(timed(|| list(&mut their_wire))?);
        }
    }
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push((client(ours.host())?, client(&theirs.host)?));
    }
    let memory = (resident(ours.host(), "/netd-libvirtd")?, resident(&theirs.host, "/libvirtd")?);
    drop(idle);
    drop((our_wire, their_wire));
    ours.finish()?;
    table.add("virsh net-list --all", "libvirtd, virsh", our_list, their_list);
    table.add("its 4 calls, connected", "libvirtd", our_calls, their_calls);
    table.add("virsh net-start default", "libvirtd, virsh", our_start, their_start);
    table.add("virsh net-destroy default", "libvirtd, virsh", our_end, their_end);
    table.add_memory("memory, 100 idle clients", "libvirtd", vec![memory.0], vec![memory.1]);
    Ok(())
}
