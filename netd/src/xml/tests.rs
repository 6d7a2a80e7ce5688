//! `tests/golden/xml`: each `NAME.in.xml` and what comes out of reading and writing it, `NAME.out.xml`.
//! `UPDATE_GOLDEN=1` writes the outputs anew.

use std::{fs, path::PathBuf, time::Instant};

use super::*;

mod hostile;
pub(super) mod known;
mod policy;
mod random;
mod refused;

fn golden_inputs() -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/xml");
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".in.xml") {
            let text = fs::read_to_string(&path).unwrap();
            inputs.push((path, text));
        }
    }
    assert!(inputs.len() >= 7);
    inputs
}

/// A UUID is made up where there is none; golden files need a fixed one.
fn parse_with_uuid(text: &str) -> Network {
    let mut network = parse(text).unwrap();
    if !text.contains("<uuid>") {
        network.uuid = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    }
    network
}

#[test]
fn what_is_read_is_written_as_the_golden_files_have_it() {
    for (path, text) in golden_inputs() {
        let network = parse_with_uuid(&text);
        let got = write(&network);
        let expected = path.to_str().unwrap().replace(".in.xml", ".out.xml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{}", path.display());
        assert_eq!(parse(&got).unwrap(), network, "{}", path.display());
    }
}

#[test]
fn what_libvirt_prints_of_its_default_network_comes_out_byte_for_byte() {
    for (path, text) in golden_inputs() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if matches!(name, "default-live.in.xml" | "default-on-disk.in.xml") {
            let from = text.find("<network").unwrap();
            assert_eq!(write(&parse(&text).unwrap()), text[from..].replace(" connections='1'", ""), "{name}");
        }
    }
}

#[test]
fn the_shipped_default_network_is_libvirts() {
    let ours = include_str!("../../../topologies/default.xml");
    let libvirts = fs::read_to_string(format!("{}/tests/golden/xml/default.in.xml", env!("CARGO_MANIFEST_DIR")));
    assert_eq!(parse_with_uuid(ours), parse_with_uuid(&libvirts.unwrap()));
}

#[test]
fn a_started_network_shows_the_ports_of_nat() {
    let text = include_str!("../../../topologies/default.xml");
    let network = parse_with_uuid(text);
    assert!(!write(&network).contains("<port"));
    assert!(write(&network.live()).contains("      <port start='1024' end='65535'/>\n"));
}

#[test]
fn a_made_up_uuid_is_another_one_each_time() {
    let text = "<network><name>a</name></network>";
    assert_ne!(parse(text).unwrap().uuid, parse(text).unwrap().uuid);
}

#[test]
fn ten_thousand_reservations_are_read_in_reasonable_time() {
    let hosts: String = (0..10_000u32)
        .map(|n| {
            let [_, _, c, d] = (n + 256).to_be_bytes();
            format!("<host mac='52:54:00:00:{c:02x}:{d:02x}' name='g{n}' ip='10.0.{c}.{d}'/>\n")
        })
        .collect();
    let text = format!("<network><name>a</name><ip address='10.0.0.1' prefix='16'><dhcp>{hosts}</dhcp></ip></network>");
    let start = Instant::now();
    let network = parse(&text).unwrap();
    assert_eq!(network.subnets[0].dhcp.as_ref().unwrap().hosts.len(), 10_000);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn ten_thousand_port_forwards_are_read_in_reasonable_time() {
    let forwards: String = (0..10_000u32)
        .map(|n| {
            format!("<netd:forward proto='tcp' port='{}'>\n<netd:to guest='g{n}' port='22'/></netd:forward>\n", n + 1)
        })
        .collect();
    let text = format!(
        "<network xmlns:netd='{NAMESPACE}'><name>a</name><forward/><ip address='10.0.0.1' prefix='16'/>\
         <netd:forwards>{forwards}</netd:forwards></network>"
    );
    let start = Instant::now();
    let network = parse(&text).unwrap();
    assert_eq!(network.forwards.len(), 10_000);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
