//! `netd why` on real troubles: each is made in a namespace, a real packet meets it, and where a command is said to mend
//! it, that command does.

use std::{net::Ipv4Addr, process::Stdio};

use serde_json::Value;

use crate::{
    guest::{BROADCAST, Guest, ethernet},
    harness::{Space, wait_for},
};

const DOCKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rulesets/docker.save");
const UFW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rulesets/ufw.save");

/// A machine somewhere outside, which answers echo requests and refuses connections.
const OUTSIDE: &str = "198.51.100.80";

/// One run: the stages, and whose packet it was.
struct Ladder {
    stages: Vec<Value>,
    traced: String,
    success: bool,
}

impl Ladder {
    fn of(space: &Space, words: &str) -> Self {
        let output = command(space, words).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let success = output.status.success();
        assert_eq!(report["ok"], success);
        let tables = space.run("nft list tables");
        assert!(!tables.contains("netd_why"), "the trace stays: {tables}");
        let Value::Array(stages) = report["stages"].take() else { panic!("{report}") };
        Ladder { stages, traced: report["traced"].as_str().unwrap().to_owned(), success }
    }

    /// Title, reason and mend of the only stage that failed.
    fn failure(&self) -> (&str, &str, &str) {
        assert!(!self.success, "{:#?}", self.stages);
        let failed: Vec<&Value> = self.stages.iter().filter(|stage| stage["verdict"] == "fail").collect();
        let [stage] = failed.as_slice() else { panic!("{:#?}", self.stages) };
        let text = |key: &str| stage[key].as_str().unwrap_or_default();
        (text("title"), text("says"), text("mend"))
    }

    fn checks(&self) -> Vec<(&str, &str)> {
        self.stages.iter().map(|stage| (stage["check"].as_str().unwrap(), stage["verdict"].as_str().unwrap())).collect()
    }
}

fn command(space: &Space, words: &str) -> std::process::Command {
    let mut command = space.command(env!("CARGO_BIN_EXE_netd"));
    command.arg("--socket").arg(space.path("run/netd.sock")).args(["why", "--json"]).args(words.split_whitespace());
    command.stdin(Stdio::null());
    command
}

fn sh(space: &Space, script: &str) -> String {
    let output = space.command("sh -ec").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A host with an uplink, the default network, and a guest with an address that it does not have to be asked for.
struct World {
    host: Space,
    _outside: Space,
}

impl World {
    fn new() -> Self {
        let (host, outside) = (Space::new(), Space::new());
        sh(&host, "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done");
        host.run(&format!("ip link add uplink type veth peer name eth0 netns {}", outside.name()));
        host.run("ip address add 203.0.113.2/24 dev uplink");
        host.run("ip link set uplink up");
        host.run("ip route add default via 203.0.113.1");
        outside.run("ip address add 203.0.113.1/24 dev eth0");
        outside.run(&format!("ip address add {OUTSIDE}/32 dev lo"));
        outside.run("ip link set eth0 up");
        World { host, _outside: outside }
    }

    /// A guest that has a lease and never says a word by itself.
    fn guest(&self, name: &str) -> Guest {
        let mut guest = Guest::plug(&self.host, "default", name);
        guest.lease();
        self.host.run(&format!("ip neighbour replace {} lladdr {} dev virbr0", guest.address, guest.port.mac));
        guest
    }
}

#[test]
fn a_flow_that_nothing_stops_is_followed_there_and_back() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let guest = world.guest("vm1");
    let found = world.host.run("nft -s list ruleset");

    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}"));
    assert_eq!(ladder.traced, "probe");
    for stage in ["port", "address", "packet", "guards", "forwarding", "route", "rules", "left", "answer"] {
        assert!(ladder.checks().contains(&(stage, "pass")), "{stage}: {:#?}", ladder.stages);
    }
    assert!(ladder.success);
    // Its frames were the guest's own to the last hop: the guest has the answer.
    assert!(guest.heard().iter().any(|frame| frame.get(34) == Some(&0)), "no echo reply at the guest");

    let refused = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}:443"));
    let answer = refused.stages.last().unwrap();
    assert!(answer["says"].as_str().unwrap().contains("refuses the connection"), "{answer}");
    let unreachable = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}:9/udp"));
    assert!(
        unreachable.failure().1.contains("cannot be delivered (ICMP type 3, code 3)"),
        "{:?}",
        unreachable.failure()
    );
    let host = Ladder::of(&world.host, "vm1 192.168.122.1");
    assert!(host.success && host.checks().contains(&("host", "pass")), "{:#?}", host.stages);
    assert_eq!(world.host.run("nft -s list ruleset"), found);
}

