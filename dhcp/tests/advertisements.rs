//! Router advertisements to a kernel that believes them: Linux's own, in a namespace.
//!
//! Needs root; without it these tests fail.

mod lab;

use lab::{
    Guest, NETWORK, in_namespace,
    ipv6::{bridge_has, ipv6},
    serve, until,
};

/// What the guest's kernel made of advertisements.
fn believes(guest: &Guest) -> String {
    let shown = ["ip -6 -d addr show dev eth0 scope global", "ip -6 -d route show dev eth0"];
    shown.map(|command| guest.prints(command)).join("")
}

#[test]
fn rfc4861_a_kernel_gets_address_router_and_mtu() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        bridge_has("2001:db8:ca2:2::1");
        let services = serve(directory.path(), ipv6()).await;
        let guest = Guest::new(1);
        guest.solicits();
        until("the guest has an address", || believes(&guest).contains("2001:db8:ca2:2:5054:ff:feaa:1/64")).await;
        let seen = believes(&guest);
        assert!(seen.contains("default via fe80::5054:ff:fe00:1 proto ra"), "{seen}");
        let mtu = guest.prints("sysctl -n net.ipv6.conf.eth0.mtu");
        assert_eq!(mtu.trim(), "1400", "{seen}");
        let ping = guest.output("ping -6 -c 1 -W 10 2001:db8:ca2:2::1").await;
        assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));

        // §6.2.5: with the end of the network the router goes at once, and the address is for nothing new.
        services.stop(NETWORK).await;
        until("the router is gone", || !believes(&guest).contains("default via")).await;
        until("the address is deprecated", || believes(&guest).contains("deprecated")).await;
    });
}
