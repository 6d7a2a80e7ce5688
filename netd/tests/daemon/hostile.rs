//! Whatever is sent to a real daemon: it does not panic, answers everyone, and what was made can be taken away again.

#[path = "../../src/server/tests/messages.rs"]
mod messages;

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use messages::Message;
use netd_api::calls::Method;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    active,
    harness::{PATIENCE, Space, entries, wait_for},
    ports,
};

/// How many an ordinary test run sends.
const MESSAGES: usize = 500;

#[test]
fn messages_that_make_no_sense_neither_end_the_daemon_nor_leave_anything() {
    let space = Space::new();
    let found = space.traces();
    let log = space.path("log");
    let mut daemon = space.daemon_command("").stderr(File::create(&log).unwrap()).spawn().unwrap();
    let socket = space.path("run/netd.sock");
    wait_for("the daemon's socket", || UnixStream::connect(&socket).is_ok());
    let methods: Vec<String> = Method::ALL.into_iter().map(Method::name).collect();
    let mut random = StdRng::seed_from_u64(4);
    let messages = env::var("NETD_MESSAGES").map_or(MESSAGES, |text| text.parse().expect("a number"));
    let mut answered = 0;
    for number in 0..messages {
        let message = Message::random(&mut random, &methods);
        let text = String::from_utf8_lossy(&message.bytes);
        let mut client =
            UnixStream::connect(&socket).unwrap_or_else(|error| panic!("before message {number}: {error}"));
        client.write_all(&message.bytes).unwrap();
        client.set_read_timeout(Some(if message.waits { Duration::from_millis(20) } else { PATIENCE })).unwrap();
        // Descriptors that come with an answer are not taken, and so closed.
        let read = client.read(&mut [0]);
        assert!(message.waits || read.is_ok(), "message {number}: {read:?}: {text}");
        answered += usize::from(read.is_ok_and(|length| length == 1));
        let said = fs::read_to_string(&log).unwrap();
        assert!(!said.contains("panicked"), "message {number}: {text}\n{said}");
    }
    assert!(answered > messages / 2, "{answered} answers");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("network a started") && said.contains("port vnet"), "nothing was done: {said}");
    for network in active(&space) {
        space.destroy(&network);
    }
    for port in ports(&space) {
        // A guest's ends by itself.
        let _ = space.call(async |client| client.delete_port(&port).await);
    }
    wait_for("the last port to go", || ports(&space).is_empty());
    assert!(entries(&space.path("run/networks")).is_empty());
    assert_eq!(space.traces(), found);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
