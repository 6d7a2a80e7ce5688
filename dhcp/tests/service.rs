//! The services as the daemon runs them, on a real bridge and disk. Needs root and nft; without them these tests fail.

mod lab;

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dhcp::{
    Error, LeaseChange, LeaseKind, LeaseWatch, Services, Started,
    config::{DnsConfig, LeaseTime, Mac, PortName, Range4},
    v4::frame,
};
use lab::{
    BRIDGE, Guest, NETWORK, SERVER, config, in_namespace, run, serve, until,
    wire::{self, Wire},
};

#[test]
fn a_host_firewall_that_drops_all_input_does_not_keep_guests_from_their_leases() {
    in_namespace(|| async {
        run("nft add table ip filter");
        run("nft add chain ip filter input { type filter hook input priority 0 ; policy drop ; }");
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let address = guest.enter(|| Wire::open().lease(wire::mac(1), 1));
        assert_eq!(services.leases(NETWORK)[0].address, address);
    });
}

#[test]
fn a_kernel_socket_in_the_guest_is_heard_and_meets_no_unreachable_port() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let _services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        guest.enter(|| {
            run("ip addr add 192.168.122.77/24 dev eth0");
            // The kernel leaves the checksum to the NIC, and a veth's NIC leaves it out: a frame with a partial one.
            let socket = UdpSocket::bind("192.168.122.77:68").unwrap();
            socket.connect((SERVER, 67)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mac: Mac = guest.mac.parse().unwrap();
            let mut inform = wire::message(8, mac, 9);
            inform.ciaddr = Ipv4Addr::new(192, 168, 122, 77);
            for _ in 0..3 {
                socket.send(&inform.to_bytes()).unwrap();
                let mut buffer = [0; 1500];
                // An ICMP error would come out of this call.
                let len = socket.recv(&mut buffer).unwrap();
                let (ack, _) = dhcp::v4::Message::parse(&buffer[..len]).unwrap();
                assert_eq!((ack.xid, wire::kind(&ack)), (9, 5));
            }
        });
    });
}

#[test]
fn another_program_on_port_67_is_no_trouble() {
    in_namespace(|| async {
        let _other = UdpSocket::bind("0.0.0.0:67").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let _services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        guest.enter(|| Wire::open().lease(wire::mac(1), 1));
    });
}

#[test]
fn a_stopped_network_is_silent_keeps_its_leases_and_starts_again() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let ask = |xid| guest.enter(move || Wire::open().lease(wire::mac(1), xid));
        let address = ask(1);
        let twice = services.start(config()).await;
        assert!(matches!(twice, Err(Error::AlreadyRunning { .. })), "{twice:?}");

        services.stop(NETWORK).await;
        services.stop(NETWORK).await;
        guest.enter(|| {
            let wire = Wire::open();
            wire.broadcast(&wire::discover(wire::mac(2), 2));
            assert_eq!(wire.reply_until(Instant::now() + Duration::from_millis(300)), None);
        });
        assert_eq!(services.leases(NETWORK).len(), 1);
        // Its port is free for others.
        drop(UdpSocket::bind("0.0.0.0:67").unwrap());

        assert_eq!(services.start(config()).await.unwrap(), Started { dns_port: None });
        assert_eq!(ask(3), address);
        services.stop(NETWORK).await;
        services.forget(NETWORK).await.unwrap();
        assert_eq!(services.leases(NETWORK), []);
        drop(services);
        let services = Services::open(&directory.path().join("leases.db")).await.unwrap();
        assert_eq!(services.leases(NETWORK), []);
    });
}

#[test]
fn a_bridge_that_is_not_there_is_told_by_name_and_one_that_comes_back_is_served_again() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = Services::open(&directory.path().join("leases.db")).await.unwrap();
        let missing = services.start(dhcp::config::NetworkConfig { bridge: "br-none".into(), ..config() }).await;
        let missing = missing.unwrap_err().to_string();
        assert!(missing.contains("br-none") && missing.contains("No such device"), "{missing}");

        services.start(config()).await.unwrap();
        let guest = Guest::new(1);
        let address = guest.enter(|| Wire::open().lease(wire::mac(1), 1));
        run(&format!("ip link del {BRIDGE}"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        run(&format!("ip link add {BRIDGE} type bridge stp_state 0"));
        run(&format!("ip addr add {SERVER}/24 dev {BRIDGE}"));
        run(&format!("ip link set {BRIDGE} up"));
        run(&format!("ip link set port1 master {BRIDGE}"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(guest.enter(|| Wire::open().lease(wire::mac(1), 2)), address);
    });
}

#[test]
fn a_full_disk_means_no_ack_and_no_lease_until_there_is_room() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().display();
        run(&format!("mount -t tmpfs -o size=512k tmpfs {disk}"));
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let ask = |number: u32| {
            guest.enter(move || {
                let wire = Wire::open();
                wire.broadcast(&wire::discover(wire::mac(number), number));
                let offer = wire.reply(number);
                wire.broadcast(&wire::select(&offer, wire::mac(number)));
                wire.reply_until(Instant::now() + Duration::from_millis(500)).map(|(reply, _)| wire::kind(&reply))
            })
        };
        assert_eq!(ask(1), Some(5));
        let ballast = directory.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let mut size = 512 * 1024;
        while size >= 1024 {
            if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
        // The log has room for a few more in its last page; then no more.
        let mut number = 2;
        while ask(number).is_some() {
            number += 1;
            assert!(number < 50, "leases are made on a full disk");
        }
        let before = services.leases(NETWORK).len();
        assert_eq!(before, number as usize - 1);
        std::fs::remove_file(ballast).unwrap();
        drop(file);
        assert_eq!(ask(number), Some(5));
        assert_eq!(services.leases(NETWORK).len(), before + 1);
        services.stop(NETWORK).await;
        drop(services);
        run(&format!("umount -l {disk}"));
    });
}

