//! The host as libvirt describes one: its processors, its memory, its capabilities. Pure: from what was read to what is
//! told.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::xdr::Writer;

/// The length of the processor's model in NODE_GET_INFO.
const MODEL: usize = 32;

/// Where a processor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Processor {
    /// The NUMA node.
    pub(crate) node: u32,
    /// The socket.
    pub(crate) package: u32,
    /// The core in it.
    pub(crate) core: u32,
}

/// What was read of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// `uname -m`.
    pub(crate) machine: String,
    /// Which host it is, if that can be told.
    pub(crate) uuid: Option<Uuid>,
    /// Those that are online.
    pub(crate) processors: Vec<Processor>,
    /// MHz; 0 if nobody knows.
    pub(crate) frequency: u32,
    /// KiB.
    pub(crate) memory: u64,
}

/// How processors are arranged: equally, or else as if all were cores of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Topology {
    nodes: usize,
    /// Of a node.
    sockets: usize,
    cores: usize,
    threads: usize,
}

fn count<T: Ord>(of: impl Iterator<Item = T>) -> usize {
    of.collect::<BTreeSet<_>>().len()
}

fn most<K: Ord + Copy, T: Ord>(
    processors: &[Processor],
    key: impl Fn(&Processor) -> K,
    of: impl Fn(&Processor) -> T,
) -> usize {
    let keys: BTreeSet<K> = processors.iter().map(&key).collect();
    let counts = keys.into_iter().map(|one| count(processors.iter().filter(|p| key(p) == one).map(&of)));
    counts.max().unwrap_or(1)
}

fn topology(processors: &[Processor]) -> Topology {
    let nodes = count(processors.iter().map(|p| p.node)).max(1);
    let sockets = most(processors, |p| p.node, |p| p.package);
    let cores = most(processors, |p| (p.node, p.package), |p| p.core);
    let of_core = |core: &Processor| processors.iter().filter(|p| *p == core).count();
    let threads = processors.iter().map(of_core).max().unwrap_or(1);
    let equal = nodes * sockets * cores * threads == processors.len();
    if equal {
        Topology { nodes, sockets, cores, threads }
    } else {
        Topology { nodes: 1, sockets: 1, cores: processors.len().max(1), threads: 1 }
    }
}

/// NODE_GET_INFO.
pub(crate) fn write_info<'a>(host: &Host, ret: &'a mut Writer) -> &'a mut Writer {
    let Topology { nodes, sockets, cores, threads } = topology(&host.processors);
    ret.chars(&host.machine, MODEL).u64(host.memory).count(host.processors.len()).u32(host.frequency);
    ret.count(nodes).count(sockets).count(cores).count(threads)
}

/// CONNECT_GET_CAPABILITIES: the host, and no kind of guest that it can run.
pub(crate) fn capabilities(host: &Host) -> String {
    let Topology { nodes, sockets, cores, threads } = topology(&host.processors);
    let uuid = host.uuid.map(|uuid| format!("    <uuid>{uuid}</uuid>\n")).unwrap_or_default();
    let machine = &host.machine;
    let sockets = nodes * sockets;
    format!(
        "<capabilities>\n\n  <host>\n{uuid}    <cpu>\n      <arch>{machine}</arch>\n      \
         <topology sockets='{sockets}' dies='1' cores='{cores}' threads='{threads}'/>\n    </cpu>\n  </host>\n\n\
         </capabilities>\n"
    )
}

/// The name that hosts(5) puts first for a host, if the name is not full itself: clients show it to tell hosts apart.
pub(crate) fn full_name(name: &str, hosts: &str) -> String {
    let is_local = |name: &str| name.starts_with("localhost");
    let mut lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1));
    let full = lines.find_map(|mut names| {
        let first = names.next()?;
        (first == name || names.any(|other| other == name)).then_some(first)
    });
    full.filter(|full| !name.contains('.') && !is_local(name) && !is_local(full)).unwrap_or(name).to_owned()
}

/// `MemTotal` of `/proc/meminfo`, KiB.
pub(crate) fn memory(meminfo: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()
}

/// The first processor's `cpu MHz` of `/proc/cpuinfo`.
pub(crate) fn frequency(cpuinfo: &str) -> Option<u32> {
    let value = cpuinfo.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split_once(':'))?.1;
    value.trim().split('.').next()?.parse().ok()
}

/// A list like `0-3,8` (Documentation/admin-guide/cputopology.rst). Numbers beyond any machine's are left out.
pub(crate) fn list(text: &str) -> Vec<u32> {
    let ranges = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(65_535))
    });
    ranges.flatten().collect()
}

