//! Domain names in wire form (RFC 1035 §3.1): length-prefixed labels, a zero octet at the end, at most 255 octets.
//!
//! Lengths are below 64 and letters above, so a whole name is folded to lower case in one go, and every suffix of a
//! name is a slice of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{WireError, take};

/// The longest name (RFC 1035 §2.3.4), in octets.
pub(in super::super) const MAX_NAME: usize = 255;

/// The most pointers followed in one name: no more than it can have labels.
const MAX_POINTERS: usize = 127;

/// The longest label (RFC 1035 §2.3.4), in octets.
const MAX_LABEL: usize = 63;

/// A whole, uncompressed name. Case is kept: fold it before comparing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct Name(Box<[u8]>);

impl Name {
    /// The root.
    pub(in super::super) fn root() -> Name {
        Name(Box::new([0]))
    }

    /// Reads the name of a question: there is nothing before it a pointer could point to.
    pub(in super::super) fn parse(message: &[u8], start: usize) -> Result<Name, WireError> {
        let mut at = start;
        loop {
            let [length] = take(message, at, "label")?;
            match length {
                0 => return Ok(Name(message[start..=at].into())),
                1..=63 => at += 1 + usize::from(length),
                192.. => return Err(WireError::CompressedQuestion { offset: at }),
                kind => return Err(WireError::LabelKind { offset: at, kind }),
            }
            if at - start >= MAX_NAME {
                return Err(WireError::NameTooLong { offset: start });
            }
        }
    }

    /// From text: labels between dots, a final dot or none, every character but the dot taken as it is. `None` for
    /// what no name can be: an empty or overlong label, an overlong or empty name.
    pub(in super::super) fn from_text(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            if label.is_empty() || label.len() > MAX_LABEL {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then(|| Name(wire.into()))
    }

    /// This name under `domain`, or `None` if that is too long.
    pub(in super::super) fn under(&self, domain: &Name) -> Option<Name> {
        let mut wire = self.0[..self.0.len() - 1].to_vec();
        wire.extend(&*domain.0);
        (wire.len() <= MAX_NAME).then(|| Name(wire.into()))
    }

    /// The first label alone, as a name of one label.
    pub(in super::super) fn first_label(&self) -> Name {
        let mut wire = self.0[..1 + usize::from(self.0[0])].to_vec();
        if self.0[0] != 0 {
            wire.push(0);
        }
        Name(wire.into())
    }

    /// This name without its first `labels` labels; the root if it has fewer.
    pub(in super::super) fn ancestor(&self, labels: usize) -> Name {
        self.suffixes().nth(labels).map_or_else(Name::root, |suffix| Name(suffix.into()))
    }

    /// The name under in-addr.arpa (RFC 1035 §3.5) or ip6.arpa (RFC 3596 §2.5) that stands for `address`.
    #[cfg(test)]
    pub(in super::super) fn reverse(address: IpAddr) -> Name {
        let mut wire = Vec::with_capacity(74);
        match address {
            IpAddr::V4(address) => {
                for octet in address.octets().iter().rev() {
                    let text = octet.to_string();
                    wire.push(text.len() as u8);
                    wire.extend(text.as_bytes());
                }
                wire.extend(b"\x07in-addr\x04arpa\0");
            }
            IpAddr::V6(address) => {
                for octet in address.octets().iter().rev() {
                    for nibble in [octet & 15, octet >> 4] {
                        wire.extend([1, b"0123456789abcdef"[usize::from(nibble)]]);
                    }
                }
                wire.extend(b"\x03ip6\x04arpa\0");
            }
        }
        Name(wire.into())
    }

    /// The address a full reverse name stands for; the name must be in lower case.
    pub(in super::super) fn reversed_address(&self) -> Option<IpAddr> {
        let mut labels: Vec<&[u8]> = self.labels().collect();
        if labels.pop()? != b"arpa" {
            return None;
        }
        match labels.pop()? {
            b"in-addr" if labels.len() == 4 => {
                let mut octets = [0; 4];
                for (octet, label) in octets.iter_mut().zip(labels.iter().rev()) {
                    *octet = decimal_octet(label)?;
                }
                Some(Ipv4Addr::from(octets).into())
            }
            b"ip6" if labels.len() == 32 => {
                let mut address = 0u128;
                for label in labels.iter().rev() {
                    let [digit] = label else { return None };
                    address = address << 4 | u128::from((*digit as char).to_digit(16)?);
                }
                Some(Ipv6Addr::from(address).into())
            }
            _ => None,
        }
    }

    /// The wire form.
    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same name in lower case: what is compared and looked up (RFC 4343 §3).
    pub(in super::super) fn folded(&self) -> Name {
        Name(self.0.to_ascii_lowercase().into())
    }

    /// The labels, leftmost first, without the root.
    pub(in super::super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.suffixes().filter(|suffix| suffix[0] != 0).map(|suffix| &suffix[1..1 + usize::from(suffix[0])])
    }

    /// The wire forms of this name and every one above it, the root last.
    pub(in super::super) fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Some(&*self.0);
        std::iter::from_fn(move || {
            let suffix = rest?;
            rest = (suffix[0] != 0).then(|| &suffix[1 + usize::from(suffix[0])..]);
            Some(suffix)
        })
    }
}

impl fmt::Display for Name {
    /// Labels with a dot after each, as `dig` writes them; octets that are not printable ASCII as `\ddd`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' => write!(f, "\\{}", octet as char)?,
                    b'!'..=b'~' => write!(f, "{}", octet as char)?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One label of an in-addr.arpa name: 0 to 255, no leading zero, nothing else.
pub(in super::super) fn decimal_octet(label: &[u8]) -> Option<u8> {
    if label.len() > 3 || (label.len() > 1 && label[0] == b'0') || !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

/// Steps over a name that may be compressed (RFC 1035 §4.1.4) and says where the next field starts.
///
/// Every pointer must go before the place where the part of the name it ends began, so the walk ends; the whole must
/// fit a name and there are only so many pointers, so it ends soon.
pub(super) fn skip(message: &[u8], start: usize) -> Result<usize, WireError> {
    let (mut at, mut part, mut length) = (start, start, 1);
    let (mut next, mut pointers) = (None, 0);
    loop {
        let [octet] = take(message, at, "label")?;
        match octet {
            0 => return Ok(next.unwrap_or(at + 1)),
            1..=63 => {
                at += 1 + usize::from(octet);
                length += 1 + usize::from(octet);
                if length > MAX_NAME {
                    return Err(WireError::NameTooLong { offset: start });
                }
            }
            192.. => {
                let target = usize::from(u16::from_be_bytes(take(message, at, "pointer")?) & 0x3fff);
                if target >= part || target < super::HEADER {
                    return Err(WireError::PointerForward { offset: at });
                }
                pointers += 1;
                if pointers > MAX_POINTERS {
                    return Err(WireError::NameTooLong { offset: start });
                }
                next.get_or_insert(at + 2);
                (at, part) = (target, target);
            }
            kind => return Err(WireError::LabelKind { offset: at, kind }),
        }
    }
}
