//! `tests/golden/forwards`: per case the forwards (`.intent.json`) and the commands that make them from nothing
//! (`.nft.json`), side by side with what `nft list` shows then (`.nft`, compared in `tests/forwards.rs`).
//! `UPDATE_GOLDEN=1` writes both outputs anew.

use std::{fs, path::PathBuf};

use super::*;

fn forward(port: u16, targets: &[(&str, u16)]) -> Forward {
    Forward {
        protocol: Protocol::Tcp,
        address: None,
        ports: (port, port),
        bridge: "virbr0".to_owned(),
        subnets: vec!["10.0.0.0/24".parse().unwrap()],
        targets: targets.iter().map(|(address, port)| (address.parse().unwrap(), *port)).collect(),
    }
}

/// What is done, and to what: `delete element forward_address`.
fn summary(commands: &[Value]) -> Vec<String> {
    let words = |command: &Value| {
        let (verb, object) = command.as_object().unwrap().iter().next().unwrap();
        let (kind, object) = object.as_object().unwrap().iter().next().unwrap();
        let name = object.get("name").or(object.get("chain")).and_then(Value::as_str).unwrap();
        format!("{verb} {kind} {name}")
    };
    commands.iter().map(words).collect()
}

#[test]
fn commands_are_as_the_golden_files_have_them() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forwards");
    let mut cases = 0;
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".intent.json") else { continue };
        cases += 1;
        let forwards: Vec<Forward> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let got: String =
            change(&[], &forwards, Others::default()).iter().map(|command| format!("{command}\n")).collect();
        let expected = golden.join(format!("{case}.nft.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{case}: UPDATE_GOLDEN=1 writes it anew");
    }
    assert!(cases >= 3, "{cases} cases");
}

#[test]
fn nothing_changes_where_nothing_changed() {
    let forwards = [forward(80, &[("10.0.0.2", 80)]), forward(81, &[("10.0.0.2", 80), ("10.0.0.3", 80)])];
    assert_eq!(change(&forwards, &forwards, Others::default()), Vec::<Value>::new());
    assert_eq!(change(&[], &[], Others::default()), Vec::<Value>::new());
}

#[test]
fn a_new_address_changes_elements_and_nothing_else() {
    let others: Vec<Forward> = (1000..1100).map(|port| forward(port, &[("10.0.0.9", 80)])).collect();
    let with = |one: Forward| [others.clone(), vec![one]].concat();
    let (old, new) = (forward(80, &[("10.0.0.2", 8080)]), forward(80, &[("10.0.0.3", 8080)]));
    let commands = change(&with(old.clone()), &with(new), Others::default());
    assert_eq!(
        summary(&commands),
        [
            "delete element forward_address",
            "delete element forward_targets",
            "add element forward_address",
            "add element forward_targets"
        ]
    );
    assert!(commands.iter().all(|command| command.to_string().matches("10.0.0.").count() == 1), "{commands:?}");
    let gone = change(&with(old), &with(forward(80, &[])), Others::default());
    assert_eq!(
        summary(&gone),
        [
            "delete element forward_address",
            "delete element forward_port",
            "delete element forward_targets",
            "add element forward_waiting"
        ]
    );
}

#[test]
fn a_target_that_two_forwards_share_goes_with_the_last() {
    let (one, other) = (forward(80, &[("10.0.0.2", 80)]), forward(81, &[("10.0.0.2", 80)]));
    let commands = change(&[one.clone(), other.clone()], std::slice::from_ref(&one), Others::default());
    assert!(!summary(&commands).contains(&"delete element forward_targets".to_owned()), "{commands:?}");
}

#[test]
fn of_several_targets_only_their_own_rules_are_written_anew() {
    let two = forward(80, &[("10.0.0.2", 80), ("10.0.0.3", 80)]);
    let three = forward(80, &[("10.0.0.2", 80), ("10.0.0.3", 80), ("10.0.0.4", 80)]);
    assert_eq!(
        summary(&change(&[two], &[three], Others::default())),
        [
            "add chain round_tcp_80-80",
            "flush chain round_tcp_80-80",
            "add rule round_tcp_80-80",
            "add rule round_tcp_80-80",
            "add rule round_tcp_80-80",
            "add element forward_targets"
        ]
    );
}
