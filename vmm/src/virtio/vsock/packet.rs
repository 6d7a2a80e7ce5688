//! A packet's header (virtio 1.2 §5.10.6): bytes in, values out, and back.

/// Bytes of the header.
pub(super) const HEADER: usize = 44;

/// The host's address (§5.10.4); the device is the host to its guest.
pub(super) const HOST_CID: u64 = 2;

/// Sockets that are streams; datagrams and sequenced packets are not offered.
const STREAM: u16 = 1;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Op {
    const ALL: [Op; 7] =
        [Op::Request, Op::Response, Op::Reset, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest];

    /// The number on the wire.
    fn number(self) -> u16 {
        self as u16 + 1
    }
}

/// Flags of a shutdown: the sender receives no more, it sends no more.
pub(super) const NO_RECEIVE: u32 = 1;
pub(super) const NO_SEND: u32 = 2;

/// A header between guest and host, without the addresses, which are always those two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) op: Op,
    pub(super) ports: Ports,
    /// Bytes of payload.
    pub(super) len: u32,
    pub(super) flags: u32,
    /// Bytes the sender keeps for what it receives, and how many of all it received it has passed on.
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

/// What tells a connection from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// What a packet from the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromGuest {
    /// A packet for the host.
    Packet(Header),
    /// Of a kind or for a purpose we don't know: to be answered by a reset.
    Unknown(Ports),
    /// From or for somebody else: not to be answered.
    Foreign,
}

/// Reads a header that the guest with this address wrote.
pub(super) fn parse(bytes: &[u8; HEADER], guest_cid: u64) -> FromGuest {
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    if u64_at(0) != guest_cid || u64_at(8) != HOST_CID {
        return FromGuest::Foreign;
    }
    let ports = Ports { guest: u32_at(16), host: u32_at(20) };
    match Op::ALL.into_iter().find(|op| op.number() == u16_at(30)) {
        Some(op) if u16_at(28) == STREAM => FromGuest::Packet(Header {
            op,
            ports,
            len: u32_at(24),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }),
        _ => FromGuest::Unknown(ports),
    }
}

impl Header {
    /// The header as the guest with this address reads it.
    pub(super) fn to_guest(self, guest_cid: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &HOST_CID.to_le_bytes());
        put(8, &guest_cid.to_le_bytes());
        put(16, &self.ports.host.to_le_bytes());
        put(20, &self.ports.guest.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &STREAM.to_le_bytes());
        put(30, &self.op.number().to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { host: 7, guest: 9 };

    #[test]
    fn what_is_written_reads_back_with_the_sides_swapped() {
        for op in Op::ALL {
            let header = Header { op, ports: PORTS, len: 5, flags: 3, buf_alloc: 1 << 20, fwd_cnt: 77 };
            let mut bytes = header.to_guest(3);
            assert_eq!(parse(&bytes, 3), FromGuest::Foreign, "from the host");
            let (host, guest) = (HOST_CID.to_le_bytes(), 3_u64.to_le_bytes());
            bytes[..8].copy_from_slice(&guest);
            bytes[8..16].copy_from_slice(&host);
            let swapped = Ports { host: PORTS.guest, guest: PORTS.host };
            assert_eq!(parse(&bytes, 3), FromGuest::Packet(Header { ports: swapped, ..header }));
            assert_eq!(parse(&bytes, 4), FromGuest::Foreign, "another guest's address");
            bytes[30] = 8;
            assert_eq!(parse(&bytes, 3), FromGuest::Unknown(swapped));
            bytes[30..32].copy_from_slice(&op.number().to_le_bytes());
            bytes[28] = 2;
            assert_eq!(parse(&bytes, 3), FromGuest::Unknown(swapped), "no stream");
        }
    }
}
