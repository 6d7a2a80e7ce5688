//! One section of a network edited: what `net-update` asks for. Pure: a network, a command and a piece of XML in, the
//! network as it would be out, or libvirt's sentence.
//!
//! The edit is made in the network's XML and the whole is read again, so that every rule of the format holds for the
//! result and each section there can be can be edited.

mod table;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use roxmltree::{Document, Node};

use crate::{check::not_yet, model::Network, xml};

use table::{Keys, Section, Words};

/// What to do with an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put it in the place of the one it identifies.
    Modify,
    /// Take the one away that it describes.
    Delete,
    /// Add it behind those there are.
    AddLast,
    /// Add it before those there are.
    AddFirst,
}

impl From<netd_api::UpdateCommand> for Command {
    fn from(command: netd_api::UpdateCommand) -> Self {
        match command {
            netd_api::UpdateCommand::Modify => Command::Modify,
            netd_api::UpdateCommand::Delete => Command::Delete,
            netd_api::UpdateCommand::AddLast => Command::AddLast,
            netd_api::UpdateCommand::AddFirst => Command::AddFirst,
        }
    }
}

/// An edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    /// What to do.
    pub command: Command,
    /// The section's name, as `net-update` has it.
    pub section: &'a str,
    /// The element.
    pub xml: &'a str,
    /// Which `<ip>`, from 0, where the section is in or is one; found by what is there if absent.
    pub parent_index: Option<u32>,
}

/// Why an edit cannot be made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No such section.
    #[error("invalid argument: unrecognized section name '{0}'")]
    Section(String),
    /// What to do needs something that is not there, or is there already (libvirt's sentences).
    #[error("Requested operation is not valid: {0}")]
    Invalid(String),
    /// Another element than the section has.
    #[error("XML error: unexpected element <{found}>, expecting <{expected}>, while updating network '{network}'")]
    Element {
        /// What was given.
        found: String,
        /// What should have been.
        expected: &'static str,
        /// The network's name.
        network: String,
    },
    /// The piece of XML is wrong.
    #[error(transparent)]
    Xml(#[from] xml::Error),
    /// The piece fits, but something else of the network would not any more.
    #[error("{}: <{}>: {}", kind(.0), .0.element, .0.problem)]
    Consequence(xml::Error),
}

fn kind(error: &xml::Error) -> &'static str {
    if error.is_unsupported() { "unsupported configuration" } else { "XML error" }
}

impl EditError {
    /// The next move, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        match self {
            EditError::Section(_) => Some(format!("the sections are {}", table::names().join(", "))),
            _ => None,
        }
    }
}

impl Edit<'_> {
    /// The network as it would be.
    pub fn apply(&self, network: &Network) -> Result<Network, EditError> {
        let section = table::find(self.section).ok_or_else(|| EditError::Section(self.section.to_owned()))?;
        let piece = Piece::new(self.xml)?;
        let wrapped = piece.wrapped();
        let fragment = xml::tree(&wrapped)?;
        let name = network.name.as_str();
        let element = only_element(&fragment)?;
        if tag(element) != section.element {
            let found = crate::model::printable(&tag(element));
            return Err(EditError::Element { found, expected: section.element, network: name.to_owned() });
        }
        let mut text = xml::write(network);
        for (prefix, space) in [("netd", xml::NAMESPACE), ("dnsmasq", table::DNSMASQ)] {
            if section.element.starts_with(prefix) && !text.contains(&format!("xmlns:{prefix}=")) {
                text = text.replacen("<network", &format!("<network xmlns:{prefix}='{space}'"), 1);
            }
        }
        let line = 1 + line_breaks(&wrapped[..element.range().start]);
        let before = xml::tree(&text).map_err(EditError::Consequence)?;
        let change = Splice::new(section, self, name, &before, element)?;
        let (edited, start) = change.apply(&text);
        let read = xml::parse(&edited).and_then(|network| match not_yet::refuse(&network) {
            Ok(()) => Ok(network),
            Err(what) => Err(xml::unsupported(&edited, &what)),
        });
        read.map_err(|error| {
            let own = line_breaks(&edited[..start]) + 1;
            let lines = line_breaks(&change.with) + 1;
            match error.line.checked_sub(own) {
                // The piece is all that the user knows the lines of.
                Some(below) if below < lines && !change.with.is_empty() => {
                    EditError::Xml(xml::Error { line: line + below, ..error })
                }
                _ => EditError::Consequence(error),
            }
        })
    }
}

/// A piece of XML without what may stand before its element in a file of its own.
struct Piece<'a>(&'a str, u32);

impl<'a> Piece<'a> {
    fn new(text: &'a str) -> Result<Self, EditError> {
        let trimmed = text.trim_start();
        let rest = match trimmed.strip_prefix("<?xml") {
            Some(declared) => declared.find("?>").map_or("", |end| &declared[end + 2..]),
            None => trimmed,
        };
        let skipped = line_breaks(&text[..text.len() - rest.len()]);
        if rest.trim().is_empty() {
            let problem = xml::Problem::Syntax("the document is empty".to_owned());
            return Err(xml::Error { line: 1, element: String::new(), problem: Box::new(problem) }.into());
        }
        Ok(Piece(rest, skipped))
    }