/// The host's UUID as its firmware says it, unless that is one that makers leave in for want of a better; else from the
/// machine's id (machine-id(5)).
pub(crate) fn host_uuid(product: Option<&str>, machine_id: Option<&str>) -> Option<Uuid> {
    let real = |uuid: &Uuid| uuid.as_bytes().iter().collect::<BTreeSet<_>>().len() > 1;
    let parse = |text: &str| text.trim().parse::<Uuid>().ok();
    product.and_then(parse).filter(real).or_else(|| machine_id.and_then(parse).filter(real))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors(nodes: u32, packages: u32, cores: u32, threads: usize) -> Vec<Processor> {
        let mut all = Vec::new();
        for node in 0..nodes {
            for package in 0..packages {
                for core in 0..cores {
                    let package = node * packages + package;
                    all.extend(std::iter::repeat_n(Processor { node, package, core }, threads));
                }
            }
        }
        all
    }

    #[test]
    fn processors_are_counted_as_they_are_arranged() {
        let of = |all: &[Processor]| {
            let Topology { nodes, sockets, cores, threads } = topology(all);
            (nodes, sockets, cores, threads)
        };
        assert_eq!(of(&processors(1, 1, 2, 1)), (1, 1, 2, 1));
        assert_eq!(of(&processors(2, 2, 8, 2)), (2, 2, 8, 2));
        // One thread is offline.
        assert_eq!(of(&processors(1, 1, 4, 2)[1..]), (1, 1, 7, 1));
        assert_eq!(of(&[]), (1, 1, 1, 1));
    }

    #[test]
    fn what_is_told_of_a_host_has_the_protocols_form() {
        let machine = "x86_64".to_owned();
        let host = Host { machine, uuid: None, processors: processors(1, 1, 2, 1), frequency: 2596, memory: 9_660_628 };
        let mut ret = Writer::default();
        write_info(&host, &mut ret);
        let bytes = ret.finish();
        assert_eq!(bytes.len(), 4 * MODEL + 8 + 6 * 4);
        assert_eq!(bytes[..8], [0, 0, 0, b'x', 0, 0, 0, b'8']);
        let numbers: Vec<u32> =
            bytes[4 * MODEL..].chunks(4).map(|w| u32::from_be_bytes(w.try_into().unwrap())).collect();
        assert_eq!(numbers, [0, 9_660_628, 2, 2596, 1, 1, 2, 1]);
        let uuid = Some("67f66aa0-94fe-4b86-aa89-eeaa4d8ed754".parse().unwrap());
        let xml = capabilities(&Host { uuid, ..host });
        assert!(
            xml.contains("<uuid>67f66aa0-94fe-4b86-aa89-eeaa4d8ed754</uuid>\n    <cpu>\n      <arch>x86_64</arch>")
        );
        assert!(xml.contains("<topology sockets='1' dies='1' cores='2' threads='1'/>") && !xml.contains("<guest>"));
    }

    #[test]
    fn procfs_and_sysfs_are_read() {
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       16318604 kB\n"), Some(16_318_604));
        assert_eq!(frequency("processor\t: 0\ncpu MHz\t\t: 2596.998\ncpu MHz\t\t: 800.0\n"), Some(2596));
        assert_eq!((memory(""), frequency("")), (None, None));
        assert_eq!(list("0-2,5,7-7\n"), [0, 1, 2, 5, 7]);
        assert_eq!(list(""), [0; 0]);
        assert_eq!(list("0-4294967295").len(), 65_536);
        let id = Some("0123456789abcdef0123456789abcdef\n");
        let from_id = "01234567-89ab-cdef-0123-456789abcdef".parse().ok();
        assert_eq!(host_uuid(Some("ffffffff-ffff-ffff-ffff-ffffffffffff"), id), from_id);
        assert_eq!(
            host_uuid(Some("67F66AA0-94FE-4B86-AA89-EEAA4D8ED754\n"), id),
            Uuid::try_parse("67f66aa0-94fe-4b86-aa89-eeaa4d8ed754").ok()
        );
        assert_eq!(host_uuid(None, None), None);
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tvm1.example.org vm1 # vm3\n::1 localhost vm2\n";
        assert_eq!(full_name("vm1", hosts), "vm1.example.org");
        for same in ["vm2", "vm3", "vm1.other.org", "localhost"] {
            assert_eq!(full_name(same, hosts), same);
        }
    }
}
