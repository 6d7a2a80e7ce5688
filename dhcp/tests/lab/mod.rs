//! EDGE: a bridge in a network namespace of its own, with clients in namespaces behind it. Needs root and says so.
//!
//! Everything is made by the test's thread after it has left the host's namespaces, and goes when the test ends: no
//! frame of it is ever seen by the host.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod ipv6;
pub(crate) mod wire;

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use dhcp::{
    Services,
    config::{Dhcp4Config, LeaseTime, NetworkConfig, Range4},
};
use nix::sched::{CloneFlags, setns, unshare};

/// The network and bridge every test serves.
pub(crate) const NETWORK: &str = "default";
pub(crate) const BRIDGE: &str = "br-test";
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);

/// Runs a test in fresh namespaces, on a runtime whose threads are in them.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("this test needs root: it makes network namespaces, bridges and packet sockets");
        run("mount --make-rprivate /");
        run("ip link set lo up");
        run(&format!("ip link add {BRIDGE} address 52:54:00:00:00:01 type bridge stp_state 0"));
        run(&format!("ip addr add {SERVER}/24 dev {BRIDGE}"));
        run(&format!("ip link set {BRIDGE} up"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a tokio runtime");
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line; a failure fails the test.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.unwrap_or_else(|cause| panic!("`{line}` can't be run: {cause}"));
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A guest: a namespace with one NIC, `eth0`, whose other end is a port of the bridge.
pub(crate) struct Guest {
    pub(crate) mac: String,
    pub(crate) dir: tempfile::TempDir,
    namespace: fs::File,
}

impl Guest {
    /// Plugs a new guest in. `number` makes its names and MAC.
    pub(crate) fn new(number: u8) -> Guest {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = namespace.join().unwrap();
        let mac = format!("52:54:00:aa:00:{number:02x}");
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        run(&format!("ip link add port{number} type veth peer name eth0 address {mac} netns {path}"));
        run(&format!("ip link set port{number} master {BRIDGE} up"));
        let guest = Guest { mac, dir: tempfile::tempdir().unwrap(), namespace };
        guest.must("ip link set lo up");
        guest.must("ip link set eth0 up");
        // The kernel sees the carrier a moment later; what is sent before is lost.
        let begun = Instant::now();
        while !run(&format!("ip -d link show port{number}")).contains("state forwarding") {
            assert!(begun.elapsed() < Duration::from_secs(10), "port{number} does not forward");
            std::thread::sleep(Duration::from_millis(2));
        }
        let seen = format!("SEEN={}\n", guest.path("seen").display());
        fs::write(guest.path("hook"), HOOK.replacen('\n', &format!("\n{seen}"), 1)).unwrap();
        run(&format!("chmod +x {}", guest.path("hook").display()));
        guest
    }

    /// A file of this guest's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `f` inside the guest's namespace.
    pub(crate) fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            inside.join().unwrap()
        })
    }

    /// A command inside the guest, with scratch directories where clients keep their state.
    pub(crate) fn command(&self, line: &str) -> tokio::process::Command {
        let mut words = line.split_whitespace();
        let mut command = tokio::process::Command::new(words.next().unwrap());
        command.args(words).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let namespace = self.namespace.try_clone().unwrap();
        // SAFETY: the closure runs in the forked child and only makes system calls on a descriptor it owns; the strings
        // are made before.
        unsafe {
            command.pre_exec(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                unshare(CloneFlags::CLONE_NEWNS)?;
                let none: Option<&str> = None;
                for scratch in ["/run", "/var/lib/dhcp", "/var/lib/dhcpcd", "/var/lib/dhcpv6"] {
                    use nix::mount::{MsFlags, mount};
                    mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), none)?;
                }
                Ok(())
            });
        }
        command
    }

    /// Runs a command in the guest to its end, which comes within 30 s.
    pub(crate) async fn output(&self, line: &str) -> Output {
        let mut command = self.command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        done.unwrap_or_else(|_| panic!("`{line}` hangs"))
            .unwrap_or_else(|cause| panic!("`{line}` can't be run; install what it names: {cause}"))
    }

    /// Starts a client that stays; it and every process it makes end when the value is dropped.
    pub(crate) fn start(&self, line: &str) -> tokio::process::Child {
        // The shell is the first process of a PID namespace: clients change their user and so lose a parent-death signal,
        // but when it goes they go.
        let mut command = self.command("unshare --pid --fork --kill-child --mount-proc sh -c");
        command.arg(format!("{line}; exit"));
        command.spawn().unwrap_or_else(|cause| panic!("`unshare` can't be run: {cause}"))
    }

    fn must(&self, line: &str) {
        self.enter(|| run(line));
    }

    /// What the client's hook was told last, as `NAME=value` lines.
    pub(crate) fn seen(&self) -> String {
        fs::read_to_string(self.path("seen")).unwrap_or_default()
    }
}

/// What every client runs on an event: keeps what it was told, and configures the address.
const HOOK: &str = r#"#!/bin/sh
case "$1$reason" in deconfig|PREINIT|CARRIER|NOCARRIER|STOPPED|STOP*) exit 0 ;; esac
{ echo "event=$1$reason"; env; } > "$SEEN.new" && mv "$SEEN.new" "$SEEN"
address=${ip:-$new_ip_address}
[ -n "$address" ] && ip addr replace "$address/24" dev eth0
[ -n "$new_ip6_address" ] && ip addr replace "$new_ip6_address/64" dev eth0
exit 0
"#;

/// What `default` serves in these tests: 192.168.122.0/24, no DNS.
pub(crate) fn config() -> NetworkConfig {
    let start = Ipv4Addr::new(192, 168, 122, 2);
    let end = Ipv4Addr::new(192, 168, 122, 254);
    NetworkConfig {
        network: NETWORK.into(),
        bridge: BRIDGE.into(),
        dhcp4: Some(Dhcp4Config {
            server: "192.168.122.1/24".parse().unwrap(),
            ranges: vec![Range4 { start, end, lease: LeaseTime::Seconds(3600) }],
            hosts: Vec::new(),
            router: Some(SERVER),
            dns: vec![SERVER],
            domain: Some("lab.test".into()),
            mtu: Some(1400),
            routes: Vec::new(),
            boot: None,
            options: Vec::new(),
        }),
        ipv6: None,
        dns: None,
        tftp: Vec::new(),
    }
}

/// The services on a fresh database, with the network started.
pub(crate) async fn serve(directory: &Path, config: NetworkConfig) -> Services {
    let services = Services::open(&directory.join("leases.db")).await.expect("a lease database");
    services.start(config).await.expect("the network's servers");
    services
}

/// Waits for something to become true, which must be within 20 s.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}