/// The daemon of the next test, in a process of its own so that it can be killed.
#[test]
#[ignore = "run by a_killed_daemon_has_every_lease_it_acknowledged"]
fn serve_until_killed() {
    let directory = std::env::var("LEASES").expect("LEASES");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _services = serve(Path::new(&directory), config()).await;
        std::fs::write(Path::new(&directory).join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_daemon_has_every_lease_it_acknowledged() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let guest = Guest::new(1);
        let mut known = Vec::new();
        for round in 0..5_u32 {
            let ready = directory.path().join("ready");
            let _ = std::fs::remove_file(&ready);
            let mut daemon = tokio::process::Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "serve_until_killed"])
                .env("LEASES", directory.path())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            until("the daemon serves", || ready.exists()).await;
            guest.enter(|| {
                let wire = Wire::open();
                // Everyone from before has what it had.
                for (number, address) in &known {
                    assert_eq!(wire.lease(wire::mac(*number), *number), *address);
                }
                for number in round * 20..round * 20 + 20 {
                    known.push((number, wire.lease(wire::mac(number), number)));
                }
                // One more is asked for and the ACK not waited for: it may be killed before or after the commit.
                wire.broadcast(&wire::discover(wire::mac(5000 + round), 1));
                let offer = wire.reply(1);
                wire.broadcast(&wire::select(&offer, wire::mac(5000 + round)));
            });
            daemon.kill().await.unwrap();
        }
        let services = Services::open(&directory.path().join("leases.db")).await.unwrap();
        let leases = services.leases(NETWORK);
        for (number, address) in known {
            let lease = leases.iter().find(|lease| lease.mac == wire::mac(number));
            assert_eq!(lease.map(|lease| lease.address), Some(address));
        }
        let mut addresses: Vec<_> = leases.iter().map(|lease| lease.address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), leases.len());
    });
}

#[test]
fn dns_knows_a_guest_by_its_port_and_by_its_own_name_as_soon_as_it_has_its_ack() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        config.dns = Some(DnsConfig {
            listen: vec![SERVER.into()],
            subnets: vec!["192.168.122.0/24".parse().unwrap()],
            domain: Some("lab.test".into()),
            local_only: true,
            resolv_conf: directory.path().join("resolv.conf"),
            ..DnsConfig::default()
        });
        let services = Services::open(&directory.path().join("leases.db")).await.unwrap();
        let guest = Guest::new(1);
        let mac: Mac = guest.mac.parse().unwrap();
        services.set_ports(NETWORK, vec![PortName { mac, guest: Some("vm1".into()) }]);
        assert_eq!(services.start(config).await.unwrap(), Started { dns_port: Some(53) });
        let line = format!("udhcpc -f -q -n -i eth0 -x hostname:web -s {}", guest.path("hook").display());
        assert!(guest.output(&line).await.status.success());
        let address = services.leases(NETWORK)[0].address.to_string();
        let dig = async |words: &str| {
            let output = guest.output(&format!("dig +short +time=5 +tries=1 @{SERVER} {words}")).await;
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        for name in ["vm1", "web", "vm1.lab.test", "WEB.lab.test"] {
            assert_eq!(dig(name).await, address, "{name}");
        }
        assert_ne!(dig(&format!("-x {address}")).await, "");
        services.set_ports(NETWORK, Vec::new());
        assert_eq!((dig("vm1").await, dig("web").await), (String::new(), address));
        services.stop(NETWORK).await;
    });
}

#[test]
fn a_flood_of_made_up_clients_does_not_keep_a_guest_from_its_lease() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let (flooder, guest) = (Guest::new(1), Guest::new(2));
        services.set_ports(NETWORK, vec![PortName { mac: wire::mac(1), guest: Some("vm1".into()) }]);
        let first = guest.enter(|| Wire::open().lease(wire::mac(1), 1));
        flooder.enter(|| {
            let wire = Wire::open();
            for number in 0..2000 {
                wire.broadcast(&wire::discover(wire::mac(100_000 + number), 77));
            }
        });
        guest.enter(|| {
            let wire = Wire::open();
            assert_eq!(wire.lease(wire::mac(1), 2), first);
            wire.lease(wire::mac(2), 3);
        });
        assert_eq!(services.leases(NETWORK).len(), 2);
    });
}

