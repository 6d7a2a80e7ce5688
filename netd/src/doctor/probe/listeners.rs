//! EDGE: who listens on ports 53 and 67, from procfs' socket tables and processes' descriptors.

use std::{collections::HashMap, fs};

use super::{
    super::{
        facts::{Listener, Seen},
        sockets::{DHCP, DNS, rows},
    },
    host::read,
};

/// The tables, whether they are TCP's, and whether every kernel has them.
const TABLES: [(&str, bool, bool); 4] = [
    ("/proc/net/udp", false, true),
    ("/proc/net/udp6", false, false),
    ("/proc/net/tcp", true, true),
    ("/proc/net/tcp6", true, false),
];

pub(super) fn listeners() -> Seen<Vec<Listener>> {
    let mut found = Vec::new();
    for (path, tcp, required) in TABLES {
        match read(path) {
            Ok(text) => found.extend(rows(&text, tcp).into_iter().map(|row| (tcp, row))),
            Err(unseen) if required => return Err(unseen),
            // A kernel without IPv6.
            Err(_) => {}
        }
    }
    found.retain(|(tcp, row)| row.port == DNS || (row.port == DHCP && !tcp));
    let owners = if found.is_empty() { HashMap::new() } else { owners() };
    let listener = |(tcp, row): (bool, super::super::sockets::Row)| Listener {
        tcp,
        address: row.address,
        port: row.port,
        program: owners.get(&row.inode).cloned(),
    };
    Ok(found.into_iter().map(listener).collect())
}

/// Name and pid of a process for every socket of the processes that this user may see into.
fn owners() -> HashMap<u64, (String, u32)> {
    let mut owners = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Gone meanwhile, or not ours to see: either way there is nothing to tell.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for target in descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok()) {
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode else { continue };
            let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim().to_owned();
            owners.entry(inode).or_insert_with(|| (name(), pid));
        }
    }
    owners
}
