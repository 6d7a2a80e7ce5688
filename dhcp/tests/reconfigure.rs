//! Another configuration while clients are served: sockets and leases stay, and what no longer fits is told to go.

mod lab;

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use dhcp::{
    Error, Services, Started,
    config::{DnsConfig, NetworkConfig, Range4, Reservation4},
    v4::{Message, options::code},
};
use lab::{
    BRIDGE, Guest, NETWORK, SERVER, config, in_namespace, run, serve,
    wire::{self, Wire},
};

fn reserved(number: u32, address: Ipv4Addr) -> Reservation4 {
    Reservation4 { mac: Some(wire::mac(number)), name: None, address: Some(address), lease: None }
}

/// The network on 10.7.0.0/24.
fn elsewhere() -> NetworkConfig {
    let mut moved = config();
    let dhcp = moved.dhcp4.as_mut().unwrap();
    dhcp.server = "10.7.0.1/24".parse().unwrap();
    let address = |last| Ipv4Addr::new(10, 7, 0, last);
    dhcp.ranges = vec![Range4 { start: address(10), end: address(20), lease: dhcp.ranges[0].lease }];
    (dhcp.router, dhcp.dns) = (Some(address(1)), vec![address(1)]);
    moved
}

fn addresses(services: &Services) -> Vec<Ipv4Addr> {
    services.leases(NETWORK).into_iter().map(|lease| lease.address).collect()
}

/// A REQUEST for more time, to everyone: what a client in REBINDING sends.
fn rebind(guest: &Guest, number: u32, address: Ipv4Addr, xid: u32) -> Message {
    guest.enter(|| {
        let wire = Wire::open();
        let mut request = wire::message(3, wire::mac(number), xid);
        request.ciaddr = address;
        wire.broadcast(&request);
        wire.reply(xid)
    })
}

#[test]
fn a_host_added_while_served_gets_its_address_at_its_next_discover_and_every_lease_stays() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let first = guest.enter(|| Wire::open().lease(wire::mac(1), 1));
        let second = guest.enter(|| Wire::open().lease(wire::mac(2), 2));
        let kept = Ipv4Addr::new(192, 168, 122, 77);

        let mut with_host = config();
        with_host.dhcp4.as_mut().unwrap().hosts.push(reserved(1, kept));
        assert_eq!(services.reconfigure(with_host).await.unwrap(), Started { dns_port: None });
        services.drop_strays(NETWORK).await.unwrap();
        assert_eq!(addresses(&services), [first, second]);
        // Nobody else is asked to move.
        assert_eq!(wire::kind(&rebind(&guest, 2, second, 3)), 5);
        assert_eq!(guest.enter(|| Wire::open().lease(wire::mac(1), 4)), kept);
        assert_eq!(addresses(&services), [kept, second]);
    });
}

#[test]
fn a_subnet_that_moves_refuses_what_is_outside_and_finds_the_old_leases_when_it_moves_back() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let old = guest.enter(|| Wire::open().lease(wire::mac(1), 1));
        run(&format!("ip addr add 10.7.0.1/24 dev {BRIDGE}"));

        services.reconfigure(elsewhere()).await.unwrap();
        assert_eq!(addresses(&services), [] as [Ipv4Addr; 0], "an address of another subnet is no lease");
        let nak = rebind(&guest, 1, old, 2);
        assert_eq!((wire::kind(&nak), nak.options.get(code::MESSAGE)), (6, Some(&b"wrong network"[..])));

        services.reconfigure(config()).await.unwrap();
        assert_eq!(addresses(&services), [old]);
        assert_eq!(wire::kind(&rebind(&guest, 1, old, 3)), 5);

        services.reconfigure(elsewhere()).await.unwrap();
        services.drop_strays(NETWORK).await.unwrap();
        let new = guest.enter(|| Wire::open().lease(wire::mac(1), 4));
        assert_eq!(new.octets()[..3], [10, 7, 0]);
        services.reconfigure(config()).await.unwrap();
        assert_eq!(addresses(&services), [] as [Ipv4Addr; 0], "dropped is dropped");
    });
}

#[test]
fn dhcp_and_dns_are_turned_on_and_off_each_without_the_other_noticing() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let address = guest.enter(|| Wire::open().lease(wire::mac(1), 1));
        let dns = DnsConfig {
            listen: vec![SERVER.into()],
            subnets: vec!["192.168.122.0/24".parse().unwrap()],
            resolv_conf: directory.path().join("resolv.conf"),
            ..DnsConfig::default()
        };
        let with_dns = NetworkConfig { dns: Some(dns.clone()), ..config() };
        assert_eq!(services.reconfigure(with_dns).await.unwrap(), Started { dns_port: Some(53) });
        assert_eq!(guest.enter(|| Wire::open().lease(wire::mac(1), 2)), address);

        let only_dns = NetworkConfig { dns: Some(dns), dhcp4: None, ..config() };
        assert_eq!(services.reconfigure(only_dns).await.unwrap(), Started { dns_port: Some(53) });
        guest.enter(|| {
            let wire = Wire::open();
            wire.broadcast(&wire::discover(wire::mac(2), 3));
            assert_eq!(wire.reply_until(Instant::now() + Duration::from_millis(300)), None);
        });
        assert_eq!(addresses(&services), [address], "a lease outlives its server");

        services.reconfigure(config()).await.unwrap();
        drop(UdpSocket::bind((SERVER, 53)).unwrap());
        assert_eq!(guest.enter(|| Wire::open().lease(wire::mac(1), 4)), address);
        services.stop(NETWORK).await;
        let stopped = services.reconfigure(config()).await;
        assert!(matches!(stopped, Err(Error::NotRunning { .. })), "{stopped:?}");
    });
}
