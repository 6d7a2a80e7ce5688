//! libvirt's state files: `<networkstatus>` around a live network, `<networkport>` for a guest's plug. Pure.

use roxmltree::{Document, Node};

use crate::{
    model::{MacAddr, Network, printable},
    xml,
};

/// Whose port it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortOwner {
    pub(crate) mac: MacAddr,
    pub(crate) guest: Option<String>,
}

/// The network in a state file. Lines in errors are those of the file.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if root.tag_name().name() != "networkstatus" {
        return Err(format!("its root is <{}>, not <networkstatus>", printable(root.tag_name().name())));
    }
    let network = child(root, "network").ok_or("it has no <network>")?;
    let range = network.range();
    let before = "\n".repeat(text[..range.start].matches('\n').count());
    // Namespaces that the root declares are not seen any more: libvirt declares them on <network>.
    xml::parse(&format!("{before}{}", &text[range])).map_err(|error| error.to_string())
}

/// The owner of a port that is a tap on the network's bridge; nothing for a port of another kind.
pub(crate) fn port(text: &str) -> Result<Option<PortOwner>, String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if root.tag_name().name() != "networkport" {
        return Err(format!("its root is <{}>, not <networkport>", printable(root.tag_name().name())));
    }
    let plug = child(root, "plug").and_then(|plug| plug.attribute("type"));
    if plug != Some("network") && plug != Some("bridge") {
        return Ok(None);
    }
    let mac = child(root, "mac").and_then(|mac| mac.attribute("address")).ok_or("it has no <mac address=…>")?;
    let mac = mac.parse().map_err(|error: crate::model::NameError| error.to_string())?;
    let owner = child(root, "owner").and_then(|owner| child(owner, "name")).and_then(|name| name.text());
    Ok(Some(PortOwner { mac, guest: owner.map(str::to_owned) }))
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}
