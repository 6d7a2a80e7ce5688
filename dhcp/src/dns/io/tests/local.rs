//! The network's own names, as a client sees them.

use super::harness::{Network, in_netns, names};
use crate::dns::{testing::query, testing::read, wire::rcode, wire::rtype};

#[test]
fn guests_are_found_forward_and_reverse() {
    in_netns(|| async {
        let network = Network::start("").await;
        for (question, answer) in [
            ("vm2", "192.168.150.102"),
            ("VM2.Lab.Example", "192.168.150.102"),
            ("+tcp vm2.lab.example", "192.168.150.102"),
            ("printer.lab.example ANY", "192.168.150.9"),
            ("_gateway", "192.168.150.1"),
            ("localhost", "127.0.0.1"),
            ("-x 192.168.150.102", "vm2.lab.example."),
            ("-x 192.168.150.1", "_gateway.lab.example."),
        ] {
            let text = network.dig(question).await;
            assert!(text.contains("status: NOERROR") && text.contains(" aa ") && text.contains(answer), "{text}");
            assert!(!text.contains("WARNING"), "{text}");
        }
        for question in ["vm2 AAAA", "vm2.lab.example MX", "vm2 HTTPS"] {
            let text = network.dig(question).await;
            assert!(text.contains("status: NOERROR") && text.contains("ANSWER: 0"), "{text}");
            assert!(text.contains("SOA"), "{text}");
        }
        for question in ["vm9", "printer.local", "-x 192.168.150.77", "-x 10.1.2.3", "x.onion"] {
            let text = network.dig(question).await;
            assert!(text.contains("status: NXDOMAIN") && text.contains("SOA"), "{text}");
        }
    });
}

#[test]
fn a_name_is_known_from_the_moment_it_is_learnt() {
    in_netns(|| async {
        let network = Network::start("").await;
        assert_eq!(
            u16::from(read(&network.ask(&query(1, "vm3", rtype::A)).await).metadata.response_code),
            rcode::NXDOMAIN
        );
        network.names.send(names(&[("vm3", "192.168.150.103")])).unwrap();
        // The task that swaps the zone runs before the next query is read: one thread, first come.
        tokio::task::yield_now().await;
        let message = read(&network.ask(&query(2, "vm3", rtype::A)).await);
        assert_eq!(message.answers[0].data.to_string(), "192.168.150.103");
        let message = read(&network.ask(&query(3, "vm1", rtype::A)).await);
        assert_eq!(u16::from(message.metadata.response_code), rcode::NXDOMAIN, "and what is gone is gone");
    });
}

#[test]
fn an_isolated_network_answers_for_itself_and_asks_nobody() {
    in_netns(|| async {
        let upstream = super::harness::Upstream::start("127.0.0.2").await;
        let network = Network::start_with("nameserver 127.0.0.2\n", |config, _| config.forward = false).await;
        let text = network.dig("vm1").await;
        assert!(text.contains("192.168.150.101") && !text.contains(" ra"), "{text}");
        let text = network.dig("www.example.org").await;
        assert!(text.contains("status: REFUSED"), "{text}");
        assert!(upstream.seen().is_empty());
    });
}

#[test]
fn garbage_and_empty_datagrams_harm_nobody() {
    in_netns(|| async {
        let network = Network::start("").await;
        let socket = network.socket().await;
        for junk in [&b""[..], b"x", &[0xff; 600], &[0; 12], &[0; 5000]] {
            socket.send(junk).await.unwrap();
        }
        socket.send(&query(77, "vm1", rtype::A)).await.unwrap();
        loop {
            let message = super::harness::receive(&socket).await;
            if message[..2] == [0, 77] {
                break;
            }
            assert_eq!(message.len(), 12, "a bare header");
        }
    });
}
