//! The sections of a network: where each is, what its elements are known by, and libvirt's sentences about them.

/// The name space of libvirt's dnsmasq options.
pub(super) const DNSMASQ: &str = "http://libvirt.org/schemas/network/dnsmasq/1.0";

/// A section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    /// As `net-update` calls it.
    pub(super) name: &'static str,
    /// The elements it is in, below the outermost.
    pub(super) path: &'static [&'static str],
    /// Its element.
    pub(super) element: &'static str,
    /// What one of several is known by.
    pub(super) keys: Keys,
    /// What it is called in a sentence.
    pub(super) noun: &'static str,
    /// libvirt's sentences, where it has any.
    pub(super) sentences: Option<Sentences>,
    /// The sentence for a description that fits several; without one the first is meant.
    pub(super) ambiguous: Option<&'static str>,
}

/// What an element of a section is known by: attributes, and children with text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// There is one at most.
    Single,
    /// No two may have any of these in common.
    Any(&'static [&'static str]),
    /// No two may have all of these in common; the second list is what one to be modified is found by.
    All(&'static [&'static str], &'static [&'static str]),
}

/// Sentences with `{network}` and `{KEY}` in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sentences {
    exists: &'static str,
    not_modified: &'static str,
    not_deleted: &'static str,
}

/// Sentences with everything filled in.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) exists: String,
    pub(super) not_modified: String,
    pub(super) not_deleted: String,
}

impl Sentences {
    pub(super) fn filled(&self, network: &str, value: impl Fn(&str) -> String) -> Words {
        let fill = |sentence: &str| {
            let mut filled = String::new();
            let mut rest = sentence;
            while let Some((before, after)) = rest.split_once('{') {
                let (key, after) = after.split_once('}').unwrap_or((after, ""));
                filled.push_str(before);
                filled.push_str(&if key == "network" { network.to_owned() } else { value(key) });
                rest = after;
            }
            filled + rest
        };
        Words { exists: fill(self.exists), not_modified: fill(self.not_modified), not_deleted: fill(self.not_deleted) }
    }
}

impl Words {
    /// For sections that libvirt cannot edit.
    pub(super) fn plain(element: &str, fields: &str, network: &str) -> Self {
        let missing = format!("couldn't find a {element} entry in network '{network}' matching <{element}{fields}>");
        Words {
            exists: format!(
                "there is an existing {element} entry in network '{network}' that matches \"<{element}{fields}>\""
            ),
            not_modified: missing.clone(),
            not_deleted: missing,
        }
    }
}

/// The section of this name.
pub(super) fn find(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// All names.
pub(super) fn names() -> Vec<&'static str> {
    SECTIONS.iter().map(|section| section.name).collect()
}

