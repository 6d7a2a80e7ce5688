//! `<networkport>`: libvirt's XML for a port. Reading takes every element or refuses it by name and line. Pure.

use std::fmt::Write;

use roxmltree::{Document, Node};
use uuid::Uuid;

use crate::model::{MacAddr, printable};

/// What a port's XML asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedPort {
    pub(crate) guest: Option<String>,
    pub(crate) mac: Option<MacAddr>,
    /// `<uuid>`, which nobody can choose: it must be the one that follows.
    pub(crate) uuid: Option<Uuid>,
    /// The bridge of `<plug>`, which must be the network's.
    pub(crate) bridge: Option<String>,
}

/// A port as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownPort<'a> {
    pub(crate) uuid: Uuid,
    pub(crate) guest: Option<&'a str>,
    pub(crate) mac: &'a str,
    pub(crate) isolated: bool,
    pub(crate) plug: ShownPlug<'a>,
}

/// What a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShownPlug<'a> {
    /// A tap on its network's bridge of this name.
    Network(&'a str),
    /// A macvtap on an interface of the host.
    Direct { dev: &'a str, mode: Option<&'a str> },
}

/// The UUID of a port follows from its network and its MAC: it stays the same for as long as the port is there, and is
/// the same again when the guest comes back.
pub(crate) fn uuid(network: Uuid, mac: MacAddr) -> Uuid {
    Uuid::new_v5(&network, &mac.0)
}

/// Reads a `<networkport>`.
pub(crate) fn parse(text: &str) -> Result<WantedPort, String> {
    let document = Document::parse(text).map_err(|error| format!("XML error: {error}"))?;
    let root = document.root_element();
    if root.tag_name().name() != "networkport" {
        return Err(refused(root, "expecting root element of 'networkport'"));
    }
    known(root, &[])?;
    let mut wanted = WantedPort::default();
    for child in elements(root)? {
        match child.tag_name().name() {
            "uuid" => {
                known(child, &[])?;
                let uuid = Uuid::try_parse(child.text().unwrap_or_default().trim());
                wanted.uuid = Some(uuid.map_err(|_| refused(child, "this is not a UUID"))?);
            }
            "owner" => wanted.guest = owner(child)?,
            "mac" => {
                known(child, &["address"])?;
                let mac =
                    child.attribute("address").ok_or_else(|| refused(child, "missing the attribute 'address'"))?;
                wanted.mac =
                    Some(mac.parse().map_err(|error: crate::model::NameError| refused(child, &error.to_string()))?);
            }
            "plug" => {
                known(child, &["type", "bridge"])?;
                if child.attribute("type") != Some("network") {
                    return Err(refused(
                        child,
                        "a port made here is a tap on its network's bridge: its type is 'network'",
                    ));
                }
                wanted.bridge = child.attribute("bridge").map(str::to_owned);
            }
            "group" | "bandwidth" | "rxfilters" | "port" | "virtualport" | "vlan" => {
                return Err(refused(child, "a port made by hand has what its network says, and nothing of its own"));
            }
            _ => return Err(refused(child, "unknown element; it can have uuid, owner, mac, plug")),
        }
    }
    Ok(wanted)
}

fn owner(element: Node<'_, '_>) -> Result<Option<String>, String> {
    known(element, &[])?;
    let mut guest = None;
    for child in elements(element)? {
        match child.tag_name().name() {
            "name" => guest = child.text().map(str::to_owned),
            "uuid" => return Err(refused(child, "guests go by their names here: leave the owner's UUID out")),
            _ => return Err(refused(child, "unknown element; it can have name")),
        }
    }
    Ok(guest)
}

/// Writes a `<networkport>`, ending in a newline.
pub(crate) fn write(port: &ShownPort<'_>) -> String {
    let escaped =
        |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;");
    let mut out = format!("<networkport>\n  <uuid>{}</uuid>\n", port.uuid);
    // writing to a String cannot fail, here and below
    if let Some(guest) = port.guest {
        let _ = write!(out, "  <owner>\n    <name>{}</name>\n  </owner>\n", escaped(guest));
    }
    let _ = writeln!(out, "  <mac address='{}'/>", escaped(port.mac));
    if port.isolated {
        out.push_str("  <port isolated='yes'/>\n");
    }
    let _ = match port.plug {
        ShownPlug::Network(bridge) => writeln!(out, "  <plug type='network' bridge='{}'/>", escaped(bridge)),
        ShownPlug::Direct { dev, mode } => {
            let mode = mode.map(|mode| format!(" mode='{mode}'")).unwrap_or_default();
            writeln!(out, "  <plug type='direct' dev='{}'{mode}/>", escaped(dev))
        }
    };
    out.push_str("</networkport>\n");
    out
}

