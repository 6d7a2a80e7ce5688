//! Real DHCPv6 clients on a real bridge: dhclient, dhcpcd and dhcp6c each get a lease, keep it and give it back.
//!
//! Needs root and the clients; without them these tests fail.

mod lab;

use std::net::Ipv6Addr;

use dhcp::{
    Lease6, Services,
    config::{LeaseTime, Reservation6},
};
use lab::{
    Guest, NETWORK, in_namespace,
    ipv6::{bridge_has, ipv6, stateful},
    serve, until,
};

/// The one lease there is, which must be this guest's.
fn lease_of(services: &Services, guest: &Guest) -> Lease6 {
    let leases = services.leases6(NETWORK);
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0].mac.to_string(), guest.mac);
    leases[0].clone()
}

fn assert_told(guest: &Guest, lines: &[&str]) {
    let seen = guest.seen();
    for line in lines {
        assert!(seen.lines().any(|seen| seen.trim_end() == *line), "no {line} in\n{seen}");
    }
}

/// ISC's client; each run has its PID file, for the numbers are of different PID namespaces.
fn dhclient(guest: &Guest, rest: &str, pid: &str) -> String {
    let path = |name| guest.path(name).display().to_string();
    let (hook, leases, conf) = (path("hook"), path("leases"), path("conf"));
    format!("dhclient -6 {rest} -v -sf {hook} -lf {leases} -pf {} -cf {conf} eth0", path(pid))
}

#[test]
fn rfc8415_dhclient_gets_a_lease_renews_it_after_a_restart_and_releases_it() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        bridge_has("2001:db8:ca2:2::1");
        let services = serve(directory.path(), stateful()).await;
        let guest = Guest::new(1);
        guest.link_local();
        let conf = "send fqdn.fqdn \"db.elsewhere.test\"; send fqdn.server-update on;
                    also request dhcp6.name-servers, dhcp6.domain-search, dhcp6.fqdn;";
        std::fs::write(guest.path("conf"), conf).unwrap();
        let client = guest.start(&dhclient(&guest, "-d", "pid"));
        until("dhclient is bound", || guest.seen().contains("event=BOUND6")).await;
        let lease = lease_of(&services, &guest);
        assert_eq!((lease.hostname.as_deref(), lease.prefix), (Some("db"), 64));
        let address = format!("new_ip6_address={}", lease.address);
        let told = [&*address, "new_dhcp6_name_servers=2001:db8:ca2:2::1", "new_dhcp6_domain_search=lab.test."];
        assert_told(&guest, &told);
        let seen = guest.seen();
        assert!(seen.contains("new_max_life=3600") && seen.contains("new_preferred_life=3600"), "{seen}");

        // §18.2.3: one that comes back asks whether this is still its link.
        drop(client);
        let pool = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0xca2, 2, 1, 0, 0, 0x10));
        assert!((pool..=pool + 0xef).contains(&u128::from(lease.address)), "{}", lease.address);
        std::fs::write(guest.path("seen"), "").unwrap();
        let again = guest.start(&dhclient(&guest, "-d", "pid2"));
        until("dhclient is bound again", || {
            guest.seen().contains("event=REBOOT6") || guest.seen().contains("event=BOUND6")
        })
        .await;
        assert_eq!(lease_of(&services, &guest).address, lease.address);
        drop(again);
        let _release = guest.start(&dhclient(&guest, "-d -r", "pid3"));
        until("the lease is released", || services.leases6(NETWORK).is_empty()).await;
    });
}

#[test]
fn rfc8415_18_3_6_dhclient_is_told_resolvers_without_a_lease() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        bridge_has("2001:db8:ca2:2::1");
        let services = serve(directory.path(), ipv6()).await;
        let guest = Guest::new(1);
        guest.link_local();
        std::fs::write(guest.path("conf"), "also request dhcp6.name-servers, dhcp6.domain-search;").unwrap();
        let _client = guest.start(&dhclient(&guest, "-d -S", "pid"));
        until("dhclient is told", || guest.seen().contains("new_dhcp6_domain_search=lab.test.")).await;
        assert_told(&guest, &["new_dhcp6_name_servers=2001:db8:ca2:2::1"]);
        assert_eq!(services.leases6(NETWORK), []);
    });
}

#[test]
fn rfc8415_21_14_dhcpcd_gets_its_reservation_in_two_messages_and_the_address_works() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        bridge_has("2001:db8:ca2:2::1");
        let mut config = stateful();
        let reserved = Ipv6Addr::new(0x2001, 0xdb8, 0xca2, 2, 0, 0, 0, 0x77);
        let name = Some("mail".to_owned());
        let host = Reservation6 { duid: None, name, address: Some(reserved), lease: Some(LeaseTime::Infinite) };
        config.ipv6.as_mut().unwrap().dhcp.as_mut().unwrap().hosts.push(host);
        let services = serve(directory.path(), config).await;
        let guest = Guest::new(1);
        // dhcpcd does DHCPv6 only where a router says so, and sees to advertisements itself.
        let conf = "duid ll\nhostname mail\nfqdn both\noption rapid_commit\noption domain_search\nia_na 1\n";
        std::fs::write(guest.path("conf"), conf).unwrap();
        let files = format!("--script {} -f {}", guest.path("hook").display(), guest.path("conf").display());
        let _client = guest.start(&format!("dhcpcd -B -6 {files} eth0"));
        until("dhcpcd is bound", || guest.seen().contains("event=BOUND6")).await;
        let lease = lease_of(&services, &guest);
        assert_eq!((lease.address, lease.hostname.as_deref(), lease.iaid), (reserved, Some("mail"), 1));
        assert_eq!((lease.expiry, &lease.duid[..4]), (None, &[0, 3, 0, 1][..]));
        let received = services.counts(NETWORK).unwrap().dhcp6_received;
        let count = |kind| received.iter().find(|(known, _)| *known == kind).unwrap().1;
        assert_eq!(count("request"), 0, "rapid commit was not taken: {received:?}");
        let ping = guest.output("ping -6 -c 1 -W 10 2001:db8:ca2:2::1").await;
        assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
    });
}

#[test]
fn rfc8415_dhcp6c_gets_a_lease_and_releases_it() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        bridge_has("2001:db8:ca2:2::1");
        let services = serve(directory.path(), stateful()).await;
        let guest = Guest::new(1);
        guest.link_local();
        let conf = format!(
            "interface eth0 {{ send ia-na 5; request domain-name-servers; request domain-name; script \"{}\"; }};
             id-assoc na 5 {{ }};",
            guest.path("hook").display()
        );
        std::fs::write(guest.path("conf"), conf).unwrap();
        let (conf, pid) = (guest.path("conf"), guest.path("pid"));
        let mut client =
            guest.command(&format!("dhcp6c -f -D -c {} -p {} eth0", conf.display(), pid.display())).spawn().unwrap();
        until("dhcp6c has a lease", || !services.leases6(NETWORK).is_empty()).await;
        let lease = lease_of(&services, &guest);
        assert_eq!(lease.iaid, 5);
        let has = || guest.prints("ip -6 addr show dev eth0").contains(&lease.address.to_string());
        until("the address is there", has).await;
        until("the hook is told", || guest.seen().contains("new_domain_name=lab.test.")).await;
        assert_told(&guest, &["new_domain_name_servers=2001:db8:ca2:2::1"]);
        let pid = client.id().unwrap().cast_signed();
        // SAFETY: kill takes no pointers; the process is our child and not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        client.wait().await.unwrap();
        until("the lease is released", || services.leases6(NETWORK).is_empty()).await;
    });
}
