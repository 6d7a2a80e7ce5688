//! EDGE: which program of this host listens on a port, read from procfs; to say so, never to decide.

use std::{collections::HashSet, fs, path::Path};

use crate::model::{Ports, Protocol};

/// A program that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// On this port.
    pub port: u16,
    /// Its name and process number, where they can be found out.
    pub program: Option<(String, u32)>,
}

/// `TCP_LISTEN` and `TCP_CLOSE` (include/net/tcp_states.h): what listening looks like for TCP, and for UDP.
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// The first program other than this one that listens on one of the ports.
pub(crate) fn find(protocol: Protocol, ports: Ports) -> Option<Listener> {
    let (files, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], LISTENS),
        Protocol::Udp => (["udp", "udp6"], UNCONNECTED),
    };
    // Of this thread, as all of netd, is the namespace that counts.
    let tables = files.iter().filter_map(|file| fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).ok());
    let found: Vec<(u16, u64)> = tables
        .flat_map(|table| table.lines().filter_map(|line| socket(line, state)).collect::<Vec<_>>())
        .filter(|(port, _)| (ports.first()..=ports.last()).contains(port))
        .collect();
    if found.is_empty() {
        return None;
    }
    let own = sockets_of(Path::new("/proc/self"));
    let (port, inode) = *found.iter().filter(|(_, inode)| !own.contains(inode)).min()?;
    Some(Listener { port, program: program_of(inode) })
}

/// Port and inode of a socket in this state, from its line in the kernel's table.
fn socket(line: &str, state: &str) -> Option<(u16, u64)> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    let is = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    let (_, port) = local.rsplit_once(':')?;
    (is == state).then_some((u16::from_str_radix(port, 16).ok()?, inode))
}

fn program_of(inode: u64) -> Option<(String, u32)> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if sockets_of(&process.path()).contains(&inode) {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some((crate::model::printable(&name), pid));
        }
    }
    None
}

/// The inodes of a process's sockets; none of one that has gone.
fn sockets_of(process: &Path) -> HashSet<u64> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return HashSet::new() };
    let inode = |link: &Path| {
        let target = fs::read_link(link).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.flatten().filter_map(|descriptor| inode(&descriptor.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1";
        assert_eq!(socket(line, LISTENS), Some((22, 31337)));
        assert_eq!(socket(line, UNCONNECTED), None);
        for nonsense in ["", "  sl  local_address rem_address   st", "0: x y 0A", "0: x:zz y 0A a b c d 1"] {
            assert_eq!(socket(nonsense, LISTENS), None, "{nonsense}");
        }
    }

    #[test]
    fn this_process_is_not_named() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(find(Protocol::Tcp, Ports::new(port, port).unwrap()), None);
    }
}
