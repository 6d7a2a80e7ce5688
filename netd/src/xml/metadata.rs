//! `<metadata>`: elements of other programs, kept as they were written.

use std::collections::HashSet;

use roxmltree::Node;

use super::{
    element::Element,
    error::{Error, Problem},
    write::Out,
};
use crate::model::{Metadata, printable};

/// Reads `<metadata>`.
pub(super) fn metadata(element: Element<'_>) -> Result<Vec<Metadata>, Error> {
    element.attributes(&[])?;
    let (mut list, mut seen) = (Vec::new(), HashSet::new());
    for node in element.node().children() {
        if node.is_element() {
            let child = Element::of(node);
            let Some(namespace) = node.tag_name().namespace() else {
                let problem = Problem::Together("what other programs keep here needs a name space (xmlns) of its own");
                return Err(child.error(problem));
            };
            if !seen.insert(namespace) {
                let value = printable(namespace);
                return Err(child.error(Problem::Repeated { what: "the name space", value }));
            }
            list.push(Metadata { namespace: namespace.to_owned(), text: self_contained(node) });
        } else if node.is_text() && !node.text().unwrap_or_default().trim().is_empty() {
            return Err(element.error(Problem::Text(printable(node.text().unwrap_or_default()))));
        }
    }
    Ok(list)
}

/// The element's text, with the name spaces that it uses and that are declared around it declared in it.
fn self_contained(node: Node<'_, '_>) -> String {
    let source = node.document().input_text();
    let text = source.get(node.range()).unwrap_or_default();
    let around = node.parent().into_iter().flat_map(|parent| parent.namespaces());
    let name_end = 1 + text[1..].find(|c: char| c.is_whitespace() || c == '/' || c == '>').unwrap_or(text.len() - 1);
    let declared = declared(&text[name_end..]);
    let mut whole = text[..name_end].to_owned();
    for (prefix, uri) in around.filter_map(|space| Some((space.name()?, space.uri()))) {
        if prefix != "xml" && !declared.contains(prefix) && uses(node, prefix) {
            whole.push_str(&format!(" xmlns:{prefix}='{}'", super::write::Escaped(uri)));
        }
    }
    whole.push_str(&text[name_end..]);
    whole
}

/// The prefixes that a start tag declares; `tag` begins after its name and may go on after its end.
fn declared(tag: &str) -> HashSet<&str> {
    let (mut prefixes, mut rest) = (HashSet::new(), tag);
    loop {
        rest = rest.trim_start();
        let Some((name, value)) = rest.split_once('=').filter(|_| !rest.starts_with(['>', '/'])) else { break };
        prefixes.extend(name.trim_end().strip_prefix("xmlns:"));
        let value = value.trim_start();
        let Some(quote) = value.chars().next() else { break };
        rest = value[1..].split_once(quote).map_or("", |(_, rest)| rest);
    }
    prefixes
}

/// Whether a name in the element has the prefix.
fn uses(node: Node<'_, '_>, prefix: &str) -> bool {
    let source = node.document().input_text();
    let has_prefix = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(':'));
    node.descendants().filter(Node::is_element).any(|element| {
        let tag = source.get(element.range()).unwrap_or_default();
        has_prefix(tag.trim_start_matches('<'))
            || element.attributes().any(|a| source.get(a.range_qname()).is_some_and(has_prefix))
    })
}

/// Writes them; nothing if there are none.
pub(super) fn write(out: &mut Out, metadata: &[Metadata]) {
    if metadata.is_empty() {
        return;
    }
    out.open("metadata", &[]);
    for element in metadata {
        out.verbatim(&element.text);
    }
    out.close("metadata");
}
