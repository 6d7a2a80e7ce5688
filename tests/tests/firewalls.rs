//! Beside the firewalls that people have: ufw and firewalld as Debian ships them, and Docker's chains. The doctor and `why`
//! name whose rule stops a guest, and the command that they say mends it does.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    daemon::Daemon,
    internet::{HOST, Internet, PAGE, WEB},
    paths,
    space::{Running, Space},
    station::Station,
    wait::{self, PATIENCE},
};

/// A command as it is told, and as root types it.
fn run(host: &Space, mend: &str) -> Result<()> {
    host.sh(&mend.replace("sudo ", "")).map(drop)
}

/// A place where a program keeps its files, as it is now, and only this space's.
fn keep_apart(host: &Space, path: &str) -> Result<()> {
    let own = host.dir().join(path.replace('/', "-"));
    host.sh(&format!("cp -a {path} {0} && mount --bind {0} {path}", own.display())).map(drop)
}

/// Title, reason and mend of what the doctor says of other programs' rules.
fn doctor(netd: &Daemon) -> Result<Vec<(String, String, String)>> {
    let dir = netd.host.dir();
    let mut command = netd.host.command(paths::program("netd")?);
    command.args(["-o", "json", "doctor"]).env("NETD_SOCKET", netd.socket());
    for (option, below) in [("--config-dir", "etc"), ("--state-dir", "lib"), ("--runtime-dir", "run")] {
        command.arg(option).arg(dir.join(below));
    }
    let report: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let wrong = checks.iter().filter(|check| check["check"] == "foreign-rules" && check["verdict"] == "fail");
    Ok(wrong.map(|check| (text(check, "title"), text(check, "says"), text(check, "mend"))).collect())
}