fn elements<'a>(parent: Node<'a, 'a>) -> Result<Vec<Node<'a, 'a>>, String> {
    let mut found: Vec<Node<'a, 'a>> = Vec::new();
    for child in parent.children().filter(Node::is_element) {
        if found.iter().any(|other| other.tag_name() == child.tag_name()) {
            return Err(refused(child, "it can be there only once"));
        }
        found.push(child);
    }
    Ok(found)
}

fn known(element: Node<'_, '_>, attributes: &[&str]) -> Result<(), String> {
    match element.attributes().find(|attribute| !attributes.contains(&attribute.name())) {
        Some(attribute) => Err(refused(element, &format!("unknown attribute '{}'", printable(attribute.name())))),
        None => Ok(()),
    }
}

fn refused(element: Node<'_, '_>, why: &str) -> String {
    let line = element.document().text_pos_at(element.range().start).row;
    format!("XML error: line {line}: <{}>: {why}", printable(element.tag_name().name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_asks_for_the_same() {
        let mac: MacAddr = "52:54:00:11:22:33".parse().unwrap();
        let uuid = uuid("67f66aa0-94fe-4b86-aa89-eeaa4d8ed754".parse().unwrap(), mac);
        let text = write(&ShownPort {
            uuid,
            guest: Some("a & b"),
            mac: &mac.to_string(),
            isolated: false,
            plug: ShownPlug::Network("virbr0"),
        });
        let expected = format!(
            "<networkport>\n  <uuid>{uuid}</uuid>\n  <owner>\n    <name>a &amp; b</name>\n  </owner>\n  \
             <mac address='52:54:00:11:22:33'/>\n  <plug type='network' bridge='virbr0'/>\n</networkport>\n"
        );
        assert_eq!(text, expected);
        let wanted = parse(&text).unwrap();
        assert_eq!((wanted.uuid, wanted.mac, wanted.guest.as_deref()), (Some(uuid), Some(mac), Some("a & b")));
        assert_eq!(parse("<networkport/>").unwrap(), WantedPort::default());
    }

    #[test]
    fn what_a_port_cannot_have_is_refused_by_name_and_line() {
        for (inside, expected) in [
            ("<uuid>x</uuid>", "<uuid>: this is not a UUID"),
            ("<owner><uuid>67f66aa0-94fe-4b86-aa89-eeaa4d8ed754</uuid></owner>", "<uuid>: guests go by their names"),
            ("<mac/>", "<mac>: missing the attribute 'address'"),
            ("<mac address='01:00:5e:00:00:01'/>", "multicast"),
            ("<plug type='direct'/>", "<plug>: a port made here is a tap"),
            ("<bandwidth/>", "<bandwidth>: a port made by hand has what its network says"),
            ("<owner/><owner/>", "<owner>: it can be there only once"),
            ("<nose/>", "<nose>: unknown element"),
            ("<mac address='52:54:00:11:22:33' type='x'/>", "unknown attribute 'type'"),
        ] {
            let said = parse(&format!("<networkport>\n{inside}</networkport>")).unwrap_err();
            assert!(said.contains(expected) && said.contains("line 2"), "{said}");
        }
        assert!(parse("<network/>").unwrap_err().contains("'networkport'"));
        assert!(parse("<networkport>").is_err());
    }

    #[test]
    fn a_macvtap_is_shown_as_plugged_into_its_interface() {
        let plug = ShownPlug::Direct { dev: "eth0", mode: Some("private") };
        let text =
            write(&ShownPort { uuid: Uuid::nil(), guest: None, mac: "52:54:00:00:00:01", isolated: false, plug });
        assert!(text.ends_with("  <plug type='direct' dev='eth0' mode='private'/>\n</networkport>\n"), "{text}");
    }
}
