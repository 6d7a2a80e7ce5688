//! Changes on a host made of values: failing at each call, killed at each call, confirmed, not confirmed.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::{
    apply::fake::{Fake, Traces, Trouble},
    change::Command,
    registry::PortRequest,
    verbs::tests::{daemon, directory, now},
};

const OLD: &str = "<network><name>a</name><uuid>c2d5a8a0-0f4b-4c53-9a3c-52f0ee2b3c11</uuid><forward mode='nat'/>\
    <bridge name='br-a'/><mac address='52:54:00:00:00:01'/><ip address='172.16.5.1' prefix='24'><dhcp>\
    <range start='172.16.5.10' end='172.16.5.20'/></dhcp></ip>\
    <route address='172.30.0.0' prefix='16' gateway='172.16.5.2'/></network>";

/// Other in everything that can be other, but one thing: it needs the host to route no more.
const NEW: &str = "<network><name>a</name><bridge name='br-a' stp='on' delay='3'/><mtu size='1400'/>\
    <mac address='52:54:00:00:00:02'/><domain name='lab.example'/><dns><host ip='172.16.6.5'><hostname>printer</hostname>\
    </host></dns><port isolated='yes'/><ip address='172.16.6.1' prefix='24'/>\
    <route address='172.30.0.0' prefix='16' gateway='172.16.6.2'/></network>";

/// The same, with port forwards and DHCP.
const FORWARDING: &str = "<network><name>a</name><forward mode='route'/><bridge name='br-a'/><mtu size='9000'/>\
    <mac address='52:54:00:00:00:01'/><ip address='172.16.5.1' prefix='24'><dhcp><range start='172.16.5.30' \
    end='172.16.5.40'/></dhcp></ip><ip address='172.16.7.1' prefix='24'/><n:forwards xmlns:n='urn:netd:network:1'>\
    <n:forward proto='tcp' port='80'><n:to ip='172.16.5.9'/></n:forward></n:forwards></network>";

/// Everything there is of a network, on the host and on disk.
#[derive(Debug, PartialEq)]
struct Everything {
    traces: Traces,
    guarded: Vec<(String, nat::guards::Sources)>,
    definition: Option<String>,
    live: String,
    record: serde_json::Value,
    ports: Vec<u32>,
}

fn everything(verbs: &Verbs<Fake>, fake: &Fake, directory: &TempDir) -> Everything {
    let file = |below: &str| std::fs::read_to_string(directory.path().join(below)).ok();
    let record = file("runtime/networks/a.json").map(|text| serde_json::from_str(&text).unwrap());
    Everything {
        traces: fake.traces(),
        guarded: fake.world().guarded.clone().into_iter().collect(),
        definition: file("config/networks/a.xml"),
        live: verbs.dump_xml("a", false).unwrap(),
        record: record.unwrap_or_default(),
        ports: verbs.list_ports(None).unwrap().ports.iter().map(|port| port.mtu).collect(),
    }
}

/// A daemon with the network running and a guest plugged in.
fn running() -> (Arc<Verbs<Fake>>, Fake, TempDir) {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.define(OLD)).unwrap();
    now(verbs.start("a")).unwrap();
    let request = PortRequest { network: "a".into(), guest: Some("vm1".into()), queues: 1, ..PortRequest::default() };
    now(verbs.add_port(&request)).unwrap();
    let sources = verbs.registry().find_live("a").unwrap().1.desired.sources.clone();
    fake.world().guarded.insert("a".into(), sources);
    (verbs, fake, directory)
}

fn apply(verbs: &Verbs<Fake>, text: &str) -> ChangeReply {
    now(verbs.apply_network(text, How::default())).unwrap()
}

fn confirm_in(seconds: u32) -> How {
    How { confirm: Some(seconds), dry_run: false }
}

#[test]
fn a_file_makes_the_network_so_again_and_again_with_its_tap_in_place() {
    let (verbs, fake, directory) = running();
    let found = everything(&verbs, &fake, &directory);
    for text in [NEW, FORWARDING, OLD] {
        let said = apply(&verbs, text);
        assert!(said.changed && !said.steps.is_empty(), "{said:?}");
        let host = fake.world().host.clone();
        assert_eq!(host.link("vnet0").unwrap().master, Some(host.link("br-a").unwrap().index));
        let again = apply(&verbs, text);
        assert!(!again.changed && again.steps.is_empty(), "{again:?}");
    }
    assert_eq!(everything(&verbs, &fake, &directory), found, "back where it began");
    let defined = verbs.dump_xml("a", true).unwrap();
    assert!(defined.contains("c2d5a8a0-0f4b-4c53-9a3c-52f0ee2b3c11"), "a file without a UUID keeps it: {defined}");
    // Taken down as if it had been started so.
    apply(&verbs, NEW);
    let index = fake.world().host.link("vnet0").unwrap().index;
    fake.remove_link(index);
    now(verbs.link_gone(index, "vnet0"));
    now(verbs.destroy("a")).unwrap();
    let left = fake.world();
    assert!(left.host.link("br-a").is_none() && left.table.is_none() && left.services.is_empty());
    assert!(!left.host.forwarding);
}