/// The reason and the mend of the only stage that failed; none where none did.
fn why(netd: &Daemon, words: &str) -> Result<Option<(String, String)>> {
    let mut args = vec!["why", "--json"];
    args.extend(words.split_whitespace());
    let output = netd.netd(&args)?;
    ensure!(output.stderr.is_empty(), "why {words}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let stages = report["stages"].as_array().context("no stages")?;
    let failed: Vec<&Value> = stages.iter().filter(|stage| stage["verdict"] == "fail").collect();
    ensure!(report["ok"] == Value::Bool(failed.is_empty()) && failed.len() < 2, "{report:#}");
    let text = |stage: &Value, key: &str| stage[key].as_str().unwrap_or_default().to_owned();
    Ok(failed.first().map(|stage| (text(stage, "says"), text(stage, "mend"))))
}

/// The same of what is stopped.
fn stopped(netd: &Daemon, words: &str) -> Result<(String, String)> {
    why(netd, words)?.with_context(|| format!("nothing stops {words}"))
}

/// A guest on the default network, with a forward of the host's port 8080 to its port 80.
fn guest(netd: &Daemon) -> Result<Station> {
    netd.ok(&["net-start", "default"])?;
    netd.ok(&["forward-add", "default", "tcp/8080", "vm1:80"])?;
    let guest = Station::plug(netd, "default", "vm1")?;
    let address = guest.lease()?;
    wait::until_true("the forward follows", PATIENCE, || {
        Ok(netd.host.check("nft", &["list", "map", "inet", "netd", "forward_address"])?.contains(&address))
    })?;
    // Bridged packets pass the host's rules only where it is asked for.
    netd.host.sh("for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done")?;
    Ok(guest)
}

#[test]
fn beside_ufw_each_thing_it_stops_is_mended_by_the_command_that_is_said() -> Result<()> {
    let host = Space::new("ufw")?;
    let _internet = Internet::connect(&host)?;
    for path in ["/etc/ufw", "/etc/default/ufw"] {
        keep_apart(&host, path)?;
    }
    host.check("ufw", &["--force", "enable"])?;
    let mut netd = Daemon::on(host)?;
    // It denies what comes in, DHCP's port is none of it: that is past every rule.
    let guest = guest(&netd)?;
    assert!(guest.fetch(WEB).is_err(), "ufw routes for nobody");
    let told = doctor(&netd)?;
    let (title, says, _) = told.first().context("the doctor says nothing")?;
    ensure!(
        title == "if table ip filter chain FORWARD lets guests through" && says.contains("(ufw) stops"),
        "{told:?}"
    );

    let (says, mend) = stopped(&netd, &format!("vm1 {WEB}:80"))?;
    ensure!(says.contains("(ufw) drops it"), "{says}");
    assert_eq!(mend, "sudo ufw route allow in on virbr0");
    run(&netd.host, &mend)?;
    assert_eq!(why(&netd, &format!("vm1 {WEB}:80"))?, None);
    assert_eq!(guest.fetch(WEB)?, PAGE);
    let still = doctor(&netd)?;
    ensure!(!still.iter().any(|(title, ..)| title.contains("chain FORWARD")), "{still:?}");

    // In from outside, by a port forward; and to a service of the host.
    let (says, mend) = stopped(&netd, &format!("{WEB} {HOST}:8080"))?;
    ensure!(says.contains("(ufw) drops it"), "{says}");
    assert_eq!(mend, "sudo ufw route allow out on virbr0 to any port 80 proto tcp");
    run(&netd.host, &mend)?;
    assert_eq!(why(&netd, &format!("{WEB} {HOST}:8080"))?, None);
    let (_, mend) = stopped(&netd, "vm1 192.168.122.1:8443")?;
    assert_eq!(mend, "sudo ufw allow in on virbr0 to any port 8443 proto tcp");
    run(&netd.host, &mend)?;
    assert_eq!(why(&netd, "vm1 192.168.122.1:8443")?, None);

    // It makes all its rules anew, ours stay.
    netd.host.check("ufw", &["reload"])?;
    assert_eq!(guest.fetch(WEB)?, PAGE);
    netd.host.check("ufw", &["--force", "disable"])?;
    assert_eq!(guest.fetch(WEB)?, PAGE);
    drop(guest);
    netd.stop()
}

/// A bus as the system's is, without programs that it would start.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>"#;

#[test]
fn beside_firewalld_bridges_are_in_its_zone_after_a_reload_too() -> Result<()> {
    let host = Space::new("firewalld")?;
    let _internet = Internet::connect(&host)?;
    keep_apart(&host, "/etc/firewalld")?;
    host.sh("mkdir -p /run/dbus")?;
    let config = host.dir().join("bus.conf");
    fs::write(&config, BUS)?;
    let mut bus = host.command(paths::tool("dbus-daemon")?);
    let _bus = Running(bus.arg("--nofork").arg("--config-file").arg(&config).stderr(Stdio::null()).spawn()?);
    wait::until_true("the bus", PATIENCE, || {
        Ok(host.run("test", &["-S", "/run/dbus/system_bus_socket"])?.status.success())
    })?;
    let mut firewalld = host.command(paths::tool("firewalld")?);
    let _firewalld = Running(firewalld.args(["--nofork", "--nopid"]).stderr(Stdio::null()).spawn()?);
    wait::until_true("firewalld", PATIENCE * 6, || Ok(host.run("firewall-cmd", &["--state"])?.status.success()))?;
    let mut netd = Daemon::on(host)?;
    let guest = guest(&netd)?;
    let zone = |wanted: &str| {
        wait::until_true(&format!("virbr0 is in zone {wanted}"), PATIENCE * 3, || {
            let output = netd.host.run("firewall-cmd", &["--get-zone-of-interface=virbr0"])?;
            Ok(String::from_utf8_lossy(&output.stdout).trim() == wanted)
        })
    };
    zone("libvirt")?;
    assert_eq!(guest.fetch(WEB)?, PAGE);
    for _ in 0..2 {
        // What was only said at run time is gone then, and said again.
        netd.host.check("firewall-cmd", &["--reload"])?;
        zone("libvirt")?;
        assert_eq!(guest.fetch(WEB)?, PAGE);
    }
    assert_eq!(why(&netd, &format!("vm1 {WEB}:80"))?, None);

    // Somebody puts it where nothing is let through.
    netd.host.check("firewall-cmd", &["--zone=drop", "--change-interface=virbr0"])?;
    assert!(guest.fetch(WEB).is_err());
    let told = doctor(&netd)?;
    ensure!(
        told.iter().any(|(title, says, _)| title.contains("table inet firewalld") && says.contains("(firewalld)")),
        "{told:?}"
    );
    let (says, mend) = stopped(&netd, &format!("vm1 {WEB}:80"))?;
    ensure!(says.contains("(firewalld) drops it"), "{says}");
    assert!(mend.starts_with("sudo firewall-cmd --zone=trusted --change-interface=virbr0"), "{mend}");
    run(&netd.host, &mend)?;
    assert_eq!(why(&netd, &format!("vm1 {WEB}:80"))?, None);
    assert_eq!(guest.fetch(WEB)?, PAGE);
    drop(guest);
    netd.stop()
}

#[test]
fn beside_docker_a_forward_is_let_in_by_the_chain_it_leaves_to_others() -> Result<()> {
    let host = Space::new("docker")?;
    let _internet = Internet::connect(&host)?;
    let rules = paths::repository().join("netd/tests/rulesets/docker.save");
    host.sh(&format!("iptables-nft-restore < {}", rules.display()))?;
    let mut netd = Daemon::on(host)?;
    let guest = guest(&netd)?;
    let (says, mend) = stopped(&netd, &format!("{WEB} {HOST}:8080"))?;
    assert_eq!(says, "policy drop (Docker) drops it");
    assert_eq!(mend, "sudo iptables-nft -I DOCKER-USER -o virbr0 -p tcp --dport 80 -j ACCEPT");
    run(&netd.host, &mend)?;
    // Now it gets in, and its answers do not get out.
    let (says, mend) = stopped(&netd, &format!("{WEB} {HOST}:8080"))?;
    ensure!(says.ends_with("(Docker) drops the answer"), "{says}");
    run(&netd.host, &mend)?;
    assert_eq!(why(&netd, &format!("{WEB} {HOST}:8080"))?, None);
    drop(guest);
    netd.stop()
}
