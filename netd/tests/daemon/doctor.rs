//! `netd doctor` on real troubles: each is made in a namespace, named by the doctor and, where a command mends it, mended
//! by that command and seen to be.

use std::{fs, net::UdpSocket, path::Path, process::Stdio, thread};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::harness::{Space, wait_for};

const DOCKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rulesets/docker.save");

/// One run: the checks and whether the exit status was a success.
struct Report {
    checks: Vec<Value>,
    success: bool,
}

impl Report {
    fn of(space: &Space) -> Self {
        Self::by(space, Path::new(env!("CARGO_BIN_EXE_netd")), "")
    }

    /// By this program, run through other words (`setpriv …`).
    fn by(space: &Space, program: &Path, before: &str) -> Self {
        let mut command = space.command(before);
        command.arg(program).args(["-o", "json", "--socket"]).arg(space.path("run/netd.sock")).arg("doctor");
        for (option, below) in [
            ("--config-dir", "config"),
            ("--state-dir", "state"),
            ("--runtime-dir", "run"),
            ("--resolv-conf", "resolv"),
        ] {
            command.arg(option).arg(space.path(below));
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let success = output.status.success();
        assert_eq!(report["ok"], success);
        let Value::Array(checks) = report["checks"].take() else { panic!("{report}") };
        assert_eq!(success, checks.iter().all(|check| check["verdict"] != "fail"));
        Report { checks, success }
    }

    /// Verdict, reason and mend of all findings of a check.
    fn all(&self, check: &str) -> Vec<(&str, &str, &str)> {
        let found = self.checks.iter().filter(|found| found["check"] == check);
        found.map(|found| (text(&found["verdict"]), text(&found["says"]), text(&found["mend"]))).collect()
    }

    fn one(&self, check: &str) -> (&str, &str, &str) {
        let all = self.all(check);
        assert_eq!(all.len(), 1, "{all:#?}");
        all[0]
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn sh(space: &Space, script: &str) {
    let output = space.command("sh -ec").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn space() -> Space {
    let space = Space::new();
    fs::write(space.path("resolv"), "nameserver 192.0.2.53\n").unwrap();
    // Its default in a new namespace is what the host has.
    sh(&space, "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done");
    space
}

fn define(space: &Space, name: &str, rest: &str) {
    let xml = format!("<network><name>{name}</name>{rest}</network>");
    space.call(async |client| client.define_network(xml.clone()).await).unwrap();
}

/// Files and directories below, with what is in them.
fn tree(path: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let content = path.is_file().then(|| fs::read(&path).unwrap());
        found.push((path.display().to_string(), content));
        if path.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn the_doctor_changes_nothing_with_or_without_a_daemon() {
    let space = space();
    let snapshot = || (space.traces(), tree(space.directory.path()), space.run("cat /proc/net/ip_tables_names"));
    let found = snapshot();
    let report = Report::of(&space);
    assert_eq!(snapshot(), found);
    assert_eq!(report.one("daemon").0, "warn");
    assert_eq!(report.one("nft").0, "pass");
    assert_eq!(report.all("directory").len(), 3);

    let _daemon = space.daemon();
    space.start("default");
    // Written a moment later.
    wait_for("the files for name look-ups", || space.path("run/dnsmasq/virbr0.status").exists());
    let found = snapshot();
    let report = Report::of(&space);
    assert_eq!(snapshot(), found);
    for check in
        ["daemon", "nft", "ip-forward", "foreign-rules", "port-53", "port-67", "subnets", "bridges", "resolvers"]
    {
        assert_eq!(report.one(check), ("pass", "", ""), "{check}");
    }
}

#[test]
fn a_killed_daemons_networks_are_known_from_its_files() {
    let space = space();
    let daemon = space.daemon();
    space.start("default");
    define(&space, "lan", "<bridge name='br-lan'/><ip address='192.168.122.1' prefix='24'/>");
    daemon.kill();
    let report = Report::of(&space);
    assert_eq!(report.one("daemon").0, "warn");
    // default's own bridge does not collide with it, but with lan; lan's is not there.
    let subnets = report.all("subnets");
    assert!(subnets.iter().any(|(verdict, says, _)| *verdict == "warn" && says.contains("virbr0")), "{subnets:#?}");
    assert!(subnets.iter().all(|(verdict, ..)| *verdict != "fail"), "{subnets:#?}");
    assert!(subnets.iter().all(|(_, says, _)| !says.contains("makes way")), "{subnets:#?}");
}

#[test]
fn an_ordinary_user_is_told_to_ask_root() {
    let space = space();
    let _daemon = space.daemon();
    space.start("default");
    // Copied, because a stranger may not be let into the build directory; by another program, because a child of
    // another test would inherit the open file and keep it from being run.
    let program = space.path("netd");
    sh(&space, &format!("cp {} {}", env!("CARGO_BIN_EXE_netd"), program.display()));
    fs::set_permissions(space.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = Report::by(&space, &program, "setpriv --reuid 65534 --regid 65534 --clear-groups");
    for check in ["nft", "foreign-rules"] {
        assert_eq!(report.one(check), ("warn", "only root may look", "sudo netd doctor"), "{check}");
    }
    // The read-only socket tells of networks.
    for check in ["daemon", "subnets", "bridges", "resolvers"] {
        assert_eq!(report.one(check).0, "pass", "{check}");
    }
}

/// A guest on the bridge and an outside behind the uplink, by which rules can be tried out.
struct Ends<'a> {
    space: &'a Space,
    guest: Space,
    _outside: Space,
}

impl<'a> Ends<'a> {
    fn new(space: &'a Space) -> Self {
        let (guest, outside) = (Space::new(), Space::new());
        space.run(&format!("ip link add uplink type veth peer name eth0 netns {}", outside.name()));
        space.run("ip address add 198.51.100.1/24 dev uplink");
        space.run("ip link set uplink up");
        space.run("ip route add default via 198.51.100.2");
        outside.run("ip address add 198.51.100.2/24 dev eth0");
        outside.run("ip link set eth0 up");
        space.run(&format!("ip link add plug type veth peer name eth0 netns {}", guest.name()));
        space.run("ip link set plug master virbr0 up");
        guest.run("ip address add 192.168.122.50/24 dev eth0");
        guest.run("ip link set eth0 up");
        guest.run("ip route add default via 192.168.122.1");
        Ends { space, guest, _outside: outside }
    }

    fn guest_reaches_outside(&self) -> bool {
        let ping = self.guest.command("ping -c 1 -W 1 -n 198.51.100.2").stdout(Stdio::null()).status();
        ping.unwrap().success()
    }

    /// Any answer will do.
    fn guest_is_answered_by_dns(&self) -> bool {
        let dig = self.guest.command("dig +time=1 +tries=1 @192.168.122.1 x.invalid").stdout(Stdio::null()).status();
        dig.unwrap().success()
    }

    /// New links and a busy machine may lose a packet or two; rules that drop lose all of them.
    fn wait_for_outside(&self) {
        wait_for("an answer from outside", || self.guest_reaches_outside());
    }

    fn wait_for_dns(&self) {
        wait_for("an answer from DNS", || self.guest_is_answered_by_dns());
    }

    /// Does what the doctor says, in the namespace.
    fn mend(&self) {
        let report = Report::of(self.space);
        assert!(!report.success);
        for (verdict, says, mend) in report.all("foreign-rules") {
            assert_eq!(verdict, "fail", "{says}");
            sh(self.space, mend);
        }
        assert_eq!(Report::of(self.space).one("foreign-rules"), ("pass", "", ""));
    }
}

#[test]
fn dockers_forward_drop_is_named_and_its_mend_lets_packets_through() {
    for program in ["iptables-nft", "iptables-legacy"] {
        let space = space();
        let _daemon = space.daemon();
        space.start("default");
        let ends = Ends::new(&space);
        ends.wait_for_outside();
        sh(&space, &format!("{program}-restore < {DOCKER}"));
        assert!(!ends.guest_reaches_outside());
        let report = Report::of(&space);
        let (verdict, says, mend) = report.one("foreign-rules");
        assert_eq!(verdict, "fail");
        assert!(says.starts_with("policy drop (Docker) stops what guests send"), "{says}");
        assert!(mend.starts_with(&format!("{program} -I DOCKER-USER -i virbr0 ")), "{mend}");
        ends.mend();
        ends.wait_for_outside();
    }
}

#[test]
fn a_strict_nft_ruleset_is_named_and_its_mend_lets_packets_and_questions_through() {
    strict_ruleset(false);
}

#[test]
fn a_strict_nft_ruleset_is_mended_for_redirected_questions_too() {
    strict_ruleset(true);
}

fn strict_ruleset(port_53_is_taken: bool) {
    let space = space();
    let _holder = port_53_is_taken.then(|| [bind(&space, "0.0.0.0:53")]);
    let _daemon = space.daemon();
    space.start("default");
    let ends = Ends::new(&space);
    ends.wait_for_outside();
    ends.wait_for_dns();
    let chain =
        |name: &str| format!("chain {name} {{ type filter hook {name} priority 10; policy drop; iif lo accept; }}");
    let table = format!("table inet strict {{\n{}\n{}\n}}\n", chain("input"), chain("forward"));
    fs::write(space.path("strict.nft"), table).unwrap();
    sh(&space, &format!("nft -f {}", space.path("strict.nft").display()));
    assert!(!ends.guest_reaches_outside() && !ends.guest_is_answered_by_dns());
    ends.mend();
    ends.wait_for_outside();
    ends.wait_for_dns();
}

/// Binds a UDP socket in the space; this test's process is then its holder.
fn bind(space: &Space, address: &str) -> UdpSocket {
    thread::scope(|scope| {
        let inside = || {
            let namespace = fs::File::open(Path::new("/run/netns").join(space.name())).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind(address).unwrap()
        };
        scope.spawn(inside).join().unwrap()
    })
}

#[test]
fn holders_of_dns_and_dhcp_ports_are_named_with_their_pid() {
    let space = space();
    let pid = format!("(pid {})", std::process::id());
    let _dns = bind(&space, "0.0.0.0:53");
    let _dhcp = bind(&space, "0.0.0.0:67");
    let report = Report::of(&space);
    let (verdict, says, _) = report.one("port-53");
    assert!(verdict == "pass" && says.contains(&pid) && says.contains("UDP 0.0.0.0:53"), "{says}");
    let (verdict, says, _) = report.one("port-67");
    assert!(verdict == "warn" && says.contains(&pid) && says.contains("UDP 0.0.0.0:67"), "{says}");
}

#[test]
fn a_bridge_that_asks_iptables_is_named_and_the_sysctl_mends_it() {
    let sysctl = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    assert!(Path::new(sysctl).exists(), "this test needs br_netfilter: modprobe br_netfilter");
    let space = space();
    sh(&space, &format!("echo 1 > {sysctl}"));
    let report = Report::of(&space);
    let (verdict, says, mend) = report.one("br-netfilter");
    assert!(verdict == "warn" && says.contains("bridge-nf-call-iptables on"), "{says}");
    sh(&space, mend);
    assert_eq!(Report::of(&space).one("br-netfilter"), ("pass", "", ""));
}

#[test]
fn a_route_that_collides_is_named_before_and_after_the_network_started() {
    let space = space();
    let _daemon = space.daemon();
    define(&space, "lan", "<bridge name='br-lan'/><ip address='10.77.1.1' prefix='24'/>");
    sh(&space, "ip link add vpn type bridge; ip link set vpn up; ip route add 10.77.0.0/16 dev vpn");
    let collision = |verdict: &str, about: &str| {
        let report = Report::of(&space);
        let (is, says, mend) = report.one("subnets");
        assert!(is == verdict && says.contains("10.77.0.0/16 on interface vpn") && says.contains(about), "{says}");
        assert!(mend.starts_with("netd net-edit lan  # 192.168."), "{mend}");
    };
    collision("warn", "will not start");
    sh(&space, "ip route del 10.77.0.0/16 dev vpn");
    space.start("lan");
    assert_eq!(Report::of(&space).one("subnets"), ("pass", "", ""));
    sh(&space, "ip route add 10.77.0.0/16 dev vpn");
    collision("fail", "while the network ran");
}

#[test]
fn resolvers_that_are_missing_dangle_or_do_not_listen_are_named() {
    let space = space();
    let resolv = space.path("resolv");
    let told = |words: &str| {
        let report = Report::of(&space);
        let (verdict, says, mend) = report.one("resolvers");
        assert!(verdict == "fail" && says.contains(words) && !mend.is_empty(), "{says}");
    };
    fs::write(&resolv, "nameserver 127.0.0.1\n").unwrap();
    told("nobody listens");
    {
        let _resolver = bind(&space, "127.0.0.1:53");
        assert_eq!(Report::of(&space).one("resolvers").0, "pass");
    }
    fs::remove_file(&resolv).unwrap();
    told("there is no");
    std::os::unix::fs::symlink("../nowhere/resolv.conf", &resolv).unwrap();
    told("does not exist");
}

#[test]
fn a_socket_whose_owner_does_not_answer_is_told_in_time() {
    let space = space();
    fs::create_dir(space.path("run")).unwrap();
    let _deaf = std::os::unix::net::UnixListener::bind(space.path("run/netd.sock")).unwrap();
    let begin = std::time::Instant::now();
    let report = Report::of(&space);
    let (verdict, says, _) = report.one("daemon");
    assert!(verdict == "fail" && says.contains("no answer"), "{says}");
    assert!(begin.elapsed().as_secs() < 20);
}

#[test]
fn the_text_is_a_line_per_check() {
    let space = space();
    let mut command = space.command(env!("CARGO_BIN_EXE_netd"));
    command.arg("doctor").arg("--socket").arg(space.path("run/netd.sock"));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() >= 20, "{text}");
    for line in lines {
        let (title, verdict) = line.split_once(": ").and_then(|(_, rest)| rest.split_once(": ")).unwrap();
        assert!(title.starts_with("Checking ") && ["PASS", "WARN", "FAIL"].contains(&&verdict[..4]), "{line}");
    }
}
