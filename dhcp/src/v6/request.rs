//! A client's message with its options read into values: what the server decides on (RFC 8415 §16, §18.3, §21).

use std::net::Ipv6Addr;

use super::{
    message::{self, Message, Options, Relay, code, find, kind},
    name,
};
use crate::{config::Mac, hostname};

/// What a client may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    Information,
}

/// Associations in one message, and addresses in one of them, that are looked at.
const MAX_ASSOCIATIONS: usize = 8;
const MAX_ADDRESSES: usize = 16;

/// The longest DUID (RFC 8415 §11.1), and the shortest that says anything.
const DUID: std::ops::RangeInclusive<usize> = 3..=130;

/// Why a message is none a server can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRequest {
    #[error("message type {0} is not one a client sends")]
    Kind(u8),
    #[error("it has no client identifier, or none that is a DUID")]
    NoClient,
    #[error("nothing in it says which hardware address its client has")]
    NoMac,
    #[error("the client's hardware address is not one a host can have")]
    NoHost,
    /// RFC 8415 §16.
    #[error("it has what a message of its type must not have, or lacks what it must have")]
    Invalid,
}

/// Who put a message on the wire, and to whom, as far as the frame around it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) mac: Mac,
    pub(crate) from: Ipv6Addr,
    pub(crate) to: Ipv6Addr,
    /// UDP source port.
    pub(crate) port: u16,
}

/// What an association is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Addresses that last (IA_NA).
    Addresses,
    /// Temporary addresses (IA_TA), which we have none of.
    Temporary,
    /// Prefixes for networks behind the client (IA_PD), which we have none of.
    Prefixes,
}

/// A client's association: what it has, or would like to have, for one interface (RFC 8415 §21.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Association {
    pub(crate) of: Of,
    pub(crate) iaid: u32,
    pub(crate) addresses: Vec<Ipv6Addr>,
}

/// The client FQDN (RFC 4704 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FqdnFlags(pub(crate) u8);

impl FqdnFlags {
    /// S: the server is to make the name known.
    pub(crate) const SERVER: u8 = 1;
    /// O: the server does so though the client would not have it.
    pub(crate) const OVERRIDE: u8 = 2;
    /// N: nobody is to.
    pub(crate) const NOBODY: u8 = 4;
}

/// A relay, as a reply goes back through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) hops: u8,
    pub(crate) link: Ipv6Addr,
    pub(crate) peer: Ipv6Addr,
    pub(crate) interface_id: Option<Vec<u8>>,
}

/// One client's message.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    /// The client's hardware address.
    pub(crate) mac: Mac,
    pub(crate) sender: Envelope,
    pub(crate) xid: [u8; 3],
    /// The client's DUID; only an Information-request may lack it.
    pub(crate) duid: Option<Vec<u8>>,
    /// The server's DUID, as the client says it.
    pub(crate) server: Option<Vec<u8>>,
    pub(crate) associations: Vec<Association>,
    /// The client takes a Reply to its Solicit.
    pub(crate) rapid: bool,
    pub(crate) wanted: Vec<u16>,
    /// The name it claims, as a host name; what can't be made one is left out.
    pub(crate) hostname: Option<String>,
    pub(crate) fqdn: Option<FqdnFlags>,
    /// The outermost first.
    pub(crate) relays: Vec<Passed>,
}

