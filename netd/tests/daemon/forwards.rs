//! Port forwards through the daemon, with guests that are namespaces: they get leases from it and answer on port 22.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netd_api::{ErrorKind, Forward, ForwardTarget, Protocol, calls::DeleteForward};

use crate::{
    harness::{Space, wait_for},
    refusal,
};

const PATIENCE: Duration = Duration::from_secs(3);

/// Runs `body` on a thread in a network namespace that `ip` knows by this name.
fn within<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let inside = || {
        nix::sched::setns(OwnedFd::from(file), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        body()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whoever connects to port 22 is told the name and the address it was seen to come from.
fn serve(namespace: &str, name: &str) {
    let listener = within(namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 22)).unwrap());
    let name = name.to_owned();
    thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            let _ = stream.write_all(format!("{name} {}", client.ip()).as_bytes());
        }
    });
}

/// Who answers there, or how nobody does.
fn ask(namespace: &str, to: &str, port: u16) -> String {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    within(namespace, || match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).map_or_else(|error| format!("{:?}", error.kind()), |_| text)
        }
        Err(error) => format!("{:?}", error.kind()),
    })
}

/// A namespace of a test; goes with the value.
struct Machine(String);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

impl Machine {
    /// A machine on a wire to the space; its end there is `wire`, its own `eth0`.
    fn new(space: &Space, name: &str, wire: &str) -> Self {
        let machine = Machine(format!("{}-{name}", space.name));
        ip(&format!("netns add {}", machine.0));
        space.run(&format!("ip link add {wire} type veth peer name eth0 netns {}", machine.0));
        space.run(&format!("ip link set {wire} up"));
        machine.ip("link set lo up");
        machine.ip("link set eth0 up");
        machine
    }

    /// A guest on a bridge, without an address yet.
    fn guest(space: &Space, name: &str, bridge: &str) -> Self {
        let guest = Machine::new(space, name, name);
        space.run(&format!("ip link set {name} master {bridge}"));
        serve(&guest.0, name);
        guest
    }

    fn outside(space: &Space) -> Self {
        let outside = Machine::new(space, "outside", "uplink");
        space.run("ip address add 198.51.100.1/24 dev uplink");
        outside.ip("address add 198.51.100.2/24 dev eth0");
        outside
    }

    fn ip(&self, words: &str) {
        ip(&format!("-n {} {words}", self.0));
    }

    /// Asks for a lease under a name; the address it got is its own from then on.
    fn lease(&self, hostname: &str) -> String {
        let script = format!("/tmp/{}-udhcpc", self.0);
        fs::write(
            &script,
            "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip address flush dev eth0\n\
             ip address add $ip/$mask dev eth0\nip route add default via $router\necho $ip\n",
        )
        .unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new("ip")
            .args(["netns", "exec", &self.0, "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1"])
            .args(["-s", &script, "-x", &format!("hostname:{hostname}")])
            .output()
            .expect("udhcpc is needed");
        fs::remove_file(&script).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said.lines().last().unwrap().to_owned()
    }

