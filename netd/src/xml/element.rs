//! An XML element as `read` sees it: names checked against two lists, values parsed, errors with the line.

use std::{
    borrow::Cow,
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use roxmltree::{Document, Node, ParsingOptions};

use super::{
    error::{Error, Problem},
    limits,
};
use crate::model::printable;

/// More nodes than a network with 10,000 reservations has, white space included.
const NODES_LIMIT: u32 = 100_000;

/// The text as a tree. No document type, and so no entities, are read.
pub(super) fn document(text: &str) -> Result<Document<'_>, Error> {
    let error = |line, problem| Error { line, element: String::new(), problem: Box::new(problem) };
    limits::check(text).map_err(|(line, problem)| error(line, problem))?;
    let options = ParsingOptions { nodes_limit: NODES_LIMIT, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|cause| {
        let pos = cause.pos();
        match cause {
            roxmltree::Error::NodesLimitReached => error(1, Problem::TooLarge("100000 elements")),
            roxmltree::Error::NoRootNode => error(1, Problem::Syntax("the document is empty".to_owned())),
            // The end of the text has no position of its own.
            roxmltree::Error::UnexpectedEndOfStream | roxmltree::Error::UnclosedRootNode => {
                let end = text.trim_end();
                let problem = Problem::Syntax("the text ends in the middle of an element".to_owned());
                Error { line: limits::line_at(text, end.len()), element: last_tag(end), problem: Box::new(problem) }
            }
            cause => {
                let said = cause.to_string().replace(&format!(" at {pos}"), "");
                let before: usize =
                    text.split_inclusive('\n').take((pos.row as usize).saturating_sub(1)).map(str::len).sum();
                let column =
                    text[before..].char_indices().nth((pos.col as usize).saturating_sub(1)).map_or(0, |(at, _)| at);
                let element = last_tag(&text[..before + column]);
                Error { line: pos.row, element, problem: Box::new(Problem::Syntax(printable(&said))) }
            }
        }
    })
}

/// The name in the last start tag of a text that is not well-formed: the element the reader was in, or the one before.
fn last_tag(text: &str) -> String {
    let is_start = |(at, _): &(usize, &str)| text[at + 1..].starts_with(|c: char| c.is_alphabetic() || c == '_');
    let Some((at, _)) = text.rmatch_indices('<').find(is_start) else { return String::new() };
    let name = &text[at + 1..];
    let end = name.find(|c: char| c.is_whitespace() || c == '/' || c == '>' || c == '<').unwrap_or(name.len());
    printable(&name[..end])
}

/// One element of the tree.
#[derive(Clone, Copy)]
pub(super) struct Element<'a>(Node<'a, 'a>);

impl<'a> Element<'a> {
    pub(super) fn root(document: &'a Document<'a>) -> Self {
        Element(document.root_element())
    }

    /// One of the tree's elements.
    pub(super) fn of(node: Node<'a, 'a>) -> Self {
        Element(node)
    }

