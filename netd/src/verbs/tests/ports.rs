//! Ports of guests that go on whatever becomes of their network and of the daemon.

use super::*;

#[test]
fn a_guest_keeps_its_port_wherever_the_daemon_is_killed_while_the_network_stops() {
    let mut at = 1;
    loop {
        let (fake, directory) = (Fake::new(), directory());
        let verbs = daemon(&fake, &directory).unwrap();
        now(verbs.start("default")).unwrap();
        let (port, _) = now(verbs.add_port(&port("default", "vm1", None))).unwrap();
        let call = fake.world().calls + at;
        fake.world().trouble = Some(Trouble::HangBefore(call));
        let killed = verbs.destroy("default").now_or_never().is_none();
        fake.kill_daemon();
        let verbs = daemon(&fake, &directory).unwrap();
        assert_eq!(active(&verbs), Vec::<String>::new(), "at call {at}");
        assert_eq!(verbs.list_ports(None).unwrap().ports, [port], "at call {at}");
        now(verbs.start("default")).unwrap();
        let host = fake.world().host.clone();
        assert_eq!(host.link("vnet0").unwrap().master, Some(host.link("virbr0").unwrap().index), "at call {at}");
        if !killed {
            break;
        }
        at += 1;
    }
    assert!(at > 1, "stopping takes no call");
}