    /// Gives the lease back and the address up.
    fn release(&self, space: &Space, address: &str) {
        let mac = within(&self.0, || {
            let output = Command::new("ip").args(["-br", "link", "show", "eth0"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().split_whitespace().nth(2).unwrap().to_owned()
        });
        let bytes: Vec<u8> = mac.split(':').map(|part| u8::from_str_radix(part, 16).unwrap()).collect();
        let own: Ipv4Addr = address.parse().unwrap();
        let server = Ipv4Addr::new(192, 168, 122, 1);
        // DHCPRELEASE (RFC 2131 §4.4.6).
        let mut message = vec![1, 1, 6, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        message.extend(own.octets());
        message.resize(28, 0);
        message.extend(&bytes);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, 7, 54, 4]);
        message.extend(server.octets());
        // The identifier udhcpc gave: type 1 and the MAC.
        message.extend([61, 7, 1]);
        message.extend(&bytes);
        message.push(255);
        within(&self.0, || {
            let socket = std::net::UdpSocket::bind((own, 68)).unwrap();
            socket.send_to(&message, (server, 67)).unwrap();
        });
        wait_for("the lease to go", || {
            let leases = space.call(async |client| client.list_leases("default", None).await).unwrap();
            !leases.leases.iter().any(|lease| lease.mac == mac)
        });
    }
}

fn forward(port: u32, targets: &[(&str, u32)]) -> Forward {
    Forward {
        network: "default".into(),
        protocol: Protocol::Tcp,
        first_port: port,
        last_port: port,
        address: None,
        targets: targets
            .iter()
            .map(|(guest, port)| ForwardTarget { guest: Some((*guest).to_owned()), address: None, port: *port })
            .collect(),
    }
}

fn delete(port: u32) -> DeleteForward {
    let (network, protocol) = ("default".to_owned(), Protocol::Tcp);
    DeleteForward { network, protocol, first_port: port, last_port: port, address: None }
}

#[test]
fn a_forward_by_name_works_from_everywhere_and_follows_the_lease() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let outside = Machine::outside(&space);
    let reply = space.call(async |client| client.add_forward(forward(2222, &[("vm1", 22)])).await).unwrap();
    assert!(reply.notices[0].contains("guest 'vm1' has no address"), "{:?}", reply.notices);
    assert_eq!(ask(&outside.0, "198.51.100.1", 2222), "ConnectionRefused", "nobody is there yet");
    assert_eq!(ask(&space.name, "127.0.0.1", 2222), "ConnectionRefused", "nobody is there yet");

    let vm1 = Machine::guest(&space, "vm1", "virbr0");
    let vm2 = Machine::guest(&space, "vm2", "virbr0");
    let first = vm1.lease("vm1");
    vm2.lease("vm2");
    let begin = Instant::now();
    wait_for("the forward", || ask(&outside.0, "198.51.100.1", 2222) == "vm1 198.51.100.2");
    println!("followed the lease within {:?}", begin.elapsed());
    for (from, to, seen) in [
        (&outside.0, "192.168.122.1", "198.51.100.2"),
        (&space.name, "127.0.0.1", "192.168.122.1"),
        (&space.name, "198.51.100.1", "192.168.122.1"),
        (&space.name, "192.168.122.1", "192.168.122.1"),
        (&vm2.0, "198.51.100.1", "192.168.122.1"),
        (&vm2.0, "192.168.122.1", "192.168.122.1"),
    ] {
        // The outside has no route to a bridge's address.
        if to == "192.168.122.1" && *from == outside.0 {
            outside.ip("route add 192.168.122.0/24 via 198.51.100.1");
        }
        assert_eq!(ask(from, to, 2222), format!("vm1 {seen}"), "{from} to {to}");
    }
    let listed = space.call(async |client| client.list_forwards(None).await).unwrap().forwards;
    assert_eq!(listed[0].targets[0].address.as_deref(), Some(first.as_str()));

    // Its address goes, and another machine has the name.
    vm1.release(&space, &first);
    wait_for("the forward to reject", || ask(&outside.0, "198.51.100.1", 2222) == "ConnectionRefused");
    let vm3 = Machine::guest(&space, "vm3", "virbr0");
    let second = vm3.lease("vm1");
    wait_for("the forward to follow", || ask(&outside.0, "198.51.100.1", 2222) == "vm3 198.51.100.2");
    assert_ne!(first, second);
}

#[test]
fn a_guest_with_a_port_is_known_by_the_ports_name_while_it_is_plugged_in() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let outside = Machine::outside(&space);
    space.call(async |client| client.add_forward(forward(2222, &[("web", 22)])).await).unwrap();
    let machine = Machine::guest(&space, "vm1", "virbr0");
    machine.ip("link set eth0 address 52:54:00:00:00:77");
    machine.lease("nobody");
    assert_eq!(ask(&outside.0, "198.51.100.1", 2222), "ConnectionRefused");
    let request = netd_api::PortRequest {
        network: "default".into(),
        guest: Some("web".into()),
        mac: Some("52:54:00:00:00:77".into()),
        queues: 1,
        // The guest is on another wire than its port: guards would keep it from using the MAC there.
        guards: Some(false),
        portgroup: None,
    };
    let (_, tap) = space.call(async |client| client.add_port(request).await).unwrap();
    wait_for("the forward", || ask(&outside.0, "198.51.100.1", 2222) == "vm1 198.51.100.2");
    drop(tap);
    wait_for("the forward to reject", || ask(&outside.0, "198.51.100.1", 2222) == "ConnectionRefused");
}