#[test]
fn a_burst_of_clients_is_served_whole_and_an_ack_takes_no_longer_than_its_sync() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        let dhcp4 = config.dhcp4.as_mut().unwrap();
        dhcp4.server = "192.168.122.1/16".parse().unwrap();
        let (start, end) = (Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(192, 168, 99, 254));
        dhcp4.ranges = vec![Range4 { start, end, lease: LeaseTime::Seconds(3600) }];
        let services = serve(directory.path(), config).await;
        let guest = Guest::new(1);
        let (median, worst, burst) = guest.enter(|| {
            let wire = Wire::open();
            let mut times: Vec<_> = (0..300)
                .map(|number| {
                    let begun = Instant::now();
                    wire.lease(wire::mac(number), number);
                    begun.elapsed()
                })
                .collect();
            times.sort();

            // A thousand REQUESTs on the wire at once (INIT-REBOOT: one message each).
            let begun = Instant::now();
            for number in 0..1000 {
                let mut request = wire::message(3, wire::mac(10_000 + number), number);
                let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 50, 1)) + number);
                request.options.push(50, &address.octets());
                wire.send(&request, frame::BROADCAST_MAC, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut answered = 0;
            // Addresses that end in 0 or 255 are refused: those answers are NAKs.
            while answered < 1000 {
                wire.reply_until(deadline).expect("every client is answered");
                answered += 1;
            }
            (times[times.len() / 2], times[times.len() - 3], begun.elapsed())
        });
        println!("DISCOVER to ACK: median {median:?}, 99 % {worst:?}; 1000 at once: {burst:?}");
        assert!(services.leases(NETWORK).len() > 1200);
        assert!(median < Duration::from_millis(5), "DISCOVER to ACK takes {median:?}");
    });
}

/// Takes its time, and only then has heard of a change.
#[derive(Debug, Default)]
struct SlowWatch(Mutex<Vec<LeaseChange>>);

impl LeaseWatch for SlowWatch {
    fn changed<'a>(
        &'a self,
        network: &'a str,
        changes: &'a [LeaseChange],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        assert_eq!(network, NETWORK);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            self.0.lock().unwrap().extend(changes.iter().cloned());
        })
    }
}

#[test]
fn whoever_watches_the_leases_has_heard_of_one_before_its_client_has() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let watch = Arc::new(SlowWatch::default());
        let services = Services::open_watched(&directory.path().join("leases.db"), watch.clone()).await.unwrap();
        services.start(config()).await.unwrap();
        let guest = Guest::new(1);
        let mac = wire::mac(1);
        // What began, went on and ended; who asked and what was offered is told besides.
        let heard = || {
            let heard = watch.0.lock().unwrap();
            assert!(heard.iter().all(|change| change.mac == mac && change.hostname.is_none()), "{heard:?}");
            let kinds = heard.iter().map(|change| change.kind);
            kinds.filter(|kind| !matches!(kind, LeaseKind::Discovering | LeaseKind::Offered(_))).collect::<Vec<_>>()
        };
        let address = guest.enter(|| Wire::open().lease(mac, 1));
        assert_eq!(heard(), [LeaseKind::Leased(address.into())]);
        let before = watch.0.lock().unwrap().iter().map(|change| change.kind).take(2).collect::<Vec<_>>();
        assert_eq!(before, [LeaseKind::Discovering, LeaseKind::Offered(address.into())]);

        assert_eq!(guest.enter(|| Wire::open().lease(mac, 2)), address);
        assert_eq!(heard(), [LeaseKind::Leased(address.into()), LeaseKind::Renewed(address.into())]);

        guest.enter(|| {
            let mut release = wire::message(7, mac, 3);
            release.ciaddr = address;
            release.options.push(54, &SERVER.octets());
            Wire::open().broadcast(&release);
        });
        until("the release is heard of", || heard().last() == Some(&LeaseKind::Released(address.into()))).await;
        assert_eq!(heard().len(), 3);

        assert_eq!(guest.enter(|| Wire::open().lease(mac, 4)), address);
        services.stop(NETWORK).await;
        services.forget(NETWORK).await.unwrap();
        assert_eq!(heard()[3..], [LeaseKind::Leased(address.into()), LeaseKind::Dropped(address.into())]);

        // What was on disk when the watch began is no news.
        services.start(config()).await.unwrap();
        guest.enter(|| Wire::open().lease(mac, 5));
        services.stop(NETWORK).await;
        drop(services);
        let watch = Arc::new(SlowWatch::default());
        let services = Services::open_watched(&directory.path().join("leases.db"), watch.clone()).await.unwrap();
        services.start(config()).await.unwrap();
        guest.enter(|| Wire::open().lease(mac, 6));
        let heard = watch.0.lock().unwrap().iter().map(|change| change.kind).collect::<Vec<_>>();
        let offered = LeaseKind::Offered(address.into());
        assert_eq!(heard, [LeaseKind::Discovering, offered, LeaseKind::Renewed(address.into())]);
    });
}