#[test]
fn dockers_policy_is_the_rule_that_stops_it_and_its_mend_mends_it() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let _guest = world.guest("vm1");
    sh(&world.host, &format!("iptables-nft-restore < {DOCKER}"));
    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}"));
    let (title, says, mend) = ladder.failure();
    assert_eq!(title, "if table ip filter chain FORWARD lets it through");
    assert_eq!(says, "policy drop (Docker) drops it");
    assert!(mend.starts_with("sudo iptables-nft -I DOCKER-USER -i virbr0 "), "{mend}");
    sh(&world.host, &mend.replace("sudo ", ""));
    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}"));
    // Now the question gets out, and if it is the answer that is stopped, that is what is said.
    if !ladder.success {
        let (_, says, mend) = ladder.failure();
        assert!(says.ends_with("drops the answer"), "{says}");
        sh(&world.host, &mend.replace("sudo ", ""));
        assert!(Ladder::of(&world.host, &format!("vm1 {OUTSIDE}")).success);
    }
}

#[test]
fn ufws_policy_for_what_is_for_the_host_is_named_in_its_own_words() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let _guest = world.guest("vm1");
    sh(&world.host, &format!("iptables-nft-restore < {UFW}"));
    let ladder = Ladder::of(&world.host, "vm1 192.168.122.1:8080");
    let (title, says, mend) = ladder.failure();
    assert_eq!(title, "if table ip filter chain INPUT lets it through");
    assert!(says.contains("(ufw) drops it"), "{says}");
    assert_eq!(mend, "sudo ufw allow in on virbr0 to any port 8080 proto tcp");
}

#[test]
fn a_rule_of_anybodys_is_shown_as_it_was_written() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let _guest = world.guest("vm1");
    sh(
        &world.host,
        "nft 'add table inet site; add chain inet site gate { type filter hook forward priority 10; }; \
         add chain inet site inner; add rule inet site gate jump inner; \
         add rule inet site inner tcp dport 443 counter reject with tcp reset'",
    );
    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}:443"));
    let (title, says, mend) = ladder.failure();
    assert_eq!(title, "if table inet site chain gate lets it through");
    assert_eq!(says, "rule 'tcp dport 443 reject with tcp reset' in chain inner drops it");
    assert_eq!(mend, "sudo nft insert rule inet site gate iifname virbr0 accept");
    sh(&world.host, &mend.replace("sudo ", ""));
    assert!(Ladder::of(&world.host, &format!("vm1 {OUTSIDE}:443")).success);
}

#[test]
fn a_forged_source_is_stopped_by_the_guards() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let guest = world.guest("vm1");
    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE} --from 192.168.122.250"));
    let (title, says, _) = ladder.failure();
    assert_eq!(title, format!("if the guards of {} let it through", guest.port.interface));
    assert!(says.starts_with("they drop it: 192.168.122.250 is not an address of the guest"), "{says}");
}

#[test]
fn the_guests_own_packet_is_traced_where_no_probe_may_be_sent() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let guest = world.guest("vm1");
    let forged =
        crate::guest::udp(guest.mac, (Ipv4Addr::new(192, 168, 122, 9), 5000), (OUTSIDE.parse().unwrap(), 53), b"");
    let words = format!("vm1 {OUTSIDE}:53/udp --no-probe --wait 60");
    let ladder = std::thread::scope(|scope| {
        let run = scope.spawn(|| Ladder::of(&world.host, &words));
        wait_for("the trace to end", || {
            guest.send(&forged);
            std::thread::sleep(std::time::Duration::from_millis(50));
            run.is_finished()
        });
        run.join().unwrap()
    });
    assert_eq!(ladder.traced, "guest");
    assert!(ladder.failure().1.contains("192.168.122.9 is not an address of the guest"), "{:?}", ladder.failure());

    // And where it sends none, that is no verdict.
    let silent = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}:54/udp --no-probe --wait 1"));
    assert_eq!(silent.traced, "nothing");
    assert!(silent.checks().contains(&("packet", "warn")), "{:#?}", silent.stages);
}