#[test]
fn a_dry_run_says_it_and_does_nothing() {
    let (verbs, fake, directory) = running();
    let found = everything(&verbs, &fake, &directory);
    let how = How { dry_run: true, confirm: None };
    let said = now(verbs.apply_network(NEW, how)).unwrap();
    assert!(said.steps.contains(&"set the MTU of br-a to 1400".to_owned()), "{said:?}");
    assert!(said.rules.iter().any(|rule| rule.starts_with("- chain nat_br-a: ")), "{said:?}");
    let new = "<network><name>b</name><forward mode='nat'/><ip address='172.20.0.1' prefix='24'/></network>";
    let said = now(verbs.apply_network(new, how)).unwrap();
    assert_eq!((said.steps[0].as_str(), said.network), ("define network b", None));
    assert!(said.rules.iter().any(|rule| rule.starts_with("+ chain nat_virbr1: ")), "{:?}", said.rules);
    assert_eq!(everything(&verbs, &fake, &directory), found);
    assert!(verbs.get("b").is_err());
}

#[test]
fn a_failure_at_any_call_leaves_everything_as_it_was() {
    for text in [NEW, FORWARDING] {
        for how in [How::default(), confirm_in(60)] {
            let calls = {
                let (verbs, fake, _directory) = running();
                let before = fake.world().calls;
                now(verbs.apply_network(text, how)).unwrap();
                let after = fake.world().calls;
                after - before
            };
            assert!(calls > 8, "{calls}");
            for at in 1..=calls {
                let (verbs, fake, directory) = running();
                let found = everything(&verbs, &fake, &directory);
                let next = fake.world().calls + at;
                fake.world().trouble = Some(Trouble::Fail(next));
                match now(verbs.apply_network(text, how)) {
                    Err(error) => {
                        assert!(error.to_string().contains("told to fail"), "{error}");
                        assert_eq!(everything(&verbs, &fake, &directory), found, "call {at}");
                    }
                    // Rules that cannot be changed alone are made anew with all others.
                    Ok(said) => {
                        assert!(said.changed, "call {at}");
                        assert_eq!(now(verbs.confirm(None)).is_ok(), how.confirm.is_some());
                    }
                }
                assert!(now(verbs.apply_network(text, how)).is_ok(), "call {at}: it works the next time");
            }
        }
    }
}

#[test]
fn killed_at_any_call_the_next_daemon_has_the_old_network_or_the_new_one() {
    let end = |text: &str, how: How| {
        let (verbs, fake, directory) = running();
        let before = fake.world().calls;
        now(verbs.apply_network(text, how)).unwrap();
        let calls = fake.world().calls - before;
        (everything(&verbs, &fake, &directory), calls)
    };
    for (text, how) in [(NEW, How::default()), (FORWARDING, How::default()), (FORWARDING, confirm_in(60))] {
        let (new, calls) = end(text, how);
        let (mut olds, mut news) = (0, 0);
        for trouble in [Trouble::HangBefore as fn(usize) -> Trouble, Trouble::HangAfter] {
            for at in 1..=calls {
                let (verbs, fake, directory) = running();
                let old = everything(&verbs, &fake, &directory);
                let next = fake.world().calls + at;
                fake.world().trouble = Some(trouble(next));
                let ended = futures_util::FutureExt::now_or_never(verbs.apply_network(text, how));
                assert!(ended.is_none(), "call {at} did not hang");
                drop(verbs);
                fake.kill_daemon();
                let verbs = daemon(&fake, &directory).unwrap();
                let now_is = everything(&verbs, &fake, &directory);
                // Guards are restored by other means, which this host has not got.
                let same = |wanted: &Everything| {
                    (&now_is.traces, &now_is.definition, &now_is.live, &now_is.record, &now_is.ports)
                        == (&wanted.traces, &wanted.definition, &wanted.live, &wanted.record, &wanted.ports)
                };
                if same(&old) {
                    olds += 1;
                } else {
                    assert!(same(&new), "{how:?}, call {at}: neither old nor new\n{now_is:#?}\nold: {old:#?}");
                    news += 1;
                }
                assert!(now(verbs.confirm(None)).is_ok() || now(verbs.apply_network(text, How::default())).is_ok());
            }
        }
        assert!(olds > 0, "{olds} {news}");
    }
}

