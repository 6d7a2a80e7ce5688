//! Who is let in: guests behind the bridge and the host itself, never the uplink. And which port.

use std::{
    net::{TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    super::{Service, Surroundings},
    harness::{Directory, HERE, Network, PATIENCE, config, dig, in_netns, ip, names},
};
use crate::dns::{Error, Names};

/// A second network namespace, joined to the test's by a veth pair. It ends with its process.
struct Peer(Child);

impl Peer {
    /// `near` is this side's interface, `address` that side's with its length, `route` the way back.
    fn new(near: &str, address: &str, route: &str) -> Peer {
        let mut child = Command::new("unshare").args(["--net", "sleep", "300"]).stdout(Stdio::null()).spawn().unwrap();
        let id = child.id();
        // The namespace is there once the child runs `sleep`.
        let comm = format!("/proc/{id}/comm");
        while std::fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() != "sleep") {
            assert!(child.try_wait().unwrap().is_none(), "unshare failed");
            std::thread::yield_now();
        }
        ip(&format!("link add {near} type veth peer name eth0 netns {id}"));
        ip(&format!("link set {near} up"));
        let peer = Peer(child);
        peer.run(&format!("ip addr add {address} dev eth0"));
        peer.run("ip link set eth0 up");
        peer.run("ip link set lo up");
        peer.run(&format!("ip route replace {route} dev eth0"));
        peer
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string()]).args(words.split_whitespace());
        command
    }

    fn run(&self, words: &str) {
        assert!(self.command(words).status().unwrap().success(), "{words}");
    }

    /// What `dig` prints there.
    async fn dig(&self, arguments: &str) -> String {
        let words = format!("dig +tries=1 +time=1 {arguments}");
        let output = tokio::process::Command::from(self.command(&words)).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn guests_and_the_host_are_served_and_the_uplink_is_not() {
    in_netns(|| async {
        let guest = Peer::new("tap0", "192.168.150.101/24", "default via 192.168.150.1");
        ip("link set tap0 master br0");
        let world = Peer::new("wan0", "203.0.113.2/24", "default via 203.0.113.1");
        ip("addr add 203.0.113.1/24 dev wan0");
        let network = Network::start("").await;
        assert_eq!(network.service.port(), 53);
        for how in ["", "+tcp"] {
            let ask = format!("@{HERE} {how} vm2");
            let text = guest.dig(&ask).await;
            assert!(text.contains("192.168.150.102"), "guest {how}: {text}");
            let text = dig(&ask).await;
            assert!(text.contains("192.168.150.102"), "host {how}: {text}");
            let text = dig(&format!("-b 203.0.113.1 {ask}")).await;
            assert!(text.contains("192.168.150.102"), "host, from its other address {how}: {text}");
            let text = world.dig(&ask).await;
            assert!(!text.contains("status:"), "uplink {how}: {text}");
        }
        // It is the bridge that lets in, not the address: the uplink's neighbour may call itself a guest.
        world.run("ip addr add 192.168.150.55/32 dev eth0");
        for how in ["", "+tcp"] {
            let text = world.dig(&format!("@{HERE} {how} -b 192.168.150.55 vm2")).await;
            assert!(!text.contains("status:"), "uplink as a guest {how}: {text}");
        }
    });
}

#[test]
fn a_guest_behind_a_guest_is_served_too() {
    in_netns(|| async {
        let guest = Peer::new("tap0", "192.168.150.101/24", "default via 192.168.150.1");
        ip("link set tap0 master br0");
        guest.run("ip addr add 10.77.0.1/24 dev lo");
        ip("route add 10.77.0.0/24 via 192.168.150.101");
        let _network = Network::start("").await;
        for how in ["", "+tcp"] {
            let text = guest.dig(&format!("@{HERE} {how} -b 10.77.0.1 vm2")).await;
            assert!(text.contains("192.168.150.102"), "{how}: {text}");
        }
    });
}

#[test]
fn a_reply_goes_back_by_the_bridge_whatever_the_source_says() {
    in_netns(|| async {
        let guest = Peer::new("tap0", "192.168.150.101/24", "default via 192.168.150.1");
        ip("link set tap0 master br0");
        let world = Peer::new("wan0", "203.0.113.2/24", "default via 203.0.113.1");
        ip("addr add 203.0.113.1/24 dev wan0");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/br0/rp_filter", "0").unwrap();
        let _network = Network::start("").await;
        guest.run("ip addr add 203.0.113.2/32 dev eth0");
        let text = guest.dig(&format!("@{HERE} -b 203.0.113.2 vm2")).await;
        assert!(text.contains("192.168.150.102"), "the guest hears the answer to its forged query: {text}");
        let counters = String::from_utf8(world.command("cat /proc/net/snmp").output().unwrap().stdout).unwrap();
        let udp: Vec<&str> = counters.lines().filter(|line| line.starts_with("Udp: ")).collect();
        let received: u64 = udp[1].split_whitespace().take(4).skip(1).map(|n| n.parse::<u64>().unwrap()).sum();
        assert_eq!(received, 0, "the uplink's neighbour hears nothing of it: {udp:?}");
    });
}

#[test]
fn ipv6_is_served_by_the_same_rules() {
    in_netns(|| async {
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        let guest = Peer::new("tap0", "192.168.150.101/24", "default via 192.168.150.1");
        ip("link set tap0 master br0");
        guest.run("ip addr add fd77::2/64 dev eth0 nodad");
        let world = Peer::new("wan0", "203.0.113.2/24", "default via 203.0.113.1");
        ip("addr add fd88::1/64 dev wan0 nodad");
        world.run("ip addr add fd88::2/64 dev eth0 nodad");
        world.run("ip route add default via fd88::1");
        // Bound before the bridge has it: the address may come later.
        let here = "fd77::1".parse().unwrap();
        let _network = Network::start_with("", |config, _| config.listen.push(here)).await;
        ip("addr add fd77::1/64 dev br0 nodad");
        for how in ["", "+tcp"] {
            let text = guest.dig(&format!("@fd77::1 {how} vm2")).await;
            assert!(text.contains("192.168.150.102"), "guest {how}: {text}");
            let text = dig(&format!("@fd77::1 {how} vm2")).await;
            assert!(text.contains("192.168.150.102"), "host {how}: {text}");
            let text = world.dig(&format!("@fd77::1 {how} vm2")).await;
            assert!(!text.contains("status:"), "uplink {how}: {text}");
        }
    });
}

#[test]
fn a_bridge_that_was_made_anew_is_known_again() {
    in_netns(|| async {
        let network = Network::start("").await;
        ip("link del br0");
        ip("link add br0 type bridge");
        ip(&format!("addr add {HERE}/24 dev br0"));
        ip("link set br0 up");
        let guest = Peer::new("tap0", "192.168.150.101/24", "default via 192.168.150.1");
        ip("link set tap0 master br0");
        for how in ["", "+tcp"] {
            let text = guest.dig(&format!("@{HERE} {how} vm2")).await;
            assert!(text.contains("192.168.150.102"), "{how}: {text}");
        }
        network.service.stop().await;
    });
}

#[test]
fn where_port_53_is_taken_a_high_port_is_served_on_every_address() {
    in_netns(|| async {
        ip("addr add 192.168.150.2/24 dev br0");
        let second = "192.168.150.2".parse().unwrap();
        let udp_everywhere = UdpSocket::bind("0.0.0.0:53").unwrap();
        let network = Network::start_with("", |config, _| config.listen.push(second)).await;
        let port = network.service.port();
        assert!(port > 1024, "{port}");
        for address in [HERE, "192.168.150.2"] {
            for how in ["", "+tcp"] {
                let text = dig(&format!("@{address} -p {port} {how} vm2")).await;
                assert!(text.contains("192.168.150.102"), "{address} {how}: {text}");
            }
        }
        drop((network, udp_everywhere));
        let _tcp_on_one = TcpListener::bind("192.168.150.2:53").unwrap();
        let network = Network::start_with("", |config, _| config.listen.push(second)).await;
        assert!(network.service.port() > 1024, "TCP counts, and any of the addresses");
    });
}

/// UDP sockets in this network namespace; the test below has two of its own.
fn open_udp() -> usize {
    std::fs::read_to_string("/proc/thread-self/net/udp").unwrap().lines().skip(1).count()
}

#[test]
fn after_stop_the_sockets_are_closed_and_the_port_is_free() {
    in_netns(|| async {
        let _silent = tokio::net::UdpSocket::bind("127.0.0.2:53").await.unwrap();
        for _ in 0..20 {
            let network = Network::start("nameserver 127.0.0.2\n").await;
            assert_eq!(network.service.port(), 53);
            let socket = network.socket().await;
            socket.send(&crate::dns::testing::query(1, "www.example.org", 1)).await.unwrap();
            let text = network.dig("+tcp vm1").await;
            assert!(text.contains("192.168.150.101"), "{text}");
            network.service.stop().await;
            // A program another test is starting holds copies of our descriptors until its exec: a moment.
            let start = Instant::now();
            while UdpSocket::bind((HERE, 53)).is_err() || TcpListener::bind((HERE, 53)).is_err() || open_udp() != 2 {
                assert!(start.elapsed() < PATIENCE, "still open");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn what_is_missing_is_named() {
    in_netns(|| async {
        let directory = Directory::new();
        let mut config = config(&directory.path("resolv.conf"));
        let start = |config, bridge| {
            let (sender, receiver) = watch::channel(names(&[]));
            async move {
                let _sender: watch::Sender<Arc<Names>> = sender;
                Service::start(config, bridge, receiver, Surroundings::default()).await
            }
        };
        let error = start(config.clone(), "virbr77").await.unwrap_err();
        assert!(matches!(&error, Error::NoBridge { bridge, .. } if bridge == "virbr77"), "{error}");
        config.listen.clear();
        let error = start(config, "br0").await.unwrap_err();
        assert!(error.to_string().starts_with("DNS on bridge br0 has no address to listen on"), "{error}");
    });
}
