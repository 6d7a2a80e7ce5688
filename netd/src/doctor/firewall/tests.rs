//! Rulesets of Docker, ufw, firewalld and a careful user, as nft and iptables printed them, and what we make of them.

use super::*;
use crate::{
    doctor::{
        Verdict,
        facts::{Facts, Listener},
        tests::healthy,
    },
    xml,
};

const DOCKER: (&str, &str) =
    (include_str!("../../../tests/rulesets/docker.json"), include_str!("../../../tests/rulesets/docker.save"));
const UFW: (&str, &str) =
    (include_str!("../../../tests/rulesets/ufw.json"), include_str!("../../../tests/rulesets/ufw.save"));
const FIREWALLD: &str = include_str!("../../../tests/rulesets/firewalld.json");
const WORKSTATION: &str = include_str!("../../../tests/rulesets/workstation.json");

fn with(nft: &str, iptables_nft: Option<&str>) -> Facts {
    let mut facts = healthy();
    facts.rules.nft = Ok(nft.to_owned());
    facts.rules.iptables_nft = iptables_nft.map(str::to_owned);
    facts
}

/// Verdict, title, reason and mend of every finding.
fn told(facts: &Facts) -> Vec<(Verdict, String, String, String)> {
    let told = |finding: Finding| {
        (finding.verdict, finding.title, finding.says.unwrap_or_default(), finding.mend.unwrap_or_default())
    };
    foreign_rules(facts).into_iter().map(told).collect()
}

fn known(name: &str, rest: &str) -> Known {
    let text = format!("<network><name>{name}</name>{rest}</network>");
    Known { network: xml::parse(&text).unwrap(), active: Some(true) }
}

