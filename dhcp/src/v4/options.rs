//! DHCP options on the wire (RFC 2132): found by walking them, never by position.
//!
//! What a client may send is wider than what it should: options repeat and are joined (RFC 3396), overflow into the
//! `file` and `sname` fields (RFC 2132 §9.3), or are cut short. Whatever can be read is kept; the rest is an
//! [`Oddity`] for the log, and never loses the packet.

/// Option codes, by their names in RFC 2132 unless another is given.
#[expect(missing_docs, reason = "the names are the documentation")]
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS_SERVERS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const INTERFACE_MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// Rapid commit, RFC 4039.
    pub const RAPID_COMMIT: u8 = 80;
    /// Client FQDN, RFC 4702.
    pub const CLIENT_FQDN: u8 = 81;
    /// Relay agent information, RFC 3046.
    pub const RELAY_AGENT: u8 = 82;
    /// Client machine identifier, RFC 4578 §2.3.
    pub const MACHINE_ID: u8 = 97;
    /// Domain search list, RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
    /// Classless static routes, RFC 3442.
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// The same as Windows before Vista asks for it.
    pub const MICROSOFT_ROUTES: u8 = 249;
    pub const END: u8 = 255;
}

/// Something in the options that is not as the RFCs have it; the packet is used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The option's length reaches past its field; it and what follows there is ignored.
    Truncated {
        /// The option's code.
        code: u8,
    },
    /// The option's value can't have this length; it is ignored.
    Length {
        /// The option's code.
        code: u8,
        /// Bytes after joining.
        had: usize,
    },
    /// The text holds nothing usable; it is ignored.
    Text {
        /// The option's code.
        code: u8,
    },
}

/// The options of one message: each code once, in order of first appearance, repeated ones joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    list: Vec<(u8, Vec<u8>)>,
}

impl Options {
    /// No options.
    pub fn new() -> Self {
        Options::default()
    }

    /// The value of an option, as long as it was sent.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.list.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    /// Every option, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.list.iter().map(|(code, value)| (*code, value.as_slice()))
    }

    /// Adds a value at the end, or to the option's earlier part (RFC 3396 §7). Pad and end are no options: ignored.
    pub fn push(&mut self, code: u8, value: &[u8]) {
        if matches!(code, code::PAD | code::END) {
            return;
        }
        match self.list.iter_mut().find(|(known, _)| *known == code) {
            Some((_, joined)) => joined.extend_from_slice(value),
            None => self.list.push((code, value.to_vec())),
        }
    }

    /// Bytes that [`Options::emit`] writes, the end option included.
    pub fn len(&self) -> usize {
        self.list.iter().map(|(_, value)| wire_len(value.len())).sum::<usize>() + 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Writes the options into the first [`Options::len`] bytes of `buffer`; long ones in several parts.
    ///
    /// # Panics
    /// If the buffer is shorter than that: a mistake of the caller, not of any input.
    pub fn emit(&self, buffer: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            buffer[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        for (code, value) in &self.list {
            if value.is_empty() {
                put(&[*code, 0]);
            }
            for part in value.chunks(255) {
                put(&[*code, part.len() as u8]);
                put(part);
            }
        }
        put(&[code::END]);
    }

    /// Reads the options of one field into `self`.
    pub(super) fn parse_field(&mut self, field: &[u8], oddities: &mut Vec<Oddity>) {
        let mut rest = field;
        while let Some((&code, after)) = rest.split_first() {
            match code {
                code::PAD => rest = after,
                code::END => return,
                code => {
                    let value = after.split_first().and_then(|(&len, after)| after.split_at_checked(len.into()));
                    let Some((value, after)) = value else {
                        oddities.push(Oddity::Truncated { code });
                        return;
                    };
                    self.push(code, value);
                    rest = after;
                }
            }
        }
    }
}

/// Bytes an option with a value of this length takes on the wire, split in parts of 255 (RFC 3396 §5).
pub(super) fn wire_len(value: usize) -> usize {
    value + 2 * value.div_ceil(255).max(1)
}
