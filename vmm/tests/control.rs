//! `vmm control` and the control socket, with a guest of a few instructions. Needs `/dev/kvm`; any will do.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use common::{kernel, say};

/// A guest with a control socket, and its console.
struct Guest {
    process: Child,
    console: BufReader<ChildStdout>,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Guest {
    /// Says one letter and then waits for ever.
    fn start() -> Self {
        Self::with(&[])
    }

    /// The same with more words for `vmm run`.
    fn with(words: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let kernel = kernel(directory.path(), &[&say(b'!')[..], &say(b'\n'), &[0xf4, 0xeb, 0xfd]].concat());
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.args(["run", "--name", "vm1", "--memory", "32M", "--kernel"]).arg(kernel);
        command.args(words).arg("--control").arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let console = BufReader::new(process.stdout.take().unwrap());
        let mut guest = Guest { process, console, socket, _directory: directory };
        guest.speaks();
        guest
    }

    /// Waits for the guest's one line.
    fn speaks(&mut self) {
        let mut line = String::new();
        self.console.read_line(&mut line).unwrap();
        assert_eq!(line, "!\n");
    }

    fn control(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.arg("control").arg(&self.socket).args(words).output().unwrap()
    }

    /// What must work, and what it prints.
    fn ok(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.control(words);
        assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    fn state(&self) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&self.ok(&["state"])).unwrap()["state"].take()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_guest_is_asked_paused_reset_and_ended_and_every_step_is_told() {
    let mut guest = Guest::start();
    assert_eq!(guest.socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.arg("control").arg(&guest.socket).arg("events").stdout(Stdio::piped());
    let mut watcher = command.spawn().unwrap();
    let mut events = BufReader::new(watcher.stdout.take().unwrap()).lines();
    // It listens once an event arrives; until then the state is changed and changed back.
    let mut event = || {
        let line = events.next().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["event"]["kind"].as_str().unwrap().to_owned()
    };
    let (sender, first) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(event()).unwrap());
        while first.try_recv().is_err() {
            guest.ok(&["pause"]);
            guest.ok(&["resume"]);
        }
    });
    // What was said since then does not matter.
    guest.ok(&["power-button"]);
    while event() != "power-button" {}

    let state = guest.state();
    assert_eq!((state["name"].as_str(), state["state"].as_str()), (Some("vm1"), Some("running")));
    assert_eq!((state["cpus"].as_u64(), state["memory"].as_u64()), (Some(1), Some(32 << 20)));
    assert_eq!(state["pid"].as_u64(), Some(u64::from(guest.process.id())));
    assert_eq!(guest.ok(&["pause"]), "");
    assert_eq!(guest.state()["state"], "paused");
    guest.ok(&["pause"]);
    guest.ok(&["resume"]);
    assert_eq!([event(), event()], ["paused", "resumed"]);
    guest.ok(&["pause"]);
    guest.ok(&["reset"]);
    guest.speaks();
    assert_eq!(guest.state()["state"], "running");
    assert_eq!([event(), event()], ["paused", "reset"]);
    assert_eq!(guest.ok(&["nics"]).trim(), "{\n  \"nics\": []\n}");

    let memory = |words: &[&str]| serde_json::from_str::<serde_json::Value>(&guest.ok(words)).unwrap()["memory"].take();
    let all = 32_u32 << 20;
    assert_eq!(memory(&["memory"]), serde_json::json!({"size": all, "wanted": all, "actual": all, "use": null}));
    let less = memory(&["memory", "20M"]);
    assert_eq!(
        (less["wanted"].as_u64(), less["actual"].as_u64()),
        (Some(20 << 20), Some(32 << 20)),
        "it has no driver"
    );

    guest.ok(&["quit"]);
    assert_eq!(event(), "ended");
    assert!(events.next().is_none());
    assert!(watcher.wait().unwrap().success());
    assert!(guest.process.wait().unwrap().success());
    assert!(!guest.socket.exists());
}

