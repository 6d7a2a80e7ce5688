//! `netd why` of flows to guests, and of IPv6: from outside and from the host, by a port forward and without, past real
//! troubles. Each that can be mended by a command is.

use std::{io::Write, net::TcpListener, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    daemon::Daemon,
    internet::{HOST, HOST6, Internet, WEB, WEB6},
    space::Space,
    station::Station,
    wait::{self, PATIENCE},
};

/// What one run said.
struct Ladder {
    stages: Vec<Value>,
    ok: bool,
    traced: String,
}

impl Ladder {
    fn of(netd: &Daemon, words: &str) -> Result<Self> {
        let mut args = vec!["why", "--json"];
        args.extend(words.split_whitespace());
        let output = netd.netd(&args)?;
        ensure!(output.stderr.is_empty(), "why {words}: {}", String::from_utf8_lossy(&output.stderr));
        let mut report: Value = serde_json::from_slice(&output.stdout)?;
        let Value::Array(stages) = report["stages"].take() else { anyhow::bail!("{report}") };
        let traced = report["traced"].as_str().unwrap_or_default().to_owned();
        let tables = netd.host.check("nft", &["list", "tables"])?;
        ensure!(!tables.contains("netd_why"), "the trace stays: {tables}");
        Ok(Ladder { stages, ok: output.status.success(), traced })
    }

    /// Nothing stops it, these stages are told of, and a probe was traced.
    fn passes(&self, wanted: &[&str]) -> Result<()> {
        let passed: Vec<&str> = self.stages.iter().filter(|s| s["verdict"] == "pass").map(check).collect();
        let all = self.stages.iter().all(|stage| stage["verdict"] == "pass");
        ensure!(self.ok && all && self.traced == "probe", "{:#?}", self.stages);
        for stage in wanted {
            ensure!(passed.contains(stage), "{stage} is not among {passed:?}");
        }
        Ok(())
    }

    /// Check, reason and mend of the only stage that failed.
    fn failure(&self) -> Result<(&str, &str, &str)> {
        let failed: Vec<&Value> = self.stages.iter().filter(|stage| stage["verdict"] == "fail").collect();
        let [stage] = failed.as_slice() else { anyhow::bail!("{:#?}", self.stages) };
        ensure!(!self.ok);
        let text = |key: &str| stage[key].as_str().unwrap_or_default();
        Ok((check(stage), text("says"), text("mend")))
    }

    fn note(&self, wanted: &str) -> &str {
        let stage = self.stages.iter().find(|stage| check(stage) == wanted);
        stage.and_then(|stage| stage["says"].as_str()).unwrap_or_default()
    }
}

fn check(stage: &Value) -> &str {
    stage["check"].as_str().unwrap_or_default()
}

/// A network of both families, fd00:N::/64 and 192.168.N.0/24.
fn network(forward: &str, n: u8) -> String {
    format!(
        "<network><name>blue</name>{forward}<bridge name='blue0'/>
  <ip address='192.168.{n}.1' prefix='24'><dhcp><range start='192.168.{n}.10' end='192.168.{n}.99'/></dhcp></ip>
  <ip family='ipv6' address='fd00:{n}::1' prefix='64'/></network>\n"
    )
}

/// A host with an uplink, and a guest with an address of each family and a server at port 80.
fn world(name: &str, forward: &str, n: u8) -> Result<(Daemon, Internet, Station)> {
    let host = Space::new(name)?;
    let internet = Internet::connect(&host)?;
    let netd = Daemon::on(host)?;
    netd.create(&network(forward, n))?;
    let guest = Station::plug_deaf(&netd, "blue", "vm1")?;
    guest.lease()?;
    guest.space.ip(&format!("address add fd00:{n}::a/64 dev eth0 nodad"))?;
    guest.space.ip(&format!("-6 route add default via fd00:{n}::1 dev eth0"))?;
    wait::until_true("the gateway", PATIENCE, || guest.reaches(&format!("fd00:{n}::1")))?;
    let listener = guest.space.inside(|| Ok(TcpListener::bind("[::]:80")?))?;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"hello");
        }
    });
    Ok((netd, internet, guest))
}

