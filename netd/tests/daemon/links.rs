//! Ports on what the host has: bridges of its own, and macvtap devices on its interfaces; and how fast ports may be.

use std::{
    net::UdpSocket,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use netd_api::{ErrorKind, Port, PortRequest};

use super::{
    guest::{self, Guest},
    harness::{Space, wait_for},
    ports, refusal,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must be heard where nothing may be.
const QUIET: Duration = Duration::from_millis(300);

fn create(space: &Space, xml: &str) -> netd_api::NetworkReply {
    space.call(async |client| client.create_network(xml.to_owned()).await).unwrap()
}

pub(super) fn request(network: &str, portgroup: Option<&str>) -> PortRequest {
    PortRequest {
        network: network.into(),
        guest: Some("vm1".into()),
        queues: 1,
        portgroup: portgroup.map(str::to_owned),
        ..PortRequest::default()
    }
}

fn add(space: &Space, request: PortRequest) -> (Port, Vec<OwnedFd>) {
    space.call(async |client| client.add_port(request).await).unwrap()
}

fn refused(space: &Space, request: PortRequest) -> netd_api::Error {
    refusal(space.call(async |client| client.add_port(request).await))
}

/// Interfaces of the host, each with nobody at the other end.
fn interfaces(space: &Space, names: &[&str]) {
    for name in names {
        space.run(&format!("ip link add {name} type veth peer name {name}-peer"));
        space.run(&format!("ip link set {name}-peer up"));
    }
}

fn macvtaps(mode: &str, interfaces: &[&str]) -> String {
    let pool: String = interfaces.iter().map(|name| format!("<interface dev='{name}'/>")).collect();
    format!("<network><name>lan</name><forward mode='{mode}'>{pool}</forward></network>")
}

fn links(space: &Space, kind: &str) -> Vec<String> {
    let text = space.run(&format!("ip -br link show type {kind}"));
    text.lines().filter_map(|line| line.split(['@', ' ']).next()).map(str::to_owned).collect()
}

/// What a macvtap is on and how.
fn on(space: &Space, port: &Port) -> String {
    let text = space.run(&format!("ip -d -o link show dev {}", port.interface));
    text.split_whitespace().nth(1).unwrap().trim_end_matches(':').split('@').nth(1).unwrap_or_default().to_owned()
}

/// Whether a frame from one reaches the other, sent again and again.
pub(super) fn hears(from: &Guest, to: &Guest, patience: Duration) -> bool {
    let frame = guest::ethernet(from.mac, to.mac, 0x88b5, &[0x42; 60]);
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        from.send(&frame);
        let mine = |heard: &[u8]| (heard[..6] == to.mac && heard[12..14] == [0x88, 0xb5]).then_some(());
        if to.hear(Duration::from_millis(50), mine).is_some() {
            return true;
        }
    }
    false
}

#[test]
fn macvtap_ports_talk_to_each_other_in_bridge_mode_and_not_in_private_mode() {
    let space = Space::new();
    let _daemon = space.daemon();
    interfaces(&space, &["eth0"]);
    for (mode, reached) in [("bridge", true), ("private", false)] {
        create(&space, &macvtaps(mode, &["eth0"]));
        let (a, b) = (Guest::plug(&space, "lan", "vm1"), Guest::plug(&space, "lan", "vm2"));
        let link = space.run(&format!("ip -d link show dev {}", a.port.interface));
        assert!(link.contains(&format!("macvtap mode {mode}")) && link.contains(&a.port.mac), "{link}");
        assert!(link.contains("UP"), "{link}");
        assert_eq!(hears(&a, &b, if reached { PATIENCE } else { QUIET }), reached, "{mode}");
        let info = space.call(async |client| client.get_ports("vm1").await).unwrap().ports.remove(0);
        assert_eq!((info.macvtap.as_deref(), info.guards, info.dropped), (Some("eth0"), false, None));
        drop((a, b));
        wait_for("the macvtaps to go", || links(&space, "macvtap").is_empty() && ports(&space).is_empty());
        space.destroy("lan");
    }
    // It was down, and who plugs guests into it wants it up.
    assert!(space.run("ip link show dev eth0").contains(",UP"));
    assert_eq!(links(&space, "veth"), ["eth0-peer", "eth0"]);
}

#[test]
fn a_macvtap_goes_on_the_interface_with_the_fewest_and_alone_where_it_must() {
    let space = Space::new();
    let _daemon = space.daemon();
    interfaces(&space, &["eth0", "eth1"]);
    create(&space, &macvtaps("vepa", &["eth0", "eth1"]));
    let (first, second, third) =
        (add(&space, request("lan", None)), add(&space, request("lan", None)), add(&space, request("lan", None)));
    assert_eq!([&first, &second, &third].map(|(port, _)| on(&space, port)), ["eth0", "eth1", "eth0"]);
    let guarded = PortRequest { guards: Some(true), ..request("lan", None) };
    let error = refused(&space, guarded);
    assert_eq!(error.kind(), ErrorKind::ConfigUnsupported, "{error}");
    drop((first, second, third));
    wait_for("the macvtaps to go", || links(&space, "macvtap").is_empty() && ports(&space).is_empty());
    space.destroy("lan");

    create(&space, &macvtaps("passthrough", &["eth0", "eth1"]));
    let (first, second) = (add(&space, request("lan", None)), add(&space, request("lan", None)));
    assert_eq!([&first, &second].map(|(port, _)| on(&space, port)), ["eth0", "eth1"]);
    let error = refused(&space, request("lan", None));
    assert_eq!(
        error.to_string(),
        "internal error: network 'lan' requires exclusive access to interfaces, but none are available"
    );
    drop(first);
    wait_for("the macvtap to go", || ports(&space).len() == 1);
    assert_eq!(on(&space, &add(&space, request("lan", None)).0), "eth0");
}

#[test]
fn a_macvtap_lives_as_long_as_any_of_its_descriptors() {
    let space = Space::new();
    let _daemon = space.daemon();
    interfaces(&space, &["eth0"]);
    create(&space, &macvtaps("bridge", &["eth0"]));
    let (port, mut fds) = add(&space, PortRequest { queues: 3, ..request("lan", None) });
    assert_eq!((port.queues, fds.len()), (3, 3));
    // Another port's end has the daemon look; this one has lost two of three.
    let other = add(&space, request("lan", None));
    fds.truncate(1);
    drop(other);
    wait_for("the other port to go", || ports(&space).len() == 1);
    assert_eq!(links(&space, "macvtap"), std::slice::from_ref(&port.interface));
    drop(fds);
    wait_for("the macvtap to go", || links(&space, "macvtap").is_empty() && ports(&space).is_empty());
}

#[test]
fn macvtaps_are_adopted_after_a_crash_and_those_of_guests_that_ended_meanwhile_are_removed() {
    let space = Space::new();
    let daemon = space.daemon();
    interfaces(&space, &["eth0"]);
    create(&space, &macvtaps("bridge", &["eth0"]));
    let (a, b) = (Guest::plug(&space, "lan", "vm1"), Guest::plug(&space, "lan", "vm2"));
    let gone = add(&space, request("lan", None));
    daemon.kill();
    drop(gone);
    assert_eq!(links(&space, "macvtap").len(), 3, "the kernel keeps what nobody has open");
    assert!(hears(&a, &b, PATIENCE), "a daemon's end cuts nobody off");
    let daemon = space.daemon();
    wait_for("the orphan to go", || links(&space, "macvtap").len() == 2 && ports(&space).len() == 2);
    assert!(hears(&a, &b, PATIENCE));
    drop(a);
    wait_for("an adopted macvtap to go", || links(&space, "macvtap").len() == 1 && ports(&space).len() == 1);
    // Once more, and over a network that is stopped while its guest is there.
    space.destroy("lan");
    assert!(!space.run("ip link show type macvtap").contains("state UP"));
    daemon.kill();
    let _daemon = space.daemon();
    create(&space, &macvtaps("bridge", &["eth0"]));
    assert!(space.run("ip link show type macvtap").contains(",UP"));
    let c = Guest::plug(&space, "lan", "vm3");
    assert!(hears(&c, &b, PATIENCE));
}

#[test]
fn an_interface_that_is_not_there_is_told() {
    let space = Space::new();
    let _daemon = space.daemon();
    let reply = create(&space, &macvtaps("bridge", &["eth7"]));
    assert_eq!(reply.notices, ["network 'lan': there is no interface eth7"]);
    let error = refused(&space, request("lan", None));
    assert!(
        error.to_string().contains("cannot create a macvtap device on eth7: interface eth7 does not exist"),
        "{error}"
    );
    assert!(links(&space, "macvtap").is_empty());
}

const ON_BRIDGE: &str = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/></network>";

#[test]
fn on_a_bridge_of_the_host_there_are_ports_and_nothing_else() {
    let space = Space::new();
    let _daemon = space.daemon();
    // Its address would be tentative for a while.
    space.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    space.run("ip link add br0 mtu 1400 type bridge forward_delay 0");
    space.run("ip link set br0 up");
    space.run("ip address add 10.9.0.1/24 dev br0");
    let settings = || {
        let text = space.run("ip -d link show dev br0");
        text.split("bridge ").nth(1).unwrap().split(" bridge_id").next().unwrap().to_owned()
    };
    let (found, bridge) = (space.traces(), settings());
    create(&space, ON_BRIDGE);
    assert_eq!(space.traces(), found, "a network on the host's bridge is only a name");
    let (mut a, b) = (Guest::plug(&space, "lan", "vm1"), Guest::plug(&space, "lan", "vm2"));
    assert_eq!(a.port.mtu, 1400);
    assert!(hears(&a, &b, PATIENCE));
    // Any address will do, but only from its own MAC.
    a.address = "10.9.0.77".parse().unwrap();
    assert!(a.reaches("10.9.0.1".parse().unwrap()));
    let forged = guest::ethernet([0x52, 0x54, 0, 9, 9, 9], b.mac, 0x88b5, &[0; 60]);
    a.send(&forged);
    wait_for("the guard to count it", || {
        let info = space.call(async |client| client.get_ports("vm1").await).unwrap().ports.remove(0);
        info.dropped.is_some_and(|dropped| dropped.mac == 1)
    });
    assert_eq!(settings(), bridge);
    // Whoever made the bridge makes it anew.
    space.run("ip link delete br0");
    space.run("ip link add br0 type bridge forward_delay 0");
    space.run("ip link set br0 up");
    wait_for("the ports to be back", || links(&space, "bridge_slave").len() == 2);
    assert!(hears(&a, &b, PATIENCE));
    space.destroy("lan");
    assert!(links(&space, "bridge_slave").is_empty());
    assert!(!space.run("nft list ruleset").contains("netd"));
    create(&space, ON_BRIDGE);
    assert!(hears(&a, &b, PATIENCE));
}

#[test]
fn a_bridge_that_is_yet_to_come_is_told_and_waited_for() {
    let space = Space::new();
    let _daemon = space.daemon();
    let reply = create(&space, ON_BRIDGE);
    assert_eq!(reply.notices, ["network 'lan': there is no bridge br0: no port can be added before it is there"]);
    let error = refused(&space, request("lan", None));
    assert!(error.to_string().contains("interface br0 does not exist"), "{error}");
    assert!(links(&space, "tun").is_empty());
    space.run("ip link add br0 type bridge");
    add(&space, request("lan", None));
}

fn shaped(network: &str, groups: &str) -> String {
    format!(
        "<network><name>n</name><bridge name='br-n'/>{network}<ip address='10.9.0.1' prefix='24'/>{groups}</network>"
    )
}

const GROUPS: &str = "<portgroup name='slow'><bandwidth><inbound average='200' peak='400' burst='20'/></bandwidth>\
                      </portgroup><portgroup name='sure'><bandwidth><inbound floor='300'/></bandwidth></portgroup>\
                      <portgroup name='most'><bandwidth><inbound floor='800'/></bandwidth></portgroup>";

/// The classes of a link, without the numbers that the kernel gives to the queues in them, another time other ones.
fn classes(space: &Space, link: &str) -> String {
    let text = space.run(&format!("tc class show dev {link}"));
    let without_leaf = |line: &str| match line.split_once(" leaf ") {
        Some((head, tail)) => format!("{head} {}", tail.split_once(' ').map_or("", |(_, rest)| rest)),
        None => line.to_owned(),
    };
    text.lines().map(without_leaf).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_networks_speed_is_shared_by_classes_as_libvirt_makes_them() {
    let space = Space::new();
    let found = space.traces();
    let daemon = space.daemon();
    create(&space, &shaped("<bandwidth><inbound average='1000' peak='2000' burst='256'/></bandwidth>", GROUPS));
    let has = |parts: &[&str]| {
        let text = classes(&space, "br-n");
        parts.iter().all(|part| text.contains(part))
    };
    let plain = ["htb 1:1 root rate 8Mbit ceil 16Mbit burst 256Kb", "htb 1:2 parent 1:1 ", "rate 8Mbit ceil 16Mbit"];
    assert!(has(&plain), "{}", classes(&space, "br-n"));
    let (port, fds) = add(&space, request("n", Some("sure")));
    assert!(has(&["htb 1:3 parent 1:1 ", "rate 2400Kbit ceil 16Mbit", "rate 5600Kbit"]), "{}", classes(&space, "br-n"));
    let filters = space.run("tc filter show dev br-n");
    let mac = port.mac.replace(':', "");
    assert!(filters.contains("flowid 1:3") && filters.contains(&format!("match {}/ffffffff", &mac[4..])), "{filters}");
    // What is promised must be there, the burst's peak included.
    let _second = add(&space, request("n", Some("most")));
    let _third = add(&space, request("n", Some("most")));
    let error = refused(&space, PortRequest { mac: Some("52:54:00:00:00:05".into()), ..request("n", Some("most")) });
    assert_eq!(
        error.to_string(),
        "Requested operation is not valid: Cannot plug '52:54:00:00:00:05' interface into 'br-n' because it would \
         overcommit 'peak' on network 'n'"
    );
    let before = classes(&space, "br-n");
    daemon.kill();
    let _daemon = space.daemon();
    assert_eq!(classes(&space, "br-n"), before, "a new daemon finds it as it should be");
    // Someone takes it away.
    space.run("tc qdisc delete dev br-n root");
    wait_for("the classes to be back", || classes(&space, "br-n") == before);
    drop(fds);
    wait_for("the port's class to go", || !classes(&space, "br-n").contains("2400Kbit"));
    assert!(has(&plain[..2]));
    space.destroy("n");
    drop((_second, _third));
    wait_for("the ports to go", || ports(&space).is_empty());
    assert_eq!(space.traces(), found);
}

#[test]
fn a_port_of_a_group_is_as_slow_as_the_group_and_its_neighbour_is_not() {
    let space = Space::new();
    let _daemon = space.daemon();
    create(&space, &shaped("", GROUPS));
    let plug = |name: &str, group: Option<&str>| {
        Guest::plug_request(&space, PortRequest { guest: Some(name.into()), ..request("n", group) })
    };
    let (slow, fast) = (plug("vm1", Some("slow")), plug("vm2", None));
    assert!(classes(&space, &slow.port.interface).contains("rate 1600Kbit ceil 3200Kbit burst 20Kb"));
    assert_eq!(classes(&space, &fast.port.interface), "");
    let info = space.call(async |client| client.get_ports("vm1").await).unwrap().ports.remove(0);
    assert_eq!(info.portgroup.as_deref(), Some("slow"));
    for (guest, address) in [(&slow, "10.9.0.11"), (&fast, "10.9.0.12")] {
        space.run(&format!("ip neigh replace {address} lladdr {} dev br-n nud permanent", guest.port.mac));
    }
    // 2 MB to each. What the slow one has by the time all is sent is bounded by the time that took, peak and burst and
    // all; what more it has is in its queue.
    const COUNT: usize = 2000;
    const SIZE: usize = 1000;
    let begun = Instant::now();
    let sender = space.thread(|| {
        let [fast, slow] = [(); 2].map(|()| UdpSocket::bind("10.9.0.1:0").unwrap());
        slow.set_nonblocking(true).unwrap();
        for number in 0..COUNT {
            fast.send_to(&[0; SIZE], "10.9.0.12:9").unwrap();
            // A full queue is what this is about.
            let _ = slow.send_to(&[0; SIZE], "10.9.0.11:9");
            if number % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let bytes = |guest: &Guest| guest.heard().iter().filter(|frame| frame.len() > SIZE).count() * SIZE;
    let (mut got_fast, mut got_slow) = (0, 0);
    while !sender.is_finished() {
        got_fast += bytes(&fast);
        got_slow += bytes(&slow);
    }
    sender.join().unwrap();
    got_fast += bytes(&fast);
    got_slow += bytes(&slow);
    let elapsed = begun.elapsed();
    println!("in {elapsed:?}: {got_slow} bytes on the slow port, {got_fast} on the other");
    assert!(got_fast > COUNT * SIZE / 2, "{got_fast}");
    let most = 400_000.0 * elapsed.as_secs_f64() + 100_000.0;
    assert!((got_slow as f64) < most, "{got_slow} bytes in {elapsed:?}");
    assert!(got_slow > 0);
}

#[test]
fn a_port_group_that_is_not_there_is_refused_by_name() {
    let space = Space::new();
    let _daemon = space.daemon();
    create(&space, &shaped("", GROUPS));
    let error = refused(&space, request("n", Some("fast")));
    assert_eq!(error.to_string(), "operation failed: network 'n' has no port group 'fast'");
    // A floor is a part of what the network has, and this one has no number.
    let error = refused(&space, request("n", Some("sure")));
    assert!(error.to_string().contains("Invalid use of 'floor' on interface with MAC address"), "{error}");
    assert!(ports(&space).is_empty());
}

#[test]
fn a_bridge_with_a_static_table_learns_nothing_and_floods_nothing() {
    let space = Space::new();
    let _daemon = space.daemon();
    create(
        &space,
        "<network><name>n</name><bridge name='br-n' macTableManager='libvirt'/><ip address='10.9.0.1' prefix='24'/>\
         </network>",
    );
    let unguarded = |name: &str| {
        Guest::plug_request(&space, PortRequest { guest: Some(name.into()), guards: Some(false), ..request("n", None) })
    };
    let (a, b, c) = (unguarded("vm1"), unguarded("vm2"), unguarded("vm3"));
    let port = space.run(&format!("bridge -d link show dev {}", a.port.interface));
    assert!(port.contains("learning off") && port.contains(" flood off"), "{port}");
    assert!(space.run(&format!("bridge fdb show dev {}", a.port.interface)).contains(&a.port.mac));
    assert!(hears(&a, &b, PATIENCE));
    // To nobody's MAC it goes nowhere; from a MAC that is not the port's nothing is learned.
    a.send(&guest::ethernet([0x52, 0x54, 0, 7, 7, 7], [0x52, 0x54, 0, 8, 8, 8], 0x88b5, &[0; 60]));
    b.send(&guest::ethernet(b.mac, [0x52, 0x54, 0, 7, 7, 7], 0x88b5, &[0; 60]));
    let stranger = |frame: &[u8]| (frame[12..14] == [0x88, 0xb5] && frame[..5] != c.mac[..5]).then_some(());
    assert!(c.hear(QUIET, stranger).is_none());
    assert!(!space.run("bridge fdb show br br-n").contains("52:54:00:07:07:07"));
    // Put back as it was when someone changes it.
    space.run(&format!("bridge link set dev {} learning on flood on", a.port.interface));
    space.run(&format!("ip link set dev {} nomaster", b.port.interface));
    wait_for("the settings to be back", || {
        [&a, &b].into_iter().all(|guest| {
            let port = space.run(&format!("bridge -d link show dev {}", guest.port.interface));
            port.contains("learning off") && port.contains(" flood off")
        })
    });
    assert!(hears(&a, &b, PATIENCE));
}

/// On a bridge of the host, which stays when the network goes.
fn policed(network: &str) -> String {
    format!(
        "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/>{network}<portgroup name='slow' \
         default='yes'><bandwidth><outbound average='200' burst='20'/></bandwidth></portgroup><portgroup name='any'/>\
         </network>"
    )
}

const OUTBOUND: &str = "<bandwidth><inbound average='500'/><outbound average='1000' burst='64'/></bandwidth>";

/// That what is too fast is dropped is shown in the acceptance tests, on a kernel that can do it.
#[test]
fn what_guests_send_has_its_policer_or_the_kernel_is_told_to_lack_it() {
    let scratch = Space::new();
    scratch.run("ip link add br0 type bridge");
    let filter = "tc filter add dev br0 parent ffff: protocol all u32 match u32 0 0 police rate 1mbit burst 10k drop";
    let tried = ["tc qdisc add dev br0 ingress", filter].map(|command| scratch.command(command).output().unwrap());
    let polices = tried.iter().all(|output| output.status.success());
    let space = Space::new();
    space.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    space.run("ip link add br0 type bridge forward_delay 0");
    space.run("ip link set br0 up");
    let found = space.traces();
    let _daemon = space.daemon();
    if polices {
        create(&space, &policed(OUTBOUND));
        assert!(space.run("tc filter show dev br0 parent ffff:").contains("rate 8Mbit burst 64Kb"));
        return;
    }
    let error = refusal(space.call(async |client| client.create_network(policed(OUTBOUND)).await)).to_string();
    let expected = "cannot limit br0 to 500 kB/s out and 1000 kB/s in: this kernel cannot limit bandwidth: it has no \
                    cls_u32 and act_police (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_POLICE)";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(space.traces(), found);
    create(&space, &policed(""));
    let error = refused(&space, request("lan", None)).to_string();
    assert!(error.contains("act_police"), "{error}");
    assert!(links(&space, "tun").is_empty() && ports(&space).is_empty());
}

const VLANS: &str = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/>\
    <portgroup name='red'><vlan><tag id='10'/></vlan></portgroup>\
    <portgroup name='blue'><vlan><tag id='20'/></vlan></portgroup>\
    <portgroup name='all'><vlan trunk='yes'><tag id='10' nativeMode='untagged'/><tag id='20'/></vlan></portgroup>\
    <portgroup name='none'/></network>";

#[test]
fn a_bridge_that_looks_at_no_tags_is_left_so_and_has_no_vlans() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.run("ip link add br0 type bridge");
    create(&space, VLANS);
    let error = refused(&space, request("lan", Some("red"))).to_string();
    let mend = "bridge br0 does not filter VLANs; 'ip link set dev br0 type bridge vlan_filtering 1' has it do so";
    assert!(error.contains(mend), "{error}");
    assert!(links(&space, "tun").is_empty());
    add(&space, request("lan", Some("none")));
    let guarded = PortRequest { guards: Some(true), ..request("lan", Some("all")) };
    let error = refused(&space, guarded);
    assert_eq!(error.kind(), ErrorKind::ConfigUnsupported, "{error}");
}