    /// In an element that knows the name spaces, with its lines where they were.
    fn wrapped(&self) -> String {
        let lines = "\n".repeat(usize::try_from(self.1).unwrap_or(0));
        let spaces = format!("xmlns:netd='{}' xmlns:dnsmasq='{}'", xml::NAMESPACE, table::DNSMASQ);
        format!("{lines}<piece {spaces}>{}</piece>", self.0)
    }
}

fn only_element<'a>(document: &'a Document<'a>) -> Result<Node<'a, 'a>, EditError> {
    let mut elements = document.root_element().children().filter(Node::is_element);
    let syntax = |problem: &str| xml::Error {
        line: 1,
        element: String::new(),
        problem: Box::new(xml::Problem::Syntax(problem.into())),
    };
    match (elements.next(), elements.next()) {
        (Some(element), None) => Ok(element),
        (None, _) => Err(syntax("there is no element").into()),
        (Some(_), Some(_)) => Err(syntax("there is more than one element").into()),
    }
}

fn line_breaks(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

/// The element's name with the prefix that our names are written with.
fn tag(node: Node<'_, '_>) -> String {
    let name = node.tag_name();
    match name.namespace() {
        Some(xml::NAMESPACE) => format!("netd:{}", name.name()),
        Some(table::DNSMASQ) => format!("dnsmasq:{}", name.name()),
        _ => name.name().to_owned(),
    }
}

/// Text that takes the place of other text.
#[derive(Debug)]
struct Splice {
    at: std::ops::Range<usize>,
    /// What comes before the piece, on lines of its own.
    open: String,
    with: String,
    close: String,
}

impl Splice {
    fn new(
        section: &Section,
        edit: &Edit<'_>,
        network: &str,
        document: &Document<'_>,
        piece: Node<'_, '_>,
    ) -> Result<Self, EditError> {
        let invalid = |sentence: String| EditError::Invalid(sentence);
        let words = section.words(network, piece);
        let (parent, missing) = parent(section, edit.parent_index, network, document.root_element())?;
        let entries: Vec<Node<'_, '_>> = if missing.is_empty() {
            parent.children().filter(|node| node.is_element() && tag(*node) == section.element).collect()
        } else {
            Vec::new()
        };
        let with = piece.document().input_text()[piece.range()].to_owned();
        let found = |is: &dyn Fn(&Fields, &Fields) -> bool| -> Vec<Node<'_, '_>> {
            let wanted = section.fields(piece);
            entries.iter().copied().filter(|entry| is(&section.fields(*entry), &wanted)).collect()
        };
        match edit.command {
            Command::Delete => {
                // One element there can be once is named by its name alone.
                let matching = if section.keys == Keys::Single {
                    entries.clone()
                } else {
                    found(&|entry, wanted| describes(wanted, entry))
                };
                match (matching.as_slice(), section.ambiguous) {
                    ([], _) => Err(invalid(words.not_deleted)),
                    ([_, _, ..], Some(sentence)) => Err(invalid(sentence.replace("{network}", network))),
                    ([entry, ..], _) => Ok(Splice::replace(*entry, String::new())),
                }
            }
            Command::Modify => {
                let index = edit.parent_index.filter(|_| section.element == "ip");
                let matching = match (section.keys, index) {
                    (Keys::Single, _) => entries.clone(),
                    (_, Some(index)) => entries.get(index as usize).copied().into_iter().collect(),
                    (Keys::Any(_), _) => found(&|entry, wanted| shares(wanted, entry)),
                    (Keys::All(_, identity), _) => found(&|entry, wanted| same(wanted, entry, identity)),
                };
                match matching.first() {
                    None => Err(invalid(words.not_modified)),
                    Some(entry) => Ok(Splice::replace(*entry, with)),
                }
            }
            Command::AddFirst | Command::AddLast => {
                let clashing = match section.keys {
                    Keys::Single => !entries.is_empty(),
                    Keys::Any(_) => !found(&|entry, wanted| shares(wanted, entry)).is_empty(),
                    Keys::All(keys, _) => !found(&|entry, wanted| same(wanted, entry, keys)).is_empty(),
                };
                if clashing {
                    return Err(invalid(words.exists));
                }
                let beside = if edit.command == Command::AddFirst {
                    entries.first().map(|entry| entry.range().start)
                } else {
                    entries.last().map(|entry| entry.range().end)
                };
                Ok(match beside {
                    Some(at) => Splice { at: at..at, open: "\n".into(), with, close: "\n".into() },
                    None => Splice::inside(parent, &missing, with),
                })
            }
        }
    }

    fn replace(entry: Node<'_, '_>, with: String) -> Self {
        Splice { at: entry.range(), open: String::new(), with, close: String::new() }
    }

    /// At the end of an element, in these elements that it does not have yet.
    fn inside(parent: Node<'_, '_>, missing: &[&str], with: String) -> Self {
        let opening: String = missing.iter().map(|name| format!("<{name}>")).collect();
        let closing: String = missing.iter().rev().map(|name| format!("</{name}>")).collect();
        let (range, text) = (parent.range(), parent.document().input_text());
        let source = &text[range.clone()];
        if let Some(tag) = source.strip_suffix("/>") {
            let name = tag[1..].split_whitespace().next().unwrap_or_default();
            let at = range.end - 2..range.end;
            return Splice { at, open: format!(">{opening}\n"), with, close: format!("\n{closing}</{name}>") };
        }
        let end = range.start + source.rfind("</").unwrap_or(source.len());
        Splice { at: end..end, open: format!("{opening}\n"), with, close: format!("\n{closing}") }
    }

    /// The text with the piece in it, and where the piece begins.
    fn apply(&self, text: &str) -> (String, usize) {
        let Splice { at, open, with, close } = self;
        let edited = [&text[..at.start], open, with, close, &text[at.end..]].concat();
        (edited, at.start + open.len())
    }
}

/// Where the section's elements are, and which elements on the way there do not exist yet.
fn parent<'a>(
    section: &Section,
    index: Option<u32>,
    network: &str,
    root: Node<'a, 'a>,
) -> Result<(Node<'a, 'a>, Vec<&'static str>), EditError> {
    let mut node = root;
    for (depth, name) in section.path.iter().enumerate() {
        let mut found = node.children().filter(|child| child.is_element() && tag(*child) == *name);
        let next = if *name == "ip" { ip(node, index, network, section)? } else { found.next() };
        match next {
            Some(child) => node = child,
            None => return Ok((node, section.path[depth..].to_vec())),
        }
    }
    Ok((node, Vec::new()))
}