#[test]
fn a_port_forward_is_followed_from_outside_and_from_the_host_in_both_families() -> Result<()> {
    let (mut netd, internet, guest) = world("why", "<forward mode='nat'><nat ipv6='yes'/></forward>", 91)?;
    netd.ok(&["forward-add", "blue", "tcp/8080", "vm1:80"])?;
    netd.ok(&["forward-add", "blue", "tcp/8080", "vm1:80", "--address", "::"])?;
    let found = netd.host.check("nft", &["-s", "list", "ruleset"])?;
    let outside = ["forward", "port", "arrival", "packet", "forwarding", "route", "rules", "delivered", "answer"];
    for (words, leads_to) in [
        (format!("{WEB} {HOST}:8080"), guest.address()?.context("an address")? + ":80"),
        (format!("{WEB6} [{HOST6}]:8080"), "[fd00:91::a]:80".to_owned()),
    ] {
        let ladder = Ladder::of(&netd, &words)?;
        ladder.passes(&outside).context(words)?;
        assert_eq!(ladder.note("forward"), format!("it leads to {leads_to}"));
        assert_eq!(ladder.note("arrival"), "by uplink, by which it is answered");
        ensure!(ladder.note("packet").ends_with("taken in by uplink"), "{}", ladder.note("packet"));
    }
    for words in [
        "127.0.0.1 127.0.0.1:8080".to_owned(),
        format!("{HOST} {HOST}:8080"),
        format!("{HOST6} [{HOST6}]:8080"),
        // And without the forward.
        "127.0.0.1 vm1:80".to_owned(),
        "::1 vm1:80".to_owned(),
        format!("{HOST} vm1"),
        format!("{HOST6} vm1"),
    ] {
        let ladder = Ladder::of(&netd, &words)?;
        ladder.passes(&["port", "arrival", "packet", "route", "delivered", "answer"]).context(words)?;
        assert_eq!(ladder.note("arrival"), "it is this host");
    }

    // To the guest's own address nobody comes but by the forward; and ::1 stays with the host.
    for (from, to) in [(WEB.to_string(), "vm1:22"), (WEB6.to_string(), "vm1:22")] {
        let ladder = Ladder::of(&netd, &format!("{from} {to}"))?;
        let (check, says, mend) = ladder.failure()?;
        assert_eq!((check, mend), ("rules", "netd forward-add blue tcp/22 vm1:22"), "{says}");
        ensure!(says.starts_with("netd's own ") && says.contains("lets in no connection from there"), "{says}");
    }
    for (words, said) in [
        (["::1", "[::1]:8080"], "connections to ::1 cannot be forwarded"),
        ([&WEB.to_string(), &format!("{HOST}:8081")], "tcp/8081 is not forwarded there"),
        ([&WEB.to_string(), "192.168.91.177:80"], "192.168.91.177 is no guest's address"),
        ([&WEB.to_string(), "fd00:91::a"], "an IPv4 address, as the sender's is"),
        ([&WEB.to_string(), "vm2:22"], "no port or guest with matching name 'vm2'"),
    ] {
        let refused = netd.refused(&["why", words[0], words[1]])?;
        ensure!(refused.contains(said), "{words:?}: {refused}");
    }
    assert_eq!(netd.host.check("nft", &["-s", "list", "ruleset"])?, found);

    // The other way in IPv6, to an address and to a name.
    Ladder::of(&netd, &format!("vm1 [{WEB6}]:80"))?.passes(&["guards", "forwarding", "route", "left", "answer"])?;
    let other = Station::plug_deaf(&netd, "blue", "vm2")?;
    other.space.ip("address add fd00:91::b/64 dev eth0")?;
    // Once it has seen that nobody else has the address.
    wait::until_true("vm2 has its address", PATIENCE, || other.reaches("fd00:91::a"))?;
    let ladder = Ladder::of(&netd, "vm1 vm2 --from fd00:91::a")?;
    ladder.passes(&["guards", "bridged", "answer"])?;
    let refused = netd.refused(&["why", "127.0.0.1", "vm2"])?;
    ensure!(refused.contains("guest 'vm2' is not known to have an IPv4 address"), "{refused}");
    drop((guest, other));
    netd.finish()?;
    drop(internet);
    Ok(())
}

