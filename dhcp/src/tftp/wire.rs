//! TFTP's packets (RFC 1350 §5) and options (RFC 2347). Pure; no bytes make it panic.

/// What a client may ask for beside the file (RFC 2348, RFC 2349, RFC 7440).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Bytes of a block.
    pub(super) blksize: Option<u16>,
    /// Seconds until something is said again; more than 10 are not granted.
    pub(super) timeout: Option<u8>,
    /// The client wants to know the file's size.
    pub(super) tsize: bool,
    /// Blocks until an ACK is waited for.
    pub(super) windowsize: Option<u16>,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// It wants a file.
    Read { file: Vec<u8>, options: Options },
    /// It has every block up to this one.
    Ack(u16),
    /// It has given up.
    Error,
    /// What is not served, with the answer.
    Refused(Code, &'static str),
}

/// Error codes (RFC 1350, appendix I).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NotFound = 1,
    AccessViolation = 2,
    IllegalOperation = 4,
}

/// Reads a packet; `None` if there is nothing to answer in it.
pub(super) fn parse(bytes: &[u8]) -> Option<Packet> {
    let (&[high, low], rest) = bytes.split_first_chunk::<2>()?;
    match u16::from_be_bytes([high, low]) {
        1 => Some(read_request(rest)),
        2 => Some(Packet::Refused(Code::AccessViolation, "files can only be read here")),
        4 => Some(Packet::Ack(u16::from_be_bytes(*rest.first_chunk()?))),
        5 => Some(Packet::Error),
        _ => None,
    }
}

fn read_request(rest: &[u8]) -> Packet {
    let Some(body) = rest.strip_suffix(&[0]) else {
        return Packet::Refused(Code::IllegalOperation, "a request ends with a zero");
    };
    let mut words = body.split(|byte| *byte == 0);
    let (Some(file), Some(mode)) = (words.next(), words.next()) else {
        return Packet::Refused(Code::IllegalOperation, "a request has a file and a mode");
    };
    if !mode.eq_ignore_ascii_case(b"octet") {
        return Packet::Refused(Code::IllegalOperation, "only mode octet is served");
    }
    let mut options = Options::default();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        // Who asks for what cannot be is answered without it (RFC 2347 §1).
        let within = |low: u64, high: u64| number.filter(|number| (low..=high).contains(number));
        match name.to_ascii_lowercase().as_slice() {
            b"blksize" => options.blksize = within(8, 65_464).and_then(|size| size.try_into().ok()),
            b"timeout" => options.timeout = within(1, 10).and_then(|seconds| seconds.try_into().ok()),
            b"tsize" => options.tsize = number.is_some(),
            b"windowsize" => options.windowsize = within(1, 65_535).and_then(|blocks| blocks.try_into().ok()),
            _ => {}
        }
    }
    Packet::Read { file: file.to_vec(), options }
}

/// A block of the file.
pub(super) fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
    [&[0, 3][..], &block.to_be_bytes(), bytes].concat()
}

/// The options that are granted (RFC 2347 §2).
pub(super) fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = vec![0, 6];
    for (name, value) in options {
        bytes.extend(format!("{name}\0{value}\0").bytes());
    }
    bytes
}

/// Why there is no file.
pub(super) fn error(code: Code, text: &str) -> Vec<u8> {
    [&[0, 5, 0, code as u8][..], text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Packet {
        parse(&[&[0, 1][..], bytes].concat()).unwrap()
    }

    #[test]
    fn rfc2347_options_that_make_sense_are_taken_and_others_passed_over() {
        let zeros = |text: &str| text.replace(' ', "\0").into_bytes();
        let all = zeros("a/b OCTET BlkSize 1468 tsize 0 windowsize 16 timeout 3 unheard of ");
        let options = Options { blksize: Some(1468), timeout: Some(3), tsize: true, windowsize: Some(16) };
        assert_eq!(read(&all), Packet::Read { file: b"a/b".to_vec(), options });
        let odd = zeros("a octet blksize 7 tsize x windowsize 0 timeout 11 blksize ");
        assert_eq!(read(&odd), Packet::Read { file: b"a".to_vec(), options: Options::default() });
    }

    #[test]
    fn what_is_not_served_is_answered_and_what_is_no_request_is_not() {
        assert!(matches!(read(b"a\0netascii\0"), Packet::Refused(Code::IllegalOperation, _)));
        assert!(matches!(read(b"a\0octet"), Packet::Refused(Code::IllegalOperation, _)));
        assert!(matches!(read(b"a\0"), Packet::Refused(Code::IllegalOperation, _)));
        assert!(matches!(parse(b"\0\x02a\0octet\0"), Some(Packet::Refused(Code::AccessViolation, _))));
        for nothing in [&b""[..], b"\0", b"\0\x04\0", b"\0\x03\0\x01x", b"\xff\xff"] {
            assert_eq!(parse(nothing), None);
        }
    }
}
