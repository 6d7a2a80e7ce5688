//! Rules of legacy iptables, which nftables' trace does not show: whose counters of drops have moved meanwhile.

use std::collections::BTreeMap;

use crate::doctor;

/// A rule or a policy that drops, and how many packets it has dropped.
pub(super) type Drops = BTreeMap<String, u64>;

/// What each rule that drops has counted; nothing where the kernel has no such tables.
pub(super) async fn read(tables: &[String]) -> Drops {
    if tables.is_empty() {
        return Drops::new();
    }
    let saved = doctor::legacy_counters().await;
    saved.iter().flat_map(|(program, text)| parse(program, text)).collect()
}

/// Those that have dropped something since.
pub(super) fn drops(before: &Drops, after: &Drops) -> Vec<String> {
    let moved = |(rule, count): &(&String, &u64)| **count > before.get(*rule).copied().unwrap_or(0);
    after.iter().filter(moved).map(|(rule, _)| rule.clone()).collect()
}

/// From what `iptables-save -c` prints: `:FORWARD DROP [3:252]`, `[3:252] -A FORWARD -j DROP`.
fn parse(program: &str, text: &str) -> Drops {
    let mut found = Drops::new();
    let mut table = "";
    for line in text.lines() {
        let packets = || line.split_once('[')?.1.split_once(':')?.0.parse::<u64>().ok();
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            if let (Some(chain), Some("DROP"), Some(count)) = (words.next(), words.next(), packets()) {
                found.insert(format!("policy DROP of {program} table {table} chain {chain}"), count);
            }
        } else if let Some((_, rule)) = line.split_once("] ")
            && let Some(count) = packets()
            && rule.split_once(" -j ").is_some_and(|(_, to)| to.starts_with("DROP") || to.starts_with("REJECT"))
        {
            *found.entry(format!("rule '{rule}' of {program} table {table}")).or_default() += count;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_drops_and_has_dropped_meanwhile_is_named() {
        let saved = |policy: u64, rule: u64| {
            format!(
                "# Generated\n*filter\n:INPUT ACCEPT [9:900]\n:FORWARD DROP [{policy}:84]\n:MINE - [0:0]\n\
                 [5:100] -A FORWARD -j MINE\n[{rule}:60] -A MINE -p tcp -m tcp --dport 22 -j REJECT --reject-with \
                 tcp-reset\n[7:1] -A MINE -j ACCEPT\nCOMMIT\n"
            )
        };
        let read = |policy, rule| parse("iptables-legacy", &saved(policy, rule));
        assert_eq!(drops(&read(1, 1), &read(1, 1)), [] as [&str; 0]);
        assert_eq!(drops(&read(1, 1), &read(2, 1)), ["policy DROP of iptables-legacy table filter chain FORWARD"]);
        assert_eq!(
            drops(&read(1, 1), &read(1, 3)),
            [
                "rule '-A MINE -p tcp -m tcp --dport 22 -j REJECT --reject-with tcp-reset' of iptables-legacy table filter"
            ]
        );
    }
}
