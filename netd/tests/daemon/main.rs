//! The daemon on a real kernel, each test in a network namespace of its own: it leaves nothing behind, survives being
//! killed, and says what is wrong. Needs root, `ip` and `nft`; fails without.

mod beside;
mod doctor;
mod events;
mod forwards;
mod guards;
mod guards6;
mod guest;
mod harness;
mod hostile;
mod link_changes;
mod links;
mod names;
mod random;
mod settings;
mod why;

use std::{fs, os::fd::OwnedFd, time::Instant};

use harness::{Space, entries, wait_for};
use netd_api::{Client, ClientError, ErrorKind, Port, PortRequest};

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> netd_api::Error {
    match result.unwrap_err() {
        ClientError::Refused(error) => error,
        other => panic!("{other}"),
    }
}

fn add_port(space: &Space, network: &str, guest: &str, queues: u32) -> (Port, Vec<OwnedFd>) {
    let request = PortRequest {
        network: network.into(),
        guest: Some(guest.into()),
        mac: None,
        queues,
        guards: None,
        portgroup: None,
    };
    space.call(async |client| client.add_port(request).await).unwrap()
}

fn active(space: &Space) -> Vec<String> {
    let listed = space.call(async |client| client.list_networks().await).unwrap();
    listed.networks.into_iter().filter(|network| network.active).map(|network| network.name).collect()
}

fn ports(space: &Space) -> Vec<String> {
    let listed = space.call(async |client| client.list_ports(None).await).unwrap();
    listed.ports.into_iter().map(|port| port.interface).collect()
}

/// A network of the kind that the number picks.
fn definition(number: u32) -> String {
    let (forward, extra) = [
        ("<forward mode='nat'/>", ""),
        ("<forward mode='route'/>", "<route address='172.30.0.0' prefix='16' gateway='GATEWAY'/>"),
        ("<forward mode='open'/>", "<mtu size='9000'/>"),
        ("", ""),
    ][number as usize % 4];
    let base = format!("10.77.{number}");
    let extra = extra.replace("172.30", &format!("172.{}", 20 + number % 10)).replace("GATEWAY", &format!("{base}.9"));
    format!(
        "<network><name>n{number}</name>{forward}{extra}<ip address='{base}.1' prefix='24'>\
         <dhcp><range start='{base}.10' end='{base}.200'/></dhcp></ip></network>"
    )
}

#[test]
fn starting_and_stopping_a_network_leaves_the_host_as_found() {
    let space = Space::new();
    let found = space.traces();
    let daemon = space.daemon();
    space.start("default");
    let link = space.run("ip -d link show dev virbr0");
    assert!(link.contains("stp_state 0") && link.contains("UP"), "{link}");
    assert!(!space.run("ip -o address show dev virbr0").contains("inet6"));
    assert!(space.run("nft list ruleset").contains("masquerade"));
    assert_eq!(space.run("sysctl -n net.ipv4.ip_forward").trim(), "1");
    space.destroy("default");
    assert_eq!(space.traces(), found);
    assert!(entries(&space.path("run/networks")).is_empty());
    daemon.stop();
    assert_eq!(space.traces(), found);
}

#[test]
fn ten_networks_of_every_kind_come_and_go() {
    let space = Space::new();
    let found = space.traces();
    let _daemon = space.daemon();
    for number in 0..10 {
        space.call(async |client| client.define_network(definition(number)).await).unwrap();
    }
    for number in 0..10 {
        let begin = Instant::now();
        space.start(&format!("n{number}"));
        println!("network {number} started in {:?}", begin.elapsed());
    }
    assert_eq!(active(&space).len(), 10);
    assert!(space.run("ip route show").contains("172.21.0.0/16 via 10.77.1.9 dev virbr2"));
    // The first to start enabled forwarding; it stays on while n9 needs it.
    for number in 0..9 {
        space.destroy(&format!("n{number}"));
        assert_eq!(space.run("sysctl -n net.ipv4.ip_forward").trim(), "1", "after n{number}");
    }
    space.destroy("n9");
    assert_eq!(space.traces(), found);
}

