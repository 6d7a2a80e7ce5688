//! EDGE: libvirt's firewall rules of one bridge: found in what `iptables-save` and `nft -j` print, and removed, each by its
//! exact identity, in one transaction per program.

use std::{
    io::{self, Write},
    process::{Command, Output, Stdio},
};

use ipnet::IpNet;
use serde_json::{Value, json};

/// Where the programs may be; a PATH often lacks the `sbin` directories.
const DIRECTORIES: [&str; 3] = ["", "/usr/sbin/", "/sbin/"];

/// The rules of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// For `iptables-restore --noflush` and its sibling for IPv6: input that removes them.
    restores: Vec<(&'static str, String)>,
    /// For `nft -j -f -`.
    nft: Vec<Value>,
    count: usize,
}

impl Rules {
    /// What libvirt has on this host for a bridge with these subnets.
    pub(crate) fn find(bridge: &str, subnets: &[IpNet]) -> Self {
        let mut rules = Rules::default();
        for (save, restore) in [("iptables-save", "iptables-restore"), ("ip6tables-save", "ip6tables-restore")] {
            // Not installed: then nobody used it.
            let Some(text) = printed(run(save, &[], "")) else { continue };
            let (input, count) = of_iptables(&text, bridge, subnets);
            if count > 0 {
                rules.restores.push((restore, input));
                rules.count += count;
            }
        }
        for family in ["ip", "ip6"] {
            let Some(text) = printed(run("nft", &["-j", "list", "table", family, TABLE], "")) else { continue };
            let found = of_nft(&text, family, bridge, subnets);
            rules.count += found.len();
            rules.nft.extend(found);
        }
        rules
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Removes them. An error says what is left.
    pub(crate) fn remove(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        for (restore, input) in &self.restores {
            errors.extend(failure(restore, run(restore, &["--noflush"], input)));
        }
        if !self.nft.is_empty() {
            let input = json!({ "nftables": self.nft }).to_string();
            errors.extend(failure("nft", run("nft", &["-j", "-f", "-"], &input)));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }
}

/// libvirt's nftables table, in families `ip` and `ip6`.
const TABLE: &str = "libvirt_network";

/// Input that removes the rules of a bridge from libvirt's chains, and how many those are.
fn of_iptables(saved: &str, bridge: &str, subnets: &[IpNet]) -> (String, usize) {
    let (mut input, mut count) = (String::new(), 0);
    let mut table = None;
    let subnets: Vec<String> = subnets.iter().map(|subnet| subnet.trunc().to_string()).collect();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Some((name, false));
        } else if line == "COMMIT" {
            if let Some((_, true)) = table.take() {
                input.push_str("COMMIT\n");
            }
        } else if let Some(rule) = line.strip_prefix("-A ")
            && is_of(rule, bridge, &subnets)
            && let Some((name, begun)) = &mut table
        {
            if !*begun {
                input.push_str(&format!("*{name}\n"));
                *begun = true;
            }
            input.push_str(&format!("-D {rule}\n"));
            count += 1;
        }
    }
    (input, count)
}

/// A rule in a chain of libvirt's that names the bridge, or translates for one of its subnets.
fn is_of(rule: &str, bridge: &str, subnets: &[String]) -> bool {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied();
    let Some(chain) = words.first().filter(|chain| chain.starts_with("LIBVIRT_")) else { return false };
    let names = after("-i") == Some(bridge) || after("-o") == Some(bridge);
    let translates = *chain == "LIBVIRT_PRT" && after("-s").is_some_and(|source| subnets.iter().any(|s| s == source));
    names || translates
}