#[test]
fn what_is_not_confirmed_in_time_is_taken_back_and_what_is_stays() {
    for restart in [false, true] {
        let (mut verbs, fake, directory) = running();
        let found = everything(&verbs, &fake, &directory);
        fake.world().uptime = Duration::from_secs(1000);
        let said = now(verbs.apply_network(FORWARDING, confirm_in(30))).unwrap();
        assert_eq!(said.confirm_within, Some(30));
        assert!(verbs.dump_xml("a", false).unwrap().contains("9000"), "it is live at once");
        assert_eq!(everything(&verbs, &fake, &directory).definition, found.definition, "the definition waits");
        assert_eq!(now(verbs.expire_changes()), Some(30));
        if restart {
            drop(verbs);
            fake.kill_daemon();
            verbs = daemon(&fake, &directory).unwrap();
            assert!(verbs.dump_xml("a", false).unwrap().contains("9000"));
        }
        for refused in [
            now(verbs.apply_network(NEW, How::default())).map(drop),
            now(verbs.define(OLD)).map(drop),
            now(verbs.undefine("a")).map(drop),
        ] {
            let refused: netd_api::Error = refused.unwrap_err().into();
            assert!(refused.to_string().contains("the last change of network 'a' is not confirmed"), "{refused}");
            assert!(refused.hint().unwrap().contains("netd confirm a"), "{refused:?}");
        }
        fake.world().uptime = Duration::from_secs(1029);
        assert_eq!(now(verbs.expire_changes()), Some(1));
        assert!(verbs.dump_xml("a", false).unwrap().contains("9000"));
        fake.world().uptime = Duration::from_secs(1030);
        assert_eq!(now(verbs.expire_changes()), None);
        let Everything { traces, definition, live, record, ports, .. } = everything(&verbs, &fake, &directory);
        assert_eq!((traces, definition), (found.traces, found.definition), "restart: {restart}");
        assert_eq!((live, record, ports), (found.live, found.record, found.ports), "restart: {restart}");
        let late: netd_api::Error = now(verbs.confirm(None)).unwrap_err().into();
        assert_eq!(late.to_string(), "Requested operation is not valid: no change waits to be confirmed");

        now(verbs.apply_network(FORWARDING, confirm_in(30))).unwrap();
        now(verbs.confirm(Some("a"))).unwrap();
        assert_eq!(now(verbs.expire_changes()), None);
        fake.world().uptime = Duration::from_secs(9000);
        assert_eq!(now(verbs.expire_changes()), None);
        assert!(verbs.dump_xml("a", true).unwrap().contains("9000"), "and so is the definition");
        apply(&verbs, OLD);
    }
}

#[test]
fn a_network_that_is_stopped_has_nothing_to_confirm_and_starts_as_it_was_defined() {
    let (verbs, _fake, _directory) = running();
    now(verbs.apply_network(FORWARDING, confirm_in(30))).unwrap();
    now(verbs.destroy("a")).unwrap();
    assert!(now(verbs.confirm(Some("a"))).is_err());
    now(verbs.start("a")).unwrap();
    assert!(!verbs.dump_xml("a", false).unwrap().contains("9000"));
}

#[test]
fn a_network_that_is_not_there_is_defined_and_started_or_nothing_is_left_of_it() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let found = fake.traces();
    let error: netd_api::Error = now(verbs.apply_network(OLD, confirm_in(9))).unwrap_err().into();
    assert!(error.to_string().contains("there is nothing to go back to"), "{error}");
    let next = fake.world().calls + 3;
    fake.world().trouble = Some(Trouble::Fail(next));
    assert!(now(verbs.apply_network(OLD, How::default())).is_err());
    assert_eq!(fake.traces(), found);
    assert!(verbs.get("a").is_err(), "a network that could not be started is not defined either");
    let said = apply(&verbs, OLD);
    assert_eq!(said.network.map(|network| (network.active, network.persistent)), Some((true, true)));
    now(verbs.destroy("a")).unwrap();
    assert!(apply(&verbs, FORWARDING).network.unwrap().active, "one that is only defined is changed and started");
    assert!(verbs.dump_xml("a", true).unwrap().contains("9000"));
}