#[test]
fn every_setting_of_a_bridge_is_what_the_kernel_then_has() {
    let space = Space::new();
    let found = space.traces();
    let _daemon = space.daemon();
    // With the protocol on the kernel takes 2 s for anything less.
    for (bridge, mtu, expected) in [
        ("<bridge stp='off' delay='7'/>", "", vec!["stp_state 0", "mtu 1500"]),
        ("<bridge stp='on' delay='0'/>", "", vec!["stp_state 1", "forward_delay 200"]),
        ("<bridge stp='on' delay='7'/>", "<mtu size='9000'/>", vec!["forward_delay 700", "mtu 9000"]),
        ("<bridge stp='on' delay='30'/>", "<mtu size='1280'/>", vec!["forward_delay 3000", "mtu 1280"]),
    ] {
        let xml = format!("<network><name>b</name>{bridge}{mtu}<ip address='10.78.0.1' prefix='24'/></network>");
        let started = space.call(async |client| client.create_network(xml).await).unwrap();
        let link = space.run(&format!("ip -d link show dev {}", started.network.bridge.unwrap()));
        assert!(expected.iter().all(|part| link.contains(part)), "{bridge}{mtu}: {link}");
        let (port, fds) = add_port(&space, "b", "vm1", 1);
        drop(fds);
        wait_for("the port to be forgotten", || ports(&space).is_empty());
        let link = space.run("ip -d link show type bridge");
        assert!(expected.iter().all(|part| link.contains(part)), "{bridge}{mtu} after {}: {link}", port.interface);
        space.destroy("b");
        assert_eq!(space.traces(), found);
    }
}

#[test]
fn a_port_forwards_at_once_and_goes_with_its_descriptors() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let begin = Instant::now();
    let (port, fds) = add_port(&space, "default", "vm1", 2);
    let elapsed = begin.elapsed();
    let link = space.run(&format!("ip -d link show dev {}", port.interface));
    assert!(link.contains("state forwarding") && link.contains("master virbr0"), "{link}");
    assert!(link.contains("vnet_hdr on") && link.contains("numqueues 2"), "{link}");
    assert!(link.contains(&format!("link/ether fe{}", &port.mac[2..])), "{link}");
    println!("port added in {elapsed:?}");
    assert_eq!((port.queues, fds.len(), port.mtu), (2, 2, 1500));
    assert_eq!(ports(&space), std::slice::from_ref(&port.interface));
    assert_eq!(entries(&space.path("run/ports")), [format!("{}.json", port.interface)]);

    let twice = PortRequest {
        network: "default".into(),
        guest: None,
        mac: Some(port.mac.clone()),
        queues: 1,
        guards: None,
        portgroup: None,
    };
    let refused = refusal(space.call(async |client| client.add_port(twice).await));
    assert_eq!(refused.kind(), ErrorKind::OperationFailed);
    assert!(refused.to_string().contains(&port.mac) && refused.to_string().contains(&port.interface), "{refused}");

    drop(fds);
    wait_for("the port to be forgotten", || ports(&space).is_empty());
    assert_eq!(space.index(&port.interface), None);
    assert!(entries(&space.path("run/ports")).is_empty());
}

#[test]
fn a_port_of_the_most_queues_there_can_be() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (port, fds) = add_port(&space, "default", "vm1", 253);
    assert_eq!(fds.len(), 253);
    assert!(space.run(&format!("ip -d link show dev {}", port.interface)).contains("numqueues 253"));
}

