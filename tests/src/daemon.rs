//! EDGE: a `netd` daemon with directories of its own in a space, and the command line that talks to it.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    paths,
    snapshot::Snapshot,
    space::{Running, Space, told},
    wait::{self, PATIENCE},
};

/// A host with a daemon. Its log is printed unless [`Daemon::finish`] was reached.
#[derive(Debug)]
pub struct Daemon {
    /// Where it runs.
    pub host: Space,
    before: Snapshot,
    process: Option<Running>,
    finished: bool,
}

impl Daemon {
    /// Starts a daemon on a new host and waits until it says that it is ready.
    pub fn new(name: &str) -> Result<Self> {
        Self::on(Space::new(name)?)
    }

    /// The same on a host that is prepared already; [`Daemon::finish`] compares with how it is now.
    pub fn on(host: Space) -> Result<Self> {
        let before = Snapshot::take(&host)?;
        let mut daemon = Daemon { host, before, process: None, finished: false };
        daemon.start()?;
        Ok(daemon)
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.host.dir().join("run/netd.sock")
    }

    /// Where the definitions are.
    pub fn config_dir(&self) -> PathBuf {
        self.host.dir().join("etc")
    }

    fn log_path(&self) -> PathBuf {
        self.host.dir().join("netd.log")
    }

    /// All the daemon said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The id of the daemon's process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the daemon does not run")?.0.id())
    }

    /// The command line of a daemon with this host's directories.
    pub fn daemon_command(&self) -> Result<Command> {
        let dir = self.host.dir();
        let mut command = self.host.command(paths::program("netd")?);
        command.arg("daemon");
        for (option, place) in [("--config-dir", "etc"), ("--state-dir", "lib"), ("--runtime-dir", "run")] {
            command.arg(option).arg(dir.join(place));
        }
        Ok(command)
    }

    /// Starts the daemon and waits for `READY=1` (sd_notify(3)).
    pub fn start(&mut self) -> Result<Duration> {
        self.start_through(&[])
    }

    /// The same through a program that becomes the daemon, given with its arguments.
    pub fn start_through(&mut self, through: &[&str]) -> Result<Duration> {
        ensure!(self.process.is_none(), "the daemon runs already");
        let notify = self.host.dir().join("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let begun = Instant::now();
        let daemon = self.daemon_command()?;
        let mut command = match through {
            [] => daemon,
            [program, arguments @ ..] => {
                let mut command = self.host.command(paths::tool(program)?);
                command.args(arguments).arg(daemon.get_program()).args(daemon.get_args());
                command
            }
        };
        let child = command
            .env("NOTIFY_SOCKET", &notify)
            .env_remove("IN_LAB")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start netd")?;
        let mut running = Running(child);
        let mut buffer = [0; 1024];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = running.0.try_wait()? {
                bail!("netd ended before it was ready, {status}:\n{}", self.log());
            }
            ensure!(begun.elapsed() < PATIENCE, "netd is not ready after {PATIENCE:?}:\n{}", self.log());
        }
        self.process = Some(running);
        Ok(begun.elapsed())
    }

    /// Asks the daemon to end, as a service manager does.
    pub fn stop(&mut self) -> Result<()> {
        let mut running = self.process.take().context("the daemon does not run")?;
        running.signal(Signal::SIGTERM);
        let status = wait::until("netd ends after SIGTERM", PATIENCE, || Ok(running.0.try_wait()?))?;
        ensure!(status.success(), "netd ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// What a restart of the whole host leaves of the daemon: its definitions and leases, nothing in /run.
    pub fn forget_boot(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.host.dir().join("run"))?)
    }

    /// SIGKILL: nothing in the daemon gets to tidy up.
    pub fn kill(&mut self) -> Result<()> {
        drop(self.process.take().context("the daemon does not run")?);
        Ok(())
    }

    /// `netd` with these arguments, to its end.
    pub fn netd(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.host.command(paths::program("netd")?);
        command.env("NETD_SOCKET", self.socket()).env("TZ", "UTC").args(args);
        command.output().context("cannot run netd")
    }

    /// The same, which must succeed; gives what it printed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.netd(args)?;
        ensure!(output.status.success(), "`netd {}`: {}", args.join(" "), told(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, which must fail with status 1; gives its error lines.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        let output = self.netd(args)?;
        ensure!(output.status.code() == Some(1), "`netd {}` was not refused: {}", args.join(" "), told(&output));
        // virsh ends every answer with an empty line, a refusal too.
        ensure!(output.stdout.trim_ascii().is_empty(), "a refusal says something on stdout: {}", told(&output));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The same with `-o json`, as a value.
    pub fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let mut words = args.to_vec();
        words.extend(["-o", "json"]);
        let text = self.ok(&words)?;
        serde_json::from_str(&text).with_context(|| format!("`netd {}` printed no JSON: {text}", words.join(" ")))
    }

    /// Writes a network's XML to a file of this host.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.host.dir().join(name);
        fs::write(&path, text)?;
        Ok(path.to_str().context("the temporary directory's name is not UTF-8")?.to_owned())
    }

    /// Starts a network from XML that is forgotten when it stops.
    pub fn create(&self, xml: &str) -> Result<()> {
        let file = self.file("created.xml", xml)?;
        self.ok(&["net-create", &file]).map(drop)
    }

    /// Stops every network and the daemon; the host must be as it was before. Nothing may be plugged in any more.
    pub fn finish(&mut self) -> Result<()> {
        wait::until_true("all ports are gone", PATIENCE, || Ok(self.json(&["port-list"])? == json!([])))?;
        for network in self.ok(&["net-list", "--name"])?.split_whitespace() {
            self.ok(&["net-destroy", network])?;
        }
        self.stop()?;
        self.finish_stopped()
    }

    /// The end of [`Daemon::finish`]: the daemon is stopped, the host must be as it was before.
    pub fn finish_stopped(&mut self) -> Result<()> {
        self.same_as_before()?;
        self.finished = true;
        Ok(())
    }

    /// While the daemon runs, with no network: nothing but its own process is on the host.
    pub fn same_as_before_but_for_the_daemon(&self) -> Result<()> {
        Snapshot::take(&self.host)?.without_process(self.pid()?).same_as(&self.before)
    }

    /// The host must look as it did before the daemon was started; its runtime directory must be empty.
    pub fn same_as_before(&self) -> Result<()> {
        let mut left = files(&self.host.dir().join("run"))?;
        // The mark that autostart was done since the host started, as libvirt has one.
        left.retain(|path| !path.ends_with("run/boot"));
        ensure!(left.is_empty(), "files are left in the runtime directory: {left:?}");
        // A process or a tap may need a moment to be gone after its last descriptor was closed.
        let begun = Instant::now();
        loop {
            let result = Snapshot::take(&self.host)?.same_as(&self.before);
            if result.is_ok() || begun.elapsed() > Duration::from_secs(1) {
                return result;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.finished {
            eprintln!("--- what netd said on {} ---\n{}---", self.host.name(), self.log());
        }
    }
}

/// Every file below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}
