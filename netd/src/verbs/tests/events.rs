//! What verbs and healing tell, once it is so.

use super::{daemon, directory, now};
use crate::{
    apply::fake::{Fake, Trouble},
    events::{Heard, Listener},
    registry::PortRequest,
};

fn told(listener: &mut Listener) -> Vec<String> {
    std::iter::from_fn(|| listener.waiting())
        .map(|heard| match heard {
            Heard::Event(event) => {
                let words = [&event.network, &event.interface, &event.guest, &event.detail];
                let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
                format!("{} {}", event.kind.name(), words.join(" ")).trim().to_owned()
            }
            Heard::Missed(missed) => panic!("{missed} missed"),
        })
        .collect()
}

fn port(guest: &str) -> PortRequest {
    PortRequest { network: "default".into(), guest: Some(guest.into()), queues: 1, ..PortRequest::default() }
}

#[test]
fn what_becomes_of_networks_and_ports_is_told_when_it_is_so_and_what_fails_is_not() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let mut listener = verbs.listen();
    now(verbs.start("default")).unwrap();
    assert_eq!(told(&mut listener), ["started default"]);
    let xml = "<network><name>other</name></network>";
    now(verbs.define(xml)).unwrap();
    now(verbs.undefine("other")).unwrap();
    assert_eq!(told(&mut listener), ["defined other", "undefined other"]);
    now(verbs.add_port(&port("vm1"))).unwrap();
    assert_eq!(told(&mut listener), ["port_up default vnet0 vm1"]);

    assert!(now(verbs.start("default")).is_err());
    assert!(now(verbs.add_port(&PortRequest { queues: 0, ..port("vm2") })).is_err());
    let calls = fake.world().calls;
    fake.world().trouble = Some(Trouble::Fail(calls + 1));
    assert!(now(verbs.add_port(&port("vm2"))).is_err());
    fake.world().trouble = None;
    assert_eq!(told(&mut listener), [""; 0]);

    let index = fake.world().host.link("vnet0").unwrap().index;
    fake.remove_link(index);
    now(verbs.link_gone(index, "vnet0"));
    assert_eq!(told(&mut listener), ["port_down default vnet0 vm1"]);
    now(verbs.destroy("default")).unwrap();
    assert_eq!(told(&mut listener), ["stopped default"]);
    // Without a definition it is gone when it stops, as libvirt tells it too.
    now(verbs.create(xml)).unwrap();
    now(verbs.destroy("other")).unwrap();
    assert_eq!(told(&mut listener), ["started other", "stopped other"]);
}

#[test]
fn what_is_put_right_is_told_with_what_was_wrong_and_nothing_is_where_nothing_was() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    let mut listener = verbs.listen();
    now(verbs.reconcile()).unwrap();
    assert_eq!(told(&mut listener), [""; 0]);

    let bridge = fake.world().host.link("virbr0").unwrap().index;
    fake.world().host.addresses.retain(|address| address.link != bridge);
    now(verbs.reconcile()).unwrap();
    assert_eq!(told(&mut listener), ["healed default add address 192.168.122.1/24 to virbr0"]);
    fake.remove_link(bridge);
    now(verbs.reconcile()).unwrap();
    assert_eq!(told(&mut listener), ["healed default bridge virbr0 was deleted and is back"]);
    fake.world().table = None;
    now(verbs.reconcile()).unwrap();
    assert_eq!(told(&mut listener), ["healed the firewall rules were removed and are back"]);

    // A daemon that takes over heals nothing where nothing is missing.
    drop(verbs);
    fake.kill_daemon();
    let verbs = daemon(&fake, &directory).unwrap();
    let mut listener = verbs.listen();
    now(verbs.reconcile()).unwrap();
    assert_eq!(told(&mut listener), [""; 0]);
}

#[test]
fn changed_metadata_is_told_and_kept_and_an_unwritable_disk_leaves_it_as_it_was() {
    use netd_api::{Forms, MetadataKind, calls::SetMetadata};
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let mut listener = verbs.listen();
    let set = |kind, uri: Option<&str>, text: &str| SetMetadata {
        network: "default".into(),
        kind,
        uri: uri.map(str::to_owned),
        key: Some("app".into()),
        text: Some(text.into()),
        forms: Forms::Current,
    };
    now(verbs.set_metadata(&set(MetadataKind::Title, None, "a title"))).unwrap();
    now(verbs.set_metadata(&set(MetadataKind::Element, Some("urn:a"), "<a/>"))).unwrap();
    assert_eq!(told(&mut listener), ["metadata_changed default title", "metadata_changed default element"]);
    assert!(now(verbs.set_metadata(&set(MetadataKind::Element, Some("urn:a"), "<a>"))).is_err());
    assert_eq!(told(&mut listener), [""; 0]);
    let before = verbs.dump_xml("default", true).unwrap();
    assert!(before.contains("<title>a title</title>") && before.contains("<app:a xmlns:app='urn:a'/>"), "{before}");

    let definitions = directory.path().join("config/networks");
    std::fs::rename(&definitions, directory.path().join("away")).unwrap();
    std::fs::write(&definitions, "").unwrap();
    assert!(now(verbs.set_metadata(&set(MetadataKind::Title, None, "another"))).is_err());
    assert_eq!(verbs.dump_xml("default", true).unwrap(), before);
    assert_eq!(told(&mut listener), [""; 0]);
}
