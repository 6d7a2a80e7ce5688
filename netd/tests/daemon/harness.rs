//! A namespace with a daemon in it. Both go with the value, and so does everything they made.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use netd_api::{Client, ClientError};
use tempfile::TempDir;

/// How long the daemon may take for anything before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A network namespace of its own, and directories for a daemon.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) directory: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Space {
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root: they make network namespaces");
        let name = format!("netd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        sh(Command::new("ip").args(["netns", "add", &name]));
        let space = Space {
            name,
            directory: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        };
        space.run("ip link set lo up");
        space
    }

    /// The machine starts anew, and nothing of its network is left. Whoever was in it is gone already.
    pub(crate) fn reboot(&self) {
        sh(Command::new("ip").args(["netns", "delete", &self.name]));
        sh(Command::new("ip").args(["netns", "add", &self.name]));
        self.run("ip link set lo up");
    }

    /// The namespace's name, as `ip netns` has it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command in the namespace, words separated by blanks.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words.split_whitespace());
        command
    }

    /// Runs a command in the namespace, which must succeed; returns what it printed.
    pub(crate) fn run(&self, words: &str) -> String {
        let output = sh(&mut self.command(words));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Does something in the namespace.
    pub(crate) fn thread<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let namespace = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            act()
        })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// The daemon's command line, with these words before it.
    pub(crate) fn daemon_command(&self, before: &str) -> Command {
        let mut command = self.command(before);
        let binary = env!("CARGO_BIN_EXE_netd");
        command.args([binary, "daemon"]);
        for (option, below) in [("--config-dir", "config"), ("--state-dir", "state"), ("--runtime-dir", "run")] {
            command.arg(option).arg(self.path(below));
        }
        command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    pub(crate) fn daemon(&self) -> Daemon<'_> {
        self.daemon_after("")
    }

    /// A daemon started through other words (`unshare …`), ready.
    pub(crate) fn daemon_after(&self, before: &str) -> Daemon<'_> {
        let mut child = self.daemon_command(before).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        // Shown by the test harness when the test fails.
        let log = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                println!("{line}");
            }
        });
        let mut daemon = Daemon { space: self, child, log: Some(log) };
        let socket = self.path("run/netd.sock");
        wait_for("the daemon's socket", || {
            assert!(daemon.child.try_wait().unwrap().is_none(), "the daemon ended");
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        daemon
    }

    /// A daemon that must not start: what it said and how it ended.
    pub(crate) fn daemon_fails(&self, mut command: Command) -> (String, ExitStatus) {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (said, child.wait().unwrap())
    }

    /// Calls the daemon.
    pub(crate) fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            let mut client = Client::connect(&self.path("run/netd.sock")).await?;
            tokio::time::timeout(PATIENCE, call(&mut client)).await.expect("the daemon did not answer")
        })
    }

    pub(crate) fn start(&self, network: &str) -> netd_api::NetworkReply {
        self.call(async |client| client.start_network(network).await).unwrap()
    }

    pub(crate) fn destroy(&self, network: &str) -> netd_api::NetworkReply {
        self.call(async |client| client.destroy_network(network).await).unwrap()
    }

    /// Everything a daemon could leave behind in the kernel.
    pub(crate) fn traces(&self) -> String {
        let sysctls = "sysctl -n net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv6.conf.all.forwarding \
                       net.ipv6.conf.default.disable_ipv6";
        [
            "ip -o link show",
            "ip -o address show",
            "ip route show table all",
            "ip rule show",
            "nft list ruleset",
            sysctls,
        ]
        .map(|command| self.run(command))
        .join("\n")
    }

    /// The interface's index; `None` if there is none.
    pub(crate) fn index(&self, interface: &str) -> Option<u32> {
        let output = self.command(&format!("ip -o link show dev {interface}")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(':').next()?.parse().ok()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// A daemon that runs; killed when dropped.
pub(crate) struct Daemon<'a> {
    space: &'a Space,
    child: Child,
    log: Option<thread::JoinHandle<()>>,
}

impl Daemon<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As a crash would end it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(nix::sys::signal::Signal::SIGKILL as i32));
    }

    /// As systemd ends it.
    pub(crate) fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        wait_for("the daemon to stop", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
        assert!(!self.space.path("run/netd.sock").exists());
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// Looks again and again until it is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Names of the entries of a directory.
pub(crate) fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn sh(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