#[test]
fn dockers_policy_is_named_with_the_accept_in_docker_user() {
    let said = told(&with(DOCKER.0, Some(DOCKER.1)));
    let [(verdict, title, says, mend)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(*verdict, Verdict::Fail);
    assert_eq!(title, "if table ip filter chain FORWARD lets guests through");
    assert_eq!(says, "policy drop (Docker) stops what guests send to other networks, the answers they get (on virbr0)");
    assert_eq!(
        mend,
        "sudo iptables-nft -I DOCKER-USER -i virbr0 -j ACCEPT && sudo iptables-nft -I DOCKER-USER -o virbr0 \
         -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    );
}

#[test]
fn an_accept_in_docker_user_is_seen() {
    let rules = DOCKER.1.replace(
        "-A FORWARD -j DOCKER-USER\n",
        "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -i virbr+ -j ACCEPT\n\
         -A DOCKER-USER -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
    );
    assert_eq!(told(&with(DOCKER.0, Some(&rules)))[0].0, Verdict::Pass);
}

#[test]
fn without_iptables_own_words_the_verdict_says_that_it_may_be_wrong() {
    let said = told(&with(UFW.0, None));
    assert!(
        said.iter().any(|(verdict, _, says, _)| *verdict == Verdict::Warn && says.contains("may stop")),
        "{said:?}"
    );
}

#[test]
fn legacy_tables_are_told_apart_and_mended_with_their_own_program() {
    let mut facts = healthy();
    facts.rules.legacy = Ok(Some(DOCKER.1.to_owned()));
    let said = told(&facts);
    assert_eq!(said[0].1, "if legacy iptables table ip filter chain FORWARD lets guests through");
    assert!(said[0].3.starts_with("sudo iptables-legacy -I DOCKER-USER "), "{}", said[0].3);

    facts.rules.legacy = Ok(None);
    facts.rules.legacy_tables = vec!["filter".into()];
    let said = told(&facts);
    assert!(said[0].0 == Verdict::Warn && said[0].2.contains("(filter)"), "{said:?}");
}

#[test]
fn ufw_stops_new_connections_and_questions_and_is_mended_in_its_own_words() {
    let said = told(&with(UFW.0, Some(UFW.1)));
    let [forward, input] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(
        (forward.0, forward.2.as_str(), forward.3.as_str()),
        (
            Verdict::Fail,
            "policy drop (ufw) stops what guests send to other networks (on virbr0)",
            "sudo ufw route allow in on virbr0"
        )
    );
    assert_eq!(
        (input.0, input.2.as_str(), input.3.as_str()),
        (
            Verdict::Fail,
            "policy drop (ufw) stops their DNS questions to the host (on virbr0)",
            "sudo ufw allow in on virbr0 to any port 53"
        )
    );
}

#[test]
fn a_redirected_question_is_judged_by_where_it_arrives_and_mended_by_where_it_went() {
    let rules = UFW
        .1
        .replace("-A ufw-user-input", "-A ufw-user-input -i virbr0 -p udp --dport 53 -j ACCEPT\n-A ufw-user-input");
    let mut facts = with(UFW.0, Some(&rules));
    assert_eq!(told(&facts).len(), 1);
    let address = std::net::IpAddr::from([0, 0, 0, 0]);
    facts.listeners = Ok(vec![Listener { tcp: false, address, port: 53, program: None }]);
    assert_eq!(told(&facts)[1].3, "sudo iptables-nft -I INPUT -i virbr0 -m conntrack --ctorigdstport 53 -j ACCEPT");
}

#[test]
fn firewalld_names_the_rule_that_rejects() {
    let said = told(&with(FIREWALLD, None));
    let [forward, input] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(forward.1, "if table inet firewalld chain filter_FORWARD lets guests through");
    assert!(forward.2.starts_with("rule 'reject, handle "), "{}", forward.2);
    assert!(forward.2.ends_with("' (firewalld) stops what guests send to other networks (on virbr0)"), "{}", forward.2);
    assert_eq!((forward.0, input.0), (Verdict::Fail, Verdict::Fail));
    assert_eq!(
        input.3,
        "sudo firewall-cmd --zone=trusted --change-interface=virbr0 && sudo firewall-cmd --zone=trusted \
         --change-interface=virbr0 --permanent"
    );
}

#[test]
fn sets_maps_and_marks_are_read_where_they_can_be() {
    let said = told(&with(WORKSTATION, None));
    let [forward, input] = said.as_slice() else { panic!("{said:?}") };
    // a mark that another rule may have set: nobody knows
    assert_eq!((forward.0, forward.2.contains("may stop what guests send")), (Verdict::Warn, true), "{forward:?}");
    assert_eq!(forward.3, "sudo nft insert rule inet filter forward iifname virbr0 accept");
    assert_eq!((input.0, input.2.contains("their DNS questions")), (Verdict::Fail, true), "{input:?}");
    assert_eq!(
        input.3,
        "sudo nft insert rule inet filter input iifname virbr0 meta l4proto udp ct original proto-dst 53 accept && \
         sudo nft insert rule inet filter input iifname virbr0 meta l4proto tcp ct original proto-dst 53 accept"
    );

    // br-lan is in the map, its subnet in the set
    let mut facts = with(WORKSTATION, None);
    facts.networks = Ok(vec![known("lan", "<forward/><bridge name='br-lan'/><ip address='10.1.2.1' prefix='24'/>")]);
    assert_eq!(told(&facts)[0].0, Verdict::Pass);
}

#[test]
fn several_bridges_are_mended_by_one_command() {
    let mut facts = with(UFW.0, Some(UFW.1));
    facts.networks = Ok(vec![
        known("a", "<forward/><bridge name='br-a'/><ip address='10.1.2.1' prefix='24'/>"),
        known("b", "<forward mode='route'/><bridge name='br-b'/><ip address='10.1.3.1' prefix='24'/>"),
        known("c", "<bridge name='br-c'/><ip address='10.1.4.1' prefix='24'/><dns enable='no'/>"),
    ]);
    let said = told(&facts);
    assert_eq!(said[0].3, "for b in br-a br-b; do sudo ufw route allow in on $b; done");
    assert!(said[0].2.ends_with("(on br-a, br-b)"), "{}", said[0].2);
}

#[test]
fn guests_of_one_network_are_only_asked_about_where_br_netfilter_asks() {
    let rules = r#"{"nftables": [{"table": {"family": "ip", "name": "t"}},
        {"chain": {"family": "ip", "table": "t", "name": "f", "type": "filter", "hook": "forward", "policy": "accept"}},
        {"rule": {"family": "ip", "table": "t", "chain": "f", "handle": 7, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "virbr0"}},
            {"match": {"op": "!=", "left": {"ct": {"key": "state"}}, "right": "established"}}, {"drop": null}]}}]}"#;
    let mut facts = with(rules, None);
    facts.bridge_netfilter = Ok(vec![]);
    assert_eq!(told(&facts)[0].0, Verdict::Pass);
    facts.bridge_netfilter = Ok(vec!["bridge-nf-call-iptables".into()]);
    let said = told(&facts);
    assert!(said[0].2.starts_with("rule 'drop, handle 7' stops frames between guests of one network"), "{said:?}");
    assert_eq!(said[0].3, "sudo nft insert rule ip t f iifname virbr0 oifname virbr0 accept");
}

