//! Real clients on a real bridge: udhcpc, dhclient and dhcpcd each get a lease, keep it and give it back.
//!
//! Needs root and the three clients; without them these tests fail.

mod lab;

use std::{net::Ipv4Addr, time::Duration};

use dhcp::{Lease, Services, config::Boot4};
use lab::{Guest, NETWORK, config, in_namespace, serve, until};

/// The one lease there is, which must be this guest's.
fn lease_of(services: &Services, guest: &Guest) -> Lease {
    let leases = services.leases(NETWORK);
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0].mac.to_string(), guest.mac);
    leases[0].clone()
}

fn assert_told(guest: &Guest, lines: &[&str]) {
    let seen = guest.seen();
    for line in lines {
        assert!(seen.lines().any(|seen| seen == *line), "no {line} in\n{seen}");
    }
}

#[test]
fn udhcpc_gets_everything_it_asks_for_renews_and_releases() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        config.dhcp4.as_mut().unwrap().boot = Some(Boot4 { file: "pxelinux.0".into(), server: None });
        let services = serve(directory.path(), config).await;
        let guest = Guest::new(1);
        let hook = guest.path("hook");
        let line = format!("udhcpc -f -R -i eth0 -x hostname:web -O mtu -O bootfile -O tftp -s {}", hook.display());
        let mut client = guest.command(&line).spawn().expect("udhcpc");
        until("udhcpc is bound", || guest.seen().contains("event=bound")).await;
        assert_told(
            &guest,
            &["router=192.168.122.1", "dns=192.168.122.1", "domain=lab.test", "mtu=1400", "lease=3600", "mask=24"],
        );
        assert_told(
            &guest,
            &["boot_file=pxelinux.0", "bootfile=pxelinux.0", "siaddr=192.168.122.1", "tftp=192.168.122.1"],
        );
        let lease = lease_of(&services, &guest);
        assert_eq!((lease.hostname.as_deref(), lease.prefix), (Some("web"), 24));
        assert_told(&guest, &[&format!("ip={}", lease.address)]);

        let pid = client.id().unwrap().cast_signed();
        let signal = |signal: i32| {
            // SAFETY: kill takes no pointers; the process is our child and not yet waited for.
            assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        };
        signal(libc::SIGUSR1);
        until("udhcpc has renewed", || guest.seen().contains("event=renew")).await;
        assert_eq!(lease_of(&services, &guest).address, lease.address);
        signal(libc::SIGTERM);
        client.wait().await.unwrap();
        until("the lease is released", || services.leases(NETWORK).is_empty()).await;
    });
}

#[test]
fn dhclient_gets_a_lease_and_releases_it() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        let routes = &mut config.dhcp4.as_mut().unwrap().routes;
        routes.push(("10.20.0.0/16".parse().unwrap(), Ipv4Addr::new(192, 168, 122, 9)));
        let services = serve(directory.path(), config).await;
        let guest = Guest::new(1);
        std::fs::write(
            guest.path("conf"),
            "option classless code 121 = array of unsigned integer 8;
             send host-name \"db\"; request subnet-mask, classless, routers, domain-name;",
        )
        .unwrap();
        // Each run has its PID file: the numbers are of different PID namespaces.
        let files = |rest: &str, pid| {
            let path = |name| guest.path(name).display().to_string();
            let (hook, leases, pid, conf) = (path("hook"), path("leases"), path(pid), path("conf"));
            format!("dhclient {rest} -v -sf {hook} -lf {leases} -pf {pid} -cf {conf} eth0")
        };
        let _client = guest.start(&files("-d", "pid"));
        until("dhclient is bound", || guest.seen().contains("event=BOUND")).await;
        let lease = lease_of(&services, &guest);
        assert_eq!(lease.hostname.as_deref(), Some("db"));
        assert_told(
            &guest,
            &[
                &format!("new_ip_address={}", lease.address),
                "new_routers=192.168.122.1",
                "new_domain_name=lab.test",
                "new_dhcp_server_identifier=192.168.122.1",
                "new_classless=16 10 20 192 168 122 9 0 192 168 122 1",
            ],
        );
        let _release = guest.start(&files("-d -r", "pid-release"));
        until("the lease is released", || services.leases(NETWORK).is_empty()).await;
    });
}

#[test]
fn dhcpcd_gets_a_lease_and_the_address_works() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        // In the foreground: it must end with the test. Its defaults as Debian has them: host name, routes, MTU, an ARP
        // probe of the address, rapid commit.
        let line = format!("dhcpcd -B -4 --script {} -h mail eth0", guest.path("hook").display());
        let _client = guest.start(&line);
        until("dhcpcd is bound", || guest.seen().contains("event=BOUND")).await;
        let lease = lease_of(&services, &guest);
        assert_eq!(lease.hostname.as_deref(), Some("mail"));
        assert!(lease.client_id.is_some());
        let counts = services.counts(NETWORK).unwrap();
        let requests = counts.dhcp_received.iter().find(|(kind, _)| *kind == "request");
        assert_eq!(requests, Some(&("request", 0)), "its first message was answered by an ACK (RFC 4039)");
        assert_told(&guest, &[&format!("new_ip_address={}", lease.address), "new_routers=192.168.122.1"]);
        let ping = guest.output("ping -c 1 -W 5 192.168.122.1").await;
        assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
    });
}

#[test]
fn guests_that_ask_at_once_have_their_leases_at_once() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guests: Vec<_> = (1..=8).map(Guest::new).collect();
        let mut clients = Vec::new();
        for guest in &guests {
            let line = format!("udhcpc -f -q -n -t 1 -T 5 -i eth0 -s {}", guest.path("hook").display());
            clients.push(guest.command(&line).spawn().expect("udhcpc"));
        }
        for client in &mut clients {
            let status = tokio::time::timeout(Duration::from_secs(20), client.wait()).await.expect("udhcpc ends");
            assert!(status.unwrap().success(), "a client needed more than its first DISCOVER");
        }
        let mut addresses: Vec<_> = services.leases(NETWORK).into_iter().map(|lease| lease.address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), guests.len());
    });
}
