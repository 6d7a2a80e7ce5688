//! Port forwards on a host made of values: they follow guests, survive the daemon, and leave nothing.

use std::net::Ipv4Addr;

use dhcp::config::Mac;
use netd_api::{Forward, ForwardTarget, Protocol, calls::DeleteForward};

use super::super::tests::{daemon, directory, now};
use crate::{
    apply::fake::{Fake, Trouble},
    registry::PortRequest,
};

fn forward(port: u32, guest: &str) -> Forward {
    Forward {
        network: "default".into(),
        protocol: Protocol::Tcp,
        first_port: port,
        last_port: port,
        address: None,
        targets: vec![ForwardTarget { guest: Some(guest.into()), address: None, port: 22 }],
    }
}

fn delete(port: u32) -> DeleteForward {
    DeleteForward {
        network: "default".into(),
        protocol: Protocol::Tcp,
        first_port: port,
        last_port: port,
        address: None,
    }
}

fn lease(mac: &str, last: u8, hostname: Option<&str>) -> dhcp::Lease {
    dhcp::Lease {
        mac: Mac(mac.parse::<crate::model::MacAddr>().unwrap().0),
        address: Ipv4Addr::new(192, 168, 122, last),
        prefix: 24,
        hostname: hostname.map(str::to_owned),
        client_id: None,
        expiry: None,
    }
}

/// The last byte of each target of the only forward.
fn targets(fake: &Fake) -> Vec<u8> {
    let forwards = fake.world().forwards.clone();
    assert_eq!(forwards.len(), 1);
    forwards[0]
        .targets
        .iter()
        .map(|(address, _)| address.to_string().rsplit('.').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_forward_follows_its_guest() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    let reply = now(verbs.add_forward(&forward(2222, "vm1"))).unwrap();
    assert_eq!(
        reply.notices,
        ["guest 'vm1' has no address on network 'default' yet: connections are rejected until it has one"]
    );
    assert!(targets(&fake).is_empty());

    let request = PortRequest {
        network: "default".into(),
        guest: Some("vm1".into()),
        mac: None,
        queues: 1,
        guards: None,
        portgroup: None,
    };
    let (port, _) = now(verbs.add_port(&request)).unwrap();
    for last in [50, 51] {
        fake.world().leases = vec![lease(&port.mac, last, Some("whatever-it-says"))];
        now(verbs.follow_guests(None));
        assert_eq!(targets(&fake), [last]);
    }
    let calls = fake.world().calls;
    now(verbs.follow_guests(None));
    assert_eq!(fake.world().calls, calls, "nothing changed, nothing to do");

    fake.world().leases.clear();
    now(verbs.follow_guests(None));
    assert!(targets(&fake).is_empty());

    // A guest that is gone is not looked for where it was, though its lease lasts.
    fake.world().leases = vec![lease(&port.mac, 52, Some("vm1"))];
    now(verbs.follow_guests(None));
    assert_eq!(targets(&fake), [52]);
    let index = fake.world().host.link("vnet0").unwrap().index;
    fake.remove_link(index);
    now(verbs.link_gone(index, "vnet0"));
    now(verbs.follow_guests(None));
    assert!(targets(&fake).is_empty());
}

#[test]
fn a_forward_is_in_the_definition_and_survives_daemon_and_flush() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let found = fake.traces();
    let reply = now(verbs.add_forward(&forward(2222, "vm1"))).unwrap();
    assert_eq!(reply.notices, ["network 'default' is not active: the forward works when it is started"]);
    assert_eq!(fake.traces(), found);
    now(verbs.start("default")).unwrap();
    let whole = fake.traces();
    assert!(fake.world().host.link("virbr0").unwrap().route_localnet);
    for inactive in [true, false] {
        assert!(verbs.dump_xml("default", inactive).unwrap().contains("<netd:to guest='vm1' port='22'/>"));
    }

    fake.world().table = None;
    fake.world().forwards.clear();
    now(verbs.reconcile()).unwrap();
    assert_eq!(fake.traces(), whole, "after a flush");

    fake.kill_daemon();
    fake.world().forwards.clear();
    let verbs = daemon(&fake, &directory).unwrap();
    assert_eq!(fake.traces(), whole, "after a restart");

    now(verbs.delete_forward(delete(2222))).unwrap();
    assert!(fake.world().forwards.is_empty());
    assert!(!fake.world().host.link("virbr0").unwrap().route_localnet);
    assert!(!verbs.dump_xml("default", true).unwrap().contains("netd:"));
    now(verbs.destroy("default")).unwrap();
    assert_eq!(fake.traces(), found);
}

#[test]
fn a_change_that_fails_anywhere_leaves_everything_as_it_was() {
    for broken_disk in [false, true] {
        for add in [true, false] {
            let (fake, directory) = (Fake::new(), directory());
            let verbs = daemon(&fake, &directory).unwrap();
            now(verbs.start("default")).unwrap();
            if !add {
                now(verbs.add_forward(&forward(80, "vm1"))).unwrap();
            }
            let (before, xml) = (fake.traces(), verbs.dump_xml("default", true).unwrap());
            let next = fake.world().calls + if add { 2 } else { 1 };
            let definition = directory.path().join("config/networks/default.xml");
            if broken_disk {
                std::fs::remove_file(&definition).unwrap();
                std::fs::create_dir(&definition).unwrap();
            } else if add {
                // The rules are changed, then the bridge's sysctl.
                fake.world().trouble = Some(Trouble::Fail(next));
            } else {
                continue;
            }
            let result =
                if add { now(verbs.add_forward(&forward(80, "vm1"))) } else { now(verbs.delete_forward(delete(80))) };
            assert!(result.is_err(), "broken disk {broken_disk}, add {add}");
            fake.world().trouble = None;
            assert_eq!(fake.traces(), before, "broken disk {broken_disk}, add {add}");
            assert_eq!(verbs.dump_xml("default", true).unwrap(), xml);
            assert_eq!(verbs.dump_xml("default", false).unwrap().contains("netd:"), !add);
        }
    }
}

#[test]
fn a_table_that_someone_changed_is_made_anew() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    now(verbs.add_forward(&forward(80, "vm1"))).unwrap();
    fake.world().forwards.clear();
    now(verbs.add_forward(&forward(81, "vm1"))).unwrap();
    assert_eq!(fake.world().forwards.len(), 2);
}