#[test]
fn our_own_table_and_ip6_are_passed_over() {
    let table = |family: &str, name: &str| {
        format!(
            r#"{{"nftables": [{{"chain": {{"family": "{family}", "table": "{name}", "name": "f", "type": "filter",
            "hook": "forward", "policy": "drop"}}}}]}}"#
        )
    };
    assert_eq!(told(&with(&table("inet", "netd"), None))[0].0, Verdict::Pass);
    assert_eq!(told(&with(&table("ip6", "filter"), None))[0].0, Verdict::Pass);
    assert_eq!(told(&with(&table("inet", "other"), None))[0].0, Verdict::Fail);
}

#[test]
fn what_cannot_be_read_is_no_error_and_no_certainty() {
    let rules = r#"{"nftables": [7, {}, {"future": {}}, {"set": {"family": "inet", "table": "t", "name": "s"}},
        {"chain": {"family": "inet", "table": "t", "name": "f", "type": "filter", "hook": "forward", "policy": "drop"}},
        {"rule": {"family": "inet", "table": "t", "chain": "f", "handle": 1, "expr": [
            {"match": {"op": "~", "left": {"quantum": {"key": "spin"}}, "right": {"up": 1}}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "t", "chain": "gone", "expr": 3}},
        {"rule": {"family": "inet", "table": "t", "chain": "f", "expr": [{"jump": {"target": "f"}}, {"jump": null}]}}]}"#;
    assert_eq!(told(&with(rules, None))[0].0, Verdict::Warn);
    let said = told(&with("not JSON", None));
    assert_eq!((said[0].0, said[0].3.as_str()), (Verdict::Warn, "sudo nft list ruleset"));
}

#[test]
fn every_ruleset_cut_short_or_with_a_byte_changed_is_taken() {
    for text in [UFW.1, DOCKER.1] {
        for end in 0..text.len() {
            iptables::tables(&text[..end], Origin::IptablesNft);
        }
    }
    for text in [DOCKER.0, FIREWALLD, WORKSTATION] {
        for word in ["filter", "match", "right", "set", "null", "0", "\"ip\""] {
            for replacement in ["\"\"", "{}", "[]", "x", "-1"] {
                // Most of these are no JSON any more, some are another ruleset.
                let _ = nft::tables(&text.replace(word, replacement));
            }
        }
    }
}

#[test]
fn chains_that_jump_in_circles_end() {
    let mut text = "*filter\n:FORWARD DROP [0:0]\n:a - [0:0]\n".to_owned();
    for _ in 0..8 {
        text.push_str("-A FORWARD -j a\n-A a -j a\n");
    }
    let mut facts = healthy();
    facts.rules.legacy = Ok(Some(text));
    assert_eq!(told(&facts)[0].0, Verdict::Warn);
}

#[test]
fn a_name_that_a_shell_would_read_is_quoted() {
    assert_eq!(word("filter_FORWARD"), "filter_FORWARD");
    assert_eq!(word("x; rm -rf '"), "'x; rm -rf '\\'''");
}
