//! Rules for people to read, in nft's own words. Pure; nothing is ever parsed back.
//!
//! It knows the expressions and statements that `ruleset` and `forwards` are made of; any other is shown as JSON.

use serde_json::Value;

use crate::{
    forwards::{Forward, Others},
    intent::Network,
    ruleset,
};

/// What of the table changes: `-` before a line that goes, `+` before one that comes.
pub fn difference(before: (&Network, &[Forward]), after: (&Network, &[Forward])) -> Vec<String> {
    let (old, new) = (lines(before.0, before.1), lines(after.0, after.1));
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// All there is of a network and of these forwards in the table.
fn lines(network: &Network, forwards: &[Forward]) -> Vec<String> {
    let of_network = ruleset::only(network);
    of_network
        .commands()
        .chain(crate::forwards::change(&[], forwards, Others::default()))
        .filter_map(|command| line(&command))
        .collect()
}

fn line(command: &Value) -> Option<String> {
    let (kind, object) = command.get("add")?.as_object()?.iter().next()?;
    let name = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(match kind.as_str() {
        "rule" => {
            let statements: Vec<String> = items(object.get("expr")?).map(statement).collect();
            format!("chain {}: {}", name("chain"), statements.join(" "))
        }
        "element" => {
            let elements: Vec<String> = items(object.get("elem")?).map(element).collect();
            format!("element of {}: {}", name("name"), elements.join(", "))
        }
        kind => format!("{kind} {}", name("name")),
    })
}

/// What is in a map is written as a pair.
fn element(value: &Value) -> String {
    match value {
        Value::Array(pair) => {
            pair.iter().map(|part| verdict(part).unwrap_or_else(|| expression(part))).collect::<Vec<_>>().join(" : ")
        }
        value => expression(value),
    }
}

fn statement(value: &Value) -> String {
    if let Some(verdict) = verdict(value) {
        return verdict;
    }
    let Some((kind, body)) = value.as_object().and_then(|object| object.iter().next()) else {
        return value.to_string();
    };
    match kind.as_str() {
        "match" => {
            let (left, right) = (expression(&body["left"]), expression(&body["right"]));
            match body["op"].as_str() {
                Some("!=") => format!("{left} != {right}"),
                _ => format!("{left} {right}"),
            }
        }
        "reject" => match (body["type"].as_str(), body["expr"].as_str()) {
            (Some("tcp reset"), _) => "reject with tcp reset".to_owned(),
            (Some("icmpx"), Some("port-unreachable")) => "reject".to_owned(),
            (Some(kind), Some(code)) => format!("reject with {kind} {code}"),
            _ => "reject".to_owned(),
        },
        "counter" => kind.clone(),
        "masquerade" | "snat" | "dnat" | "redirect" => translation(kind, body),
        "vmap" => format!("{} vmap {}", expression(&body["key"]), expression(&body["data"])),
        _ => value.to_string(),
    }
}

fn verdict(value: &Value) -> Option<String> {
    let (kind, body) = value.as_object()?.iter().next()?;
    match kind.as_str() {
        "accept" | "drop" | "return" | "continue" => Some(kind.clone()),
        "jump" | "goto" => Some(format!("{kind} {}", body["target"].as_str()?)),
        _ => None,
    }
}

fn translation(kind: &str, body: &Value) -> String {
    let address = body.get("addr").map(expression).unwrap_or_default();
    let port = body.get("port").map(|port| format!(":{}", expression(port))).unwrap_or_default();
    let family = body.get("family").and_then(Value::as_str).map(|family| format!(" {family}")).unwrap_or_default();
    let address = if address.contains(':') && !port.is_empty() { format!("[{address}]") } else { address };
    if address.is_empty() && port.is_empty() { kind.to_owned() } else { format!("{kind}{family} to {address}{port}") }
}

fn expression(value: &Value) -> String {
    let object = match value {
        Value::String(text) if is_word(text) => return text.clone(),
        Value::String(text) => return format!("\"{text}\""),
        Value::Array(parts) => return join(parts, ","),
        Value::Object(object) => object,
        value => return value.to_string(),
    };
    let Some((kind, body)) = object.iter().next() else { return value.to_string() };
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    match kind.as_str() {
        "meta" if matches!(text("key"), "iifname" | "oifname" | "iif" | "oif") => text("key").to_owned(),
        "meta" => format!("meta {}", text("key")),
        "payload" => format!("{} {}", text("protocol"), text("field")),
        "ct" => format!("ct {}", text("key")),
        "prefix" => format!("{}/{}", text("addr"), body["len"]),
        "range" => body.as_array().map(|ends| join(ends, "-")).unwrap_or_default(),
        "concat" => body.as_array().map(|parts| join(parts, " . ")).unwrap_or_default(),
        "set" => format!("{{ {} }}", items(body).map(element).collect::<Vec<_>>().join(", ")),
        "map" => format!("{} map {}", expression(&body["key"]), expression(&body["data"])),
        "fib" => {
            let flags: Vec<&str> = items(&body["flags"]).filter_map(Value::as_str).collect();
            format!("fib {} {}", flags.join(" . "), text("result"))
        }
        "numgen" => format!("numgen {} mod {}", text("mode"), body["mod"]),
        _ => value.to_string(),
    }
}

/// What nft prints without quotes: addresses, numbers, sets and the words it knows. Interface names it quotes.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 16] = [
        "tcp",
        "udp",
        "icmp",
        "ipv6-icmp",
        "nd-router-solicit",
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
        "mld2-listener-report",
        "local",
        "dnat",
        "snat",
        "original",
        "reply",
        "established",
        "related",
        "new",
    ];
    text.starts_with('@')
        || WORDS.contains(&text)
        || text.parse::<std::net::IpAddr>().is_ok()
        || ["ipv4", "ipv6"].contains(&text)
}

fn join(parts: &[Value], between: &str) -> String {
    parts.iter().map(expression).collect::<Vec<_>>().join(between)
}

/// The members of a list; what is no list is its own only member.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.iter(),
        other => std::slice::from_ref(other).iter(),
    }
}

#[cfg(test)]
mod tests;
