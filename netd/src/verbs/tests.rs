//! The verbs on a host made of values and a disk that is real: killed anywhere, the next daemon ends in a clean state.

mod events;
mod hooks;
mod links;
mod model;
mod ports;
mod random;

use std::{path::Path, sync::Arc};

use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::{
    apply::fake::{Fake, Traces, Trouble},
    host::LinkKind,
    plan::{self, InPlace, tests::TOPOLOGIES},
    registry::{PortRequest, forwards::Leased},
};

/// A directory that goes with the test; in memory, where syncing costs nothing.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// A daemon on this host, as it is after it has started. `None` if it was killed while starting.
pub(super) fn daemon(fake: &Fake, directory: &TempDir) -> Option<Arc<Verbs<Fake>>> {
    Some(start_daemon(fake, directory)?.unwrap())
}

/// The same, on a host where it may not be able to start.
fn start_daemon(fake: &Fake, directory: &TempDir) -> Option<Result<Arc<Verbs<Fake>>, VerbError>> {
    let (store, first) = Store::open(&directory.path().join("config"), &directory.path().join("runtime")).unwrap();
    let verbs = Verbs::new(fake.clone(), store, Registry::new(Path::new("/etc/resolv.conf")), Bus::default());
    Some(verbs.recover(first).now_or_never()?.map(|()| verbs))
}

/// Everything is immediate on a host made of values; what is not will never be.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("stuck")
}

fn active(verbs: &Verbs<Fake>) -> Vec<String> {
    verbs.list().networks.into_iter().filter(|network| network.active).map(|network| network.name).collect()
}

/// What the registry says is what is there: every active network whole, and nothing of any other.
fn assert_true(verbs: &Verbs<Fake>, fake: &Fake, directory: &TempDir, found: &Traces, case: &str) {
    let host = fake.world().host.clone();
    let registry = verbs.registry();
    for (name, entry) in registry.networks() {
        let Some(live) = &entry.live else { continue };
        let world = fake.world();
        let in_place = InPlace {
            firewall: live
                .desired
                .bridge()
                .is_some_and(|bridge| world.table.as_ref().is_some_and(|t| t.contains_key(bridge))),
            services: world.services.contains(name.as_str()),
            forwards: true,
        };
        drop(world);
        assert_eq!(plan::show(&plan::plan(&live.desired, &host, in_place)), "", "{case}: {name}");
    }
    let live = registry.firewalls().len();
    let records = std::fs::read_dir(directory.path().join("runtime/networks")).unwrap().count();
    assert_eq!(records, live, "{case}: records");
    let world = fake.world();
    assert_eq!(world.table.as_ref().map_or(0, |table| table.len()), live, "{case}: rules");
    assert_eq!(world.services.len(), live, "{case}: servers");
    assert_eq!(world.listening.len(), live, "{case}: listeners");
    assert_eq!(world.forwards, registry.forwards(&Leased(world.leases.clone())), "{case}: forwards");
    let bridges = host.links.iter().filter(|link| matches!(link.kind, LinkKind::Bridge { .. })).count();
    assert_eq!(bridges, live, "{case}: bridges");
    drop(world);
    if live == 0 {
        assert_eq!(&fake.traces(), found, "{case}");
    }
}

/// Stops everything, and starts and stops `network` once more: it all works, and leaves nothing.
fn assert_usable(verbs: &Verbs<Fake>, fake: &Fake, found: &Traces, case: &str) {
    for name in active(verbs) {
        now(verbs.destroy(&name)).unwrap();
    }
    assert_eq!(&fake.traces(), found, "{case}: after stopping");
    let defined: Vec<String> = verbs.list().networks.into_iter().map(|network| network.name).collect();
    for name in &defined {
        now(verbs.start(name)).unwrap();
    }
    for name in &defined {
        now(verbs.destroy(name)).unwrap();
    }
    assert_eq!(&fake.traces(), found, "{case}: after once more");
}

const OTHER: &str = "<network><name>other</name><forward mode='nat'/><bridge name='br-other'/>\
                     <ip address='172.20.0.1' prefix='24'/></network>";