/// Commands that remove the rules of a bridge from libvirt's table, by their handles.
fn of_nft(listed: &str, family: &str, bridge: &str, subnets: &[IpNet]) -> Vec<Value> {
    let Ok(listed) = serde_json::from_str::<Value>(listed) else { return Vec::new() };
    let objects = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let rules = objects.filter_map(|object| object.get("rule"));
    let is_of = |rule: &&Value| {
        let Some(parts) = rule.get("expr").and_then(Value::as_array) else { return false };
        parts.iter().filter_map(|part| part.get("match")).any(|compare| {
            let (left, right) = (compare.get("left"), compare.get("right"));
            let key = left.and_then(|left| left.get("meta")?.get("key")?.as_str());
            let names = matches!(key, Some("iif" | "oif" | "iifname" | "oifname"))
                && right.and_then(Value::as_str) == Some(bridge);
            let is_source = left.and_then(|left| left.get("payload")?.get("field")?.as_str()) == Some("saddr");
            let nat = rule.get("chain").and_then(Value::as_str) == Some("guest_nat");
            names || (nat && is_source && subnets.iter().any(|subnet| right == Some(&prefix(*subnet))))
        })
    };
    rules
        .filter(is_of)
        .filter_map(|rule| {
            let (chain, handle) = (rule.get("chain")?, rule.get("handle")?);
            Some(
                json!({ "delete": { "rule": { "family": family, "table": TABLE, "chain": chain, "handle": handle } } }),
            )
        })
        .collect()
}

fn prefix(subnet: IpNet) -> Value {
    json!({ "prefix": { "addr": subnet.network().to_string(), "len": subnet.prefix_len() } })
}

fn printed(output: io::Result<Output>) -> Option<String> {
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

fn failure(program: &str, output: io::Result<Output>) -> Option<String> {
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(cause) => Some(format!("cannot run {program}: {cause}")),
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for directory in DIRECTORIES {
        let spawned = Command::new(format!("{directory}{program}"))
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        result = spawned.and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                // It says on stderr why it stopped reading.
                let _: io::Result<()> = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        });
        if !result.as_ref().is_err_and(|cause| cause.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets() -> Vec<IpNet> {
        vec!["192.168.122.1/24".parse().unwrap()]
    }

    #[test]
    fn only_the_bridges_own_rules_in_libvirts_chains_are_removed() {
        let saved = "\
*nat
:POSTROUTING ACCEPT [0:0]
:LIBVIRT_PRT - [0:0]
-A POSTROUTING -j LIBVIRT_PRT
-A POSTROUTING -s 192.168.122.0/24 -j MASQUERADE
-A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
-A LIBVIRT_PRT -s 10.0.0.0/24 ! -d 10.0.0.0/24 -j MASQUERADE
COMMIT
*filter
-A FORWARD -i virbr0 -j ACCEPT
-A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
-A LIBVIRT_FWX -i virbr01 -o virbr01 -j ACCEPT
COMMIT
*mangle
-A LIBVIRT_PRT -o virbr1 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
COMMIT
";
        let expected = "\
*nat
-D LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
COMMIT
*filter
-D LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
COMMIT
";
        assert_eq!(of_iptables(saved, "virbr0", &subnets()), (expected.to_owned(), 2));
    }

    #[test]
    fn rules_of_the_nftables_backend_go_by_their_handles() {
        let rule = |chain: &str, handle: u32, left: Value, right: Value| {
            json!({ "rule": { "family": "ip", "table": TABLE, "chain": chain, "handle": handle,
                "expr": [{ "match": { "op": "==", "left": left, "right": right } }, { "accept": null }] } })
        };
        let meta = |key: &str| json!({ "meta": { "key": key } });
        let source = json!({ "payload": { "protocol": "ip", "field": "saddr" } });
        let subnet = |addr: &str| json!({ "prefix": { "addr": addr, "len": 24 } });
        let listed = json!({ "nftables": [
            { "metainfo": {} },
            rule("guest_cross", 1, meta("iif"), json!("virbr0")),
            rule("guest_cross", 2, meta("iif"), json!("virbr1")),
            rule("guest_nat", 3, source.clone(), subnet("192.168.122.0")),
            rule("guest_nat", 4, source.clone(), subnet("10.0.0.0")),
            rule("forward", 5, source, subnet("192.168.122.0")),
        ] });
        let handles: Vec<u64> = of_nft(&listed.to_string(), "ip", "virbr0", &subnets())
            .iter()
            .filter_map(|command| command["delete"]["rule"]["handle"].as_u64())
            .collect();
        assert_eq!(handles, [1, 3]);
    }
}