/// `Seccomp_filters` and `NoNewPrivs` of each thread, by its name.
fn confinement(pid: u32) -> Vec<(String, u32, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let path = entry.unwrap().path();
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_start_matches(':').trim().parse().unwrap()
        };
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
        // KVM's own threads are the kernel's.
        if name.starts_with("kvm-") {
            continue;
        }
        found.push((name, number("Seccomp_filters"), number("NoNewPrivs")));
    }
    found.sort();
    found
}

/// Waits until the guest's threads are these: a new one has its parent's name until it takes its own.
fn becomes(guest: &Guest, expected: &[(String, u32, u32)]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while confinement(guest.process.id()) != expected {
        assert!(std::time::Instant::now() < deadline, "{:?}", confinement(guest.process.id()));
        std::thread::yield_now();
    }
}

#[test]
fn every_thread_has_its_filters_unless_the_user_says_otherwise() {
    let guest = Guest::start();
    let two = |name: &str| (name.to_owned(), 2, 1);
    let expected = [two("console"), two("control"), two("vcpu0"), ("vmm".to_owned(), 1, 1)];
    becomes(&guest, &expected);
    // After a reset the CPUs are new threads.
    guest.ok(&["reset"]);
    becomes(&guest, &expected);
    let guest = Guest::with(&["--no-sandbox"]);
    assert!(confinement(guest.process.id()).iter().all(|(_, filters, privs)| (*filters, *privs) == (0, 0)));
}

#[test]
fn what_is_wrong_is_said_and_does_no_harm() {
    let guest = Guest::start();
    let Output { status, stderr, .. } = guest.control(&["link", "52:54:00:00:00:01", "down"]);
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("no NIC of vm1 has the address '52:54:00:00:00:01': it has none"), "{said}");

    for (words, expected) in [(["memory", "33M"], "give 16 to 32"), (["memory", "8M"], "at least 16M")] {
        let said = String::from_utf8(guest.control(&words).stderr).unwrap();
        assert!(said.contains(expected), "{said}");
    }

    let said = String::from_utf8(guest.control(&["limit-disk", "0", "--bytes", "1M"]).stderr).unwrap();
    assert!(said.contains("vm1 has no disk number 0: it has 0"), "{said}");
    assert_eq!(guest.control(&["limit-disk", "0", "--bytes", "1X"]).status.code(), Some(2));

    let mut stream = UnixStream::connect(&guest.socket).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let mut call = |text: &str| {
        stream.write_all(&[text.as_bytes(), &[0]].concat()).unwrap();
        let mut reply = Vec::new();
        replies.read_until(0, &mut reply).unwrap();
        reply.pop();
        String::from_utf8(reply).unwrap()
    };
    assert!(call(r#"{"method":"io.netd.Machine.Explode"}"#).contains("MethodNotFound"));
    assert!(call(r#"{"method":"io.netd.Machine.Monitor"}"#).contains("ExpectedMore"));
    assert!(call(r#"{"method":"io.netd.Machine.SetLink","parameters":{}}"#).contains("InvalidParameter"));
    let described = call(
        r#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.netd.Machine"}}"#,
    );
    assert!(described.contains("method SetLink"), "{described}");
    assert_eq!(call(r#"{"method":"io.netd.Machine.Pause"}"#), r#"{"parameters":{}}"#);
    // Who says nonsense is hung up on; others are not.
    stream.write_all(b"nonsense\0").unwrap();
    let mut rest = Vec::new();
    replies.read_until(0, &mut rest).unwrap();
    assert_eq!(rest, b"");
    assert_eq!(guest.state()["state"], "paused");
}

#[test]
fn a_socket_nobody_serves_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_vmm")).args(["control", "/nonexistent/ctl", "state"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("/nonexistent/ctl") && said.contains("--control"), "{said}");
}
