//! EDGE: how long a person waits for `net-start` and `net-destroy`: from exec of the command to its end.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::daemon::Daemon;

use crate::{peers::Libvirt, table::Table};

fn timed<T>(code: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    code()?;
    Ok(begun.elapsed())
}

/// Starts and stops `default` here and there, in turns.
pub(crate) fn start_and_destroy(table: &mut Table, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    let libvirt = Libvirt::new()?;
    let [mut our_start, mut our_end, mut their_start, mut their_end] = [const { Vec::new() }; 4];
    for _ in 0..samples {
        our_start.push(timed(|| netd.ok(&["net-start", "default"]))?);
        their_start.push(timed(|| libvirt.virsh(&["net-start", "default"]))?);
        our_end.push(timed(|| netd.ok(&["net-destroy", "default"]))?);
        their_end.push(timed(|| libvirt.virsh(&["net-destroy", "default"]))?);
    }
    netd.finish()?;
    table.add("net-start default", "libvirtd, virsh", our_start, their_start);
    table.add("net-destroy default", "libvirtd, virsh", our_end, their_end);
    Ok(())
}
