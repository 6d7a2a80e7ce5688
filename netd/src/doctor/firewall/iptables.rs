//! From the text of `iptables-save` to [`Table`]s. Pure.
//!
//! The same text comes from iptables' nft and legacy forms. A match that we do not know becomes [`Test::Unknown`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::rules::{Action, Chain, Condition, Hook, Origin, Rule, Table, Test};

/// Every table in the text. Lines that make no sense are passed over.
pub(super) fn tables(text: &str, origin: Origin) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let (family, name) = ("ip".to_owned(), name.trim().to_owned());
            tables.push(Table { origin, family, name, chains: Default::default() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(declaration) = line.strip_prefix(':') {
            let mut words = declaration.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            // a chain of the user's has '-' for a policy
            let hook = match name {
                "INPUT" if policy != "-" => Some(Hook::Input),
                "FORWARD" if policy != "-" => Some(Hook::Forward),
                _ => None,
            };
            let chain = Chain { hook, drops_by_policy: policy == "DROP", rules: Vec::new() };
            table.chains.insert(name.to_owned(), chain);
        }
        if let Some(rule) = line.strip_prefix("-A ") {
            let words = split(rule);
            let Some((chain, words)) = words.split_first() else { continue };
            let rule = Rule { text: words.join(" "), ..read(words, table) };
            if let Some(chain) = table.chains.get_mut(chain) {
                chain.rules.push(rule);
            }
        }
    }
    tables
}

/// Words separated by blanks, where quotes keep blanks and a backslash keeps a quote.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(characters.next()),
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

fn read(words: &[String], table: &Table) -> Rule {
    let mut rule = Rule { text: String::new(), conditions: Vec::new(), action: Action::Continue };
    let mut negated = false;
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word {
            "!" => {
                negated = true;
                continue;
            }
            // The match's options follow and say it all; a comment says nothing.
            "-m" => {
                value();
            }
            "--comment" => {
                value();
            }
            "-j" | "-g" => {
                let target = value();
                rule.action = action(target, word == "-g", table);
                // What follows are the target's options.
                break;
            }
            _ => {
                let mut values = vec![];
                while let Some(value) = words.next_if(|next| !next.starts_with('-') && *next != "!") {
                    values.push(value);
                }
                let test = match values.as_slice() {
                    [value] => test(word, value).unwrap_or(Test::Unknown),
                    _ => Test::Unknown,
                };
                rule.conditions.push(Condition { negated, test });
            }
        }
        negated = false;
    }
    rule
}

fn test(option: &str, value: &str) -> Option<Test> {
    let interfaces = || vec![value.strip_suffix('+').map_or(value.to_owned(), |start| format!("{start}*"))];
    let words = || value.split(',').map(str::to_ascii_lowercase).collect::<Vec<_>>();
    Some(match option {
        "-i" => Test::Input(interfaces()),
        "-o" => Test::Output(interfaces()),
        "-s" => Test::Source(vec![network(value)?]),
        "-d" => Test::Destination(vec![network(value)?]),
        "-p" if value == "all" => Test::Always,
        "-p" => Test::Protocol(words()),
        "--ctstate" | "--state" => Test::State(words()),
        "--dport" | "--dports" => Test::DestinationPort(ports(value)?),
        "--ctorigdstport" => Test::OriginalPort(ports(value)?),
        "--sport" | "--sports" => Test::SourcePort(ports(value)?),
        "--dst-type" if value == "LOCAL" => Test::DestinationLocal,
        "--dst-type" if matches!(value, "MULTICAST" | "BROADCAST") => Test::Never,
        "--icmp-type" => Test::Never,
        _ => return None,
    })
}

fn network(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let net: Ipv4Net = text.parse().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from)).ok()?;
    Some((net.network(), net.broadcast()))
}

/// `53`, `1:3`, `53,60:70`.
fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |part: &str| match part.split_once(':') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => part.parse().ok().map(|port| (port, port)),
    };
    text.split(',').map(range).collect()
}

fn action(target: &str, goto: bool, table: &Table) -> Action {
    match target {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        "NFQUEUE" | "QUEUE" => Action::Unknown,
        chain if goto => Action::Goto(chain.to_owned()),
        // Chains are declared before the rules that jump to them; what is none is a target that goes on, such as LOG.
        chain if table.chains.contains_key(chain) => Action::Jump(chain.to_owned()),
        _ => Action::Continue,
    }
}
