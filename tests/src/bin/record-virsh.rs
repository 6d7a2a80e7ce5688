//! EDGE: `make goldens`: plays the sessions of `tests/golden/virsh` beside a real libvirtd and writes down what virsh says.
//!
//! Each session has a host, a libvirtd and a directory of its own. Nothing of the machine's libvirt is touched.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::{
    libvirt,
    space::Space,
    virsh::play::{self, Terminal},
};

const USAGE: &str = "usage: record-virsh [SESSION…]: sessions are the files in tests/golden/virsh, without .session";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let all = play::names()?;
    ensure!(words.iter().all(|word| all.contains(word)), USAGE);
    for name in all.iter().filter(|name| words.is_empty() || words.contains(name)) {
        let path = play::sessions().join(format!("{name}.session"));
        let before = fs::read_to_string(&path)?;
        let after = record(name).with_context(|| format!("session {name}"))?;
        fs::write(&path, &after)?;
        println!("{name}: {}", if before == after { "as it was" } else { "changed" });
    }
    Ok(())
}

fn record(name: &str) -> Result<String> {
    let host = Space::new(&format!("record-{name}"))?;
    libvirt::prepare(&host)?;
    let libvirtd = libvirt::start(&host)?;
    let played = Terminal::new(&host)?.play(&play::read(name)?);
    drop(libvirtd);
    libvirt::end_all(&host);
    Ok(played?.text())
}
