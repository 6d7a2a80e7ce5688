//! Names and hardware addresses: what the kernel and the file system will take.

use std::{fmt, str::FromStr};

/// Why a string is no name or no hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// A character that cannot stand in it.
    #[error("'{name}' contains {character:?}")]
    Character {
        /// The name, shortened.
        name: String,
        /// The character.
        character: char,
    },
    /// Longer than a file or an interface may be named.
    #[error("'{name}' is longer than {limit} bytes")]
    TooLong {
        /// The name, shortened.
        name: String,
        /// Greatest length in bytes.
        limit: usize,
    },
    /// `.` or `..`.
    #[error("'{0}' cannot be a name")]
    Reserved(String),
    /// No number in a pattern.
    #[error("'{0}' has no %d for a number")]
    Template(String),
    /// Not six bytes of hex.
    #[error("'{0}' is not a MAC address of the form 52:54:00:12:34:56")]
    Mac(String),
    /// A group address where one interface is meant.
    #[error("'{0}' is a multicast MAC address")]
    MulticastMac(String),
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The name of a network: non-empty, no `/` and no control characters (it becomes a file name), at most 250 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);
text_newtype!(NetworkName);

impl FromStr for NetworkName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        check(name, 250, |c| c == '/' || c.is_control())?;
        Ok(NetworkName(name.to_owned()))
    }
}

/// The name of a network interface: 1 to 15 of the letters, digits, `.`, `_` and `-`. The kernel takes more
/// (`dev_valid_name`), but `*`, `@` and others mean something in nftables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeName(String);
text_newtype!(BridgeName);

impl FromStr for BridgeName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        check(name, 15, |c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'))?;
        Ok(BridgeName(name.to_owned()))
    }
}

/// A pattern for interface names: what is before and after a number, as in `lab%d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeTemplate {
    before: String,
    after: String,
}

impl BridgeTemplate {
    /// Whether a text is meant as a pattern.
    pub fn is_one(name: &str) -> bool {
        name.contains("%d")
    }

    /// The name with this number; `None` where that makes it too long.
    pub fn name(&self, number: u32) -> Option<BridgeName> {
        format!("{}{number}{}", self.before, self.after).parse().ok()
    }
}

impl FromStr for BridgeTemplate {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (before, after) = text.split_once("%d").ok_or_else(|| NameError::Template(printable(text)))?;
        let template = BridgeTemplate { before: before.to_owned(), after: after.to_owned() };
        // the shortest name it stands for
        format!("{before}0{after}").parse::<BridgeName>()?;
        Ok(template)
    }
}

impl fmt::Display for BridgeTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%d{}", self.before, self.after)
    }
}

fn check(name: &str, limit: usize, forbidden: impl Fn(char) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameError::Reserved(name.to_owned()));
    }
    if let Some(character) = name.chars().find(|c| forbidden(*c)) {
        return Err(NameError::Character { name: printable(name), character });
    }
    if name.len() > limit {
        return Err(NameError::TooLong { name: printable(name), limit });
    }
    Ok(())
}

/// What a message may quote of a text that anybody may have written: short and on one line.
pub(crate) fn printable(text: &str) -> String {
    const LIMIT: usize = 80;
    let text = text.trim();
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LIMIT).collect();
    if text.chars().nth(LIMIT).is_some() {
        short.push('…');
    }
    short
}

/// A unicast Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Mac(printable(text));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| matches!(p.len(), 1 | 2)).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        if bytes[0] & 1 == 1 {
            return Err(NameError::MulticastMac(text.to_owned()));
        }
        Ok(MacAddr(bytes))
    }
}