#[test]
fn without_a_route_or_forwarding_no_rule_is_blamed() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let _guest = world.guest("vm1");
    world.host.run("sysctl -qw net.ipv4.conf.virbr0.forwarding=0");
    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}"));
    let (title, _, mend) = ladder.failure();
    assert_eq!((title, mend), ("for IPv4 forwarding", "sudo sysctl -w net.ipv4.ip_forward=1"));
    sh(&world.host, "sysctl -w net.ipv4.ip_forward=1; sysctl -qw net.ipv4.conf.virbr0.forwarding=1");
    world.host.run("ip route delete default");
    let ladder = Ladder::of(&world.host, &format!("vm1 {OUTSIDE}"));
    let (title, says, _) = ladder.failure();
    assert_eq!(title, format!("for a route to {OUTSIDE}"));
    assert_eq!(says, "there is none: the host itself cannot get there");
}

#[test]
fn a_source_that_the_host_does_not_believe_is_told_with_the_way_it_would_answer() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let mut guest = Guest::plug_with(&world.host, "default", "router", Some(false));
    guest.lease();
    world.host.run("sysctl -qw net.ipv4.conf.virbr0.rp_filter=1");
    let ladder = Ladder::of(&world.host, &format!("router {OUTSIDE} --from 10.66.0.9"));
    let (title, says, _) = ladder.failure();
    assert_eq!(title, "if virbr0 may come from 10.66.0.9");
    assert!(says.ends_with("the host's way there is uplink"), "{says}");
}

#[test]
fn another_guest_is_reached_over_the_bridge_and_nobody_is_said_to_be_nobody() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    let (_one, two) = (world.guest("vm1"), world.guest("vm2"));
    // The bridge learns where it is.
    two.send(&ethernet(two.mac, BROADCAST, 0x0806, &[0; 28]));
    let ladder = Ladder::of(&world.host, &format!("vm1 {}", two.address));
    assert!(ladder.checks().contains(&("bridged", "pass")), "{:#?}", ladder.stages);
    assert!(two.heard().iter().any(|frame| frame.get(34) == Some(&8)), "no echo request at the other guest");
    let ladder = Ladder::of(&world.host, "vm1 192.168.122.250 --wait 1");
    assert!(ladder.failure().1.contains("no port of the network is known to have the address"));
}

#[test]
fn a_trace_that_was_broken_off_is_gone_with_the_next_daemon() {
    let world = World::new();
    let daemon = world.host.daemon();
    world.host.start("default");
    let _guest = world.guest("vm1");
    let mut waiting = command(&world.host, &format!("vm1 {OUTSIDE} --no-probe --wait 600"));
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_there = || world.host.run("nft list tables").contains("netd_why");
    wait_for("the trace", is_there);
    daemon.kill();
    assert!(is_there(), "nobody has taken it away");
    assert!(!waiting.wait().unwrap().success());
    let daemon = world.host.daemon();
    assert!(!is_there());

    // As it is when the daemon is stopped.
    let mut waiting = command(&world.host, &format!("vm1 {OUTSIDE} --no-probe --wait 600"));
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the trace", is_there);
    daemon.stop();
    assert!(!is_there());
    waiting.wait().unwrap();
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_can() {
    let world = World::new();
    let _daemon = world.host.daemon();
    world.host.start("default");
    for (words, said) in [
        ("nobody 1.1.1.1", "no port or guest"),
        ("vm1 1.1.1.1:70000", "expected ADDRESS"),
        ("vm1 one.one", "no port or guest with matching name"),
        ("vm1 one.one:", "expected ADDRESS"),
        ("vm1 1.1.1.1:80 --icmp", "--icmp is for an address without a port"),
    ] {
        let output = command(&world.host, words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(said), "{words}: {stderr}");
    }
}
