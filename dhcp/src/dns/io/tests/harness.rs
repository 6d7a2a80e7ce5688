//! A fresh network namespace per test, an upstream that does what its questions say, and `dig`.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::super::{Service, Surroundings};
use crate::{
    config::DnsConfig,
    dns::{
        Names,
        testing::{of_question, opt, response, soa},
        wire::{Query, bits, rcode, rtype},
    },
};

/// The host's address on the bridge.
pub(super) const HERE: &str = "192.168.150.1";

/// Longer than anything a test waits for on purpose.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a network namespace of its own, which has a bridge `br0` with `HERE` and a loopback. It lives as long
/// as the test's thread.
pub(super) fn in_netns<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace: run it as root");
        ip("link set lo up");
        ip("link add br0 type bridge");
        ip(&format!("addr add {HERE}/24 dev br0"));
        ip("link set br0 up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { timeout(3 * PATIENCE, test()).await.expect("the test hangs") });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in this thread's namespace.
pub(super) fn ip(arguments: &str) {
    let status = std::process::Command::new("ip").args(arguments.split_whitespace()).status().expect("ip (iproute2)");
    assert!(status.success(), "ip {arguments}");
}

/// A directory of the test's own.
pub(super) struct Directory(TempDir);

impl Directory {
    pub(super) fn new() -> Directory {
        Directory(TempDir::new().expect("a temporary directory"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file in the temporary directory");
        path
    }
}

/// A network's DNS with what it needs around it.
pub(super) struct Network {
    pub(super) service: Service,
    pub(super) names: watch::Sender<Arc<Names>>,
    pub(super) directory: Directory,
}

/// The configuration the tests start from.
pub(super) fn config(resolv_conf: &Path) -> DnsConfig {
    DnsConfig {
        listen: vec![HERE.parse().expect("an address")],
        subnets: vec!["192.168.150.0/24".parse().expect("a subnet")],
        domain: Some("lab.example".to_owned()),
        local_only: false,
        hosts: vec![("192.168.150.9".parse().expect("an address"), vec!["printer".to_owned()])],
        forward: true,
        resolv_conf: resolv_conf.to_owned(),
        ..DnsConfig::default()
    }
}

pub(super) fn names(records: &[(&str, &str)]) -> Arc<Names> {
    let records = records.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().expect("an address")));
    Arc::new(Names { records: records.collect() })
}

impl Network {
    /// Serves on `br0`; `upstreams` is the text of resolv.conf.
    pub(super) async fn start(upstreams: &str) -> Network {
        Network::start_with(upstreams, |_, _| {}).await
    }

    pub(super) async fn start_with(upstreams: &str, change: impl FnOnce(&mut DnsConfig, &mut Surroundings)) -> Network {
        let directory = Directory::new();
        let mut config = config(&directory.write("resolv.conf", upstreams));
        let mut surroundings =
            Surroundings { behind_stub: directory.path("behind-stub.conf"), ..Surroundings::default() };
        change(&mut config, &mut surroundings);
        let (sender, receiver) = watch::channel(names(&[("vm1", "192.168.150.101"), ("vm2", "192.168.150.102")]));
        let service = Service::start(config, "br0", receiver, surroundings).await.expect("DNS starts");
        Network { service, names: sender, directory }
    }

    /// `dig` asking this network, from the host.
    pub(super) async fn dig(&self, arguments: &str) -> String {
        let port = self.service.port();
        dig(&format!("@{HERE} -p {port} {arguments}")).await
    }

    /// A question over UDP and its answer, as bytes.
    pub(super) async fn ask(&self, query: &[u8]) -> Vec<u8> {
        let socket = self.socket().await;
        socket.send(query).await.expect("sent");
        receive(&socket).await
    }

    pub(super) async fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind((HERE, 0)).await.expect("a socket");
        socket.connect((HERE, self.service.port())).await.expect("connected");
        socket
    }
}

/// The next datagram.
pub(super) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer in time").expect("an answer");
    buffer.truncate(length);
    buffer
}

/// Runs `dig` with one try and returns what it prints.
pub(super) async fn dig(arguments: &str) -> String {
    let Output { stdout, .. } = Command::new("dig")
        .args(["+tries=1", "+time=9", "+nocookie"])
        .args(arguments.split_whitespace())
        .output()
        .await
        .expect("this test runs dig: install bind9-dnsutils");
    String::from_utf8(stdout).expect("text")
}

/// An upstream resolver. What it does with a question, its first label says; `log` is what it was asked.
pub(super) struct Upstream {
    pub(super) log: Arc<Mutex<Vec<Seen>>>,
    tasks: Vec<AbortHandle>,
}

/// One question as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) from: SocketAddr,
    pub(super) over_tcp: bool,
    pub(super) query: Query,
    pub(super) bytes: Vec<u8>,
}

