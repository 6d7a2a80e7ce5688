//! EDGE: the database on a real file system: what survives, what is set aside, what a full disk does.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use super::{Job, OpenError, Store, Stored};
use crate::{
    config::{LeaseTime, Mac},
    row::{Row, Write},
    v6::{row::Row6, table::Key},
};

/// What a server without one would be given.
const DUID: [u8; 4] = [0, 4, 1, 2];

fn row(client: u8, place: u8) -> Row {
    Row {
        mac: Mac([0x52, 0x54, 0, 0, 0, client]),
        address: Ipv4Addr::new(10, 0, 0, place),
        prefix: 24,
        hostname: Some(format!("h{client}")),
        client_id: Some(vec![1, client]),
        granted: LeaseTime::Seconds(3600),
        ends: Some(1_800_000_000),
    }
}

fn row6(client: u8, iaid: u32, place: u16) -> Row6 {
    Row6 {
        key: Key { mac: Mac([0x52, 0x54, 0, 0, 0, client]), iaid },
        address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, place),
        prefix: 64,
        duid: vec![0, 3, client],
        hostname: Some(format!("h{client}")),
        granted: LeaseTime::Infinite,
        ends: None,
    }
}

/// Hands writes over and waits for the answer.
fn write(store: &Store, network: &str, writes: Vec<Write>) -> Result<(), String> {
    let (answer, written) = mpsc::channel();
    let done = Box::new(move |result: Result<(), super::WriteFailed>| {
        answer.send(result.map_err(|cause| cause.to_string())).unwrap();
    });
    store.submit(Job { network: network.into(), writes, done });
    written.recv_timeout(Duration::from_secs(20)).expect("an answer")
}

fn reopened(path: &Path) -> Vec<(String, Row)> {
    Store::open(path, &DUID).unwrap().1.leases
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let forever = Row { granted: LeaseTime::Infinite, ends: None, hostname: None, client_id: None, ..row(2, 12) };
    {
        let (store, Stored { leases: rows, .. }) = Store::open(&path, &DUID).unwrap();
        assert_eq!(rows, []);
        write(&store, "a", vec![Write::Put(row(1, 11)), Write::Put(forever.clone())]).unwrap();
        write(&store, "b", vec![Write::Put(row(1, 11))]).unwrap();
        write(&store, "b", vec![Write::Put(row(3, 13)), Write::Delete(row(1, 0).mac)]).unwrap();
        write(&store, "c", vec![Write::Put(row(4, 14))]).unwrap();
        write(&store, "c", vec![Write::DeleteAll]).unwrap();
    }
    let expected = [("a", row(1, 11)), ("a", forever), ("b", row(3, 13))];
    assert_eq!(reopened(&path), expected.map(|(network, row)| (network.to_owned(), row)));
}

#[test]
fn an_address_has_one_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    {
        let (store, _) = Store::open(&path, &DUID).unwrap();
        write(&store, "a", vec![Write::Put(row(1, 11))]).unwrap();
        write(&store, "a", vec![Write::Put(row(2, 11))]).unwrap();
    }
    assert_eq!(reopened(&path), [("a".to_owned(), row(2, 11))]);
}

#[test]
fn every_job_of_a_burst_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    {
        let (store, _) = Store::open(&path, &DUID).unwrap();
        let (answer, answers) = mpsc::channel();
        for client in 0..200 {
            let answer = answer.clone();
            let done = Box::new(move |result: Result<(), _>| answer.send(result.is_ok()).unwrap());
            store.submit(Job { network: "a".into(), writes: vec![Write::Put(row(client, client))], done });
        }
        drop(answer);
        assert_eq!(answers.iter().filter(|ok| *ok).count(), 200);
    }
    assert_eq!(reopened(&path).len(), 200);
}

#[test]
fn a_corrupt_database_is_set_aside_and_a_fresh_one_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let store_one = |client| {
        let (store, Stored { leases: rows, .. }) = Store::open(&path, &DUID).unwrap();
        write(&store, "a", vec![Write::Put(row(client, client))]).unwrap();
        rows.len()
    };
    assert_eq!(store_one(1), 0);
    // Not a database at all.
    fs::write(&path, "these are no leases, whatever the file is called").unwrap();
    assert_eq!(store_one(2), 0);
    // One whose pages make no sense.
    let mut bytes = fs::read(&path).unwrap();
    bytes[200..4096].fill(0x5a);
    bytes[4096..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(store_one(3), 0);
    assert_eq!(store_one(3), 1);
    assert_eq!(set_aside(directory.path()), 2);
}

#[test]
fn a_database_that_breaks_while_it_is_used_is_replaced_without_losing_the_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    {
        // More than SQLite keeps in memory (2 MB).
        let (store, _) = Store::open(&path, &DUID).unwrap();
        let many = (0..200).flat_map(|n| (0..100).map(move |place| (n, place))).map(|(n, place)| {
            let mac = Mac([0x52, 0x54, 0, 0, place, n]);
            let address = Ipv4Addr::new(10, 0, n, place);
            Write::Put(Row { mac, address, hostname: Some("x".repeat(200)), ..row(0, 0) })
        });
        write(&store, "a", many.collect()).unwrap();
    }
    {
        let (store, Stored { leases: rows, .. }) = Store::open(&path, &DUID).unwrap();
        assert_eq!(rows.len(), 20_000);
        let len = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0x5a; len]).unwrap();
        write(&store, "a", vec![Write::DeleteAll, Write::Put(row(1, 11))]).unwrap();
        assert_eq!(set_aside(directory.path()), 1);
    }
    assert_eq!(reopened(&path), [("a".to_owned(), row(1, 11))]);
}

