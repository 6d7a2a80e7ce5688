//! The life of networks as the command line shows it: columns, sentences and exit codes are virsh's.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use tests::{
    daemon::Daemon,
    space::{Space, told},
    xml,
};

/// The lines of a table without the blanks around its cells.
fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_shipped_network_starts_with_one_command_and_is_shown_as_virsh_shows_it() -> Result<()> {
    let mut netd = Daemon::new("default")?;
    let head = vec!["Name", "State", "Autostart", "Persistent"];
    let all = netd.ok(&["net-list", "--all"])?;
    assert_eq!(cells(&all), [head, vec![&"-".repeat(46)], vec!["default", "inactive", "no", "yes"]]);
    assert_eq!(cells(&netd.ok(&["net-list"])?).len(), 2);

    assert_eq!(netd.ok(&["net-start", "default"])?, "Network default started\n\n");
    assert!(netd.ok(&["net-list"])?.starts_with(&format!(
        " Name      State    Autostart   Persistent\n{}\n default   active   no          yes\n",
        "-".repeat(44)
    )));
    let link = netd.host.ip("-o -4 address show dev virbr0")?;
    assert!(link.contains("192.168.122.1/24"), "{link}");
    let refusal = netd.refused(&["net-start", "default"])?;
    assert!(
        refusal.starts_with(
            "error: Failed to start network default\n\
         error: Requested operation is not valid: network is already active\n"
        ),
        "{refusal}"
    );

    assert_eq!(netd.ok(&["net-destroy", "default"])?, "Network default destroyed\n\n");
    assert!(netd.refused(&["net-destroy", "default"])?.contains("network 'default' is not active"));
    netd.finish()
}

#[test]
fn an_unknown_network_is_refused_by_name() -> Result<()> {
    let mut netd = Daemon::new("unknown")?;
    for verb in ["net-start", "net-destroy", "net-info", "net-dumpxml", "net-undefine", "net-dhcp-leases"] {
        let refusal = netd.refused(&[verb, "x"])?;
        assert!(
            refusal.starts_with(
                "error: failed to get network 'x'\n\
                 error: Network not found: no network with matching name 'x'\n"
            ),
            "{verb}: {refusal}"
        );
    }
    netd.finish()
}

#[test]
fn a_network_is_known_by_name_and_by_uuid() -> Result<()> {
    let mut netd = Daemon::new("uuid")?;
    let uuid = netd.ok(&["net-uuid", "default"])?;
    let uuid = uuid.trim();
    assert_eq!(uuid.len(), 36);
    assert_eq!(netd.ok(&["net-name", uuid])?.trim(), "default");
    assert_eq!(netd.ok(&["net-list", "--all", "--name"])?.trim(), "default");
    assert_eq!(netd.ok(&["net-list", "--all", "--uuid"])?.trim(), uuid);
    let info = netd.ok(&["net-info", uuid])?;
    let line = |key: &str, value: &str| format!("{key:<15} {value}\n");
    for (key, value) in
        [("Name:", "default"), ("UUID:", uuid), ("Active:", "no"), ("Persistent:", "yes"), ("Autostart:", "no")]
    {
        assert!(info.contains(&line(key, value)), "{key} {value} is not in:\n{info}");
    }
    netd.finish()
}

