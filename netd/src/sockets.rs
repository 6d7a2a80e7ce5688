//! procfs' tables of sockets, read: who receives from anybody on which port. Pure: text in, values out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What listening looks like for TCP (include/net/tcp_states.h).
const TCP_LISTEN: u8 = 0x0a;

/// What a UDP socket that is not connected to one peer looks like.
const TCP_CLOSE: u8 = 0x07;

/// A line of `/proc/net/{udp,tcp}{,6}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// By which the socket is found among a process's descriptors.
    pub(crate) inode: u64,
}

/// The sockets that receive from anybody. Lines that are no sockets are passed over.
pub(crate) fn rows(text: &str, tcp: bool) -> Vec<Row> {
    text.lines().filter_map(|line| row(line, tcp)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …` (proc_net_tcp.txt).
fn row(line: &str, tcp: bool) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let state = u8::from_str_radix(words.get(3)?, 16).ok()?;
    if state != if tcp { TCP_LISTEN } else { TCP_CLOSE } {
        return None;
    }
    Some(Row {
        address: hex_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// An address is words of 32 bits, each printed in the machine's own byte order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1";
        assert_eq!(rows(line, true), [Row { address: Ipv4Addr::LOCALHOST.into(), port: 22, inode: 31337 }]);
        assert_eq!(rows(line, false), []);
        for nonsense in ["", "  sl  local_address rem_address   st", "0: x y 0A", "0: x:zz y 0A a b c d 1"] {
            assert_eq!(rows(nonsense, true), [], "{nonsense}");
        }
    }
}
