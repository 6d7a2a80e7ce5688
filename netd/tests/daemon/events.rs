//! What is told of what really happens, to listeners quick and slow; hooks that are programs; waiting for a guest.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use netd_api::{Client, Event, EventKind, Monitor};

use super::{
    guest::{Guest, dhcp},
    harness::{Space, entries, wait_for},
    refusal,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);

/// A connection that listens, with a runtime of its own.
struct Ear {
    runtime: tokio::runtime::Runtime,
    monitor: Monitor,
}

impl Ear {
    fn new(space: &Space, socket: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = space.path(socket);
        let monitor = runtime.block_on(async { Client::connect(&path).await.unwrap().monitor(None).await.unwrap() });
        Ear { runtime, monitor }
    }

    /// What happened next. Nothing is missed.
    fn next(&mut self) -> Event {
        self.runtime.block_on(async {
            let told = tokio::time::timeout(Duration::from_secs(30), self.monitor.next()).await;
            let told = told.expect("nothing happens").unwrap();
            assert_eq!(told.missed, 0);
            told.event.unwrap()
        })
    }

    /// Everything until an event of this kind, which is the last.
    fn until(&mut self, kind: EventKind) -> Vec<Event> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.next());
            if heard.last().unwrap().kind == kind {
                return heard;
            }
        }
    }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.name()).collect()
}

#[test]
fn a_guests_whole_life_is_told_in_order_on_the_socket_for_everyone() {
    let space = Space::new();
    let daemon = space.daemon();
    let mut ear = Ear::new(&space, "run/netd-ro.sock");
    space.start("default");
    assert_eq!(kinds(&ear.until(EventKind::Started)), ["started"]);
    let forward = netd_api::Forward {
        network: "default".into(),
        protocol: netd_api::Protocol::Tcp,
        first_port: 2222,
        last_port: 2222,
        address: None,
        targets: vec![netd_api::ForwardTarget { guest: Some("vm1".into()), address: None, port: 22 }],
    };
    space.call(async |client| client.add_forward(forward).await).unwrap();
    assert_eq!(ear.next().detail.as_deref(), Some("tcp/2222 leads to nobody yet"));

    let mut guest = Guest::plug(&space, "default", "vm1");
    guest.lease();
    let heard = ear.until(EventKind::ForwardChanged);
    assert_eq!(kinds(&heard), ["port_up", "discover_seen", "offered", "leased", "forward_changed"]);
    for event in &heard[..4] {
        assert_eq!(event.mac.as_deref(), Some(&*guest.port.mac), "{event:?}");
        assert_eq!(event.guest.as_deref(), Some("vm1"), "{event:?}");
        assert_eq!(event.interface.as_deref(), Some(&*guest.port.interface), "{event:?}");
        assert_eq!(event.network.as_deref(), Some("default"), "{event:?}");
    }
    let address = guest.address.to_string();
    assert_eq!(heard[3].address.as_deref(), Some(&*address));
    assert_eq!(heard[4].detail, Some(format!("tcp/2222 leads to {address}:22")));
    guest.lease();
    assert_eq!(kinds(&ear.until(EventKind::Renewed)), ["discover_seen", "offered", "renewed"]);
    guest.release(GATEWAY);
    let heard = ear.until(EventKind::ForwardChanged);
    assert_eq!(kinds(&heard), ["released", "forward_changed"]);
    assert_eq!(heard[0].address.as_deref(), Some(&*address));

    space.run("ip link delete virbr0");
    let heard = ear.until(EventKind::Healed);
    assert_eq!(heard.last().unwrap().detail.as_deref(), Some("bridge virbr0 was deleted and is back"));

    // The next daemon tells of what it did not see begin.
    daemon.kill();
    let _daemon = space.daemon();
    let mut ear = Ear::new(&space, "run/netd.sock");
    drop(guest);
    let down = ear.next();
    assert_eq!((down.kind, down.guest.as_deref()), (EventKind::PortDown, Some("vm1")));
    space.destroy("default");
    let stopped = ear.next();
    assert_eq!(stopped.kind, EventKind::Stopped, "{stopped:?}");
}