#[test]
fn forwards_survive_a_flush_and_a_killed_daemon_and_leave_nothing() {
    let space = Space::new();
    let daemon = space.daemon();
    let found = space.traces();
    space.start("default");
    let outside = Machine::outside(&space);
    let vm1 = Machine::guest(&space, "vm1", "virbr0");
    vm1.lease("vm1");
    let without = space.run("nft list ruleset");
    space.call(async |client| client.add_forward(forward(2222, &[("vm1", 22)])).await).unwrap();
    let works = || {
        ask(&outside.0, "198.51.100.1", 2222) == "vm1 198.51.100.2"
            && ask(&space.name, "127.0.0.1", 2222) == "vm1 192.168.122.1"
    };
    assert!(works());

    space.run("nft flush ruleset");
    wait_for("the forwards after a flush", works);

    daemon.kill();
    assert!(works(), "without a daemon");
    space.run("nft flush ruleset");
    space.run("sysctl -qw net.ipv4.conf.virbr0.route_localnet=0");
    let daemon = space.daemon();
    assert!(works(), "with the next daemon");

    // A deleted bridge comes back with its forwards; the guest's wire has to be put on it again.
    space.run("ip link delete virbr0");
    wait_for("the bridge", || space.index("virbr0").is_some());
    wait_for("its setting", || space.run("sysctl -n net.ipv4.conf.virbr0.route_localnet").trim() == "1");
    space.run("ip link set vm1 master virbr0");
    wait_for("the forwards on a new bridge", works);

    space.call(async |client| client.delete_forward(delete(2222)).await).unwrap();
    assert_eq!(space.run("nft list ruleset"), without);
    assert_eq!(space.run("sysctl -n net.ipv4.conf.virbr0.route_localnet").trim(), "0");
    assert_eq!(ask(&outside.0, "198.51.100.1", 2222), "ConnectionRefused");
    let again = space.call(async |client| client.delete_forward(delete(2222)).await);
    assert_eq!(refusal(again).to_string(), "operation failed: network 'default' does not forward tcp/2222");

    space.call(async |client| client.add_forward(forward(2222, &[("vm1", 22)])).await).unwrap();
    space.destroy("default");
    space.run("ip link delete uplink");
    space.run("ip link delete vm1");
    assert_eq!(space.traces(), found);
    space.start("default");
    assert!(space.run("nft list ruleset").contains("tcp . 2222"), "it is in the definition");
    space.destroy("default");
    daemon.stop();
    assert_eq!(space.traces(), found);
}

#[test]
fn what_clashes_is_refused_and_what_the_host_serves_is_named() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let _sshd = within(&space.name, || TcpListener::bind(("0.0.0.0", 2222)).unwrap());
    let reply = space.call(async |client| client.add_forward(forward(2222, &[("vm1", 22)])).await).unwrap();
    let about = reply.notices.iter().find(|notice| notice.contains("listens on port 2222 too: the forward wins"));
    assert!(about.is_some_and(|text| text.contains(&format!("(pid {})", std::process::id()))), "{:?}", reply.notices);
    assert_eq!(ask(&space.name, "127.0.0.1", 2222), "ConnectionRefused", "the forward wins, though nobody is there");

    let twice = space.call(async |client| client.add_forward(forward(2222, &[("vm2", 22)])).await);
    let twice = refusal(twice);
    assert_eq!(twice.kind(), ErrorKind::OperationFailed);
    assert_eq!(
        twice.to_string(),
        "operation failed: port tcp/2222 of the host is already forwarded by network 'default'"
    );
    let nowhere = Forward { network: "nope".into(), ..forward(1, &[("vm1", 1)]) };
    assert_eq!(refusal(space.call(async |client| client.add_forward(nowhere).await)).kind(), ErrorKind::NoNetwork);
    let v6 = Forward { address: Some("::1".into()), ..forward(1, &[("vm1", 1)]) };
    let v6 = refusal(space.call(async |client| client.add_forward(v6).await));
    assert_eq!(
        v6.to_string(),
        "invalid argument: connections to ::1 cannot be forwarded: the kernel takes no answers to it from a network"
    );
}