const fn single(name: &'static str, path: &'static [&'static str], element: &'static str) -> Section {
    Section { name, path, element, keys: Keys::Single, noun: name, sentences: None, ambiguous: None }
}

const fn many(name: &'static str, path: &'static [&'static str], element: &'static str, keys: Keys) -> Section {
    Section { name, path, element, keys, noun: name, sentences: None, ambiguous: None }
}

const HOST: Sentences = Sentences {
    exists: "there is an existing dhcp host entry in network '{network}' that matches \
             \"<host mac='{mac}' name='{name}' ip='{ip}'/>\"",
    not_modified: "couldn't locate an existing dhcp host entry with \"mac='{mac}'\" \"name='{name}'\" \"ip='{ip}'\" in \
                   network '{network}'",
    not_deleted: "couldn't locate a matching dhcp host entry in network '{network}'",
};

const RANGE: Sentences = Sentences {
    exists: "there is an existing dhcp range entry in network '{network}' that matches \
             \"<range start='{start}' end='{end}'/>\"",
    not_modified: "couldn't locate a matching dhcp range entry in network '{network}'",
    not_deleted: "couldn't locate a matching dhcp range entry in network '{network}'",
};

const INTERFACE: Sentences = Sentences {
    exists: "there is an existing interface entry in network '{network}' that matches \"<interface dev='{dev}'>\"",
    not_modified: "couldn't find an interface entry in network '{network}' matching <interface dev='{dev}'>",
    not_deleted: "couldn't find an interface entry in network '{network}' matching <interface dev='{dev}'>",
};

const PORTGROUP: Sentences = Sentences {
    exists: "there is an existing portgroup entry in network '{network}' that matches \"<portgroup name='{name}'>\"",
    not_modified: "couldn't find a portgroup entry in network '{network}' matching <portgroup name='{name}'>",
    not_deleted: "couldn't find a portgroup entry in network '{network}' matching <portgroup name='{name}'>",
};

const DNS_HOST: Sentences = Sentences {
    exists: "there is already at least one DNS HOST record with a matching field in network {network}",
    not_modified: "couldn't locate a matching DNS HOST record in network {network}",
    not_deleted: "couldn't locate a matching DNS HOST record in network {network}",
};

const DNS_TXT: Sentences = Sentences {
    exists: "there is already a DNS TXT record with name '{name}' in network {network}",
    not_modified: "couldn't locate a matching DNS TXT record in network {network}",
    not_deleted: "couldn't locate a matching DNS TXT record in network {network}",
};

const DNS_SRV: Sentences = Sentences {
    exists: "there is already at least one DNS SRV record matching all specified fields in network {network}",
    not_modified: "couldn't locate a matching DNS SRV record in network {network}",
    not_deleted: "couldn't locate a matching DNS SRV record in network {network}",
};

const SRV_KEYS: &[&str] = &["service", "protocol", "domain", "target", "port", "priority", "weight"];
const SRV_NAME: &[&str] = &["service", "protocol", "domain"];
const ROUTE_KEYS: &[&str] = &["address", "prefix", "netmask", "metric"];
const FORWARD_KEYS: &[&str] = &["proto", "port", "address"];

/// libvirt's sections, then ours.
static SECTIONS: &[Section] = &[
    single("bridge", &[], "bridge"),
    single("domain", &[], "domain"),
    many("ip", &[], "ip", Keys::Any(&["address"])),
    Section {
        noun: "dhcp host",
        sentences: Some(HOST),
        ..many("ip-dhcp-host", &["ip", "dhcp"], "host", Keys::Any(&["mac", "id", "name", "ip"]))
    },
    Section {
        noun: "dhcp range",
        sentences: Some(RANGE),
        ..many("ip-dhcp-range", &["ip", "dhcp"], "range", Keys::All(&["start", "end"], &["start"]))
    },
    single("forward", &[], "forward"),
    Section {
        sentences: Some(INTERFACE),
        ..many("forward-interface", &["forward"], "interface", Keys::All(&["dev"], &["dev"]))
    },
    many("forward-pf", &["forward"], "pf", Keys::All(&["dev"], &["dev"])),
    Section { sentences: Some(PORTGROUP), ..many("portgroup", &[], "portgroup", Keys::All(&["name"], &["name"])) },
    Section {
        sentences: Some(DNS_HOST),
        ambiguous: Some("multiple matching DNS HOST records were found in network {network}"),
        ..many("dns-host", &["dns"], "host", Keys::Any(&["ip", "hostname"]))
    },
    Section { sentences: Some(DNS_TXT), ..many("dns-txt", &["dns"], "txt", Keys::All(&["name"], &["name"])) },
    Section {
        sentences: Some(DNS_SRV),
        ambiguous: Some("multiple DNS SRV records matching all specified fields were found in network {network}"),
        ..many("dns-srv", &["dns"], "srv", Keys::All(SRV_KEYS, SRV_NAME))
    },
    single("title", &[], "title"),
    single("description", &[], "description"),
    single("mac", &[], "mac"),
    single("mtu", &[], "mtu"),
    single("dns", &[], "dns"),
    many("dns-forwarder", &["dns"], "forwarder", Keys::All(&["addr", "domain", "port"], &["addr", "domain"])),
    single("forward-nat", &["forward"], "nat"),
    single("port", &[], "port"),
    single("vlan", &[], "vlan"),
    single("virtualport", &[], "virtualport"),
    single("bandwidth", &[], "bandwidth"),
    many("route", &[], "route", Keys::All(ROUTE_KEYS, ROUTE_KEYS)),
    single("ip-dhcp", &["ip"], "dhcp"),
    single("ip-dhcp-bootp", &["ip", "dhcp"], "bootp"),
    single("ip-tftp", &["ip"], "tftp"),
    many("dnsmasq-option", &["dnsmasq:options"], "dnsmasq:option", Keys::All(&["value"], &["value"])),
    many("port-forward", &["netd:forwards"], "netd:forward", Keys::All(FORWARD_KEYS, FORWARD_KEYS)),
];
