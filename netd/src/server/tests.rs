//! Clients over a real socket: who may do what, and that a bad one harms no other.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream as Client,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    apply::fake::Fake,
    events::{Bus, healed},
    registry::Registry,
    store::Store,
};

mod hostile;
mod messages;

struct Served {
    directory: TempDir,
    events: Bus,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(access: Access) -> Self {
        Self::start_on(Fake::new(), access, "server")
    }

    /// The same on this host, with threads of this name.
    fn start_on(fake: Fake, access: Access, threads: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name(threads).enable_all().build().unwrap();
        let path = directory.path().join("sock");
        let (config, run) = (directory.path().join("config"), directory.path().join("run"));
        let events = Bus::default();
        let bus = events.clone();
        runtime.block_on(async {
            let (store, first) = Store::open(&config, &run).unwrap();
            let verbs = Verbs::new(fake, store, Registry::new(Path::new("/etc/resolv.conf")), bus);
            verbs.recover(first).await.unwrap();
            let listener = UnixListener::bind(&path).unwrap();
            tokio::spawn(serve(listener, access, verbs));
        });
        Served { directory, events, _runtime: runtime }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.path()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    fn call(&self, method: &str, parameters: Value) -> Value {
        let mut client = self.connect();
        ask(&mut client, method, parameters);
        answer(&mut client)
    }
}

fn ask(client: &mut Client, method: &str, parameters: Value) {
    let mut call = json!({ "method": method, "parameters": parameters }).to_string().into_bytes();
    call.push(0);
    client.write_all(&call).unwrap();
}

fn answer(client: &mut Client) -> Value {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        match byte {
            [0] => return serde_json::from_slice(&bytes).unwrap(),
            [byte] => bytes.push(byte),
        }
    }
}

#[test]
fn the_service_describes_itself() {
    let served = Served::start(Access::ReadOnly);
    let info = served.call("org.varlink.service.GetInfo", json!({}));
    assert_eq!(info["parameters"]["interfaces"], json!(["org.varlink.service", "io.netd.Networks"]));
    for interface in ["org.varlink.service", "io.netd.Networks"] {
        let described = served.call("org.varlink.service.GetInterfaceDescription", json!({ "interface": interface }));
        let text = described["parameters"]["description"].as_str().unwrap();
        assert!(text.contains(&format!("interface {interface}")));
    }
    let unknown = served.call("org.varlink.service.GetInterfaceDescription", json!({ "interface": "a.b" }));
    assert_eq!(unknown["error"], "org.varlink.service.InterfaceNotFound");
}

#[test]
fn wrong_calls_get_varlinks_errors_and_the_connection_lives_on() {
    let served = Served::start(Access::Full);
    let mut client = served.connect();
    for (method, parameters, error) in [
        ("io.netd.Networks.Nope", json!({}), "org.varlink.service.MethodNotFound"),
        ("io.netd.Nope.ListNetworks", json!({}), "org.varlink.service.InterfaceNotFound"),
        ("Nope", json!({}), "org.varlink.service.MethodNotFound"),
        ("io.netd.Networks.GetNetwork", json!({}), "org.varlink.service.InvalidParameter"),
        ("io.netd.Networks.GetNetwork", json!({ "network": 7 }), "org.varlink.service.InvalidParameter"),
        ("io.netd.Networks.GetNetwork", json!({ "network": "a", "b": 1 }), "org.varlink.service.InvalidParameter"),
        ("io.netd.Networks.GetNetwork", json!({ "network": "nope" }), "io.netd.Networks.Failed"),
    ] {
        ask(&mut client, method, parameters);
        assert_eq!(answer(&mut client)["error"], error, "{method}");
    }
    ask(&mut client, "io.netd.Networks.ListNetworks", Value::Null);
    assert_eq!(answer(&mut client)["parameters"]["networks"][0]["name"], "default");
}

#[test]
fn the_read_only_socket_refuses_every_method_that_changes_something() {
    let served = Served::start(Access::ReadOnly);
    for method in netd_api::calls::Method::ALL.into_iter().filter(|method| method.changes()) {
        let refused = served.call(&format!("io.netd.Networks.{}", method.name()), json!({ "network": "default" }));
        assert_eq!(refused["parameters"]["kind"], "access_denied", "{method:?}");
    }
    let listed = served.call("io.netd.Networks.ListNetworks", json!({}));
    assert_eq!(listed["parameters"]["networks"][0]["active"], false);
}

fn monitor(client: &mut Client, network: Value) -> Value {
    let call = json!({ "method": "io.netd.Networks.Monitor", "parameters": { "network": network }, "more": true });
    client.write_all(format!("{call}\0").as_bytes()).unwrap();
    answer(client)
}

