//! One `--vsock`: the guest's address and the socket programs of the host connect to.

use std::{path::PathBuf, str::FromStr};

use super::ConfigError;

/// Addresses a guest can have: below are the hypervisor, the machine itself and the host, above is "any".
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;

/// Longest path, in bytes: that of a unix socket (unix(7)) with `_4294967295` behind it.
const LONGEST_PATH: usize = 107 - 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vsock {
    /// The guest's address.
    pub(crate) cid: u32,
    /// The socket to create.
    pub(crate) path: PathBuf,
}

impl FromStr for Vsock {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let wrong = |what: &str| ConfigError::Vsock { word: word.to_owned(), what: what.to_owned() };
        let (mut cid, mut path) = (None, None);
        for option in word.split(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "cid" if cid.is_none() => {
                    let parsed = value.parse().ok().filter(|cid| CIDS.contains(cid));
                    cid = Some(parsed.ok_or_else(|| wrong("cid= takes a number from 3 to 4294967294"))?);
                }
                "socket" if path.is_none() => path = Some(PathBuf::from(value)),
                "cid" | "socket" => return Err(wrong(&format!("option '{key}' is given twice: leave one out"))),
                _ => return Err(wrong(&format!("unknown option '{option}': write cid=N,socket=PATH"))),
            }
        }
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| wrong("it names no socket: write cid=N,socket=PATH"))?;
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(wrong(&format!("the path is longer than {LONGEST_PATH} bytes: take a shorter one")));
        }
        Ok(Vsock { cid: cid.ok_or_else(|| wrong("it names no address: write cid=N,socket=PATH"))?, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_path_are_needed_once_each() {
        let vsock = Vsock { cid: 3, path: "/v".into() };
        assert_eq!("cid=3,socket=/v".parse::<Vsock>(), Ok(vsock.clone()));
        assert_eq!("socket=/v,cid=3".parse::<Vsock>(), Ok(vsock));
        let long = format!("cid=3,socket={}", "x".repeat(97));
        for (word, expected) in [
            ("", "unknown option"),
            ("cid=3", "names no socket"),
            ("cid=3,socket=", "names no socket"),
            ("socket=/v", "names no address"),
            ("cid=2,socket=/v", "from 3 to"),
            ("cid=4294967295,socket=/v", "from 3 to"),
            ("cid=3,cid=4,socket=/v", "twice"),
            ("cid=3,socket=/v,port=1", "unknown option 'port=1'"),
            (&long, "longer than 96"),
        ] {
            let said = word.parse::<Vsock>().unwrap_err().to_string();
            assert!(said.contains(expected) && said.starts_with("--vsock '"), "{said}");
        }
    }
}
