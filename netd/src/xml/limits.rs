//! Bounds on a text before a tree is made of it: anybody who may define a network may send anything.
//!
//! The tree builder compares each attribute of a tag with those before it, and copies name spaces from element to
//! element, so long tags and deep nesting would cost the square of their size.

use super::error::Problem;

/// More bytes than a network with 10,000 reservations has.
const TEXT: usize = 4 << 20;
/// More bytes than one tag has with every attribute we know.
const TAG: usize = 1024;
/// Deeper than any network.
const DEPTH: u32 = 32;

/// The line and what is wrong there, if the text is beyond a bound. It need not be well-formed.
pub(super) fn check(text: &str) -> Result<(), (u32, Problem)> {
    let line = |rest: &str| line_at(text, text.len() - rest.len());
    if text.len() > TEXT {
        return Err((1, Problem::TooLarge("4 MiB")));
    }
    let (mut rest, mut depth) = (text, 0u32);
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let end = if rest.starts_with("<!--") {
            "-->"
        } else if rest.starts_with("<![CDATA[") {
            "]]>"
        } else if rest.starts_with("<?") {
            "?>"
        } else if rest.starts_with("<!") {
            let problem = Problem::Syntax("a document type (<!DOCTYPE>) is not allowed".to_owned());
            return Err((line(rest), problem));
        } else {
            let length = tag_length(rest.as_bytes());
            if length > TAG {
                return Err((line(rest), Problem::TooLarge("1024 bytes in one tag")));
            }
            let tag = &rest.as_bytes()[..length];
            if tag.starts_with(b"</") {
                depth = depth.saturating_sub(1);
            } else if !tag.ends_with(b"/>") {
                depth += 1;
            }
            if depth > DEPTH {
                return Err((line(rest), Problem::TooLarge("32 elements in each other")));
            }
            // a tag ends in '>', which no other character contains
            rest = rest.get(length..).unwrap_or_default();
            continue;
        };
        // without its end, the rest is for the parser to complain about
        rest = rest.find(end).map_or("", |at| &rest[at + end.len()..]);
    }
    Ok(())
}

/// The length of the tag at the start: up to the first `>` outside quotes, or one byte more than allowed.
fn tag_length(text: &[u8]) -> usize {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate().take(TAG + 1) {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len().min(TAG + 1)
}

/// The line an offset is on, from 1.
pub(super) fn line_at(text: &str, offset: usize) -> u32 {
    let newlines = text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    u32::try_from(newlines + 1).unwrap_or(u32::MAX)
}