impl Upstream {
    /// Serves port 53 of `address` over UDP and TCP.
    pub(super) async fn start(address: &str) -> Upstream {
        let address: IpAddr = address.parse().expect("an address");
        let udp = Arc::new(UdpSocket::bind((address, 53)).await.expect("port 53"));
        let tcp = TcpListener::bind((address, 53)).await.expect("port 53");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (udp_log, tcp_log) = (log.clone(), log.clone());
        let datagrams = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let seen = see(&udp_log, from, false, &buffer[..length]);
                tokio::spawn(by_udp(udp.clone(), seen));
            }
        });
        let connections = tokio::spawn(async move {
            while let Ok((mut stream, from)) = tcp.accept().await {
                let log = tcp_log.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await.expect("a query");
                        let seen = see(&log, from, true, &query);
                        for message in answer(&seen, 0) {
                            stream.write_all(&crate::dns::io::tcp::framed(&message)).await.expect("written");
                        }
                    }
                });
            }
        });
        Upstream { log, tasks: vec![datagrams.abort_handle(), connections.abort_handle()] }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.lock().expect("the log").clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn see(log: &Mutex<Vec<Seen>>, from: SocketAddr, over_tcp: bool, bytes: &[u8]) -> Seen {
    let query = Query::parse(bytes).expect("a query we sent ourselves");
    let seen = Seen { from, over_tcp, query, bytes: bytes.to_vec() };
    log.lock().expect("the log").push(seen.clone());
    seen
}

/// Over UDP some questions are answered late, from elsewhere, or not at all.
async fn by_udp(socket: Arc<UdpSocket>, seen: Seen) {
    static TURNS: Mutex<Option<HashMap<SocketAddr, u32>>> = Mutex::new(None);
    let local = socket.local_addr().expect("an address");
    let turn = {
        let mut turns = TURNS.lock().expect("turns");
        let turn = turns.get_or_insert_default().entry(local).or_default();
        *turn += 1;
        *turn
    };
    let from: Arc<UdpSocket> = match first_label(&seen).as_str() {
        "otherport" => Arc::new(UdpSocket::bind((local.ip(), 0)).await.expect("a socket")),
        "slow" => {
            sleep(Duration::from_millis(300)).await;
            socket
        }
        "late" => {
            sleep(Duration::from_millis(2000)).await;
            socket
        }
        _ => socket,
    };
    for message in answer(&seen, turn) {
        from.send_to(&message, seen.from).await.expect("sent");
    }
}

fn first_label(seen: &Seen) -> String {
    seen.query.name.labels().next().map_or_else(String::new, |label| String::from_utf8_lossy(label).into_owned())
}

/// The messages a question gets.
fn answer(seen: &Seen, turn: u32) -> Vec<Vec<u8>> {
    let query = &seen.bytes;
    let address = of_question(rtype::A, 300, &[198, 51, 100, 7]);
    let additional: &[Vec<u8>] = &[opt(1400, 0, seen.query.dnssec_ok(), &[])];
    let good = response(query, 0, [&[address], &[], additional]);
    let code = |code| vec![response(query, code, [&[], &[], additional])];
    match first_label(seen).as_str() {
        "silent" => Vec::new(),
        "servfail" => code(rcode::SERVFAIL),
        "refused" => code(rcode::REFUSED),
        "nx" => vec![response(query, rcode::NXDOMAIN, [&[], &[soa("example", 600, 60)], additional])],
        "nodata" => vec![response(query, 0, [&[], &[soa("example", 600, 60)], additional])],
        "wrongid" => {
            let mut forged = response(query, 0, [&[of_question(rtype::A, 300, &[6, 6, 6, 6])], &[], additional]);
            forged[0] ^= 0x55;
            if seen.over_tcp { vec![good] } else { vec![forged, good] }
        }
        "liar" => {
            let mut forged = good.clone();
            forged[1] ^= 1;
            if seen.over_tcp { vec![good] } else { vec![forged; 20] }
        }
        "otherquestion" => {
            let mut forged = good.clone();
            forged[13] ^= 1;
            if seen.over_tcp { vec![good] } else { vec![forged, good] }
        }
        "twice" => vec![good.clone(), good],
        "garbage" => vec![[&query[..2], &[0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0, 0xff]].concat()],
        "big" if !seen.over_tcp => vec![response(query, bits::TRUNCATED, [&[], &[], additional])],
        "big" => {
            let records: Vec<Vec<u8>> = (0..200).map(|n| of_question(rtype::A, 300, &[10, 0, 0, n])).collect();
            vec![response(query, 0, [&records, &[], additional])]
        }
        "noedns" if seen.query.edns.is_some() => vec![response(query, rcode::FORMERR, [&[], &[], &[]])],
        "noedns" => vec![response(query, 0, [&[of_question(rtype::A, 300, &[198, 51, 100, 8])], &[], &[]])],
        "turn" => vec![response(query, 0, [&[of_question(rtype::A, 300, &[198, 51, 100, turn as u8])], &[], &[]])],
        "unknown" => {
            let odd = of_question(65280, 77, b"\xc0\x0c of a type nobody knows");
            let sigs = of_question(46, 77, b"not really a signature");
            vec![response(query, bits::AUTHENTIC, [&[odd, sigs], &[], additional])]
        }
        _ => vec![good],
    }
}
