//! Settings that another program changes under an active network.

use std::time::{Duration, Instant};

use crate::harness::{Space, wait_for};

fn value(space: &Space, name: &str) -> String {
    space.run(&format!("sysctl -n {name}")).trim().to_owned()
}

/// Sets it and waits until it is as it was; says how long that took.
fn put_right(space: &Space, name: &str, wrong: &str) -> Duration {
    let right = value(space, name);
    assert_ne!(right, wrong);
    space.run(&format!("sysctl -qw {name}={wrong}"));
    let begun = Instant::now();
    wait_for(name, || value(space, name) == right);
    begun.elapsed()
}

#[test]
fn sysctls_of_the_bridge_are_put_right() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    for (name, wrong) in [("net.ipv6.conf.virbr0.disable_ipv6", "0"), ("net.ipv4.conf.virbr0.route_localnet", "1")] {
        println!("{name} after {:?}", put_right(&space, name, wrong));
    }
    let six =
        "<network><name>six</name><bridge name='br6'/><ip family='ipv6' address='fd00:6::1' prefix='64'/></network>";
    space.call(async |client| client.create_network(six.to_owned()).await).unwrap();
    for name in ["disable_ipv6", "accept_ra", "autoconf"] {
        println!("{name} after {:?}", put_right(&space, &format!("net.ipv6.conf.br6.{name}"), "1"));
    }
    // With IPv6 its address had gone, too.
    wait_for("the address", || space.run("ip -o -6 address show dev br6").contains("fd00:6::1/64"));
}

#[test]
fn forwarding_is_turned_on_again_once_and_whoever_turns_it_off_twice_wins() {
    let space = Space::new();
    let found = space.traces();
    let _daemon = space.daemon();
    space.start("default");
    println!("ip_forward after {:?}", put_right(&space, "net.ipv4.ip_forward", "0"));
    space.run("sysctl -qw net.ipv4.ip_forward=0");
    // Twice as long as both ways of noticing take.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(value(&space, "net.ipv4.ip_forward"), "0", "netd fights");
    space.destroy("default");
    assert_eq!(space.traces(), found);
}