/// What is done before the daemon is killed, and that it is killed during.
#[derive(Clone, Copy, Debug)]
enum Script {
    Start,
    Destroy,
    DestroyTheFirstOfTwo,
    Restart,
    RestartWithTwo,
}

impl Script {
    fn prepare(self, verbs: &Verbs<Fake>, name: &str) {
        if matches!(self, Script::Destroy | Script::DestroyTheFirstOfTwo | Script::Restart | Script::RestartWithTwo) {
            now(verbs.start(name)).unwrap();
        }
        if matches!(self, Script::DestroyTheFirstOfTwo | Script::RestartWithTwo) {
            now(verbs.define(OTHER)).unwrap();
            now(verbs.start("other")).unwrap();
        }
    }

    /// `None` if the daemon was killed.
    fn run(self, verbs: Arc<Verbs<Fake>>, fake: &Fake, directory: &TempDir, name: &str) -> Option<()> {
        match self {
            Script::Start => drop(verbs.start(name).now_or_never()?.unwrap()),
            Script::Destroy | Script::DestroyTheFirstOfTwo => drop(verbs.destroy(name).now_or_never()?.unwrap()),
            Script::Restart | Script::RestartWithTwo => {
                drop(verbs);
                fake.world().services.clear();
                daemon(fake, directory)?;
            }
        }
        Some(())
    }
}

/// Runs the script on a new host, in trouble at the given call. Returns how many calls it took if it was not killed.
fn killed_during(script: Script, text: &str, trouble: Option<fn(usize) -> Trouble>, at: usize) -> Option<usize> {
    let case = format!("{script:?} at call {at} of {text}");
    let (fake, directory) = (Fake::new(), directory());
    let found = fake.traces();
    let verbs = daemon(&fake, &directory).unwrap();
    let name = crate::xml::parse(text).unwrap().name.to_string();
    if name != "default" {
        now(verbs.define(text)).unwrap();
    }
    script.prepare(&verbs, &name);
    let before: Vec<_> = fake.world().host.links.clone();
    fake.world().calls = 0;
    fake.world().trouble = trouble.map(|trouble| trouble(at));
    let end = script.run(verbs, &fake, &directory, &name);
    let calls = fake.world().calls;
    fake.kill_daemon();

    let verbs = daemon(&fake, &directory).unwrap();
    assert_true(&verbs, &fake, &directory, &found, &case);
    if matches!(script, Script::Restart | Script::RestartWithTwo) {
        assert_eq!(fake.world().host.links, before, "{case}: a restart touched a link");
    }
    assert_usable(&verbs, &fake, &found, &case);
    end.map(|()| calls)
}

#[test]
fn killed_anywhere_the_next_daemon_ends_in_a_clean_state() {
    for (_, text) in TOPOLOGIES {
        for script in
            [Script::Start, Script::Destroy, Script::DestroyTheFirstOfTwo, Script::Restart, Script::RestartWithTwo]
        {
            let calls = killed_during(script, text, None, 0).unwrap();
            assert!(calls > 0, "{script:?}");
            for at in 1..=calls {
                assert_eq!(killed_during(script, text, Some(Trouble::HangBefore), at), None);
                assert_eq!(killed_during(script, text, Some(Trouble::HangAfter), at), None);
            }
        }
    }
}

#[test]
fn a_failed_start_leaves_no_record_and_no_network() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let found = fake.traces();
    let calls = {
        let before = fake.world().calls;
        now(verbs.start("default")).unwrap();
        let after = fake.world().calls;
        now(verbs.destroy("default")).unwrap();
        after - before
    };
    for at in 1..=calls {
        let next = fake.world().calls + at;
        fake.world().trouble = Some(Trouble::Fail(next));
        let error = now(verbs.start("default")).unwrap_err();
        assert!(error.to_string().contains("told to fail"), "{error}");
        assert_eq!(fake.traces(), found, "call {at}");
        assert!(active(&verbs).is_empty());
        assert_eq!(std::fs::read_dir(directory.path().join("runtime/networks")).unwrap().count(), 0);
    }
}

