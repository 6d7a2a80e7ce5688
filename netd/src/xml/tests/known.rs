//! Every element and attribute that the reader knows is in one of the golden files: what it knows is what it asks for
//! while it reads them.

use std::{cell::RefCell, collections::BTreeSet};

use super::{
    super::element::{Element, document},
    golden_inputs, parse,
};

thread_local! {
    /// `network/ip@family` and `network/ip/dhcp`: what was asked for on this thread.
    static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// The reader knows these attributes (`@`) or children (`/`) of an element.
pub(in crate::xml) fn note(element: Element<'_>, known: &[&'static str], kind: char) {
    let path = path(element);
    ASKED.with_borrow_mut(|asked| asked.extend(known.iter().map(|name| format!("{path}{kind}{name}"))));
}

/// Known to be refused with a sentence of their own, each in a network that would do without.
const REFUSED: &[(&str, &str)] = &[
    ("network/bandwidth/inbound@floor", "<bandwidth><inbound average='1' floor='1'/></bandwidth>"),
    ("network/bandwidth/outbound@floor", "<bandwidth><outbound average='1' floor='1'/></bandwidth>"),
    ("network/forward/address", "<forward mode='passthrough'><address type='pci' bus='1'/></forward>"),
    ("network/forward/driver", "<forward mode='nat'><driver name='vfio'/></forward>"),
    ("network/forward/pf", "<forward mode='passthrough'><pf dev='eth0'/></forward>"),
    ("network/forward@managed", "<forward mode='nat' managed='no'/>"),
    (
        "network/portgroup/bandwidth/outbound@floor",
        "<portgroup name='a'><bandwidth><outbound average='1' floor='1'/></bandwidth></portgroup>",
    ),
    ("network/portgroup/virtualport", "<portgroup name='a'><virtualport/></portgroup>"),
    ("network/virtualport", "<virtualport/>"),
];

fn path(element: Element<'_>) -> String {
    let nodes = element.node().ancestors().filter(roxmltree::Node::is_element);
    let names: Vec<String> = nodes.filter_map(|node| Some(Element::of(node).known_name()?.into_owned())).collect();
    names.into_iter().rev().collect::<Vec<_>>().join("/")
}

#[test]
fn every_element_and_attribute_that_is_known_is_in_a_golden_file() {
    ASKED.take();
    let mut there = BTreeSet::new();
    for (_, text) in golden_inputs() {
        parse(&text).unwrap();
        let document = document(&text).unwrap();
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            let path = path(Element::of(node));
            there.extend(node.attributes().map(|attribute| format!("{path}@{}", attribute.name())));
            there.insert(path);
        }
    }
    for (part, inside) in REFUSED {
        let refused = parse(&format!("<network><name>a</name>{inside}</network>")).expect_err(part);
        let of_element = part.rsplit('/').next().unwrap().split('@').next().unwrap();
        assert!(refused.to_string().contains(&format!("<{of_element}>: ")), "{part}: {refused}");
        there.insert((*part).to_owned());
    }
    let missing: Vec<String> = ASKED.take().difference(&there).cloned().collect();
    assert!(there.len() > 100 && missing.is_empty(), "no tests/golden/xml/*.in.xml has {missing:#?}");
}