#[test]
fn a_killed_daemon_is_succeeded_without_anyone_noticing() {
    let space = Space::new();
    let found = space.traces();
    let daemon = space.daemon();
    space.start("default");
    space.call(async |client| client.define_network(definition(3)).await).unwrap();
    space.start("n3");
    let (kept, fds) = add_port(&space, "default", "vm1", 1);
    let (lost, lost_fds) = add_port(&space, "n3", "vm2", 1);
    // The kernel takes up to a second to call a bridge up whose first port is.
    wait_for("the bridge to be up", || space.run("ip -o link show dev virbr0").contains("state UP"));
    let before = space.run("ip -o link show");
    daemon.kill();
    drop(lost_fds);
    wait_for("the tap to go", || space.index(&lost.interface).is_none());

    // Rules that are gone come back; rules of nobody's go.
    space.run("nft flush ruleset");
    let daemon = space.daemon();
    assert_eq!(active(&space), ["default", "n3"]);
    assert_eq!(ports(&space), std::slice::from_ref(&kept.interface));
    let after: Vec<String> = space.run("ip -o link show").lines().map(str::to_owned).collect();
    let expected: Vec<&str> = before.lines().filter(|line| !line.contains(&lost.interface)).collect();
    let of_bridge_without_port = |line: &str| line.contains("virbr1");
    for (before, after) in expected.iter().zip(&after).filter(|(line, _)| !of_bridge_without_port(line)) {
        assert_eq!(before, after, "the restart touched a link");
    }
    assert!(space.run("nft list ruleset").contains("masquerade"));
    assert!(space.run("ss -lnu").contains("192.168.122.1:53"));

    daemon.stop();
    assert_eq!(space.index(&kept.interface).map(|_| ()), Some(()), "stopping the daemon cut a guest");
    let _daemon = space.daemon();
    space.destroy("n3");
    space.destroy("default");
    drop(fds);
    wait_for("the last port to be forgotten", || ports(&space).is_empty());
    assert_eq!(space.traces(), found);
}

#[test]
fn a_deleted_bridge_is_back() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (port, _fds) = add_port(&space, "default", "vm1", 1);
    let old = space.index("virbr0").unwrap();
    space.run("ip link delete virbr0");
    wait_for("the bridge", || {
        space
            .command(&format!("ip -o link show dev {}", port.interface))
            .output()
            .unwrap()
            .stdout
            .windows(13)
            .any(|bytes| bytes == b"master virbr0")
    });
    assert_ne!(space.index("virbr0"), Some(old));
    wait_for("DNS", || space.run("ss -lnu").contains("192.168.122.1:53"));
}

#[test]
fn a_tap_pulled_off_the_bridge_is_back() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let (port, _fds) = add_port(&space, "default", "vm1", 1);
    space.run(&format!("ip link set {} nomaster", port.interface));
    space.run("ip address del 192.168.122.1/24 dev virbr0");
    let link = format!("ip -o link show dev {}", port.interface);
    wait_for("the tap", || space.run(&link).contains("master virbr0"));
    wait_for("the address", || space.run("ip -o address show dev virbr0").contains("192.168.122.1/24"));
}

#[test]
fn a_flushed_ruleset_is_back() {
    let space = Space::new();
    let found = space.traces();
    let _daemon = space.daemon();
    space.start("default");
    let rules = space.run("nft list ruleset");
    space.run("nft flush ruleset");
    wait_for("the rules", || space.run("nft list ruleset") == rules);
    space.destroy("default");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(space.traces(), found, "a network that was stopped is not put back");
}

#[test]
fn a_taken_subnet_is_refused_or_made_way_for() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.run("ip link add name eth7 type bridge");
    space.run("ip address add 192.168.122.200/25 dev eth7");
    space.run("ip address add 10.99.0.1/8 dev eth7");
    space.run("ip link set eth7 up");
    let found = space.traces();
    space.call(async |client| client.define_network(definition(0)).await).unwrap();
    let refused = refusal(space.call(async |client| client.start_network("n0").await));
    assert_eq!(refused.to_string(), "internal error: Network is already in use by interface eth7");
    assert_eq!(space.traces(), found);

    let reply = space.start("default");
    assert!(reply.notices[0].contains("to 192.168.123.0/24"), "{:?}", reply.notices);
    let xml = space.call(async |client| client.dump_xml("default", true).await).unwrap().xml;
    assert!(xml.contains("192.168.123.1"), "the choice is kept: {xml}");
}

#[test]
fn a_second_daemon_says_who_has_the_directories() {
    let space = Space::new();
    let daemon = space.daemon();
    let (said, status) = space.daemon_fails(space.daemon_command(""));
    assert!(!status.success());
    assert!(said.contains(&format!("pid {}", daemon.pid())), "{said}");
    assert!(said.contains(&space.path("config").display().to_string()), "{said}");
    assert_eq!(active(&space), Vec::<String>::new(), "the first one is unharmed");
}

