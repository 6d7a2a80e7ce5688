//! From the JSON of `nft -j list ruleset` to [`Table`]s. Pure.
//!
//! For diagnosis only: nothing the daemon does depends on it, since releases of `nft` print rules differently. What
//! cannot be read becomes [`Test::Unknown`], never an error.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde_json::Value;

use super::rules::{Action, Chain, Condition, Hook, Origin, Rule, Table, Test};

/// Statements that leave the packet and its way through the rules as they are.
const HARMLESS: [&str; 9] = ["counter", "log", "mangle", "notrack", "set", "map", "ct helper", "dup", "flow"];

/// Key and value of every element of the named sets and maps, by table and name.
type Sets<'a> = BTreeMap<(&'a str, &'a str, &'a str), &'a Value>;

/// Every table of IPv4 packets, and whether a rule in one of them is iptables' own and so not told in JSON.
pub(super) fn tables(text: &str) -> Result<(Vec<Table>, bool), serde_json::Error> {
    let root: Value = serde_json::from_str(text)?;
    let objects: Vec<(&str, &Value)> = root["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .filter_map(|object| object.iter().next().map(|(kind, value)| (kind.as_str(), value)))
        .filter(|(_, value)| matches!(value["family"].as_str(), Some("ip" | "inet")))
        .collect();
    let mut tables: BTreeMap<(&str, &str), Table> = BTreeMap::new();
    let mut sets = Sets::new();
    for &(kind, value) in &objects {
        let Some(family) = value["family"].as_str() else { continue };
        let Some(name) = (if kind == "table" { &value["name"] } else { &value["table"] }).as_str() else { continue };
        let table = tables.entry((family, name)).or_insert_with(|| Table {
            origin: Origin::Nft,
            family: family.to_owned(),
            name: name.to_owned(),
            chains: BTreeMap::new(),
        });
        match (kind, value["name"].as_str()) {
            ("chain", Some(chain)) => {
                let is_filter = value["type"] == "filter";
                table.chains.insert(
                    chain.to_owned(),
                    Chain {
                        hook: match value["hook"].as_str() {
                            Some("input") if is_filter => Some(Hook::Input),
                            Some("forward") if is_filter => Some(Hook::Forward),
                            _ => None,
                        },
                        drops_by_policy: value["policy"] == "drop",
                        rules: Vec::new(),
                    },
                );
            }
            ("set" | "map", Some(set)) => {
                sets.insert((family, name, set), &value["elem"]);
            }
            _ => {}
        }
    }
    let mut opaque = false;
    for (_, value) in objects.iter().filter(|(kind, _)| *kind == "rule") {
        let (Some(family), Some(name)) = (value["family"].as_str(), value["table"].as_str()) else { continue };
        let Some(chain) = value["chain"].as_str() else { continue };
        let reader = Reader { sets: &sets, family, table: name };
        opaque |= value["expr"].as_array().into_iter().flatten().any(|statement| statement.get("xt").is_some());
        if let Some(chain) = tables.get_mut(&(family, name)).and_then(|table| table.chains.get_mut(chain)) {
            chain.rules.extend(reader.rule(value));
        }
    }
    Ok((tables.into_values().collect(), opaque))
}

struct Reader<'a> {
    sets: &'a Sets<'a>,
    family: &'a str,
    table: &'a str,
}

