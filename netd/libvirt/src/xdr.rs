//! XDR (RFC 4506) as libvirt's remote protocol uses it: big-endian, everything a multiple of four bytes.
//!
//! A length or a discriminant in a message is a claim. It is compared with what is left of the message before anything is
//! made of it.

/// The longest string the protocol has, in bytes.
pub(crate) const LONGEST_STRING: usize = 4 << 20;

/// A message that is not of the form its procedure has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XdrError {
    /// It ends too early.
    #[error("the message ends too early")]
    Short,
    /// A string that is longer than the protocol lets it be.
    #[error("a string of {0} bytes is too long")]
    Long(usize),
    /// A string that is not UTF-8, or has a NUL in it.
    #[error("a string is not text")]
    Text,
}

/// Takes a message apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], XdrError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(XdrError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(XdrError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// An unsigned number of 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32, XdrError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A signed number of 32 bits.
    pub(crate) fn i32(&mut self) -> Result<i32, XdrError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A UUID: 16 bytes without a length.
    pub(crate) fn uuid(&mut self) -> Result<uuid::Uuid, XdrError> {
        self.array().map(uuid::Uuid::from_bytes)
    }

    /// Text: a length, its bytes, and zeros up to the next multiple of four.
    pub(crate) fn string(&mut self) -> Result<&'a str, XdrError> {
        let length = usize::try_from(self.u32()?).map_err(|_| XdrError::Short)?;
        if length > LONGEST_STRING {
            return Err(XdrError::Long(length));
        }
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text),
            _ => Err(XdrError::Text),
        }
    }

    /// What may be absent. Every discriminant but zero says that it is there: go-libvirt sends 0x01000000.
    pub(crate) fn optional<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, XdrError>,
    ) -> Result<Option<T>, XdrError> {
        match self.u32()? {
            0 => Ok(None),
            _ => value(self).map(Some),
        }
    }
}

/// Puts a message together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// An unsigned number of 32 bits.
    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// A signed number of 32 bits.
    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// A truth, which is a number here.
    pub(crate) fn truth(&mut self, value: bool) -> &mut Self {
        self.i32(value.into())
    }

    /// An unsigned number of 64 bits.
    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// A signed number of 64 bits.
    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// How many there are of what follows.
    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A UUID.
    pub(crate) fn uuid(&mut self, value: uuid::Uuid) -> &mut Self {
        self.bytes.extend(value.as_bytes());
        self
    }

    /// Text.
    pub(crate) fn string(&mut self, value: &str) -> &mut Self {
        self.count(value.len());
        self.bytes.extend(value.as_bytes());
        self.bytes.resize(self.bytes.len() + padding(value.len()), 0);
        self
    }

    /// Text that may be absent.
    pub(crate) fn optional_string(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(text) => self.u32(1).string(text),
            None => self.u32(0),
        }
    }

    /// Characters of a C array of fixed length: each is a number of 32 bits. What does not fit is cut off; the last is
    /// always a NUL.
    pub(crate) fn chars(&mut self, value: &str, length: usize) -> &mut Self {
        let text = value.bytes().take(length.saturating_sub(1)).map(u32::from);
        text.chain(std::iter::repeat(0)).take(length).for_each(|char| {
            self.u32(char);
        });
        self
    }
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_padded_with_zeros_to_four_bytes() {
        let mut writer = Writer::default();
        writer.string("").string("abc").string("abcd").string("abcde").optional_string(None).optional_string(Some("x"));
        let bytes = writer.finish();
        let expected: &[u8] =
            b"\0\0\0\0\0\0\0\x03abc\0\0\0\0\x04abcd\0\0\0\x05abcde\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01x\0\0\0";
        assert_eq!(bytes, expected);
        let mut reader = Reader::new(&bytes);
        for text in ["", "abc", "abcd", "abcde"] {
            assert_eq!(reader.string(), Ok(text));
        }
        assert_eq!(reader.optional(Reader::string), Ok(None));
        assert_eq!(reader.optional(Reader::string), Ok(Some("x")));
        assert_eq!(reader.u32(), Err(XdrError::Short));
    }

    #[test]
    fn what_is_not_zero_says_that_it_is_there() {
        for discriminant in [1u32, 0x0100_0000, u32::MAX] {
            let bytes = [discriminant.to_be_bytes(), 7u32.to_be_bytes()].concat();
            assert_eq!(Reader::new(&bytes).optional(Reader::u32), Ok(Some(7)));
        }
    }

    #[test]
    fn a_length_is_no_more_than_a_claim() {
        let claim = |length: u32, text: &[u8]| [&length.to_be_bytes(), text].concat();
        assert_eq!(Reader::new(&claim(u32::MAX, b"abcd")).string(), Err(XdrError::Long(u32::MAX as usize)));
        assert_eq!(Reader::new(&claim(5, b"abcd")).string(), Err(XdrError::Short));
        assert_eq!(Reader::new(&claim(3, b"abc")).string(), Err(XdrError::Short), "the padding is missing");
        assert_eq!(Reader::new(&claim(4, b"a\0cd")).string(), Err(XdrError::Text));
        assert_eq!(Reader::new(&claim(4, b"\xff\xfe\xfd\xfc")).string(), Err(XdrError::Text));
    }

    #[test]
    fn characters_of_an_array_are_numbers() {
        let mut writer = Writer::default();
        writer.chars("ab", 4).chars("abc", 2);
        let expected: Vec<u8> = [97u32, 98, 0, 0, 97, 0].into_iter().flat_map(u32::to_be_bytes).collect();
        assert_eq!(writer.finish(), expected);
    }
}
