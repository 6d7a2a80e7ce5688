//! When hooks are called, and that what they refuse leaves nothing.

use super::{daemon, directory, now};
use crate::{
    apply::fake::{Fake, Trouble},
    hooks::Operation,
    registry::PortRequest,
    verbs::VerbError,
};

fn port(guest: &str) -> PortRequest {
    PortRequest { network: "default".into(), guest: Some(guest.into()), queues: 1, ..PortRequest::default() }
}

/// The hooks since the last call: `network operation (networks served, taps)`.
fn hooked(fake: &Fake) -> Vec<String> {
    std::mem::take(&mut fake.world().hooked)
}

#[test]
fn hooks_hear_of_a_networks_and_a_ports_whole_life() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    assert_eq!(hooked(&fake), [""; 0]);
    now(verbs.start("default")).unwrap();
    assert_eq!(hooked(&fake), ["default start (0, 0)", "default started (1, 0)"]);
    assert!(fake.world().hook_input.starts_with("<hookData>\n<network>\n  <name>default</name>\n"));
    now(verbs.add_port(&port("vm1"))).unwrap();
    assert_eq!(hooked(&fake), ["default port-created (1, 0)"]);
    let input = fake.world().hook_input.clone();
    assert!(input.contains("<networkport>") && input.contains("<name>vm1</name>"), "{input}");
    assert!(input.contains("<plug type='network' bridge='virbr0'/>"), "{input}");
    let index = fake.world().host.link("vnet0").unwrap().index;
    fake.remove_link(index);
    now(verbs.link_gone(index, "vnet0"));
    assert_eq!(hooked(&fake), ["default port-deleted (1, 0)"]);
    // The next daemon starts nothing that runs: no hook.
    drop(verbs);
    fake.kill_daemon();
    let verbs = daemon(&fake, &directory).unwrap();
    assert_eq!(hooked(&fake), [""; 0]);
    now(verbs.destroy("default")).unwrap();
    assert_eq!(hooked(&fake), ["default stopped (0, 0)"]);
    assert!(fake.world().hook_input.contains("<name>default</name>"));
}

#[test]
fn a_hook_that_refuses_leaves_nothing_and_those_told_after_the_fact_change_nothing() {
    let (fake, directory) = (Fake::new(), directory());
    let verbs = daemon(&fake, &directory).unwrap();
    let found = fake.traces();
    for (operation, calls) in [
        (Operation::Start, vec!["default start (0, 0)"]),
        (Operation::Started, vec!["default start (0, 0)", "default started (1, 0)", "default stopped (0, 0)"]),
    ] {
        fake.world().refusing_hook = Some(operation);
        let error = now(verbs.start("default")).unwrap_err();
        assert!(matches!(error, VerbError::Hook(_)), "{error}");
        let told = error.to_string();
        assert!(told.starts_with("Hook script execution failed: internal error: Child process"), "{told}");
        assert_eq!(hooked(&fake), calls);
        assert_eq!(fake.traces(), found, "{operation:?}");
        assert!(!verbs.get("default").unwrap().network.active);
    }
    // A start that fails by itself is told to hooks that heard of it.
    fake.world().refusing_hook = None;
    let calls = fake.world().calls;
    fake.world().trouble = Some(Trouble::Fail(calls + 3));
    assert!(now(verbs.start("default")).is_err());
    assert_eq!(hooked(&fake), ["default start (0, 0)", "default stopped (0, 0)"]);
    fake.world().trouble = None;

    now(verbs.start("default")).unwrap();
    fake.world().refusing_hook = Some(Operation::PortCreated);
    hooked(&fake);
    assert!(matches!(now(verbs.add_port(&port("vm1"))), Err(VerbError::Hook(_))));
    assert!(verbs.list_ports(None).unwrap().ports.is_empty() && fake.world().host.link("vnet0").is_none());
    assert_eq!(hooked(&fake), ["default port-created (1, 0)"]);
    // A port that fails by itself.
    fake.world().refusing_hook = None;
    let calls = fake.world().calls;
    fake.world().trouble = Some(Trouble::Fail(calls + 1));
    assert!(now(verbs.add_port(&port("vm1"))).is_err());
    fake.world().trouble = None;
    assert_eq!(hooked(&fake), ["default port-created (1, 0)", "default port-deleted (1, 0)"]);

    fake.world().refusing_hook = Some(Operation::Stopped);
    now(verbs.destroy("default")).unwrap();
    assert_eq!(fake.traces(), found);
}
