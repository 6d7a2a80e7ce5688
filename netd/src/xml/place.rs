//! Where in a text something is that was found wrong with the network it became.

use roxmltree::Node;

use super::{
    element::{Element, document},
    error::{Error, Problem},
};
use crate::check::not_yet::NotYet;

/// The error that says what is not carried out yet, with the line and the element in `text`.
///
/// A place is a path below `<network>`, elements between slashes, like `ip/dhcp/bootp`; or an attribute of `<network>`
/// itself, like `@trustGuestRxFilters`.
pub fn unsupported(text: &str, what: &NotYet) -> Error {
    let problem = Problem::Unsupported(what.sentence.to_owned());
    let Ok(document) = document(text) else {
        return Error { line: 1, element: String::new(), problem: Box::new(problem) };
    };
    let root = document.root_element();
    let node = match what.place.strip_prefix('@') {
        Some(_) => None,
        None => find(root, what.place),
    };
    Element::of(node.unwrap_or(root)).error(problem)
}

fn find<'a>(parent: Node<'a, 'a>, place: &str) -> Option<Node<'a, 'a>> {
    let (step, rest) = place.split_once('/').map_or((place, None), |(step, rest)| (step, Some(rest)));
    let mut nodes = parent.children().filter(|node| node.has_tag_name(step));
    match rest {
        None => nodes.next(),
        Some(rest) => nodes.find_map(|node| find(node, rest)),
    }
}
