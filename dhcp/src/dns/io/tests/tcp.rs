//! Connections: several queries at once, and clients that behave badly.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    super::tcp::framed,
    harness::{HERE, Network, PATIENCE, Upstream, in_netns},
};
use crate::dns::testing::{query, read};

async fn connect(network: &Network) -> TcpStream {
    TcpStream::connect((HERE, network.service.port())).await.unwrap()
}

async fn next(stream: &mut TcpStream) -> Vec<u8> {
    let message = async {
        let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut message).await.unwrap();
        message
    };
    timeout(PATIENCE, message).await.expect("an answer in time")
}

/// Whether the other side has closed.
async fn closed(stream: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("closed in time"), Ok(0) | Err(_))
}

#[test]
fn pipelined_queries_are_answered_as_answers_come() {
    in_netns(|| async {
        let _upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start("nameserver 127.0.0.2\n").await;
        let mut stream = connect(&network).await;
        let queries = [query(1, "slow.example", 1), query(2, "vm1", 1), query(3, "vm2", 1)];
        stream.write_all(&queries.map(|query| framed(&query)).concat()).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(read(&next(&mut stream).await).metadata.id);
        }
        assert_eq!(ids, [2, 3, 1], "RFC 7766 §6.2.1.1: nobody waits behind the slow one");
    });
}

#[test]
fn a_burst_is_answered_in_full_however_long_it_is() {
    in_netns(|| async {
        let network = Network::start("").await;
        let (mut reader, mut writer) = connect(&network).await.into_split();
        let burst: Vec<u8> = (0..5_000).flat_map(|id| framed(&query(id, "vm1", 1))).collect();
        let write = async { writer.write_all(&burst).await.unwrap() };
        let read = async {
            for _ in 0..5_000 {
                let length = reader.read_u16().await.unwrap();
                reader.read_exact(&mut vec![0; usize::from(length)]).await.unwrap();
            }
        };
        timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("5,000 answers");
    });
}

#[test]
fn a_query_in_pieces_is_one_query_and_many_are_answered_on_one_connection() {
    in_netns(|| async {
        let network = Network::start("").await;
        let mut stream = connect(&network).await;
        for octet in framed(&query(1, "vm1", 1)) {
            stream.write_all(&[octet]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(read(&next(&mut stream).await).metadata.id, 1);
        for id in 0..500 {
            stream.write_all(&framed(&query(id, "vm1", 1))).await.unwrap();
            assert_eq!(read(&next(&mut stream).await).metadata.id, id);
        }
    });
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answers() {
    in_netns(|| async {
        let _upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start("nameserver 127.0.0.2\n").await;
        let mut stream = connect(&network).await;
        stream.write_all(&framed(&query(1, "slow.example", 1))).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read(&next(&mut stream).await).metadata.id, 1);
        assert!(closed(&mut stream).await);
    });
}

#[test]
fn an_idle_connection_is_closed() {
    in_netns(|| async {
        let idle = Duration::from_millis(200);
        let network = Network::start_with("", |_, surroundings| surroundings.tcp.idle = idle).await;
        let (mut silent, mut halting) = (connect(&network).await, connect(&network).await);
        halting.write_all(&[0, 30, 1]).await.unwrap();
        let start = Instant::now();
        assert!(closed(&mut silent).await && closed(&mut halting).await);
        assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    });
}

#[test]
fn connections_are_bounded_per_client_and_in_total() {
    in_netns(|| async {
        let network = Network::start_with("", |_, surroundings| {
            surroundings.tcp.per_client = 2;
            surroundings.tcp.connections = 3;
        })
        .await;
        let from = |address: &'static str| {
            let port = network.service.port();
            async move {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
                socket.connect(format!("{HERE}:{port}").parse().unwrap()).await.unwrap()
            }
        };
        let works = async |stream: &mut TcpStream| {
            let _ = stream.write_all(&framed(&query(1, "vm1", 1))).await;
            !matches!(timeout(PATIENCE, stream.read_u16()).await.unwrap(), Ok(0) | Err(_))
        };
        let (mut one, mut two, mut three) = (from(HERE).await, from(HERE).await, from(HERE).await);
        assert!(works(&mut one).await && works(&mut two).await);
        assert!(!works(&mut three).await, "the third of one client");
        let (mut other, mut fifth) = (from("127.0.0.9").await, from("127.0.0.9").await);
        assert!(works(&mut other).await);
        assert!(!works(&mut fifth).await, "the fourth in total");
        drop(one);
        let start = Instant::now();
        loop {
            let mut again = from(HERE).await;
            if works(&mut again).await {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "the seat is free again");
        }
    });
}

#[test]
fn a_client_that_never_reads_harms_nobody() {
    in_netns(|| async {
        let _upstream = Upstream::start("127.0.0.2").await;
        let network = Network::start_with("nameserver 127.0.0.2\n", |_, surroundings| {
            surroundings.tcp.idle = Duration::from_millis(500);
        })
        .await;
        // 3 KB an answer, and nobody takes them: both sockets fill up, then it is our turn to stop reading.
        let mut greedy = connect(&network).await;
        let burst = framed(&query(1, "big.example", 1)).repeat(100);
        let mut sent = 0;
        while let Ok(Ok(())) = timeout(Duration::from_secs(2), greedy.write_all(&burst)).await {
            sent += 100;
            assert!(sent < 1_000_000, "we read without bound");
            let mut stream = connect(&network).await;
            stream.write_all(&framed(&query(2, "vm1", 1))).await.unwrap();
            assert_eq!(read(&next(&mut stream).await).metadata.id, 2, "another client");
        }
        let mut drained = vec![0; 1 << 16];
        let end = async { while !matches!(greedy.read(&mut drained).await, Ok(0) | Err(_)) {} };
        timeout(PATIENCE, end).await.expect("its connection is closed");
    });
}

#[test]
fn a_query_longer_than_any_ends_the_connection() {
    in_netns(|| async {
        let network = Network::start("").await;
        let mut stream = connect(&network).await;
        stream.write_all(&[0xff, 0xff]).await.unwrap();
        assert!(closed(&mut stream).await);
    });
}

#[test]
fn what_is_no_query_gets_a_bare_header_or_nothing() {
    in_netns(|| async {
        let network = Network::start("").await;
        let mut stream = connect(&network).await;
        let junk = [framed(b""), framed(b"abc"), framed(&[0; 12]), framed(&query(9, "vm1", 1))].concat();
        stream.write_all(&junk).await.unwrap();
        assert_eq!(next(&mut stream).await.len(), 12);
        assert_eq!(read(&next(&mut stream).await).metadata.id, 9);
    });
}