#[test]
fn who_monitors_hears_of_its_network_until_it_hangs_up() {
    let served = Served::start(Access::Full);
    let (mut all, mut one) = (served.connect(), served.connect());
    let begun = json!({ "parameters": { "event": null, "missed": 0 }, "continues": true });
    assert_eq!(monitor(&mut all, Value::Null), begun);
    let uuid = served.call("io.netd.Networks.GetNetwork", json!({ "network": "default" }));
    assert_eq!(monitor(&mut one, uuid["parameters"]["network"]["uuid"].clone()), begun);
    let xml = "<network><name>other</name></network>";
    served.call("io.netd.Networks.DefineNetwork", json!({ "xml": xml }));
    served.call("io.netd.Networks.StartNetwork", json!({ "network": "default" }));
    let next = |client: &mut Client| {
        let told = answer(client);
        assert_eq!(told["continues"], true);
        let event = &told["parameters"]["event"];
        format!("{} {}", event["kind"].as_str().unwrap(), event["network"].as_str().unwrap())
    };
    assert_eq!([next(&mut all), next(&mut all)], ["defined other", "started default"]);
    assert_eq!(next(&mut one), "started default");
    // Anything said on such a connection ends it.
    ask(&mut one, "io.netd.Networks.ListNetworks", json!({}));
    assert_eq!(one.read(&mut [0]).unwrap(), 0);
}

#[test]
fn monitoring_is_for_everyone_and_must_be_asked_for_rightly() {
    let served = Served::start(Access::ReadOnly);
    let mut client = served.connect();
    ask(&mut client, "io.netd.Networks.Monitor", json!({}));
    assert_eq!(answer(&mut client)["error"], "org.varlink.service.ExpectedMore");
    assert_eq!(monitor(&mut client, json!("nope"))["parameters"]["kind"], "no_network");
    assert_eq!(monitor(&mut client, json!(7))["error"], "org.varlink.service.InvalidParameter");
    assert_eq!(monitor(&mut client, Value::Null)["continues"], true);
}

#[test]
fn a_client_that_reads_too_slowly_is_told_what_it_missed_and_keeps_no_other_waiting() {
    let served = Served::start(Access::Full);
    let (mut slow, mut quick) = (served.connect(), served.connect());
    monitor(&mut slow, Value::Null);
    monitor(&mut quick, Value::Null);
    let told = 3000;
    for number in 0..told {
        served.events.tell(healed(None, number.to_string()));
        let detail = &answer(&mut quick)["parameters"]["event"]["detail"];
        assert_eq!(*detail, number.to_string());
    }
    let (mut read, mut missed) = (0, 0);
    while read + missed < told {
        let reply = answer(&mut slow);
        missed += reply["parameters"]["missed"].as_u64().unwrap();
        read += u64::from(!reply["parameters"]["event"].is_null());
    }
    assert_eq!(read + missed, told);
    assert!(missed > 0, "all {told} events fit into a socket: too few to prove anything");
}

#[test]
fn a_one_way_call_is_done_and_not_answered() {
    let served = Served::start(Access::Full);
    let mut client = served.connect();
    let call = json!({
        "method": "io.netd.Networks.StartNetwork", "parameters": { "network": "default" }, "oneway": true
    });
    client.write_all(format!("{call}\0").as_bytes()).unwrap();
    ask(&mut client, "io.netd.Networks.GetNetwork", json!({ "network": "default" }));
    assert_eq!(answer(&mut client)["parameters"]["network"]["active"], true);
}

#[test]
fn a_client_that_never_reads_keeps_no_other_waiting() {
    let served = Served::start(Access::Full);
    let mut greedy = served.connect();
    greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // Until neither side can take any more.
    let call = json!({ "method": "org.varlink.service.GetInterfaceDescription",
        "parameters": { "interface": "io.netd.Networks" } });
    while greedy.write_all(format!("{call}\0").as_bytes()).is_ok() {}
    let _silent = served.connect();
    let listed = served.call("io.netd.Networks.ListNetworks", json!({}));
    assert_eq!(listed["parameters"]["networks"][0]["name"], "default");
}

#[test]
fn a_call_without_end_is_hung_up_on() {
    let served = Served::start(Access::Full);
    let mut client = served.connect();
    client.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    let sent = (0..16).take_while(|_| client.write_all(&chunk).is_ok()).count();
    assert!(sent < 16, "16 MiB were taken");
}

#[test]
fn what_is_not_json_is_hung_up_on() {
    let served = Served::start(Access::Full);
    for junk in ["{\"method\":\0", "[]\0", "\0", "nonsense\0"] {
        let mut client = served.connect();
        client.write_all(junk.as_bytes()).unwrap();
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = client.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{junk:?}");
    }
}

#[test]
fn one_user_gets_a_bounded_share_of_the_connections() {
    let seats = Seats::new();
    let held: Vec<_> = std::iter::from_fn(|| seats.take(1000)).collect();
    assert_eq!(held.len(), 64);
    let root: Vec<_> = std::iter::from_fn(|| seats.take(0)).collect();
    assert_eq!(held.len() + root.len(), 256);
    assert!(seats.take(1001).is_none());
    drop(held);
    assert!(seats.take(1001).is_some());
}
