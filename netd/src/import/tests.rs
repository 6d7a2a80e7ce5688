//! From libvirt's files to what is imported.

use super::*;

const DEFINITION: &str = "\
<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->

<network>
  <name>default</name>
  <uuid>67f66aa0-94fe-4b86-aa89-eeaa4d8ed754</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:e8:33:ff'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
      <host mac='52:54:00:00:00:09' name='nine' ip='192.168.122.9'/>
    </dhcp>
  </ip>
</network>
";

const LEASES: &str = r#"[
  {"ip-address": "192.168.122.50", "mac-address": "52:54:00:11:22:33", "hostname": "vm1",
   "client-id": "ff:00:11", "expiry-time": 1800000000},
  {"ip-address": "10.9.9.9", "mac-address": "52:54:00:11:22:34", "expiry-time": 1800000000},
  {"ip-address": "fd00::1", "mac-address": "52:54:00:11:22:35", "iaid": "7", "expiry-time": 1800000000}
]"#;

fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: Ok(text.to_owned()) }
}

fn state(definition: &str) -> String {
    let body = definition.split_once("-->\n").unwrap().1;
    format!(
        "<!--\nWARNING\n-->\n\n<networkstatus>\n  <class_id bitmap='0-2'/>\n  <floor sum='0'/>{body}</networkstatus>"
    )
}

fn found() -> Found {
    Found {
        definitions: vec![file("/etc/libvirt/qemu/networks/default.xml", DEFINITION)],
        autostart: vec!["default".into()],
        leases: [("virbr0.status".to_owned(), file("virbr0.status", LEASES))].into(),
        ..Found::default()
    }
}

#[test]
fn a_definition_comes_with_its_identity_its_reservations_and_its_leases() {
    let (imports, left_out) = plan(&found());
    assert!(left_out.is_empty(), "{left_out:?}");
    let [import] = imports.as_slice() else { panic!("{imports:?}") };
    let definition = import.definition.as_ref().unwrap();
    assert_eq!(definition.uuid.to_string(), "67f66aa0-94fe-4b86-aa89-eeaa4d8ed754");
    assert_eq!(definition.mac.unwrap().to_string(), "52:54:00:e8:33:ff");
    assert!(import.autostart && import.live.is_none());
    let leases: Vec<_> = import.leases.iter().map(|lease| (lease.mac.as_str(), lease.address.as_str())).collect();
    assert_eq!(leases, [("52:54:00:11:22:33", "192.168.122.50")]);
    assert_eq!(import.leases[0].client_id.as_deref(), Some("ff:00:11"));
    let notes = import.notes.join("\n");
    assert!(notes.contains("10.9.9.9 is on none of the network's subnets"), "{notes}");
    assert!(notes.contains("1 leases of IPv6 are not imported"), "{notes}");
    assert!(notes.contains("waits 4 s"), "{notes}");
}

#[test]
fn a_network_that_runs_comes_with_whose_ports_are_on_it() {
    let port = "<networkport>
  <uuid>aa2c4b3c-1111-4b86-aa89-eeaa4d8ed754</uuid>
  <owner><uuid>bb2c4b3c-1111-4b86-aa89-eeaa4d8ed754</uuid><name>vm1</name></owner>
  <mac address='52:54:00:11:22:33'/>
  <plug type='network' bridge='virbr0'/>
</networkport>";
    let direct = port.replace("<plug type='network' bridge='virbr0'/>", "<plug type='direct' dev='eth0' mode='vepa'/>");
    let transient = DEFINITION.replace("default", "passing").replace("virbr0", "virbr7");
    let found = Found {
        states: vec![file("default.xml", &state(DEFINITION)), file("passing.xml", &state(&transient))],
        ports: [("default".to_owned(), vec![file("1.xml", port), file("2.xml", &direct)])].into(),
        ..found()
    };
    let (imports, left_out) = plan(&found);
    assert!(left_out.is_empty(), "{left_out:?}");
    let [default, passing] = imports.as_slice() else { panic!("{imports:?}") };
    assert!(passing.definition.is_none() && passing.live.is_some());
    let links = [("vnet3".to_owned(), "fe:54:00:11:22:33".to_owned()), ("veth0".into(), "52:54:00:11:22:33".into())];
    let taps = default.taps(&links);
    let [tap] = taps.as_slice() else { panic!("{taps:?}") };
    assert_eq!((tap.interface.as_str(), tap.guest.as_deref()), ("vnet3", Some("vm1")));
    assert_eq!(tap.mac, "52:54:00:11:22:33");
}

#[test]
fn what_cannot_be_had_is_named_with_its_file_and_line() {
    let odd = DEFINITION.replace("<forward mode='nat'/>", "<forward mode='hostdev'/>");
    let found = Found {
        definitions: vec![file("odd.xml", &odd)],
        states: vec![file("bad.xml", "<networkstatus/>"), file("odd.xml", &state(&odd))],
        ..Found::default()
    };
    let (imports, left_out) = plan(&found);
    assert!(imports.is_empty());
    let said: Vec<String> = left_out.iter().map(|left| format!("{}: {}", left.path.display(), left.why)).collect();
    assert_eq!(said[1], "bad.xml: it has no <network>");
    assert!(said[0].contains("SR-IOV") && said[0].contains("line 8"), "{said:?}");
    // Seven lines of the state file come before the network, which has the forward in its fourth.
    assert!(said[2].contains("SR-IOV") && said[2].contains("line 11"), "{said:?}");
}

#[test]
fn native_lease_files_are_read_and_broken_ones_told() {
    let text = "1800000000 52:54:00:11:22:33 192.168.122.77 vm7 01:52:54:00:11:22:33\n0 52:54:00:11:22:44 192.168.122.78 * *\n\
                duid 00:01:00:01\n1800000000 1234 fd00::7 vm7 00:01\n";
    let mut found = found();
    found.leases = [("default.leases".to_owned(), file("default.leases", text))].into();
    let (imports, _) = plan(&found);
    let leases: Vec<_> = imports[0].leases.iter().map(|lease| (lease.address.as_str(), lease.expiry)).collect();
    assert_eq!(leases, [("192.168.122.77", 1_800_000_000), ("192.168.122.78", 0)]);
    assert_eq!(imports[0].leases[1].hostname, None);

    found.leases = [("default.leases".to_owned(), file("default.leases", "nonsense\n"))].into();
    assert!(plan(&found).0[0].notes.join("\n").contains("default.leases: line 1 is no lease: nonsense"));
    found.leases = [("virbr0.status".to_owned(), file("virbr0.status", "{"))].into();
    assert!(plan(&found).0[0].notes.join("\n").contains("virbr0.status: it is not a list of leases"));
}