impl Request {
    /// Reads a message's options.
    pub(crate) fn read(relays: &[Relay<'_>], message: &Message<'_>, sender: Envelope) -> Result<Request, NoRequest> {
        let kind = match message.kind {
            kind::SOLICIT => Kind::Solicit,
            kind::REQUEST => Kind::Request,
            kind::CONFIRM => Kind::Confirm,
            kind::RENEW => Kind::Renew,
            kind::REBIND => Kind::Rebind,
            kind::RELEASE => Kind::Release,
            kind::DECLINE => Kind::Decline,
            kind::INFORMATION_REQUEST => Kind::Information,
            other => return Err(NoRequest::Kind(other)),
        };
        let options = &message.options;
        let duid = match find(options, code::CLIENT_ID) {
            Some(duid) if DUID.contains(&duid.len()) => Some(duid.to_vec()),
            None if kind == Kind::Information => None,
            _ => return Err(NoRequest::NoClient),
        };
        let server = find(options, code::SERVER_ID).map(<[u8]>::to_vec);
        let associations = associations(options)?;
        let is_valid = match kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => server.is_none(),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => server.is_some(),
            Kind::Information => associations.is_empty(),
        };
        if !is_valid {
            return Err(NoRequest::Invalid);
        }
        let mac = match relays.last() {
            None => sender.mac,
            Some(relay) => relay.mac.or_else(|| duid.as_deref().and_then(mac_of_duid)).ok_or(NoRequest::NoMac)?,
        };
        if mac.0[0] & 1 != 0 || mac == Mac([0; 6]) {
            return Err(NoRequest::NoHost);
        }
        let fqdn = find(options, code::CLIENT_FQDN).and_then(<[u8]>::split_first);
        let wanted = find(options, code::OPTION_REQUEST).unwrap_or_default();
        Ok(Request {
            kind,
            mac,
            sender,
            xid: message.xid,
            duid,
            server,
            associations,
            rapid: find(options, code::RAPID_COMMIT).is_some(),
            wanted: wanted.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect(),
            hostname: fqdn.and_then(|(_, name)| hostname::sanitise(name::first_label(name)?)),
            fqdn: fqdn.map(|(flags, _)| FqdnFlags(*flags)),
            relays: relays.iter().map(Passed::from).collect(),
        })
    }

    /// Whether it came straight from the client to one address of ours.
    pub(crate) fn is_unicast(&self) -> bool {
        self.relays.is_empty() && !self.sender.to.is_multicast()
    }
}

impl From<&Relay<'_>> for Passed {
    fn from(relay: &Relay<'_>) -> Self {
        Passed {
            hops: relay.hops,
            link: relay.link,
            peer: relay.peer,
            interface_id: relay.interface_id.map(<[u8]>::to_vec),
        }
    }
}

fn associations(options: &Options<'_>) -> Result<Vec<Association>, NoRequest> {
    let mut list = Vec::new();
    for (code, value) in options {
        let (of, head) = match *code {
            code::IA_NA => (Of::Addresses, 12),
            code::IA_TA => (Of::Temporary, 4),
            code::IA_PD => (Of::Prefixes, 12),
            _ => continue,
        };
        let (head, inside) = value.split_at_checked(head).ok_or(NoRequest::Invalid)?;
        let inside = message::options(inside).map_err(|_| NoRequest::Invalid)?;
        let addresses = inside.iter().filter(|(code, value)| *code == code::IA_ADDRESS && value.len() >= 24);
        let addresses = addresses.map(|(_, value)| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&value[..16]);
            Ipv6Addr::from(octets)
        });
        let addresses = addresses.filter(|address| !address.is_unspecified()).take(MAX_ADDRESSES).collect();
        let iaid = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let association = Association { of, iaid, addresses };
        let twice = list.iter().any(|known: &Association| known.of == of && known.iaid == iaid);
        if !twice && list.len() < MAX_ASSOCIATIONS {
            list.push(association);
        }
    }
    Ok(list)
}

/// The MAC in a DUID that is made of one: types 1 and 3 with hardware type 1 (RFC 8415 §11.2, §11.4).
fn mac_of_duid(duid: &[u8]) -> Option<Mac> {
    match *duid {
        [0, 1, 0, 1, _, _, _, _, a, b, c, d, e, f] | [0, 3, 0, 1, a, b, c, d, e, f] => Some(Mac([a, b, c, d, e, f])),
        _ => None,
    }
}