#[test]
fn who_stops_a_flow_to_a_guest_is_named_in_both_families() -> Result<()> {
    let (mut netd, internet, guest) = world("stops", "<forward mode='route'/>", 92)?;
    let words = [format!("{WEB} vm1:80"), format!("{WEB6} vm1:80")];
    for words in &words {
        Ladder::of(&netd, words)?.passes(&["delivered", "answer"])?;
    }
    let sh = |script: &str| netd.host.sh(script);

    // A rule of anybody's, on the way there; what is said to mend it does.
    for words in &words {
        sh("nft 'add table inet site; add chain inet site gate { type filter hook forward priority 10; }; \
            add rule inet site gate tcp dport 80 counter drop'")?;
        let ladder = Ladder::of(&netd, words)?;
        let (check, says, mend) = ladder.failure()?;
        assert_eq!((check, says), ("rules", "rule 'tcp dport 80 drop' drops it"));
        assert_eq!(mend, "sudo nft insert rule inet site gate oifname blue0 tcp dport 80 accept");
        sh(&mend.replace("sudo ", ""))?;
        Ladder::of(&netd, words)?.passes(&["delivered", "answer"])?;
        sh("nft delete table inet site")?;
    }
    // On the way back.
    sh("nft 'add table inet site; add chain inet site gate { type filter hook forward priority 10; }; \
        add rule inet site gate oifname uplink tcp sport 80 drop'")?;
    for words in &words {
        let ladder = Ladder::of(&netd, words)?;
        ensure!(ladder.failure()?.1.ends_with("drops the answer"), "{:?}", ladder.failure());
    }
    sh("nft delete table inet site")?;
    // By a table that no trace shows.
    for (words, program) in words.iter().zip(["iptables-legacy", "ip6tables-legacy"]) {
        sh(&format!("{program} -A FORWARD -p tcp --dport 80 -j DROP"))?;
        let ladder = Ladder::of(&netd, words)?;
        let (check, says, _) = ladder.failure()?;
        let rule =
            format!("rule '-A FORWARD -p tcp -m tcp --dport 80 -j DROP' of {program} table filter dropped a packet");
        ensure!(check == "delivered" && says.contains(&rule), "{says}");
        sh(&format!("{program} -F FORWARD"))?;
    }
    // Nothing listens; the guest is another one now; its link is down.
    for words in [format!("{WEB} vm1:81"), format!("{WEB6} vm1:81")] {
        let ladder = Ladder::of(&netd, &words)?;
        ladder.passes(&["delivered", "answer"])?;
        ensure!(ladder.note("answer").contains("vm1 refuses the connection"), "{:#?}", ladder.stages);
    }
    netd.host.check("sysctl", &["-qw", "net.ipv4.conf.uplink.forwarding=0"])?;
    let ladder = Ladder::of(&netd, &words[0])?;
    assert_eq!(ladder.failure()?.0, "forwarding");
    netd.host.check("sysctl", &["-qw", "net.ipv4.conf.uplink.forwarding=1"])?;
    guest.space.ip("address flush dev eth0 scope global")?;
    netd.host.sh("ip neighbour flush dev blue0")?;
    for words in &words {
        let ladder = Ladder::of(&netd, words)?;
        let (check, says, mend) = ladder.failure()?;
        assert_eq!((check, mend), ("next-hop", "ip neighbour show dev blue0"), "{says}");
    }
    // The answer of somebody else's own packet is followed where no probe may be sent.
    drop(guest);
    netd.finish()?;
    drop(internet);
    Ok(())
}

#[test]
fn a_packet_that_somebody_else_sends_is_followed_where_no_probe_may_be_sent() -> Result<()> {
    let (mut netd, internet, guest) = world("passing", "<forward mode='nat'/>", 93)?;
    netd.ok(&["forward-add", "blue", "tcp/8080", "vm1:80"])?;
    let words = format!("{WEB} {HOST}:8080 --no-probe --wait 60");
    let ladder = thread::scope(|scope| {
        let run = scope.spawn(|| Ladder::of(&netd, &words));
        let connect = format!("socat -u -T1 TCP:{HOST}:8080,bind={WEB},connect-timeout=1 - || true");
        wait::until_true("the trace ends", PATIENCE * 6, || {
            internet.space.sh(&connect)?;
            Ok(run.is_finished())
        })?;
        run.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })?;
    assert_eq!(ladder.traced, "passing", "{:#?}", ladder.stages);
    ensure!(ladder.ok && ladder.stages.iter().any(|stage| check(stage) == "delivered"), "{:#?}", ladder.stages);
    drop(guest);
    netd.finish()
}