#[test]
fn definitions_and_autostart_survive_a_restart_of_the_daemon() -> Result<()> {
    let mut netd = Daemon::new("restart")?;
    let file = netd.file("blue.xml", &xml::nat("blue", "blue0", 70))?;
    assert_eq!(netd.ok(&["net-define", &file])?, format!("Network blue defined from {file}\n\n"));
    assert_eq!(netd.ok(&["net-autostart", "blue"])?, "Network blue marked as autostarted\n\n");
    let before = netd.ok(&["net-dumpxml", "blue", "--inactive"])?;
    netd.stop()?;
    netd.forget_boot()?;
    netd.start()?;
    assert_eq!(netd.ok(&["net-list", "--name"])?.trim(), "blue");
    assert_eq!(netd.ok(&["net-list", "--autostart", "--name"])?.trim(), "blue");
    assert_eq!(netd.ok(&["net-list", "--all", "--no-autostart", "--name"])?.trim(), "default");
    assert_eq!(netd.ok(&["net-dumpxml", "blue", "--inactive"])?, before);
    netd.ok(&["net-destroy", "blue"])?;

    assert_eq!(netd.ok(&["net-autostart", "blue", "--disable"])?, "Network blue unmarked as autostarted\n\n");
    netd.stop()?;
    netd.forget_boot()?;
    netd.start()?;
    assert_eq!(netd.ok(&["net-list", "--name"])?.trim(), "");
    assert_eq!(netd.ok(&["net-undefine", "blue"])?, "Network blue has been undefined\n\n");
    netd.stop()?;
    netd.start()?;
    assert_eq!(netd.ok(&["net-list", "--all", "--name"])?.trim(), "default");
    netd.finish()
}

#[test]
fn a_created_network_is_forgotten_when_it_stops() -> Result<()> {
    let mut netd = Daemon::new("transient")?;
    let file = netd.file("red.xml", &xml::isolated("red", "red0", 71))?;
    assert_eq!(netd.ok(&["net-create", &file])?, format!("Network red created from {file}\n\n"));
    assert_eq!(netd.ok(&["net-list", "--transient", "--name"])?.trim(), "red");
    assert_eq!(netd.ok(&["net-list", "--all", "--persistent", "--name"])?.trim(), "default");
    assert!(netd.refused(&["net-autostart", "red"])?.contains("error: "));
    netd.ok(&["net-destroy", "red"])?;
    assert_eq!(netd.ok(&["net-list", "--all", "--name"])?.trim(), "default");
    netd.finish()
}

#[test]
fn the_live_xml_says_what_was_chosen_and_the_inactive_one_what_was_written() -> Result<()> {
    let mut netd = Daemon::new("dumpxml")?;
    netd.ok(&["net-start", "default"])?;
    let live = netd.ok(&["net-dumpxml", "default"])?;
    for part in [
        "<name>default</name>",
        "<uuid>",
        "<port start='1024' end='65535'/>",
        "name='virbr0'",
        "<mac address='52:54:00:",
    ] {
        assert!(live.contains(part), "{part} is not in\n{live}");
    }
    let inactive = netd.ok(&["net-dumpxml", "default", "--inactive"])?;
    assert!(inactive.contains("<forward mode='nat'/>"), "{inactive}");

    // What is printed can be read back.
    let text = inactive.replace("default", "copy").replace("192.168.122.", "192.168.72.").replace("virbr0", "copy0");
    let text: String = text.lines().filter(|line| !line.contains("<uuid>") && !line.contains("<mac ")).collect();
    let file = netd.file("copy.xml", &text)?;
    netd.ok(&["net-define", &file])?;
    netd.ok(&["net-undefine", "copy"])?;
    netd.finish()
}

#[test]
fn an_edit_takes_what_the_editor_leaves_behind() -> Result<()> {
    let mut netd = Daemon::new("edit")?;
    netd.host.sh(&format!(
        "printf '#!/bin/sh\\nsed -i s/192.168.122/192.168.73/g \"$1\"\\n' >{0}/editor; chmod +x {0}/editor",
        netd.host.dir().display()
    ))?;
    let editor = netd.host.dir().join("editor");
    let mut command = netd.host.command(tests::paths::program("netd")?);
    command.env("NETD_SOCKET", netd.socket()).env("EDITOR", editor).args(["net-edit", "default"]);
    let output = command.output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Network default XML configuration edited.\n\n", "{output:?}");
    assert!(netd.ok(&["net-dumpxml", "default"])?.contains("192.168.73.1"));
    netd.finish()
}