fn set_aside(directory: &Path) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")).count()
}

#[test]
fn a_second_process_is_told_that_the_database_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let (_first, _) = Store::open(&path, &DUID).unwrap();
    let second = Store::open(&path, &DUID);
    assert!(matches!(second, Err(OpenError::InUse)), "{second:?}");
}

#[test]
fn databases_that_are_not_ours_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let sqlite = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    sqlite("CREATE TABLE recipes (name TEXT)");
    assert!(matches!(Store::open(&path, &DUID), Err(OpenError::Foreign)));
    sqlite("PRAGMA user_version = 3");
    assert!(matches!(Store::open(&path, &DUID), Err(OpenError::Newer(3))));
    assert_eq!(set_aside(directory.path()), 0);
    let nowhere = directory.path().join("missing/leases.db");
    assert!(matches!(Store::open(&nowhere, &DUID), Err(OpenError::Sqlite(_))));
}

/// Needs root for a file system of its own that is soon full.
#[test]
fn a_full_disk_fails_the_write_and_nothing_else_and_mends_by_itself() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let test = std::thread::spawn(|| {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root: it mounts a small file system of its own");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let directory = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("size=512k")).unwrap();
        let path = directory.path().join("leases.db");
        {
            let (store, _) = Store::open(&path, &DUID).unwrap();
            write(&store, "a", vec![Write::Put(row(1, 11))]).unwrap();
            let ballast = directory.path().join("ballast");
            let mut size = 512 * 1024;
            while size >= 1024 {
                // Fill it to the last page, whatever of it is taken.
                let mut file = fs::OpenOptions::new().create(true).append(true).open(&ballast).unwrap();
                if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
                    size /= 2;
                }
            }
            let writes = || (0..200).map(|n| Write::Put(Row { hostname: Some("x".repeat(60)), ..row(n, n) })).collect();
            let failed = write(&store, "a", writes()).unwrap_err();
            assert!(failed.contains("full"), "{failed}");
            assert!(write(&store, "a", writes()).is_err());
            fs::remove_file(ballast).unwrap();
            write(&store, "a", vec![Write::Put(row(2, 12))]).unwrap();
        }
        let rows = reopened(&path);
        let expected = [("a".to_owned(), row(1, 11)), ("a".to_owned(), row(2, 12))];
        assert_eq!(rows, expected);
        nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
    if let Err(panic) = test.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn ipv6_leases_are_there_after_a_restart_and_the_servers_duid_is_the_first_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let (store, stored) = Store::open(&path, &DUID).unwrap();
    assert_eq!((stored.leases6, stored.duid), (Vec::new(), DUID.to_vec()));
    let seconds = Row6 { granted: LeaseTime::Seconds(600), ends: Some(1_800_000_000), ..row6(1, u32::MAX, 2) };
    let writes = [row6(1, 0, 1), seconds.clone(), row6(2, 7, 3), row6(3, 7, 4)].map(Write::Put6);
    write(&store, "a", writes.to_vec()).unwrap();
    // One that has another's address now, one that is gone, and another network's.
    let gone = Key { mac: row6(2, 0, 0).key.mac, iaid: 7 };
    write(&store, "a", vec![Write::Put6(row6(4, 1, 4)), Write::Delete6(gone)]).unwrap();
    write(&store, "b", vec![Write::Put6(row6(1, 0, 1)), Write::Put(row(1, 1))]).unwrap();
    drop(store);
    let (store, stored) = Store::open(&path, &[9; 4]).unwrap();
    assert_eq!(stored.duid, DUID);
    let of = |network: &str, row: Row6| (network.to_owned(), row);
    let expected = [of("a", row6(1, 0, 1)), of("a", seconds), of("a", row6(4, 1, 4)), of("b", row6(1, 0, 1))];
    assert_eq!(stored.leases6, expected);
    write(&store, "b", vec![Write::DeleteAll]).unwrap();
    drop(store);
    let (_store, stored) = Store::open(&path, &DUID).unwrap();
    assert_eq!((stored.leases6.len(), stored.leases.len()), (3, 0));
}

#[test]
fn a_database_from_before_ipv6_keeps_its_leases() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let (store, _) = Store::open(&path, &DUID).unwrap();
    write(&store, "a", vec![Write::Put(row(1, 11))]).unwrap();
    drop(store);
    let as_it_was = "DROP TABLE leases6; DROP TABLE server; PRAGMA user_version = 1;";
    rusqlite::Connection::open(&path).unwrap().execute_batch(as_it_was).unwrap();
    let (store, stored) = Store::open(&path, &DUID).unwrap();
    assert_eq!(stored.leases, [("a".to_owned(), row(1, 11))]);
    write(&store, "a", vec![Write::Put6(row6(1, 0, 1))]).unwrap();
    drop(store);
    assert_eq!(Store::open(&path, &DUID).unwrap().1.leases6.len(), 1);
}