#[test]
fn a_listener_that_never_reads_delays_no_lease_and_learns_what_it_missed() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let mut guest = Guest::plug(&space, "default", "vm1");
    let alone: Vec<Duration> = (0..20).map(|_| guest.lease()).collect();
    let mut deaf = Ear::new(&space, "run/netd-ro.sock");
    // Many more events than its socket and its queue hold.
    for _ in 0..5000 {
        guest.send(&dhcp(guest.mac, 1, &[]));
        guest.hear(Duration::from_secs(5), |_| Some(())).expect("an offer");
    }
    let beside: Vec<Duration> = (0..20).map(|_| guest.lease()).collect();
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    // For people to look at; that there was an answer each time, and after 10,000 events still is, is the proof.
    println!("DISCOVER to ACK alone: {:?}, beside a deaf listener: {:?}", median(alone), median(beside));
    let missed = deaf.runtime.block_on(async {
        loop {
            let told = tokio::time::timeout(Duration::from_secs(30), deaf.monitor.next()).await;
            match told.expect("nothing is told").unwrap() {
                told if told.missed > 0 => break told.missed,
                _ => {}
            }
        }
    });
    assert!(missed > 1000, "{missed}");
}

#[test]
fn a_guest_is_waited_for_until_it_is_there_and_no_longer() {
    let space = Space::new();
    let daemon = space.daemon();
    space.start("default");
    let socket = space.path("run/netd.sock");
    let wait = |guest: &str, condition: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netd"));
        command.arg("--socket").arg(&socket).args(["wait", guest, "--for", condition]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let said = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };

    let (status, _, error) = said(wait("vm1", "port", &["--timeout", "0"]));
    assert_eq!(status, Some(1));
    assert!(error.contains("Timed out waiting for guest 'vm1'") && error.contains("no guest of that name"), "{error}");

    let port = wait("vm1", "port", &[]);
    let (lease, address) = (wait("vm1", "lease", &[]), wait("vm1", "address", &[]));
    let mut guest = Guest::plug(&space, "default", "vm1");
    assert_eq!(said(port), (Some(0), guest.port.interface.clone(), String::new()));
    let (status, _, error) = said(wait("vm1", "lease", &["--timeout", "1"]));
    assert_eq!(status, Some(1));
    assert!(error.contains("it has a port but no lease after 1 s"), "{error}");
    // A daemon that goes and comes is waited out.
    daemon.kill();
    let _daemon = space.daemon();
    guest.lease();
    let expected = (Some(0), guest.address.to_string(), String::new());
    assert_eq!(said(lease), expected);
    assert_eq!(said(address), expected);
    // True already.
    for condition in ["lease", "address"] {
        assert_eq!(said(wait("vm1", condition, &["--timeout", "0"])), expected);
    }
}

#[test]
fn whoever_begins_to_wait_while_it_becomes_true_hears_of_it() {
    let space = Space::new();
    let _daemon = space.daemon();
    space.start("default");
    let socket = space.path("run/netd.sock");
    for round in 0..15 {
        let name = format!("g{round}");
        let child = Command::new(env!("CARGO_BIN_EXE_netd"))
            .arg("--socket")
            .arg(&socket)
            .args(["wait", &name, "--for", "lease", "--timeout", "60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Somewhere between before it listens and after it has looked.
        std::thread::sleep(Duration::from_millis(round));
        let mut guest = Guest::plug(&space, "default", &name);
        guest.lease();
        let begun = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), guest.address.to_string());
        println!("heard {:?} after the lease", begun.elapsed());
    }
}