    /// The name as it is written, with its prefix if it has one.
    pub(super) fn name(self) -> &'a str {
        let range = self.0.range();
        let tag = self.0.document().input_text().get(range).unwrap_or_default().trim_start_matches('<');
        let end = tag.find(|c: char| c.is_whitespace() || c == '/' || c == '>').unwrap_or(tag.len());
        &tag[..end]
    }

    /// The name that lists of known elements have for it: with the usual prefix of a name space we know, whichever the
    /// text has. `None` in any other name space.
    pub(super) fn known_name(self) -> Option<Cow<'a, str>> {
        match self.0.tag_name().namespace() {
            None => Some(Cow::Borrowed(self.name())),
            Some(super::NAMESPACE) => Some(Cow::Owned(format!("netd:{}", self.0.tag_name().name()))),
            Some(super::DNSMASQ_NAMESPACE) => Some(Cow::Owned(format!("dnsmasq:{}", self.0.tag_name().name()))),
            Some(_) => None,
        }
    }

    /// The error `problem`, here.
    pub(super) fn error(self, problem: impl Into<Problem>) -> Error {
        Error { line: self.line(), element: printable(self.name()), problem: Box::new(problem.into()) }
    }

    fn line(self) -> u32 {
        self.0.document().text_pos_at(self.0.range().start).row
    }

    /// Refuses every attribute that is not `known`.
    pub(super) fn attributes(self, known: &[&'static str]) -> Result<(), Error> {
        #[cfg(test)]
        super::tests::known::note(self, known, '@');
        for attribute in self.0.attributes() {
            if attribute.namespace().is_none() && known.contains(&attribute.name()) {
                continue;
            }
            let line = self.0.document().text_pos_at(attribute.range().start).row;
            let name = self.0.document().input_text().get(attribute.range_qname()).unwrap_or_default();
            let problem = Problem::UnknownAttribute { name: printable(name), expected: known.to_vec() };
            return Err(Error { line, ..self.error(problem) });
        }
        Ok(())
    }

    /// The child elements, each with the one of the `known` names it has; any other is refused. Names with a prefix
    /// stand for a name space we know, whichever prefix the text has for it.
    pub(super) fn children(self, known: &[&'static str]) -> Result<Vec<(&'static str, Element<'a>)>, Error> {
        #[cfg(test)]
        super::tests::known::note(self, known, '/');
        let mut children = Vec::new();
        for node in self.0.children() {
            if node.is_element() {
                let child = Element(node);
                let Some(name) = child.known_name() else {
                    let name = printable(child.name());
                    let problem = Problem::Unsupported(format!("<{name}> is of a name space that netd does not know"));
                    return Err(Error { line: child.line(), ..self.error(problem) });
                };
                let Some(known) = known.iter().find(|known| **known == name) else {
                    let problem = Problem::UnknownElement { name: printable(child.name()), expected: known.to_vec() };
                    return Err(Error { line: child.line(), ..self.error(problem) });
                };
                children.push((*known, child));
            } else if node.is_text() && !node.text().unwrap_or_default().trim().is_empty() {
                let text = printable(node.text().unwrap_or_default());
                return Err(self.error(Problem::Text(text)));
            }
        }
        Ok(children)
    }

    /// Refuses everything in it but these attributes.
    pub(super) fn only(self, attributes: &[&'static str]) -> Result<(), Error> {
        self.attributes(attributes)?;
        self.children(&[]).map(drop)
    }

    /// The node itself, for what is kept as it was written.
    pub(super) fn node(self) -> Node<'a, 'a> {
        self.0
    }

    /// The text of an element that has nothing else, attributes included.
    pub(super) fn text(self) -> Result<String, Error> {
        self.attributes(&[])?;
        let mut all = String::new();
        for node in self.0.children() {
            if node.is_element() {
                let name = printable(Element(node).name());
                return Err(Element(node).error(Problem::UnknownElement { name, expected: Vec::new() }));
            }
            if node.is_text() {
                all.push_str(node.text().unwrap_or_default());
            }
        }
        Ok(all)
    }

    /// An attribute, if it is there.
    pub(super) fn get(self, attribute: &str) -> Option<&'a str> {
        self.0.attribute(attribute)
    }

    /// An attribute that must be there.
    pub(super) fn need(self, attribute: &'static str, missing: &'static str) -> Result<&'a str, Error> {
        self.get(attribute).ok_or_else(|| self.error(Problem::Missing(missing)))
    }

    /// The error for an attribute that is not of its form.
    pub(super) fn bad(self, attribute: &str, value: &str, expected: &'static str) -> Error {
        self.error(Problem::Value { what: attribute.to_owned(), value: printable(value), expected })
    }

    /// A number between two bounds, decimal digits only.
    pub(super) fn number<T>(
        self,
        attribute: &str,
        value: &str,
        bounds: (T, T),
        expected: &'static str,
    ) -> Result<T, Error>
    where
        T: FromStr + PartialOrd + Display,
    {
        let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| value.parse::<T>().ok()).flatten();
        number.filter(|n| (&bounds.0..=&bounds.1).contains(&n)).ok_or_else(|| self.bad(attribute, value, expected))
    }

    /// An attribute that is `yes` or `no`.
    pub(super) fn yes_no(self, attribute: &str) -> Result<Option<bool>, Error> {
        self.switch(attribute, ("yes", "no"), "yes or no")
    }

    /// An attribute that has one of two values.
    pub(super) fn switch(
        self,
        attribute: &str,
        (on, off): (&str, &str),
        expected: &'static str,
    ) -> Result<Option<bool>, Error> {
        match self.get(attribute) {
            None => Ok(None),
            Some(value) if value == on => Ok(Some(true)),
            Some(value) if value == off => Ok(Some(false)),
            Some(value) => Err(self.bad(attribute, value, expected)),
        }
    }

    /// An address of either family.
    pub(super) fn ip(self, attribute: &str, value: &str) -> Result<IpAddr, Error> {
        value.parse().map_err(|_| self.bad(attribute, value, "an address like 192.168.122.1 or fd00::1"))
    }

    /// An IPv4 address.
    pub(super) fn ipv4(self, attribute: &str, value: &str) -> Result<Ipv4Addr, Error> {
        value.parse().map_err(|_| self.bad(attribute, value, "an IPv4 address like 192.168.122.1"))
    }

    /// An address of the same family as `like`.
    pub(super) fn ip_like(self, attribute: &str, value: &str, like: IpAddr) -> Result<IpAddr, Error> {
        let expected =
            if like.is_ipv4() { "an IPv4 address like 192.168.122.1" } else { "an IPv6 address like fd00::1" };
        let address = value.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == like.is_ipv4());
        address.ok_or_else(|| self.bad(attribute, value, expected))
    }
}

/// Keeps the one element there may be.
pub(super) fn once<T>(slot: &mut Option<T>, element: Element<'_>, value: T) -> Result<(), Error> {
    if slot.is_some() {
        return Err(element.error(Problem::Duplicate));
    }
    *slot = Some(value);
    Ok(())
}
