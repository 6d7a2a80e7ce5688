//! A real socket in a directory of its own, with a serial port at the other end.

use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;
use crate::kvm::vm::IrqLine;

struct Fixture {
    com1: Arc<Com1>,
    running: Running,
    path: PathBuf,
    directory: tempfile::TempDir,
}

fn console() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console.sock");
    let console = Console::open(&Kind::Socket(path.clone())).unwrap();
    let com1 = Arc::new(Com1::new(IrqLine::new().unwrap(), console.output().unwrap()).unwrap());
    let running = console.start(&com1).unwrap();
    Fixture { com1, running, path, directory }
}

fn guest_says(com1: &Com1, text: &[u8]) {
    text.iter().for_each(|byte| com1.guest_write(*byte));
}

fn expect(client: &mut UnixStream, text: &[u8]) {
    let mut got = vec![0; text.len()];
    client.read_exact(&mut got).unwrap();
    // Not assert_eq: nobody wants to read 64 KiB of numbers.
    assert!(got == text, "got {:?}…", String::from_utf8_lossy(&got[..text.len().min(20)]));
}

#[test]
fn a_client_sees_the_guest_and_the_guest_hears_the_client() {
    let Fixture { com1, path, running, directory: _directory } = console();
    let mut client = UnixStream::connect(&path).unwrap();
    guest_says(&com1, b"login: ");
    expect(&mut client, b"login: ");
    client.write_all(b"root\r").unwrap();
    let mut heard = Vec::new();
    while heard.len() < 5 {
        heard.extend(com1.guest_read());
        thread_yield();
    }
    assert_eq!(heard, b"root\r");
    running.finish();
}

fn thread_yield() {
    std::thread::yield_now();
}

#[test]
fn who_comes_late_gets_the_last_64_kib() {
    let Fixture { com1, path, running, directory: _directory } = console();
    let mut first = UnixStream::connect(&path).unwrap();
    guest_says(&com1, &[b'a'; 1000]);
    // What the first client has read, the console thread has taken.
    expect(&mut first, &[b'a'; 1000]);
    guest_says(&com1, &vec![b'b'; REPLAY]);
    expect(&mut first, &vec![b'b'; REPLAY]);
    let mut late = UnixStream::connect(&path).unwrap();
    expect(&mut late, &vec![b'b'; REPLAY]);
    guest_says(&com1, b"!");
    expect(&mut late, b"!");
    running.finish();
}

#[test]
fn the_last_words_get_out_and_the_socket_is_removed() {
    let Fixture { com1, path, running, directory: _directory } = console();
    let mut client = UnixStream::connect(&path).unwrap();
    guest_says(&com1, b"x");
    expect(&mut client, b"x");
    guest_says(&com1, b"reboot: Power down");
    running.finish();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"reboot: Power down");
    assert!(!path.exists());
}

#[test]
fn only_this_user_may_connect() {
    let Fixture { path, running, directory: _directory, .. } = console();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    running.finish();
}

#[test]
fn a_socket_in_use_is_refused_and_one_left_behind_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console.sock");
    let used = UnixListener::bind(&path).unwrap();
    assert!(matches!(
        Console::open(&Kind::Socket(path.clone())),
        Err(ConsoleError::Listen(ListenError::Exists { .. }))
    ));
    drop(used);
    assert!(Console::open(&Kind::Socket(path.clone())).is_ok());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Console::open(&Kind::Socket(file.path().to_owned())).unwrap_err();
    assert!(matches!(error, ConsoleError::Listen(ListenError::Exists { .. })), "{error}");
    assert!(file.path().exists());
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Console::open(&Kind::Socket("/nonexistent/c.sock".into())).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/c.sock"), "{error}");
}
