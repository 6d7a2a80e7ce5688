//! A client's message with its options read into values: what the server decides on.
//!
//! Options that make no sense are left out and told as [`Oddity`]; only a message whose sender or kind can't be known
//! is refused.

use std::net::Ipv4Addr;

use super::{
    message::{Message, Op},
    options::{Oddity, Options, code},
};
use crate::{config::Mac, hostname};

/// What a client may say (option 53, RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
    /// No DHCP at all: a BOOTP client (RFC 951), known by its lack of option 53 (RFC 1534 §2).
    Bootp,
}

/// What a server may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Offer = 2,
    Ack = 5,
    Nak = 6,
}

/// Who put a message on the wire, and to whom, as far as the frame around it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) mac: Mac,
    pub(crate) ip: Ipv4Addr,
    /// The IP destination: ours, or a broadcast.
    pub(crate) to: Ipv4Addr,
}

/// Why a DHCP message is none a server can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRequest {
    #[error("it is a server's message")]
    FromServer,
    #[error("hardware type {htype} with address length {hlen} is not Ethernet")]
    NotEthernet { htype: u8, hlen: u8 },
    #[error("the client's hardware address is not one a host can have")]
    NoHost,
    #[error("message type {0} is not one a client sends")]
    Kind(u8),
}

/// One client's message.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) mac: Mac,
    pub(crate) sender: Envelope,
    /// Header fields a reply repeats.
    pub(crate) xid: u32,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    /// Option 50.
    pub(crate) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(crate) server: Option<Ipv4Addr>,
    /// Option 51, in seconds.
    pub(crate) lease: Option<u32>,
    /// Option 55; `None` if it wasn't sent.
    pub(crate) wanted: Option<Vec<u8>>,
    /// Option 57, in bytes of the IP datagram.
    pub(crate) max_size: Option<u16>,
    /// Option 61, type byte included.
    pub(crate) client_id: Option<Vec<u8>>,
    /// Option 82, as the relay sent it.
    pub(crate) relay_agent: Option<Vec<u8>>,
    /// Option 12 or else 81, as a host name; what can't be made one is left out.
    pub(crate) hostname: Option<String>,
    /// The flags of option 81; `None` if it wasn't sent.
    pub(crate) fqdn: Option<u8>,
    /// Option 80 is there: an ACK at once is welcome.
    pub(crate) rapid_commit: bool,
    /// Option 60.
    pub(crate) vendor_class: Option<Vec<u8>>,
    /// Option 97, as sent.
    pub(crate) machine_id: Option<Vec<u8>>,
}

impl Request {
    /// Reads a message's options.
    pub(crate) fn read(message: &Message, sender: Envelope, oddities: &mut Vec<Oddity>) -> Result<Request, NoRequest> {
        if message.op != Op::Request {
            return Err(NoRequest::FromServer);
        }
        let (htype, hlen) = (message.htype, message.hlen);
        let (1, 6, [a, b, c, d, e, f, ..]) = (htype, hlen, message.chaddr) else {
            return Err(NoRequest::NotEthernet { htype, hlen });
        };
        let mac = Mac([a, b, c, d, e, f]);
        if a & 1 != 0 || mac == Mac([0; 6]) {
            return Err(NoRequest::NoHost);
        }
        let mut read = Reader { options: &message.options, oddities };
        let hostname = read.hostname();
        Ok(Request {
            kind: read.kind()?,
            mac,
            sender,
            xid: message.xid,
            flags: message.flags,
            ciaddr: message.ciaddr,
            giaddr: message.giaddr,
            requested: read.address(code::REQUESTED_ADDRESS),
            server: read.address(code::SERVER_ID),
            lease: read.fixed(code::LEASE_TIME).map(u32::from_be_bytes),
            wanted: message.options.get(code::PARAMETER_LIST).map(<[u8]>::to_vec),
            max_size: read.fixed(code::MAX_MESSAGE_SIZE).map(u16::from_be_bytes),
            client_id: read.client_id(),
            relay_agent: message.options.get(code::RELAY_AGENT).map(<[u8]>::to_vec),
            hostname,
            fqdn: message.options.get(code::CLIENT_FQDN).and_then(<[u8]>::first).copied(),
            rapid_commit: message.options.get(code::RAPID_COMMIT).is_some(),
            vendor_class: message.options.get(code::VENDOR_CLASS).map(<[u8]>::to_vec),
            machine_id: message.options.get(code::MACHINE_ID).map(<[u8]>::to_vec),
        })
    }
}

struct Reader<'a> {
    options: &'a Options,
    oddities: &'a mut Vec<Oddity>,
}

impl Reader<'_> {
    fn kind(&mut self) -> Result<Kind, NoRequest> {
        let value = self.options.get(code::MESSAGE_TYPE).unwrap_or_default();
        if value.len() > 1 {
            self.oddities.push(Oddity::Length { code: code::MESSAGE_TYPE, had: value.len() });
        }
        // Sent twice, it has been joined to two bytes: the first is as good as any.
        match value.first() {
            None => Ok(Kind::Bootp),
            Some(1) => Ok(Kind::Discover),
            Some(3) => Ok(Kind::Request),
            Some(4) => Ok(Kind::Decline),
            Some(7) => Ok(Kind::Release),
            Some(8) => Ok(Kind::Inform),
            Some(&other) => Err(NoRequest::Kind(other)),
        }
    }

    fn fixed<const N: usize>(&mut self, code: u8) -> Option<[u8; N]> {
        let value = self.options.get(code)?;
        let fixed = value.try_into().ok();
        if fixed.is_none() {
            self.oddities.push(Oddity::Length { code, had: value.len() });
        }
        fixed
    }

    /// An address; clients that write all zeros mean none.
    fn address(&mut self, code: u8) -> Option<Ipv4Addr> {
        self.fixed::<4>(code).map(Ipv4Addr::from).filter(|address| !address.is_unspecified())
    }

    fn client_id(&mut self) -> Option<Vec<u8>> {
        let value = self.options.get(code::CLIENT_ID)?;
        // RFC 2132 §9.14 wants two bytes or more; what is shorter is still echoed, for it may be all a client checks.
        if value.len() < 2 {
            self.oddities.push(Oddity::Length { code: code::CLIENT_ID, had: value.len() });
        }
        (!value.is_empty()).then(|| value.to_vec())
    }

    fn hostname(&mut self) -> Option<String> {
        for code in [code::HOST_NAME, code::CLIENT_FQDN] {
            let Some(value) = self.options.get(code) else { continue };
            let name = match code {
                code::CLIENT_FQDN => fqdn_label(value),
                _ => Some(value),
            };
            match name.and_then(hostname::sanitise) {
                Some(name) => return Some(name),
                None => self.oddities.push(Oddity::Text { code }),
            }
        }
        None
    }
}

/// The first label of a client FQDN option (RFC 4702 §2): flags, two obsolete bytes, then a name as text or, with the E
/// flag, as DNS labels.
fn fqdn_label(value: &[u8]) -> Option<&[u8]> {
    const ENCODED: u8 = 0x04;
    let (head, name) = value.split_at_checked(3)?;
    if head[0] & ENCODED == 0 {
        return Some(name);
    }
    let (&len, rest) = name.split_first()?;
    rest.get(..usize::from(len))
}