#[test]
fn without_privileges_the_daemon_says_which_and_makes_nothing() {
    let space = Space::new();
    let (said, status) = space.daemon_fails(space.daemon_command("setpriv --reuid 65534 --regid 65534 --clear-groups"));
    assert!(!status.success());
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(entries(space.directory.path()).is_empty());
}

#[test]
fn without_nft_a_start_says_what_to_install_and_leaves_nothing() {
    let space = Space::new();
    let found = space.traces();
    let script = space.path("no-nft.sh");
    let hide = "mount -t tmpfs none /usr/sbin && exec \"$@\"\n";
    fs::write(&script, hide).unwrap();
    let _daemon = space.daemon_after(&format!("unshare -m sh {}", script.display()));
    let refused = refusal(space.call(async |client| client.start_network("default").await));
    assert!(refused.to_string().contains("install the package nftables"), "{refused}");
    assert_eq!(space.traces(), found);
    assert!(entries(&space.path("run/networks")).is_empty());
}

#[test]
fn without_a_tun_device_a_port_is_refused_with_the_next_move() {
    let space = Space::new();
    let script = space.path("no-tun.sh");
    fs::write(&script, "mount -t tmpfs none /dev/net && exec \"$@\"\n").unwrap();
    let _daemon = space.daemon_after(&format!("unshare -m sh {}", script.display()));
    space.start("default");
    let request =
        PortRequest { network: "default".into(), guest: None, mac: None, queues: 1, guards: None, portgroup: None };
    let refused = refusal(space.call(async |client| client.add_port(request).await));
    assert!(refused.to_string().contains("/dev/net/tun"), "{refused}");
    assert!(refused.hint().unwrap().contains("modprobe tun"), "{refused:?}");
    assert!(ports(&space).is_empty());
}

#[test]
fn a_full_disk_refuses_a_definition_and_keeps_the_old_one() {
    let space = Space::new();
    fs::create_dir(space.path("config")).unwrap();
    let script = space.path("small.sh");
    let config = space.path("config");
    let mount = format!("mount -t tmpfs -o size=64k none {} && exec \"$@\"\n", config.display());
    fs::write(&script, mount).unwrap();
    let daemon = space.daemon_after(&format!("unshare -m sh {}", script.display()));
    let seen = format!("/proc/{}/root{}", daemon.pid(), config.display());
    let filled = fs::write(format!("{seen}/filler"), vec![0; 1 << 20]);
    assert!(filled.is_err(), "the disk is not full");
    let refused = refusal(space.call(async |client| client.define_network(definition(1)).await));
    assert_eq!(refused.kind(), ErrorKind::Internal);
    assert!(refused.to_string().contains("n1.xml") && refused.hint().unwrap().contains("full"), "{refused:?}");
    assert_eq!(entries(format!("{seen}/networks").as_ref()), ["default.xml"]);
    let listed = space.call(async |client| client.list_networks().await).unwrap();
    assert_eq!(listed.networks.len(), 1);
}

#[test]
fn anyone_may_look_and_only_look() {
    let space = Space::new();
    let _daemon = space.daemon();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect(&space.path("run/netd-ro.sock")).await.unwrap();
        assert_eq!(client.list_networks().await.unwrap().networks.len(), 1);
        let refused = refusal(client.start_network("default").await);
        assert_eq!(refused.kind(), ErrorKind::AccessDenied);
    });
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| fs::metadata(space.path("run").join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("netd.sock"), mode("netd-ro.sock")), (0o660, 0o666));
}

#[test]
fn networks_marked_autostart_start_with_the_daemon_once() {
    let space = Space::new();
    let daemon = space.daemon();
    space.call(async |client| client.set_autostart("default", true).await).unwrap();
    daemon.stop();
    fs::remove_dir_all(space.path("run")).unwrap();
    let daemon = space.daemon();
    assert_eq!(active(&space), ["default"]);
    space.destroy("default");
    daemon.kill();
    let _daemon = space.daemon();
    assert!(active(&space).is_empty());
}
