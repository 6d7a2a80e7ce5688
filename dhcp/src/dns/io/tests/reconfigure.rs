//! Another configuration while questions are asked: the sockets stay, and what is wrong changes nothing.

use std::net::{IpAddr, UdpSocket};

use super::harness::{HERE, Network, Upstream, config, dig, in_netns, ip, names};
use crate::{config::DnsConfig, dns::Error};

fn changed(network: &Network, change: impl FnOnce(&mut DnsConfig)) -> DnsConfig {
    let mut config = config(&network.directory.path("resolv.conf"));
    change(&mut config);
    config
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn records_change_at_once_and_names_from_leases_go_with_them() {
    in_netns(|| async {
        let mut network = Network::start("").await;
        let asked_before = network.socket().await;
        let with = changed(&network, |config| {
            config.hosts = vec![(address("192.168.150.8"), vec!["scanner".to_owned()])];
            config.domain = Some("other.example".to_owned());
        });
        network.service.reconfigure(with).await.unwrap();
        assert_eq!(network.dig("+short scanner.other.example").await, "192.168.150.8\n");
        assert!(network.dig("printer").await.contains("NXDOMAIN"));
        assert_eq!(network.dig("+short vm1.other.example").await, "192.168.150.101\n");
        network.names.send_replace(names(&[("vm3", "192.168.150.103")]));
        while network.dig("+short vm3.other.example").await != "192.168.150.103\n" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        drop(asked_before);
    });
}

#[test]
fn addresses_come_and_go_and_a_question_in_flight_at_one_that_stays_is_answered() {
    in_netns(|| async {
        let _upstream = Upstream::start("127.0.0.9").await;
        let mut network = Network::start("nameserver 127.0.0.9\n").await;
        let more = "192.168.151.1";
        ip(&format!("addr add {more}/24 dev br0"));
        let both = changed(&network, |config| config.listen.push(address(more)));
        // Its answer takes 300 ms.
        let in_flight = tokio::spawn(async { dig(&format!("@{HERE} +short slow.example")).await });
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        network.service.reconfigure(both.clone()).await.unwrap();
        assert_eq!(network.service.port(), 53);
        assert_eq!(dig(&format!("@{more} +short printer")).await, "192.168.150.9\n");
        assert_eq!(dig(&format!("@{more} +tcp +short printer")).await, "192.168.150.9\n");
        assert_eq!(in_flight.await.unwrap(), "198.51.100.7\n");

        let nowhere = changed(&network, |config| config.listen.clear());
        let refused = network.service.reconfigure(nowhere).await;
        assert!(matches!(refused, Err(Error::NoAddress { .. })), "{refused:?}");
        assert_eq!(dig(&format!("@{more} +short printer")).await, "192.168.150.9\n");

        let one = changed(&network, |_| {});
        network.service.reconfigure(one).await.unwrap();
        drop(UdpSocket::bind((more, 53)).expect("the socket is closed"));
        network.service.reconfigure(both).await.unwrap();
        assert_eq!(dig(&format!("@{more} +short printer")).await, "192.168.150.9\n");
    });
}

#[test]
fn a_new_address_whose_port_is_taken_moves_all_to_another_port() {
    in_netns(|| async {
        let mut network = Network::start("").await;
        ip("addr add 192.168.151.1/24 dev br0");
        let _other = UdpSocket::bind("192.168.151.1:53").unwrap();
        let both = changed(&network, |config| config.listen.push(address("192.168.151.1")));
        network.service.reconfigure(both).await.unwrap();
        assert_ne!(network.service.port(), 53);
        assert_eq!(network.dig("+short printer").await, "192.168.150.9\n");
        let port = network.service.port();
        assert_eq!(dig(&format!("@192.168.151.1 -p {port} +short printer")).await, "192.168.150.9\n");
    });
}

#[test]
fn forwarding_is_turned_off_and_on() {
    in_netns(|| async {
        let upstream = Upstream::start("127.0.0.9").await;
        let mut network = Network::start("nameserver 127.0.0.9\n").await;
        assert_eq!(network.dig("+short good.example").await, "198.51.100.7\n");
        network.service.reconfigure(changed(&network, |config| config.forward = false)).await.unwrap();
        assert!(network.dig("good.example").await.contains("REFUSED"), "not even from the cache");
        network.service.reconfigure(changed(&network, |_| {})).await.unwrap();
        assert_eq!(network.dig("+short other.example").await, "198.51.100.7\n");
        assert_eq!(upstream.seen().len(), 2);
    });
}
