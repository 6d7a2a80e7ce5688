//! What is written is found again; what is broken is told and kept.

use tempfile::TempDir;

use super::*;

const TEXT: &str = "<network>\n  <name>a--b</name>\n</network>\n";

fn open(directory: &TempDir) -> (Store, bool) {
    Store::open(&directory.path().join("config"), &directory.path().join("runtime")).unwrap()
}

fn name() -> NetworkName {
    "a--b".parse().unwrap()
}

#[test]
fn only_the_very_first_start_is_the_first() {
    let directory = tempfile::tempdir().unwrap();
    assert!(open(&directory).1);
    assert!(!open(&directory).1);
}

#[test]
fn a_definition_and_its_autostart_link_are_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(&directory);
    store.save_definition(&name(), TEXT).unwrap();
    store.set_autostart(&name(), true).unwrap();
    store.set_autostart(&name(), true).unwrap();
    let found = store.load_definitions().unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].autostart);
    let text = found[0].text.as_ref().unwrap();
    assert!(text.ends_with(TEXT));
    assert_eq!(crate::xml::parse(text).unwrap().name, name(), "the comment does not break the file");
    let link = directory.path().join("config/autostart/a--b.xml");
    assert_eq!(fs::read_to_string(&link).unwrap(), *text, "the link leads to the definition");

    store.set_autostart(&name(), false).unwrap();
    assert!(!store.load_definitions().unwrap()[0].autostart);
    store.set_autostart(&name(), true).unwrap();
    store.remove_definition(&name()).unwrap();
    assert!(store.load_definitions().unwrap().is_empty());
    assert!(fs::symlink_metadata(&link).is_err());
}

#[test]
fn definitions_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(&directory);
    store.save_definition(&name(), TEXT).unwrap();
    let file = directory.path().join("config/networks/a--b.xml");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_write_cut_short_leaves_the_old_file_and_does_not_disturb() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(&directory);
    store.save_definition(&name(), TEXT).unwrap();
    let incomplete = directory.path().join("config/networks").join(INCOMPLETE);
    fs::write(&incomplete, "<netw").unwrap();
    assert_eq!(store.load_definitions().unwrap().len(), 1);
    store.save_definition(&name(), TEXT).unwrap();
    assert_eq!(store.load_definitions().unwrap().len(), 1);
    fs::write(&incomplete, "<netw").unwrap();
    open(&directory);
    assert!(!incomplete.exists(), "the next daemon tidies up");
}

#[test]
fn records_are_found_again_and_broken_ones_are_told_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(&directory);
    let record = Record {
        name: "a".into(),
        phase: Phase::Active,
        xml: TEXT.into(),
        journal: vec![
            Undo::DisableForwarding,
            Undo::DeleteBridge { name: "virbr0".into(), mac: "52:54:00:01:02:03".parse().unwrap() },
        ],
        before: None,
    };
    store.save_record(&record).unwrap();
    assert_eq!(store.load_records().unwrap(), (vec![record.clone()], true));
    let broken = directory.path().join("runtime/networks/b.json");
    fs::write(&broken, "{").unwrap();
    assert_eq!(store.load_records().unwrap(), (vec![record], false));
    assert!(broken.exists());
    store.remove_record("a").unwrap();
    store.remove_record("a").unwrap();
    assert!(store.load_records().unwrap().0.is_empty());
}

#[test]
fn what_an_earlier_boot_left_in_runtime_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(&directory);
    store
        .save_record(&Record {
            name: "a".into(),
            phase: Phase::Active,
            xml: TEXT.into(),
            journal: vec![],
            before: None,
        })
        .unwrap();
    store.set_autostarted().unwrap();
    assert!(open(&directory).0.autostarted());
    fs::write(directory.path().join("runtime/boot"), r#"{"id":"another","autostarted":true}"#).unwrap();
    let (store, _) = open(&directory);
    assert!(!store.autostarted());
    assert!(store.load_records().unwrap().0.is_empty());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config"), "a file").unwrap();
    let error = Store::open(&directory.path().join("config"), &directory.path().join("runtime")).unwrap_err();
    assert!(error.to_string().contains("config/networks"), "{error}");
}