/// The `<ip>` of this index; without one the one with DHCP, or else the first.
fn ip<'a>(
    root: Node<'a, 'a>,
    index: Option<u32>,
    network: &str,
    section: &Section,
) -> Result<Option<Node<'a, 'a>>, EditError> {
    let all: Vec<Node<'a, 'a>> = root.children().filter(|child| child.has_tag_name("ip")).collect();
    let what = section.noun;
    if let Some(index) = index {
        let none = || {
            let sentence =
                format!("couldn't update {what} entry - no <ip> element found at index {index} in network '{network}'");
            EditError::Invalid(sentence)
        };
        return all.get(index as usize).copied().map(Some).ok_or_else(none);
    }
    let serves = |node: &&Node<'_, '_>| node.children().any(|child| child.has_tag_name("dhcp"));
    let found = all.iter().find(serves).or(all.first()).copied();
    let none =
        || EditError::Invalid(format!("couldn't update {what} entry - no <ip> element found in network '{network}'"));
    found.map(Some).ok_or_else(none)
}

/// What an element is known by: names and values, in the order of the section's keys.
type Fields = Vec<(&'static str, String)>;

/// An entry has everything that `wanted` says, and that is something.
fn describes(wanted: &Fields, entry: &Fields) -> bool {
    !wanted.is_empty() && wanted.iter().all(|field| entry.iter().any(|own| equal(field, own)))
}

/// Two have one thing in common that each can have alone.
fn shares(a: &Fields, b: &Fields) -> bool {
    a.iter().any(|field| b.iter().any(|own| equal(field, own)))
}

/// Two are the same in these keys, absent ones included.
fn same(a: &Fields, b: &Fields, keys: &[&str]) -> bool {
    keys.iter().all(|key| {
        let of = |fields: &Fields| -> Fields { fields.iter().filter(|(name, _)| name == key).cloned().collect() };
        let (a, b) = (of(a), of(b));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| equal(a, b))
    })
}

/// Addresses are compared as addresses; names, MACs and numbers in any case.
fn equal(a: &(&str, String), b: &(&str, String)) -> bool {
    let address = |text: &str| text.trim().parse::<IpAddr>().ok();
    a.0 == b.0
        && match (address(&a.1), address(&b.1)) {
            (Some(a), Some(b)) => a == b,
            _ => a.1.trim().eq_ignore_ascii_case(b.1.trim()),
        }
}

impl Section {
    /// The values of the section's keys in an element: attributes, or the texts of children.
    fn fields(&self, node: Node<'_, '_>) -> Fields {
        let keys = match self.keys {
            Keys::Single => return Vec::new(),
            Keys::Any(keys) | Keys::All(keys, _) => keys,
        };
        let mut fields = Vec::new();
        for key in keys {
            if let Some(value) = node.attribute(*key) {
                fields.push((*key, value.to_owned()));
            }
            let texts = node.children().filter(|child| child.has_tag_name(*key)).filter_map(|child| child.text());
            fields.extend(texts.map(|text| (*key, text.to_owned())));
        }
        fields
    }

    /// The sentences about this piece.
    fn words(&self, network: &str, piece: Node<'_, '_>) -> Words {
        let fields = self.fields(piece);
        let value = |key: &str| {
            let found = fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
            crate::model::printable(found.unwrap_or("unknown"))
        };
        let shown: String =
            fields.iter().map(|(key, text)| format!(" {key}='{}'", crate::model::printable(text))).collect();
        self.sentences
            .map_or_else(|| Words::plain(self.element, &shown, network), |sentences| sentences.filled(network, value))
    }
}
