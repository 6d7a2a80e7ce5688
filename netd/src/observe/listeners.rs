//! EDGE: which programs of this host listen on which ports, read from procfs; to say so, never to decide.

use std::{collections::HashMap, fs};

use crate::{
    model::{Ports, Protocol, printable},
    sockets::{Row, rows},
};

/// A program that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// On this port.
    pub port: u16,
    /// Its name and process number, where they can be found out.
    pub program: Option<(String, u32)>,
}

/// The kernel's tables of UDP or TCP sockets; the one of IPv6 is not in every kernel.
pub(crate) fn tables(tcp: bool) -> [&'static str; 2] {
    // Of this thread, as all of netd, is the namespace that counts.
    if tcp {
        ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
    } else {
        ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
    }
}

/// The first program other than this one that listens on one of the ports.
pub(crate) fn find(protocol: Protocol, ports: Ports) -> Option<Listener> {
    let tcp = protocol == Protocol::Tcp;
    let texts = tables(tcp).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    let mut found: Vec<Row> = texts.flat_map(|text| rows(&text, tcp)).collect();
    found.retain(|row| (ports.first()..=ports.last()).contains(&row.port));
    if found.is_empty() {
        return None;
    }
    let owners = owners();
    let of = |row: &Row| owners.get(&row.inode).cloned();
    let others = found.iter().filter(|row| of(row).is_none_or(|(_, pid)| pid != std::process::id()));
    let first = others.min_by_key(|row| (row.port, row.inode))?;
    Some(Listener { port: first.port, program: of(first) })
}

/// Name and pid of a process for every socket of the processes that this user may see into.
pub(crate) fn owners() -> HashMap<u64, (String, u32)> {
    let mut owners = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Gone meanwhile, or not ours to see: either way there is nothing to tell.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for target in descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok()) {
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode else { continue };
            let name = || printable(fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim());
            owners.entry(inode).or_insert_with(|| (name(), pid));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_not_named() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(find(Protocol::Tcp, Ports::new(port, port).unwrap()), None);
    }
}
