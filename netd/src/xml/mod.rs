//! Text ⇄ [`Network`]: libvirt's network XML.
//!
//! Reading takes every element or refuses it by name and line; nothing is dropped in silence. What it returns obeys
//! all rules that can be checked on one network alone. Writing is libvirt's order and indent, byte for byte the same
//! for the same model. Neither touches the host.

mod dhcp;
mod dns;
mod dnsmasq;
mod element;
mod error;
mod forward;
mod forwards;
mod ip;
mod limits;
mod link;
mod metadata;
mod modes;
mod namespace;
mod place;
mod policy;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use error::{Error, Problem};
pub use namespace::{with_namespace, without_namespace};
pub use place::unsupported;

use crate::model::Network;

/// The name space of the elements that libvirt does not have; in libvirt's sense of one, a name and nothing to fetch.
pub const NAMESPACE: &str = "urn:netd:network:1";

/// The name space of libvirt's way to hand options to dnsmasq.
pub const DNSMASQ_NAMESPACE: &str = "http://libvirt.org/schemas/network/dnsmasq/1.0";

/// Reads one `<network>`.
pub fn parse(text: &str) -> Result<Network, Error> {
    read::network(text)
}

/// Any XML as a tree, within the bounds that a network's has.
pub(crate) fn tree(text: &str) -> Result<roxmltree::Document<'_>, Error> {
    element::document(text)
}

/// Whether a network says its UUID, or had one made up for it when it was read.
pub(crate) fn has_uuid(text: &str) -> bool {
    element::document(text).is_ok_and(|tree| tree.root_element().children().any(|child| child.has_tag_name("uuid")))
}

/// Writes one `<network>`, ending in a newline.
pub fn write(network: &Network) -> String {
    write::network(network)
}

/// A text as it stands in XML, in an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    write::Escaped(text).to_string()
}
