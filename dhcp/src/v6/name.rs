//! Domain names as router advertisements and DHCPv6 write them (RFC 1035 §3.1, never compressed: RFC 8415 §10).

/// A name in wire form: labels between dots, a final dot or none. `None` for what no name can be.
pub(crate) fn encode(name: &str) -> Option<Vec<u8>> {
    let mut wire = partial(name)?;
    wire.push(0);
    (wire.len() <= 255).then_some(wire)
}

/// The labels of a name, without its end.
pub(crate) fn partial(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        wire.push(u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?);
        wire.extend(label.as_bytes());
    }
    Some(wire)
}

/// The first label of a name that may lack its end (RFC 4704 §4.2); `None` if it has none.
pub(crate) fn first_label(wire: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = wire.split_first()?;
    rest.get(..usize::from(length)).filter(|label| (1..64).contains(&label.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_an_end() {
        assert_eq!(encode("lab.test.").unwrap(), b"\x03lab\x04test\0");
        assert_eq!(encode("").or(encode("a..b")).or(encode(&"a".repeat(64))), None);
        assert_eq!(encode(&["a"; 130].join(".")), None);
    }

    #[test]
    fn the_first_label_is_within_the_bytes() {
        assert_eq!(first_label(b"\x03web\x03lab\0"), Some(&b"web"[..]));
        assert_eq!(first_label(b"\x03web"), Some(&b"web"[..]));
        for wrong in [&b""[..], b"\0", b"\x04web", b"\xc0\x0c"] {
            assert_eq!(first_label(wrong), None);
        }
    }
}
