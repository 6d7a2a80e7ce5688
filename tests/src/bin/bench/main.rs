//! `make bench`: netd beside libvirt and dnsmasq, interleaved in one run on one machine.
//!
//! Only the ratios mean anything: absolute times are this machine's, today. Every row says who the peer is and how it
//! was run. Nothing here passes or fails.

mod clients;
mod guests;
mod lease;
mod network;
mod peers;
mod table;

use anyhow::Result;
use table::Table;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let quick = match args.next().as_deref() {
        None => false,
        Some(guests::IN_LAB) => return in_lab(args.next()),
        Some("--quick") => true,
        Some(other) => anyhow::bail!("unknown argument '{other}': there is only --quick, for fewer samples"),
    };
    let samples = |full: usize| if quick { full.min(3) } else { full };
    let mut table = Table::new();
    network::start_and_destroy(&mut table, samples(15))?;
    lease::one_exchange(&mut table, if quick { 50 } else { 300 })?;
    lease::twenty_at_once(&mut table, samples(3))?;
    lease::attach_to_lease(&mut table, samples(3))?;
    let guests = guests::boots(&mut table, samples(4));
    table.print();
    guests
}

/// The part of a run that was started in the lab: its rows are printed for the run outside to read.
fn in_lab(samples: Option<String>) -> Result<()> {
    let samples = samples.and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut table = Table::new();
    guests::boot_in_turns(&mut table, samples)?;
    table.lines().for_each(|line| println!("{line}"));
    Ok(())
}