fn port(network: &str, guest: &str, mac: Option<&str>) -> PortRequest {
    PortRequest {
        network: network.into(),
        guest: Some(guest.into()),
        mac: mac.map(str::to_owned),
        queues: 1,
        guards: None,
        portgroup: None,
    }
}

#[test]
fn ports_survive_the_daemon_and_go_with_their_tap() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    let (first, _) = now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    let (second, _) = now(verbs.add_port(&port("default", "vm2", None))).unwrap();
    assert_eq!((first.interface.as_str(), second.interface.as_str()), ("vnet0", "vnet1"));

    let index = fake.world().host.link("vnet0").unwrap().index;
    fake.kill_daemon();
    fake.remove_link(index);
    let verbs = daemon(&fake, &directory).unwrap();
    assert_eq!(verbs.list_ports(None).unwrap().ports, std::slice::from_ref(&second));

    let index = fake.world().host.link("vnet1").unwrap().index;
    fake.remove_link(index);
    assert!(!now(verbs.link_gone(index, "vnet1")));
    assert!(verbs.list_ports(None).unwrap().ports.is_empty());
    assert_eq!(std::fs::read_dir(directory.path().join("runtime/ports")).unwrap().count(), 0);
}

#[test]
fn a_tap_of_the_same_name_that_is_another_is_not_adopted() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    fake.kill_daemon();
    for link in fake.world().host.links.iter_mut().filter(|link| link.name == "vnet0") {
        link.index += 1000;
    }
    let verbs = daemon(&fake, &directory).unwrap();
    assert!(verbs.list_ports(None).unwrap().ports.is_empty());
}

#[test]
fn a_guests_tap_is_plugged_in_again_when_its_network_starts_again() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    now(verbs.destroy("default")).unwrap();
    assert_eq!(fake.world().host.link("vnet0").unwrap().master, None);
    now(verbs.start("default")).unwrap();
    let host = fake.world().host.clone();
    assert_eq!(host.link("vnet0").unwrap().master, Some(host.link("virbr0").unwrap().index));
}

#[test]
fn a_deleted_bridge_is_put_back_with_its_ports() {
    let (fake, directory) = (Fake::new(), directory());
    let found = fake.traces();
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    let bridge = fake.world().host.link("virbr0").unwrap().index;
    fake.remove_link(bridge);
    assert!(now(verbs.link_gone(bridge, "virbr0")));
    now(verbs.reconcile()).unwrap();
    assert_true(&verbs, &fake, &directory, &found, "bridge deleted");
    let host = fake.world().host.clone();
    assert_eq!(host.link("vnet0").unwrap().master, Some(host.link("virbr0").unwrap().index));
}

#[test]
fn a_link_has_only_its_own_network_looked_at() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    let other = "<network><name>other</name><bridge name='virbr7'/><ip address='10.7.0.1' prefix='24'/></network>";
    now(verbs.create(other)).unwrap();
    now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    let down = |fake: &Fake| -> Vec<String> {
        let links = fake.world().host.links.clone();
        let bridges = links.into_iter().filter(|link| link.name.starts_with("virbr") && !link.up);
        bridges.map(|link| link.name).collect()
    };
    for links in [["virbr0"], ["vnet0"]] {
        fake.world().host.links.iter_mut().for_each(|link| link.up &= !link.name.starts_with("virbr"));
        now(verbs.reconcile_links(&links.map(str::to_owned).into())).unwrap();
        assert_eq!(down(&fake), ["virbr7"], "{links:?}");
    }
    now(verbs.reconcile_links(&["eth0".to_owned()].into())).unwrap();
    assert_eq!(down(&fake), ["virbr7"], "a link of nobody");
}

