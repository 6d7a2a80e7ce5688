//! What of a network's XML is understood and kept, and not carried out yet: one line each. A network that has it is
//! neither defined nor started. Whoever carries something out removes its line.

use crate::model::{Forward, Network};

/// Something that is not carried out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct NotYet {
    /// The element, as `xml::place` finds it: `ip/tftp`, or `@trustGuestRxFilters`.
    pub place: &'static str,
    /// What the user is told.
    pub sentence: &'static str,
}

type Test = fn(&Network) -> bool;

const LIST: &[(&str, Test, &str)] = &[
    (
        "@trustGuestRxFilters",
        |n| {
            n.trust_guest_rx_filters == Some(true)
                || n.port_groups.iter().any(|group| group.trust_guest_rx_filters == Some(true))
        },
        "netd does not hear of the receive filters that guests set, so it cannot follow them",
    ),
    (
        "vlan",
        |n| matches!(n.forward, Forward::Macvtap(_)) && n.vlan.is_some(),
        "the VLANs of an interface in mode passthrough are set in its SR-IOV hardware, which netd does not do",
    ),
    (
        "portgroup/vlan",
        |n| matches!(n.forward, Forward::Macvtap(_)) && n.port_groups.iter().any(|group| group.vlan.is_some()),
        "the VLANs of an interface in mode passthrough are set in its SR-IOV hardware, which netd does not do",
    ),
];

/// The first thing of a network that is not carried out yet.
pub fn refuse(network: &Network) -> Result<(), NotYet> {
    match LIST.iter().find(|(_, test, _)| test(network)) {
        Some(&(place, _, sentence)) => Err(NotYet { place, sentence }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    /// What each of the list is about, on line 2 of a network.
    const INSIDE: &[&str] = &["<forward mode='passthrough' dev='eth0'/><vlan><tag id='5'/></vlan>"];

    #[test]
    fn what_is_not_carried_out_is_refused_by_name_and_line() {
        for inside in INSIDE {
            let text = format!("<network><name>a</name>\n{inside}</network>");
            let refused = refuse(&xml::parse(&text).unwrap()).expect_err(inside);
            let error = xml::unsupported(&text, &refused).to_string();
            let element = refused.place.rsplit('/').next().unwrap().split('@').next().unwrap();
            let expected = format!("unsupported configuration: line 2: <{element}>: {}", refused.sentence);
            assert_eq!(error, expected);
        }
        let text = "<network trustGuestRxFilters='yes'><name>a</name></network>";
        let refused = refuse(&xml::parse(text).unwrap()).unwrap_err();
        let error = xml::unsupported(text, &refused).to_string();
        let sentence = "netd does not hear of the receive filters that guests set, so it cannot follow them";
        assert_eq!(error, format!("unsupported configuration: line 1: <network>: {sentence}"));
    }
}
