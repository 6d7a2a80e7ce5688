//! Opening and locking images.

use std::io::Write;

use super::*;

fn image(bytes: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![0; bytes]).unwrap();
    file
}

#[test]
fn a_missing_image_is_named() {
    let error = RawDisk::open(Path::new("/nowhere/disk.raw"), false).unwrap_err();
    assert!(error.to_string().contains("/nowhere/disk.raw"), "{error}");
}

#[test]
fn a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(RawDisk::open(dir.path(), true), Err(DiskError::Kind { .. })));
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for readonly in [true, false] {
        assert!(matches!(RawDisk::open(&path, readonly), Err(DiskError::Kind { .. })));
    }
}

#[test]
fn less_than_a_sector_is_refused_and_a_part_sector_is_cut_off() {
    assert!(matches!(RawDisk::open(image(511).path(), false), Err(DiskError::Empty { bytes: 511, block: 512, .. })));
    assert_eq!(RawDisk::open(image(1535).path(), false).unwrap().bytes(), 1024);
}

#[test]
fn one_writer_or_many_readers() {
    let image = image(512);
    let writer = RawDisk::open(image.path(), false).unwrap();
    assert!(matches!(RawDisk::open(image.path(), false), Err(DiskError::InUse { .. })));
    assert!(matches!(RawDisk::open(image.path(), true), Err(DiskError::InUse { .. })));
    drop(writer);
    let _reader = RawDisk::open(image.path(), true).unwrap();
    let _another = RawDisk::open(image.path(), true).unwrap();
    assert!(matches!(RawDisk::open(image.path(), false), Err(DiskError::InUse { .. })));
}