#[test]
fn what_is_pulled_off_a_running_network_is_put_back() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    let whole = fake.traces();
    let bridge = fake.world().host.link("virbr0").unwrap().index;
    for link in &mut fake.world().host.links {
        match link.name.as_str() {
            "virbr0" => link.up = false,
            "vnet0" => link.master = None,
            _ => {}
        }
    }
    fake.world().host.addresses.retain(|address| address.link != bridge);
    fake.world().host.routes.retain(|route| route.link != Some(bridge));
    fake.world().table = None;
    now(verbs.reconcile()).unwrap();
    assert_eq!(fake.traces(), whole);
    let calls = fake.world().calls;
    now(verbs.reconcile()).unwrap();
    assert_eq!(fake.world().calls, calls + 1, "looking is all there is to do");
}

#[test]
fn a_tap_that_someone_put_elsewhere_stays_there() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    now(verbs.add_port(&port("default", "vm1", None))).unwrap();
    for link in fake.world().host.links.iter_mut().filter(|link| link.name == "vnet0") {
        link.master = Some(2);
    }
    let found = fake.traces();
    now(verbs.reconcile()).unwrap();
    assert_eq!(fake.traces(), found);
}

#[test]
fn forwarding_is_turned_on_again_once_and_then_left_to_who_turns_it_off() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    let turn_off = |after: u64| {
        let mut world = fake.world();
        world.elapsed += std::time::Duration::from_secs(after);
        world.host.forwarding = false;
        drop(world);
        let drifted = !verbs.drift().is_empty();
        now(verbs.reconcile()).unwrap();
        (drifted, fake.world().host.forwarding)
    };
    assert_eq!(turn_off(0), (true, true), "it was an accident");
    assert_eq!(turn_off(10), (true, false), "it was not");
    assert_eq!(turn_off(30), (false, false), "nobody looks for a minute");
    assert_eq!(turn_off(40), (true, true), "another try");
    assert_eq!(turn_off(3600), (true, true), "long ago");
}

#[test]
fn a_network_whose_bridge_vanished_while_no_daemon_ran_is_inactive_and_leaves_nothing() {
    let (fake, directory) = (Fake::new(), directory());
    let found = fake.traces();
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.start("default")).unwrap();
    fake.kill_daemon();
    let bridge = fake.world().host.link("virbr0").unwrap().index;
    fake.remove_link(bridge);
    let verbs = daemon(&fake, &directory).unwrap();
    assert!(active(&verbs).is_empty());
    assert_eq!(fake.traces(), found);
}

#[test]
fn autostart_happens_once_in_a_boot() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    now(verbs.set_autostart("default", true)).unwrap();
    fake.kill_daemon();
    std::fs::remove_file(directory.path().join("runtime/boot")).unwrap();
    let verbs = daemon(&fake, &directory).unwrap();
    assert_eq!(active(&verbs), ["default"]);
    now(verbs.destroy("default")).unwrap();
    fake.kill_daemon();
    let verbs = daemon(&fake, &directory).unwrap();
    assert!(active(&verbs).is_empty(), "what was stopped by hand stays stopped");
    assert!(verbs.list().networks[0].autostart);
}

#[test]
fn a_broken_definition_is_passed_over_and_kept() {
    let (fake, directory) = (Fake::new(), directory());
    drop(daemon(&fake, &directory).unwrap());
    let broken = directory.path().join("config/networks/broken.xml");
    std::fs::write(&broken, "<network>\n<name>broken</nam>").unwrap();
    let misnamed = directory.path().join("config/networks/misnamed.xml");
    std::fs::write(&misnamed, "<network><name>another</name></network>").unwrap();
    let verbs = daemon(&fake, &directory).unwrap();
    let names: Vec<String> = verbs.list().networks.into_iter().map(|network| network.name).collect();
    assert_eq!(names, ["default"]);
    assert!(broken.exists() && misnamed.exists());
}

#[test]
fn a_disk_that_refuses_stops_the_start_and_nothing_is_left() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let found = fake.traces();
    // A directory where the record's file should be: writing it fails whoever we are.
    std::fs::create_dir(directory.path().join("runtime/networks/default.json")).unwrap();
    let error: netd_api::Error = now(verbs.start("default")).unwrap_err().into();
    assert!(error.to_string().contains("runtime/networks/default.json"), "{error}");
    assert_eq!(fake.traces(), found);
    assert!(!directory.path().join("runtime/networks/.incomplete").exists());
}
