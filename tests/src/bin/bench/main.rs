//! `make bench`: netd beside libvirt and dnsmasq, interleaved in one run on one machine.
//!
//! Only the ratios mean anything: absolute times are this machine's, today. Every row says who the peer is and how it
//! was run. Nothing here passes or fails.

mod clients;
mod guests;
mod healing;
mod lease;
mod network;
mod packets;
mod peers;
mod scale;
mod table;
mod virsh;

use anyhow::{Result, ensure};
use table::Table;

const USAGE: &str = "usage: bench [--quick] [SUBJECT…]: subjects are network, virsh, lease, scale, packets, growth, healing, \
     guests";

fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == guests::IN_LAB) {
        return in_lab(words.get(1));
    }
    let quick = words.iter().any(|word| word == "--quick");
    words.retain(|word| word != "--quick");
    let subjects = ["network", "virsh", "lease", "scale", "packets", "growth", "healing", "guests"];
    ensure!(words.iter().all(|word| subjects.contains(&word.as_str())), USAGE);
    let wanted = |subject: &str| words.is_empty() || words.iter().any(|word| word == subject);
    let samples = |full: usize| if quick { full.min(3) } else { full };
    let mut table = Table::new();
    if wanted("network") {
        network::start_and_destroy(&mut table, samples(15))?;
    }
    if wanted("virsh") {
        virsh::commands(&mut table, samples(15))?;
    }
    if wanted("lease") {
        lease::one_exchange(&mut table, if quick { 50 } else { 300 })?;
        lease::twenty_at_once(&mut table, samples(3))?;
        lease::attach_to_lease(&mut table, samples(3))?;
    }
    if wanted("scale") {
        for others in [1, 10, 100] {
            scale::beside_others(&mut table, others, samples(5))?;
        }
    }
    if wanted("packets") {
        packets::beside_one(&mut table, samples(3))?;
    }
    if wanted("growth") {
        let (networks, ports) = if quick { (100, 2) } else { (1_000, 5) };
        scale::growth(&mut table, networks, ports)?;
    }
    if wanted("healing") {
        healing::repairs(&mut table, samples(15))?;
    }
    let guests = if wanted("guests") { guests::boots(&mut table, samples(4)) } else { Ok(()) };
    table.print();
    guests
}

/// The part of a run that was started in the lab: its rows are printed for the run outside to read.
fn in_lab(samples: Option<&String>) -> Result<()> {
    let samples = samples.and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut table = Table::new();
    guests::boot_in_turns(&mut table, samples)?;
    table.lines().for_each(|line| println!("{line}"));
    Ok(())
}
