//! `net-port-*`: libvirt's view of ports, and ports that stay for programs that open a tap by its name.

use anyhow::Result;
use serde_json::json;
use tests::{daemon::Daemon, front_door::FrontDoor, station::Station};

const MAC: &str = "52:54:00:77:77:77";

fn uuids(netd: &Daemon) -> Result<Vec<String>> {
    Ok(netd.ok(&["-q", "net-port-list", "default", "--uuid"])?.lines().map(str::to_owned).collect())
}

#[test]
fn a_port_made_by_hand_stays_until_it_is_deleted() -> Result<()> {
    let mut netd = Daemon::new("kept")?;
    netd.ok(&["net-start", "default"])?;
    let file = netd.file(
        "port.xml",
        &format!(
            "<networkport><owner><name>vm7</name></owner><mac address='{MAC}'/><plug type='network'/></networkport>"
        ),
    )?;
    let made = netd.json(&["net-port-create", "default", &file])?;
    let (uuid, interface) =
        (made["uuid"].as_str().unwrap_or_default(), made["port"]["interface"].as_str().unwrap_or_default());
    assert_eq!(uuids(&netd)?, [uuid]);
    assert!(netd.ok(&["net-port-list", "--network", "default"])?.starts_with(" UUID\n---"));

    // A program that knows nothing of netd opens it by its name.
    for round in 0..2 {
        let station = Station::on_kept_tap(&netd.host, interface, MAC)?;
        assert!(station.lease()?.starts_with("192.168.122."), "round {round}");
        assert!(station.reaches("192.168.122.1")?);
        assert_eq!(netd.json(&["domifaddr", "vm7"])?[0]["mac"], json!(MAC));
        drop(station);
        if round == 0 {
            netd.kill()?;
            netd.start()?;
            assert_eq!(uuids(&netd)?, [uuid], "a new daemon knows the port");
        }
    }
    let xml = netd.ok(&["-q", "net-port-dumpxml", "default", uuid])?;
    let expected = format!(
        "<networkport>\n  <uuid>{uuid}</uuid>\n  <owner>\n    <name>vm7</name>\n  </owner>\n  <mac address='{MAC}'/>\n  \
         <plug type='network' bridge='virbr0'/>\n</networkport>\n"
    );
    assert_eq!(xml, expected);
    let address = netd.ok(&["-q", "net-port-dumpxml", "default", interface, "--xpath", "//mac/@address"])?;
    assert_eq!(address, format!(" address=\"{MAC}\"\n"));
    // Its own XML makes it again: the same port.
    let same = netd.file("same.xml", &xml)?;
    let twice = netd.refused(&["net-port-create", "default", &same])?;
    assert!(twice.contains("is already in use by port"), "{twice}");

    let deleted = netd.ok(&["net-port-delete", "--network", "default", "--port", uuid])?;
    assert_eq!(deleted, format!("Network port {uuid} deleted\n\n"));
    assert!(uuids(&netd)?.is_empty() && !netd.host.ip("-o link show")?.contains(interface));
    let again = netd.json(&["net-port-create", "--network", "default", "--file", &same])?;
    assert_eq!(again["uuid"], json!(uuid));
    netd.ok(&["net-port-delete", "default", uuid])?;
    netd.finish()
}

#[test]
fn ports_of_programs_are_listed_too_and_are_not_deleted_under_them() -> Result<()> {
    let mut netd = Daemon::new("theirs")?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    let listed = uuids(&netd)?;
    let refused = netd.refused(&["net-port-delete", "default", &listed[0]])?;
    assert!(refused.contains("lives as long as the program that has it open"), "{refused}");
    assert!(station.lease().is_ok());
    for (xml, expected) in [
        ("<networkport><bandwidth/></networkport>".to_owned(), "<bandwidth>"),
        ("<networkport><plug type='network' bridge='br9'/></networkport>".to_owned(), "is virbr0, not br9"),
        (format!("<networkport><uuid>{}</uuid></networkport>", listed[0]), "leave <uuid> out"),
    ] {
        let file = netd.file("bad.xml", &xml)?;
        let said = netd.refused(&["net-port-create", "default", &file])?;
        assert!(said.starts_with("error: Failed to create network port from") && said.contains(expected), "{said}");
    }
    assert!(netd.refused(&["net-port-dumpxml", "default", "nobody"])?.contains("does not exist in network 'default'"));
    assert_eq!(uuids(&netd)?.len(), 1);
    drop(station);
    netd.finish()
}

#[test]
fn quiet_and_read_only_are_virshs() -> Result<()> {
    let mut netd = Daemon::new("quiet")?;
    assert_eq!(netd.ok(&["-q", "net-start", "default"])?, "");
    assert_eq!(netd.ok(&["-q", "net-name", "default"])?, "default\n");
    assert_eq!(
        netd.ok(&["--quiet", "net-list"])?.split_whitespace().collect::<Vec<_>>(),
        ["default", "active", "no", "yes"]
    );
    assert!(netd.ok(&["-r", "net-info", "default"])?.contains("Active:         yes"));
    let refused = netd.refused(&["-r", "net-destroy", "default"])?;
    assert!(refused.contains("operation forbidden: read only access prevents"), "{refused}");
    assert!(netd.ok(&["help", "net-start"])?.contains("Start a defined network"));
    netd.finish()
}

#[test]
fn debians_virsh_makes_shows_and_deletes_ports() -> Result<()> {
    let mut door = FrontDoor::new("ports")?;
    let virsh = |args: &[&str]| door.host().check("virsh", args);
    virsh(&["net-start", "default"])?;
    let xml = format!("<networkport><owner><name>vm7</name></owner><mac address='{MAC}'/></networkport>");
    let file = door.netd.file("port.xml", &xml)?;
    let made = virsh(&["net-port-create", "default", &file])?;
    let uuid = uuids(&door.netd)?.pop().unwrap_or_default();
    assert_eq!(made, format!("Network port {uuid} created from {file}\n\n"));
    assert_eq!(virsh(&["net-port-list", "default"])?, format!(" UUID\n{:-<39}\n {uuid}\n\n", ""));
    assert_eq!(virsh(&["net-port-list", "default", "--uuid"])?, format!("{uuid}\n\n"));
    let shown = virsh(&["net-port-dumpxml", "default", &uuid])?;
    assert_eq!(shown, door.netd.ok(&["net-port-dumpxml", "default", &uuid])?);
    let mac = virsh(&["net-port-dumpxml", "default", &uuid, "--xpath", "//mac"])?;
    assert_eq!(mac, format!("<mac address=\"{MAC}\"/>\n\n"));
    assert_eq!(virsh(&["net-port-delete", "default", &uuid])?, format!("Network port {uuid} deleted\n\n"));
    assert!(uuids(&door.netd)?.is_empty());
    door.finish()
}