impl Reader<'_> {
    /// One rule; a verdict map becomes one rule for each of its elements.
    fn rule(&self, value: &Value) -> Vec<Rule> {
        let mut conditions: Vec<Condition> = Vec::new();
        let mut rules = Vec::new();
        let handle = value["handle"].as_u64().unwrap_or_default();
        let shown = |verdict: &str| match value["comment"].as_str() {
            Some(comment) => format!("{verdict}, handle {handle} \"{comment}\""),
            None => format!("{verdict}, handle {handle}"),
        };
        let statements = value["expr"].as_array().into_iter().flatten().filter_map(Value::as_object);
        for (kind, body) in statements.filter_map(|statement| statement.iter().next()) {
            if let Some(action) = action(kind, body) {
                let text = shown(kind);
                rules.push(Rule { text, conditions: conditions.clone(), action });
                continue;
            }
            match kind.as_str() {
                "match" => conditions.extend(self.conditions(&body["left"], &body["right"], body["op"] == "!=")),
                "vmap" => {
                    for (key, verdict) in self.elements(&body["data"]) {
                        let Some((kind, target)) = verdict.as_object().and_then(|object| object.iter().next()) else {
                            continue;
                        };
                        let mut all = conditions.clone();
                        all.extend(self.keys(&body["key"], key));
                        let action = action(kind, target).unwrap_or(Action::Continue);
                        rules.push(Rule { text: shown(kind), conditions: all, action });
                    }
                }
                "xt" if body["type"] == "target" => {
                    let name = body["name"].as_str().unwrap_or_default();
                    let action = match name {
                        "REJECT" => Action::Drop,
                        "NFQUEUE" => Action::Unknown,
                        _ => Action::Continue,
                    };
                    rules.push(Rule { text: shown(name), conditions: conditions.clone(), action });
                }
                harmless if HARMLESS.contains(&harmless) => {}
                _ => conditions.push(Test::Unknown.into()),
            }
        }
        rules
    }

    /// The elements of a map, inline or by name: key and value.
    fn elements<'v>(&'v self, data: &'v Value) -> Vec<(&'v Value, &'v Value)> {
        let list = match data {
            Value::String(name) => self.named(name),
            other => other.get("set"),
        };
        let pairs = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_array);
        pairs.filter_map(|pair| Some((bare(pair.first()?), pair.get(1)?))).collect()
    }

    fn named(&self, name: &str) -> Option<&Value> {
        self.sets.get(&(self.family, self.table, name.strip_prefix('@')?)).copied()
    }

    /// A key may be of several parts.
    fn keys(&self, left: &Value, right: &Value) -> Vec<Condition> {
        match (left["concat"].as_array(), right["concat"].as_array()) {
            (Some(left), Some(right)) if left.len() == right.len() => {
                left.iter().zip(right).flat_map(|(left, right)| self.conditions(left, right, false)).collect()
            }
            (Some(_), _) => vec![Test::Unknown.into()],
            _ => self.conditions(left, right, false),
        }
    }

    fn conditions(&self, left: &Value, right: &Value, negated: bool) -> Vec<Condition> {
        let condition = |test: Option<Test>| Condition { negated, test: test.unwrap_or(Test::Unknown) };
        let values = match right {
            Value::String(name) if name.starts_with('@') => match self.named(name) {
                Some(elements) => list(elements),
                // declared, and nothing in it
                None => vec![],
            },
            other => list(other),
        };
        let Some((kind, body)) = left.as_object().and_then(|object| object.iter().next()) else {
            return vec![Test::Unknown.into()];
        };
        let test = match (kind.as_str(), body["key"].as_str(), body["protocol"].as_str(), body["field"].as_str()) {
            ("meta", Some("iifname" | "iif"), ..) => texts(&values).map(Test::Input),
            ("meta", Some("oifname" | "oif"), ..) => texts(&values).map(Test::Output),
            ("meta", Some("l4proto"), ..) | ("payload", _, Some("ip"), Some("protocol")) => {
                texts(&values).map(Test::Protocol)
            }
            ("meta", Some("nfproto" | "protocol"), ..) => texts(&values).map(|names| {
                if names.iter().any(|name| name == "ip" || name == "ipv4") { Test::Always } else { Test::Never }
            }),
            ("ct", Some("state"), ..) => texts(&values).map(Test::State),
            // The packets we ask about were sent to where they go.
            ("ct", Some("status"), ..) if values == ["dnat"] => Some(Test::Never),
            ("ct", Some("proto-dst"), ..) if body["dir"] == "original" => ports(&values).map(Test::OriginalPort),
            ("payload", _, Some("ip"), Some("saddr")) => addresses(&values).map(Test::Source),
            ("payload", _, Some("ip"), Some("daddr")) => addresses(&values).map(Test::Destination),
            ("payload", _, Some("ip6" | "icmp" | "icmpv6" | "igmp" | "sctp" | "dccp"), _) => {
                // Not such a packet, whatever it would be compared with.
                return vec![Test::Never.into()];
            }
            ("payload", _, Some(protocol @ ("tcp" | "udp" | "th")), Some(field @ ("sport" | "dport"))) => {
                let range = ports(&values);
                let test =
                    if field == "sport" { range.map(Test::SourcePort) } else { range.map(Test::DestinationPort) };
                let mut both = vec![condition(test)];
                if protocol != "th" {
                    both.push(Test::Protocol(vec![protocol.to_owned()]).into());
                }
                return both;
            }
            ("fib", ..) if is_type_of_destination(body) && values == ["local"] => Some(Test::DestinationLocal),
            _ => None,
        };
        vec![condition(test)]
    }
}

/// `fib daddr type`; a single flag is printed with or without brackets.
fn is_type_of_destination(fib: &Value) -> bool {
    fib["result"] == "type" && list(&fib["flags"]) == ["daddr"]
}

fn action(kind: &str, body: &Value) -> Option<Action> {
    let target = || body["target"].as_str().unwrap_or_default().to_owned();
    Some(match kind {
        "accept" => Action::Accept,
        "drop" | "reject" => Action::Drop,
        "return" => Action::Return,
        "continue" => Action::Continue,
        "jump" => Action::Jump(target()),
        "goto" => Action::Goto(target()),
        "queue" => Action::Unknown,
        _ => return None,
    })
}

/// One value or the values of a set.
fn list(value: &Value) -> Vec<Value> {
    let inside = value.get("set").unwrap_or(value);
    match inside {
        Value::Array(values) => values.iter().map(|value| bare(value).clone()).collect(),
        one => vec![bare(one).clone()],
    }
}

/// An element without its timeout, comment or counter.
fn bare(value: &Value) -> &Value {
    value.get("elem").and_then(|elem| elem.get("val")).unwrap_or(value)
}

fn texts(values: &[Value]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

fn ports(values: &[Value]) -> Option<Vec<(u16, u16)>> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    values
        .iter()
        .map(|value| match value["range"].as_array() {
            Some(range) => Some((port(range.first()?)?, port(range.get(1)?)?)),
            None => port(value).map(|port| (port, port)),
        })
        .collect()
}

fn addresses(values: &[Value]) -> Option<Vec<(Ipv4Addr, Ipv4Addr)>> {
    let address = |value: &Value| value.as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
    values
        .iter()
        .map(|value| {
            if let Some(range) = value["range"].as_array() {
                return Some((address(range.first()?)?, address(range.get(1)?)?));
            }
            if let Some(prefix) = value["prefix"].as_object() {
                let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
                let net = Ipv4Net::new(address(prefix.get("addr")?)?, length).ok()?;
                return Some((net.network(), net.broadcast()));
            }
            address(value).map(|address| (address, address))
        })
        .collect()
}
