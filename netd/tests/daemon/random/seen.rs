//! What a kernel has, in words that a model has, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use super::Space;

/// Prints all of it, one part after the other. Each program says nothing where there is nothing.
const LOOK: &str = "set -e
ip -j -d address show; echo @@
ip -j route show; echo @@
nft -j list ruleset; echo @@
ss -Hlnu; echo @@
sysctl -n net.ipv4.ip_forward; echo @@
";

/// What of the kernel can be told from which networks and ports there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) links: BTreeMap<String, Link>,
    /// Targets with the interface they are on.
    pub(super) routes: BTreeSet<String>,
    /// The interfaces of ours that the rules name.
    pub(super) ruled: BTreeSet<String>,
    /// Where somebody listens for datagrams.
    pub(super) servers: BTreeSet<String>,
    pub(super) forwarding: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) kind: String,
    pub(super) master: Option<String>,
    /// A tap is up while it is plugged in, and one that was pulled stays so: of taps nothing is said.
    pub(super) up: bool,
    pub(super) mtu: u64,
    pub(super) addresses: BTreeSet<String>,
}

impl Seen {
    /// Looks. The rules come beside it, each with all that is the same whoever made it and when.
    pub(super) fn look(space: &Space) -> (Self, BTreeSet<String>) {
        let script = space.path("look.sh");
        if !script.exists() {
            fs::write(&script, LOOK).unwrap();
        }
        let said = space.run(&format!("sh {}", script.display()));
        let parts: Vec<&str> = said.split("@@\n").collect();
        let json = |part: &str| match part.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")),
        };
        let rules = json(parts[2]);
        let mut ruled = BTreeSet::new();
        names(&rules, &mut ruled);
        let seen = Seen {
            links: list(&json(parts[0])).map(link).collect(),
            routes: list(&json(parts[1])).map(|it| format!("{} dev {}", text(it, "dst"), text(it, "dev"))).collect(),
            ruled,
            servers: parts[3].lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect(),
            forwarding: parts[4].trim() == "1",
        };
        let rules = list(&rules["nftables"]).filter(|it| it.get("metainfo").is_none());
        (seen, rules.map(|rule| timeless(rule).to_string()).collect())
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn link(it: &Value) -> (String, Link) {
    let kind = text(&it["linkinfo"], "info_kind");
    let addresses = list(&it["addr_info"]).map(|it| format!("{}/{}", text(it, "local"), it["prefixlen"]));
    let tap = kind == "tun";
    let link = Link {
        up: !tap && list(&it["flags"]).any(|flag| flag == "UP"),
        mtu: it["mtu"].as_u64().unwrap(),
        master: it["master"].as_str().map(str::to_owned),
        addresses: addresses.collect(),
        kind,
    };
    (text(it, "ifname"), link)
}

/// Every string below a value that is the name of an interface of ours.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.starts_with("br-") || text.starts_with("vnet") => drop(found.insert(text.clone())),
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        Value::Object(values) => values.values().for_each(|value| names(value, found)),
        _ => {}
    }
}

/// The same without what depends on when it was made and what passed since.
fn timeless(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(timeless).collect(),
        Value::Object(values) => {
            let kept =
                values.iter().filter(|(key, _)| !["handle", "packets", "bytes", "expires"].contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), timeless(value))).collect()
        }
        value => value.clone(),
    }
}
