//! Networks on what the host has: whatever becomes of the daemon, the host's own links stay as they are, and no port is
//! left that nobody has.

use super::*;
use crate::{apply::fake, host::Link, model::MacAddr, shape::Shape};

const ON_BRIDGE: &str = "<network><name>n</name><forward mode='bridge'/><bridge name='br0'/><bandwidth>\
    <outbound average='1000'/></bandwidth><portgroup name='red' default='yes'><vlan><tag id='10'/></vlan><bandwidth>\
    <inbound average='100'/></bandwidth></portgroup></network>";
const MACVTAP: &str = "<network><name>n</name><forward mode='passthrough'><interface dev='eth0'/></forward></network>";

/// A host with a bridge of its own.
fn host() -> Fake {
    let fake = Fake::new();
    let kind = LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: true };
    fake.world().host.links.push(Link { up: true, ..fake::link(90, "br0", kind) });
    fake
}

fn ports(fake: &Fake) -> Vec<Link> {
    let links = fake.world().host.links.clone();
    links.into_iter().filter(|link| matches!(link.kind, LinkKind::Tun | LinkKind::Macvtap)).collect()
}

/// Starts, adds a port, stops; the port that was handed over, and whether it got to the end.
fn script(verbs: &Verbs<Fake>) -> (Option<MacAddr>, Option<()>) {
    let mut handed_over = None;
    let end = (|| {
        drop(verbs.start("n").now_or_never()?);
        if let Ok((port, _)) = verbs.add_port(&port("n", "vm1", None)).now_or_never()? {
            handed_over = port.mac.parse().ok();
        }
        drop(verbs.destroy("n").now_or_never()?);
        Some(())
    })();
    (handed_over, end)
}

#[test]
fn killed_or_failing_anywhere_the_host_keeps_what_it_had_and_no_port_is_left_that_nobody_has() {
    let troubles: [fn(usize) -> Trouble; 3] = [Trouble::Fail, Trouble::HangBefore, Trouble::HangAfter];
    for (text, trouble) in [ON_BRIDGE, MACVTAP].into_iter().flat_map(|text| troubles.map(|trouble| (text, trouble))) {
        for at in 1.. {
            let case = format!("{:?} of {text}", trouble(at));
            let (fake, directory) = (host(), directory());
            let found = fake.traces();
            let verbs = daemon(&fake, &directory).unwrap();
            now(verbs.define(text)).unwrap();
            fake.world().calls = 0;
            fake.world().trouble = Some(trouble(at));
            let (handed_over, end) = script(&verbs);
            let calls = fake.world().calls;
            drop(verbs);
            fake.kill_daemon();
            // What was not handed over was closed with the daemon: a tap goes with that.
            if handed_over.is_none() {
                fake.world().owned.clear();
                ports(&fake)
                    .iter()
                    .filter(|port| port.kind == LinkKind::Tun)
                    .for_each(|tap| fake.remove_link(tap.index));
            }
            let verbs = daemon(&fake, &directory).unwrap();
            let left = ports(&fake);
            assert_eq!(left.len(), usize::from(handed_over.is_some()), "{case}: {left:?}");
            for name in active(&verbs) {
                let live = verbs.registry().find_live(&name).unwrap().1.clone();
                let desired = verbs.registry().desired(&live.network).unwrap();
                let in_place = InPlace { firewall: true, services: true, forwards: true };
                let steps = plan::plan(&desired, &fake.world().host.clone(), in_place);
                assert_eq!(plan::show(&steps), "", "{case}");
                now(verbs.destroy(&name)).unwrap();
            }
            assert!(left.iter().all(|_| ports(&fake).iter().all(|port| port.master.is_none())), "{case}");
            assert!(ports(&fake).iter().all(|port| port.kind == LinkKind::Tun || !port.up), "{case}");
            ports(&fake).iter().for_each(|port| fake.remove_link(port.index));
            assert_eq!(fake.traces(), found, "{case}");
            if end.is_some() && at > calls {
                break;
            }
        }
    }
}

#[test]
fn a_macvtap_whose_guest_has_ended_is_removed_whether_a_daemon_ran_or_not() {
    let (fake, directory) = (host(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.create(MACVTAP)).unwrap();
    for down in [false, true] {
        now(verbs.add_port(&port("n", "vm1", None))).unwrap();
        let index = ports(&fake)[0].index;
        now(verbs.closed(index));
        assert_eq!(ports(&fake).len(), 1, "one of several descriptors was closed");
        fake.world().owned.clear();
        if down {
            fake.kill_daemon();
            let verbs = daemon(&fake, &directory).unwrap();
            assert!(verbs.list_ports(None).unwrap().ports.len() <= 1);
        } else {
            now(verbs.closed(index));
        }
        assert_eq!(ports(&fake), []);
        now(verbs.link_gone(index, "macvtap0"));
        assert_eq!(verbs.list_ports(None).unwrap().ports, []);
    }
}

#[test]
fn limits_and_vlans_that_are_taken_away_come_back_and_a_bridge_of_the_host_does_not() {
    let (fake, directory) = (host(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.create(ON_BRIDGE)).unwrap();
    now(verbs.add_port(&port("n", "vm1", None))).unwrap();
    let index = ports(&fake)[0].index;
    let whole = fake.world().host.clone();
    let vlan = plan::PortVlan { id: 10, native: true, untagged: true };
    assert_eq!(whole.vlans.get(&index), Some(&vec![vlan]));
    assert_eq!(whole.shapes.len(), 2);
    fake.world().host.shapes.clear();
    now(verbs.reconcile()).unwrap();
    assert_eq!(fake.world().host, whole);
    fake.world().host.shapes.insert(index, Shape::default());
    fake.world().host.vlans.insert(index, vec![plan::PortVlan { id: 1, ..vlan }]);
    now(verbs.reconcile()).unwrap();
    assert_eq!(fake.world().host, whole);
    fake.remove_link(90);
    now(verbs.link_gone(90, "br0"));
    now(verbs.reconcile()).unwrap();
    assert!(fake.world().host.link("br0").is_none());
    assert_eq!(active(&verbs), ["n"]);
    let kind = LinkKind::Bridge { stp: false, forward_delay: 1500, vlan_filtering: true };
    fake.world().host.links.push(Link { up: true, ..fake::link(91, "br0", kind) });
    now(verbs.reconcile()).unwrap();
    assert_eq!(ports(&fake)[0].master, Some(91));
    assert_eq!(fake.world().host.vlans.get(&index), Some(&vec![vlan]));
}
