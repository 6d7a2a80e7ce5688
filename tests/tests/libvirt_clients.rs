//! Libvirt's clients that are not virsh: its Python module, and bytes as go-libvirt sends them.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    front_door::{FrontDoor, SOCKET},
    space::Running,
    station::Station,
    wait::{self, PATIENCE},
    wire::{Wire, procedure, string},
};

const MAC: &str = "52:54:00:00:51:01";

#[test]
fn a_python_program_lists_starts_changes_and_hears_of_networks() -> Result<()> {
    let mut door = FrontDoor::new("python")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/networks.py");
    // Debian's own, which has the module, and not one that somebody has first in the PATH.
    let mut command = door.host().command("/usr/bin/python3");
    command.args([script, "lease"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = Running(command.spawn().context("cannot run /usr/bin/python3: run `make setup-bench`")?);
    let mut lines = BufReader::new(program.0.stdout.take().context("a pipe")?).lines();
    let mut seen = json!({});
    let mut read_to = |end: Option<&str>| -> Result<Value> {
        for line in lines.by_ref() {
            let line = line?;
            if Some(&*line) == end {
                break;
            }
            println!("{line}");
            let value: Value = serde_json::from_str(&line)?;
            for (key, value) in value.as_object().context("an object")? {
                seen[key] = value.clone();
            }
        }
        Ok(seen.clone())
    };
    let before = read_to(Some("ready"))?;
    assert_eq!(before["leases"], json!([]), "{before}");
    let guest = Station::on_tap(door.host(), "vbr51", "vnet0", MAC)?;
    guest.lease()?;
    program.0.stdin.take().context("a pipe")?.write_all(b"\n")?;
    let seen = read_to(None)?;
    drop(guest);
    let ended = wait::until("the program ends", PATIENCE, || Ok(program.0.try_wait()?))?;
    ensure!(ended.success(), "networks.py: {ended}");

    assert_eq!((&seen["uri"], &seen["type"]), (&json!("qemu:///system"), &json!("QEMU")));
    assert_eq!((&seen["alive"], &seen["secure"], &seen["encrypted"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!((&seen["all"], &seen["defined"]), (&json!(["default"]), &json!(["default"])));
    assert_eq!((&seen["active"], &seen["networks"], &seen["count"]), (&json!([]), &json!([]), &json!(0)));
    assert_eq!((&seen["defined_count"], &seen["domains"], &seen["all_domains"]), (&json!(1), &json!([]), &json!(0)));
    assert_eq!(seen["lab"], json!(["lab", "11111111-2222-4333-8444-000000000051", "vbr51", 1, 1, 1]));
    assert_eq!((&seen["host_in"], &seen["same"]), (&json!([true, true]), &json!("lab")));
    assert_eq!(seen["again"], json!([55, "Requested operation is not valid: network is already active"]));
    assert_eq!(seen["nobody"], json!([43, "Network not found: no network with matching name 'nope'"]));
    assert_eq!(seen["domain"], json!([42, "Domain not found: no domain with matching name 'nope'"]));
    assert_eq!(seen["flags"], json!([8, "unsupported flags (0x40) in function networkGetXMLDesc"]));
    assert!(seen["wrong"][0].as_i64().is_some_and(|code| code != 38), "{}", seen["wrong"]);
    let lease = &seen["leases"][0];
    assert_eq!(seen["leases"].as_array().map(Vec::len), Some(1));
    assert_eq!((&lease["iface"], &lease["mac"], &lease["type"]), (&json!("vbr51"), &json!(MAC), &json!(0)));
    assert_eq!((&lease["ipaddr"], &lease["prefix"]), (&json!("10.7.51.5"), &json!(24)));
    assert_eq!((&seen["later"], &seen["other"]), (&json!(true), &json!([])));
    // Defined 0, undefined 1, started 2, stopped 3.
    let heard: Vec<Value> = seen["heard"].as_array().context("a list")?.clone();
    let by =
        |who: &str| heard.iter().filter(|event| event[3] == who).map(|event| json!([event[0], event[1]])).collect();
    let (every, lab): (Vec<Value>, Vec<Value>) = (by("every"), by("lab"));
    let expected = json!([["lab", 0], ["lab", 2], ["default", 2], ["default", 3], ["lab", 3], ["lab", 1]]);
    assert_eq!(json!(every), expected);
    assert_eq!(json!(lab), json!([["lab", 2]]));
    let gone = "Network not found: no network with matching uuid '11111111-2222-4333-8444-000000000051' (lab)";
    assert_eq!(seen["gone"], json!([43, gone]));
    assert_eq!((&seen["looking"], &seen["refused"][0]), (&json!(["default"]), &json!(29)));
    door.finish()
}

/// go-libvirt marks what is there with `01 00 00 00`, asks for no feature and registers no callback for the end.
#[test]
fn bytes_as_go_libvirt_sends_them_are_understood() -> Result<()> {
    let mut door = FrontDoor::new("go")?;
    const THERE: [u8; 4] = [1, 0, 0, 0];
    let mut go = Wire::open(door.connect(Path::new(SOCKET))?, PATIENCE, "qemu:///system")?;
    let version = go.call(procedure::CONNECT_GET_LIB_VERSION, &[])?;
    assert!(version.word(4)? >= 9_000_000, "{version:?}");
    let listed = go.call(procedure::CONNECT_LIST_ALL_NETWORKS, &[0, 0, 0, 1, 0, 0, 0, 3])?;
    assert_eq!((listed.word(0)?, &*listed.string(4)?), (1, "default"));
    let network = listed.payload[4..4 + 4 + 8 + 16].to_vec();
    assert_eq!(go.call(procedure::NETWORK_LOOKUP_BY_NAME, &string("default"))?.payload, network);
    // An event of one network, and leases of one MAC: both are optional.
    let one = [&[0; 4][..], &THERE, &network].concat();
    let callback = go.call(procedure::NETWORK_EVENT_REGISTER, &one)?;
    assert_eq!(callback.status, 0, "{callback:?}");
    let leases = [&network[..], &THERE, &string(MAC), &[0, 0, 0, 1], &[0; 4]].concat();
    let leases = go.call(procedure::NETWORK_GET_DHCP_LEASES, &leases)?;
    assert_eq!((leases.status, leases.payload.as_slice()), (0, &[0; 8][..]), "no leases");
    door.host().check("virsh", &["net-start", "default"])?;
    let event = go.receive()?.context("an event")?;
    assert_eq!((event.procedure, event.kind), (procedure::NETWORK_EVENT_LIFECYCLE, 2));
    assert_eq!(event.word(0)?, callback.word(0)?);
    assert_eq!(event.payload[4..4 + network.len()], network);
    assert_eq!(event.word(4 + network.len())?, 2, "started");
    door.finish()
}
