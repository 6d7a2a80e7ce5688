//! `make bench`: netd beside libvirt and dnsmasq, interleaved in one run on one machine.
//!
//! Only the ratios mean anything: absolute times are this machine's, today. Every row says who the peer is and how it
//! was run. Nothing here passes or fails.

mod clients;
mod lease;
mod network;
mod peers;
mod table;

use anyhow::Result;
use table::Table;

fn main() -> Result<()> {
    let quick = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--quick") => true,
        Some(other) => anyhow::bail!("unknown argument '{other}': there is only --quick, for fewer samples"),
    };
    let samples = |full: usize| if quick { full.min(3) } else { full };
    let mut table = Table::new();
    network::start_and_destroy(&mut table, samples(15))?;
    lease::one_exchange(&mut table, if quick { 50 } else { 300 })?;
    lease::twenty_at_once(&mut table, samples(3))?;
    lease::attach_to_lease(&mut table, samples(3))?;
    table.print();
    Ok(())
}