#[test]
fn net_event_speaks_as_virsh_does() {
    let space = Space::new();
    let _daemon = space.daemon();
    let socket = space.path("run/netd.sock");
    let net_event = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netd"));
        command.arg("--socket").arg(&socket).arg("net-event").args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let said = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(said(net_event(&["--list"])), (Some(0), "lifecycle\nmetadata-change\n\n".into(), String::new()));
    let none = said(net_event(&["--event", "lifecycle", "--timeout", "1"]));
    assert_eq!(none, (Some(1), "event loop timed out\nevents received: 0\n\n".into(), String::new()));
    let wrong = said(net_event(&["--event", "bogus"]));
    assert_eq!((wrong.0, &*wrong.2), (Some(1), "error: unknown event type bogus\n"));
    let missing = said(net_event(&[]));
    assert_eq!((missing.0, &*missing.2), (Some(1), "error: either --list or --event <type> is required\n"));
    let unknown = said(net_event(&["--event", "lifecycle", "--network", "nope"]));
    assert!(unknown.0 == Some(1) && unknown.2.starts_with("error: failed to get network 'nope'\n"), "{unknown:?}");

    // It says nothing when it begins to listen: so things happen until it has heard one.
    let mut child = net_event(&["--event", "lifecycle", "--network", "default"]);
    while child.try_wait().unwrap().is_none() {
        space.start("default");
        space.destroy("default");
    }
    let (status, out, error) = said(child);
    assert_eq!((status, &*error), (Some(0), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[1..], ["events received: 1", ""]);
    let expected = ["Started", "Stopped"].map(|what| format!("event 'lifecycle' for network default: {what}"));
    assert!(expected.iter().any(|line| line == lines[0]), "{out}");

    let mut child = net_event(&["--event", "lifecycle", "--timestamp"]);
    while child.try_wait().unwrap().is_none() {
        space.start("default");
        space.destroy("default");
    }
    let (_, out, _) = said(child);
    let (stamp, _) = out.split_once(": event 'lifecycle' for network default: ").unwrap();
    assert!(stamp.starts_with("20") && stamp.ends_with("+0000") && stamp.len() == 28, "{stamp}");
}

#[test]
fn a_hook_that_says_no_is_heard_and_leaves_nothing() {
    let space = Space::new();
    let found = space.traces();
    let _daemon = space.daemon();
    let hook = space.path("config/hooks/network");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let said = space.path("said");
    let text = format!(
        "#!/bin/sh\ncat > {0}.$2\necho \"$*\" >> {0}\n[ -e {0}.no-$2 ] || exit 0\necho 'not today' >&2\nexit 7\n",
        said.display()
    );
    // Written by a program, so that no descriptor of ours is open for writing when it is run.
    let write = "printf '%s' \"$1\" > \"$2\"; chmod 755 \"$2\"";
    assert!(Command::new("sh").args(["-c", write, "sh", &text]).arg(&hook).status().unwrap().success());
    assert_ne!(fs::metadata(&hook).unwrap().permissions().mode() & 0o111, 0);

    let refuse = |operation: &str| fs::write(format!("{}.no-{operation}", said.display()), "").unwrap();
    refuse("start");
    let refused = refusal(space.call(async |client| client.start_network("default").await));
    let expected = format!(
        "Hook script execution failed: internal error: Child process (LC_ALL=C {} default start begin -) unexpected exit \
         status 7: not today",
        hook.display()
    );
    assert_eq!(refused.to_string(), expected);
    assert_eq!(space.traces(), found);
    assert!(entries(&space.path("run/networks")).is_empty());
    fs::remove_file(format!("{}.no-start", said.display())).unwrap();

    space.start("default");
    refuse("port-created");
    let request = netd_api::PortRequest { network: "default".into(), queues: 1, ..Default::default() };
    let refused = refusal(space.call(async |client| client.add_port(request).await));
    assert!(refused.to_string().ends_with("unexpected exit status 7: not today"), "{refused}");
    assert!(entries(&space.path("run/ports")).is_empty());
    fs::remove_file(format!("{}.no-port-created", said.display())).unwrap();
    drop(Guest::plug(&space, "default", "vm1"));
    let heard = || fs::read_to_string(&said).unwrap();
    wait_for("the port's end to be told", || heard().ends_with("default port-deleted begin -\n"));
    let input = fs::read_to_string(format!("{}.port-deleted", said.display())).unwrap();
    assert!(input.contains("<owner>\n    <name>vm1</name>"), "{input}");
    space.destroy("default");
    let expected = "default start begin -\ndefault start begin -\ndefault started begin -\n\
                    default port-created begin -\ndefault port-created begin -\ndefault port-deleted begin -\n\
                    default stopped end -\n";
    assert_eq!(heard(), expected);
    assert_eq!(space.traces(), found);
}