#[test]
fn the_shipped_network_steps_aside_if_its_subnet_is_taken_and_says_so() -> Result<()> {
    let host = Space::new("taken")?;
    host.ip("link add other0 type bridge")?;
    // A longer prefix than ours: only a look at the whole routing table finds it.
    host.ip("address add 192.168.122.130/28 dev other0")?;
    host.ip("link set other0 up")?;
    let mut netd = Daemon::on(host)?;
    let started = netd.netd(&["net-start", "default"])?;
    assert!(started.status.success(), "{}", told(&started));
    let addresses = netd.host.ip("-o -4 address show dev virbr0")?;
    assert!(!addresses.contains("192.168.122."), "{addresses}");
    assert!(addresses.contains("inet 192.168."), "{addresses}");
    // To who started it, and to who reads the log later.
    for said in [String::from_utf8_lossy(&started.stderr).into_owned(), netd.log()] {
        assert!(said.contains("192.168.122.0/24") && said.contains("other0"), "it does not say why:\n{said}");
    }
    netd.finish()
}

#[test]
fn ip_forwarding_is_set_while_a_network_needs_it_and_put_back_after_the_last() -> Result<()> {
    let mut netd = Daemon::new("forwarding")?;
    let forwarding = |netd: &Daemon| netd.host.sh("cat /proc/sys/net/ipv4/ip_forward");
    netd.create(&xml::isolated("red", "red0", 74))?;
    assert_eq!(forwarding(&netd)?.trim(), "0");
    netd.create(&xml::nat("blue", "blue0", 75))?;
    netd.create(&xml::nat("green", "green0", 76))?;
    assert_eq!(forwarding(&netd)?.trim(), "1");
    netd.ok(&["net-destroy", "blue"])?;
    assert_eq!(forwarding(&netd)?.trim(), "1");
    netd.ok(&["net-destroy", "green"])?;
    assert_eq!(forwarding(&netd)?.trim(), "0");
    netd.finish()
}

#[test]
fn ip_forwarding_that_was_on_before_stays_on() -> Result<()> {
    let host = Space::new("forwarding")?;
    host.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    netd.finish()
}

#[test]
fn everything_that_is_printed_can_be_had_as_json() -> Result<()> {
    let mut netd = Daemon::new("json")?;
    netd.ok(&["net-start", "default"])?;
    let list = netd.json(&["net-list", "--all"])?;
    let text = list.to_string();
    assert!(text.contains("\"default\"") && text.contains("\"active\":true"), "{text}");
    for words in [
        &["net-info", "default"][..],
        &["net-dhcp-leases", "default"],
        &["port-list"],
        &["net-name", "default"],
        &["net-uuid", "default"],
        &["net-dumpxml", "default"],
    ] {
        netd.json(words).with_context(|| format!("{words:?}"))?;
    }
    netd.finish()
}

#[test]
fn files_are_where_virsh_users_look_for_them() -> Result<()> {
    let mut netd = Daemon::new("files")?;
    netd.ok(&["net-autostart", "default"])?;
    let definition = netd.config_dir().join("networks/default.xml");
    assert!(fs::read_to_string(&definition)?.contains("<name>default</name>"));
    let link = fs::read_link(netd.config_dir().join("networks/autostart/default.xml"))
        .or_else(|_| fs::read_link(netd.config_dir().join("autostart/default.xml")))?;
    assert!(link.ends_with("default.xml"), "{}", link.display());
    netd.finish()
}

#[test]
fn a_hundred_starts_and_stops_leave_nothing_behind() -> Result<()> {
    let mut netd = Daemon::new("cycles")?;
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let begun = std::time::Instant::now();
        netd.ok(&["net-start", "default"])?;
        slowest = slowest.max(begun.elapsed());
        netd.ok(&["net-destroy", "default"])?;
    }
    netd.same_as_before_but_for_the_daemon()?;
    assert!(slowest < Duration::from_secs(2), "the slowest start took {slowest:?}");
    netd.finish()
}
