//! Whatever is sent: nothing panics, everyone is answered, and what was made can be taken away again.

use std::{
    io::Read,
    panic,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use netd_api::calls::Method;
use rand::{SeedableRng, rngs::StdRng};

use super::{messages::Message, *};

const MESSAGES: usize = 4_000;
/// What the threads are called that serve.
const THREADS: &str = "hostile-server";

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn messages_that_make_no_sense_neither_panic_nor_leave_anything() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some(THREADS) {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    let fake = Fake::new();
    let found = fake.traces();
    let served = Served::start_on(fake.clone(), Access::Full, THREADS);
    // A host made of values has no frames: `tests/daemon/hostile.rs` has these, too.
    let of_values = |method: &Method| !matches!(method, Method::OpenCapture | Method::Explain);
    let methods: Vec<String> = Method::ALL.into_iter().filter(of_values).map(Method::name).collect();
    let mut random = StdRng::seed_from_u64(3);
    let mut answered = 0;
    for number in 0..MESSAGES {
        let message = Message::random(&mut random, &methods);
        let mut client = served.connect();
        client.write_all(&message.bytes).unwrap();
        if message.waits {
            client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        }
        let mut first = [0];
        let read = client.read(&mut first);
        let text = String::from_utf8_lossy(&message.bytes);
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "message {number}: {text}");
        assert!(message.waits || read.is_ok(), "message {number}: {read:?}: {text}");
        answered += usize::from(read.is_ok_and(|length| length == 1));
    }
    assert!(answered > MESSAGES / 2, "{answered} answers");
    let list = || served.call("io.netd.Networks.ListNetworks", json!({}))["parameters"]["networks"].clone();
    for network in list().as_array().unwrap().iter().filter(|network| network["active"] == true) {
        let reply = served.call("io.netd.Networks.DestroyNetwork", json!({ "network": network["name"] }));
        assert!(reply.get("error").is_none(), "{reply}");
    }
    let ports = served.call("io.netd.Networks.ListPorts", json!({}))["parameters"]["ports"].clone();
    let indices: Vec<u32> =
        fake.world().host.links.iter().filter(|link| link.name.starts_with("vnet")).map(|link| link.index).collect();
    assert_eq!(ports.as_array().unwrap().len(), indices.len(), "{ports}");
    indices.into_iter().for_each(|index| fake.remove_link(index));
    assert_eq!(fake.traces(), found);
    assert_eq!(std::fs::read_dir(served.directory.path().join("run/networks")).unwrap().count(), 0);
}