#[test]
fn the_bridge_keeps_its_name_and_subnets_of_others_are_refused() {
    let (verbs, fake, directory) = running();
    let found = everything(&verbs, &fake, &directory);
    let refused = |text: String| -> String { now(verbs.apply_network(&text, How::default())).unwrap_err().to_string() };
    let renamed = refused(OLD.replace("br-a", "br-b"));
    assert!(renamed.contains("the bridge of network 'a' is br-a and cannot become br-b"), "{renamed}");
    let taken = refused(OLD.replace("172.16.5.", "10.0.0."));
    assert_eq!(taken, "internal error: Network is already in use by interface eth0");
    let elsewhere = "<network><name>a</name><forward mode='bridge'/><bridge name='br-a'/></network>";
    let moved = refused(elsewhere.into());
    assert!(
        moved.contains("the ports of network 'a' are on a bridge of its own, br-a and cannot be on the host's"),
        "{moved}"
    );
    let direct = refused("<network><name>a</name><forward mode='private' dev='eth0'/></network>".into());
    assert!(direct.contains("cannot be on eth0 by macvtap, in mode private while the network is active"), "{direct}");
    let zero = now(verbs.apply_network(OLD, confirm_in(0))).unwrap_err().to_string();
    assert_eq!(zero, "invalid argument: confirm '0' is not a number of seconds from 1 to 86400");
    assert_eq!(everything(&verbs, &fake, &directory), found);
    // What the network has itself is in nobody's way.
    apply(&verbs, &OLD.replace("prefix='24'", "prefix='23'"));
}

#[test]
fn a_section_is_edited_live_in_the_definition_or_both() {
    let (verbs, fake, directory) = running();
    let xml = "<host mac='52:54:00:00:00:09' ip='172.16.5.9'/>";
    let edit = Edit { command: Command::AddLast, section: "ip-dhcp-host", xml, parent_index: None };
    let has = |verbs: &Verbs<Fake>| {
        let inside = |inactive| verbs.dump_xml("a", inactive).unwrap().contains("52:54:00:00:00:09");
        let served = fake.world().served["a"].dhcp4.as_ref().unwrap().hosts.len();
        (inside(false), inside(true), served)
    };
    let delete = Edit { command: Command::Delete, ..edit };
    for (affect, affected, expected) in [
        (Affect::default(), (true, false), (true, false, 1)),
        (Affect { live: true, config: false }, (true, false), (true, false, 1)),
        (Affect { live: false, config: true }, (false, true), (false, true, 0)),
        (Affect { live: true, config: true }, (true, true), (true, true, 1)),
    ] {
        let said = now(verbs.update_network("a", edit, affect)).unwrap();
        assert_eq!((said.live, said.config), affected);
        assert_eq!(has(&verbs), expected, "{affect:?}");
        now(verbs.update_network("a", delete, affect)).unwrap();
        assert_eq!(has(&verbs), (false, false, 0), "{affect:?}");
    }
    let found = everything(&verbs, &fake, &directory);
    let missing = now(verbs.update_network("a", delete, Affect::default())).unwrap_err().to_string();
    assert_eq!(missing, "Requested operation is not valid: couldn't locate a matching dhcp host entry in network 'a'");
    assert_eq!(everything(&verbs, &fake, &directory), found);
    now(verbs.destroy("a")).unwrap();
    let live = Affect { live: true, config: false };
    let stopped = now(verbs.update_network("a", edit, live)).unwrap_err().to_string();
    assert_eq!(stopped, "Requested operation is not valid: network is not running");
    assert!(now(verbs.update_network("a", edit, Affect::default())).unwrap().config);
    now(verbs.create("<network><name>t</name></network>")).unwrap();
    let port = Edit { section: "port", xml: "<port isolated='yes'/>", ..edit };
    let transient = now(verbs.update_network("t", port, Affect { live: true, config: true })).unwrap_err().to_string();
    assert_eq!(transient, "Requested operation is not valid: cannot change persistent config of a transient network");
    assert!(now(verbs.update_network("t", port, Affect::default())).unwrap().live);
}

#[test]
fn a_disk_that_refuses_the_definition_leaves_the_network_as_it_was() {
    let (verbs, fake, directory) = running();
    let found = everything(&verbs, &fake, &directory);
    let definitions = directory.path().join("config/networks");
    // A directory where the file is to be written first: writing it fails whoever we are.
    std::fs::create_dir(definitions.join(".incomplete")).unwrap();
    let error = now(verbs.apply_network(NEW, How::default())).unwrap_err().to_string();
    assert!(error.contains("config/networks/a.xml"), "{error}");
    assert_eq!(everything(&verbs, &fake, &directory), found);
}
