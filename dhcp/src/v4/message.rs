//! A DHCPv4 message (RFC 2131 §2): the fixed BOOTP header and the options after the cookie.
//!
//! Bytes come from [`super::frame`] and go back to it. `sname` and `file` are names, or room for more options (option 52).

use std::net::Ipv4Addr;

use super::options::{Oddity, Options, code};

/// Bytes of `sname` and `file`.
pub(super) const SNAME_LEN: usize = 64;
pub(super) const FILE_LEN: usize = 128;

/// Bytes of the shortest message we send: what BOOTP clients and relays may insist on (RFC 951 §3, RFC 1542 §2.1).
pub const MIN_LEN: usize = 300;

const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Where the fields of the fixed header are (RFC 2131 §2, figure 1).
mod field {
    use std::ops::Range;

    pub(super) const XID: Range<usize> = 4..8;
    pub(super) const SECS: Range<usize> = 8..10;
    pub(super) const FLAGS: Range<usize> = 10..12;
    pub(super) const CIADDR: usize = 12;
    pub(super) const YIADDR: usize = 16;
    pub(super) const SIADDR: usize = 20;
    pub(super) const GIADDR: usize = 24;
    pub(super) const CHADDR: Range<usize> = 28..44;
    pub(super) const SNAME: Range<usize> = 44..108;
    pub(super) const FILE: Range<usize> = 108..236;
    pub(super) const COOKIE: Range<usize> = 236..240;
    pub(super) const OPTIONS: usize = 240;
}

/// Who speaks: the first byte of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A client, or a relay for it.
    Request,
    /// A server.
    Reply,
}

/// Why bytes are no DHCP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The fixed header and the cookie aren't all there.
    #[error("a DHCP message takes {} bytes or more, this has {had}", field::OPTIONS)]
    Short {
        /// Bytes there are.
        had: usize,
    },
    /// The first byte is neither 1 nor 2.
    #[error("op {0} is neither request nor reply")]
    Op(u8),
    /// The magic cookie isn't there: plain BOOTP, or no DHCP at all.
    #[error("the DHCP cookie is missing")]
    Cookie,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request or reply.
    pub op: Op,
    /// Hardware type; 1 is Ethernet.
    pub htype: u8,
    /// Length of the hardware address, as sent.
    pub hlen: u8,
    /// Relays passed.
    pub hops: u8,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Flags; see [`Message::BROADCAST`].
    pub flags: u16,
    /// The address the client uses.
    pub ciaddr: Ipv4Addr,
    /// The address the client is given.
    pub yiaddr: Ipv4Addr,
    /// The next boot server.
    pub siaddr: Ipv4Addr,
    /// The relay.
    pub giaddr: Ipv4Addr,
    /// The hardware address, padded with zeros.
    pub chaddr: [u8; 16],
    /// The boot server's name, 64 bytes at most; in a message to be sent, or options in its place (option 52).
    pub sname: Vec<u8>,
    /// The file to boot, 128 bytes at most; or options likewise.
    pub file: Vec<u8>,
    /// The options.
    pub options: Options,
}

impl Message {
    /// The only flag there is: the client can't receive unicast before it has an address (RFC 2131 §4.1).
    pub const BROADCAST: u16 = 0x8000;

    /// Reads a message; what is odd about its options is told beside it.
    pub fn parse(bytes: &[u8]) -> Result<(Message, Vec<Oddity>), WireError> {
        let Some((header, tail)) = bytes.split_at_checked(field::OPTIONS) else {
            return Err(WireError::Short { had: bytes.len() });
        };
        if header[field::COOKIE] != COOKIE {
            return Err(WireError::Cookie);
        }
        let op = match header[0] {
            1 => Op::Request,
            2 => Op::Reply,
            other => return Err(WireError::Op(other)),
        };
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let mut chaddr = [0; 16];
        chaddr.copy_from_slice(&header[field::CHADDR]);

        let mut oddities = Vec::new();
        let mut options = Options::new();
        options.parse_field(tail, &mut oddities);
        // Joined parts go options, file, sname (RFC 3396 §7).
        let overload = match options.get(code::OVERLOAD) {
            Some([bits @ 1..=3]) => *bits,
            Some(other) => {
                oddities.push(Oddity::Length { code: code::OVERLOAD, had: other.len() });
                0
            }
            None => 0,
        };
        let mut name_or_options = |bit: u8, field: &[u8]| {
            if overload & bit == 0 {
                return field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            }
            options.parse_field(field, &mut oddities);
            Vec::new()
        };
        let file = name_or_options(1, &header[field::FILE]);
        let sname = name_or_options(2, &header[field::SNAME]);
        let message = Message {
            op,
            htype: header[1],
            hlen: header[2],
            hops: header[3],
            xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            secs: u16::from_be_bytes([header[8], header[9]]),
            flags: u16::from_be_bytes([header[10], header[11]]),
            ciaddr: address(field::CIADDR),
            yiaddr: address(field::YIADDR),
            siaddr: address(field::SIADDR),
            giaddr: address(field::GIADDR),
            chaddr,
            sname,
            file,
            options,
        };
        Ok((message, oddities))
    }

    /// Bytes that [`Message::emit`] writes: never fewer than [`MIN_LEN`].
    pub fn len(&self) -> usize {
        (field::OPTIONS + self.options.len()).max(MIN_LEN)
    }

    /// Never: a message has a header. Here because `len` is.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the message into the first [`Message::len`] bytes of `buffer`.
    ///
    /// # Panics
    /// If the buffer is shorter than that: a mistake of the caller, not of any input.
    pub fn emit(&self, buffer: &mut [u8]) {
        let buffer = &mut buffer[..self.len()];
        buffer.fill(0);
        buffer[0] = match self.op {
            Op::Request => 1,
            Op::Reply => 2,
        };
        buffer[1] = self.htype;
        buffer[2] = self.hlen;
        buffer[3] = self.hops;
        buffer[field::XID].copy_from_slice(&self.xid.to_be_bytes());
        buffer[field::SECS].copy_from_slice(&self.secs.to_be_bytes());
        buffer[field::FLAGS].copy_from_slice(&self.flags.to_be_bytes());
        for (at, address) in [
            (field::CIADDR, self.ciaddr),
            (field::YIADDR, self.yiaddr),
            (field::SIADDR, self.siaddr),
            (field::GIADDR, self.giaddr),
        ] {
            buffer[at..at + 4].copy_from_slice(&address.octets());
        }
        buffer[field::CHADDR].copy_from_slice(&self.chaddr);
        for (field, value) in [(field::SNAME, &self.sname), (field::FILE, &self.file)] {
            let field = &mut buffer[field];
            let len = value.len().min(field.len());
            field[..len].copy_from_slice(&value[..len]);
        }
        buffer[field::COOKIE].copy_from_slice(&COOKIE);
        self.options.emit(&mut buffer[field::OPTIONS..]);
    }

    /// The message as bytes of its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.emit(&mut bytes);
        bytes
    }
}
