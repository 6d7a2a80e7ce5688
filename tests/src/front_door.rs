//! EDGE: `netd-libvirtd` in front of a `netd` on a space, found by libvirt's clients without a word.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    daemon::Daemon,
    paths,
    space::{Running, Space},
    wait::{self, PATIENCE},
};

/// Where clients look for libvirtd.
pub const SOCKET: &str = "/run/libvirt/libvirt-sock";

/// The same for clients that only look.
pub const READ_ONLY: &str = "/run/libvirt/libvirt-sock-ro";

/// A host with both daemons. What they said is printed unless [`FrontDoor::finish`] was reached.
#[derive(Debug)]
pub struct FrontDoor {
    /// The daemon behind the door.
    pub netd: Daemon,
    process: Option<Running>,
    finished: bool,
}

impl FrontDoor {
    /// Starts both, and waits until clients are let in.
    pub fn new(name: &str) -> Result<Self> {
        let netd = Daemon::new(name)?;
        let mut door = FrontDoor { netd, process: None, finished: false };
        door.start()?;
        Ok(door)
    }

    /// The machine.
    pub fn host(&self) -> &Space {
        &self.netd.host
    }

    fn log_path(&self) -> PathBuf {
        self.host().dir().join("netd-libvirtd.log")
    }

    /// All that netd-libvirtd said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The id of its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("netd-libvirtd does not run")?.0.id())
    }

    /// A figure about its memory, in KiB: a field of `/proc/PID/status` (proc(5)), as `VmRSS`.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).context("the field")?;
        value.split_whitespace().next().and_then(|kib| kib.parse().ok()).with_context(|| format!("{field} in kB"))
    }

    /// What of its memory is in RAM, in KiB.
    pub fn resident(&self) -> Result<u64> {
        self.memory("VmRSS")
    }

    /// Starts netd-libvirtd without an option.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "netd-libvirtd runs already");
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.host().command(paths::program("netd-libvirtd")?);
        command.env("NETD_SOCKET", self.netd.socket()).env_remove("NOTIFY_SOCKET");
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start netd-libvirtd")?;
        let mut running = Running(child);
        wait::until_true("netd-libvirtd listens", PATIENCE, || {
            if let Some(status) = running.0.try_wait()? {
                anyhow::bail!("netd-libvirtd ended, {status}:\n{}", self.log());
            }
            Ok(self.connect(Path::new(READ_ONLY)).is_ok())
        })?;
        self.process = Some(running);
        Ok(())
    }

    /// Asks it to end, as a service manager does.
    pub fn stop(&mut self) -> Result<()> {
        let mut running = self.process.take().context("netd-libvirtd does not run")?;
        running.signal(Signal::SIGTERM);
        let status = wait::until("netd-libvirtd ends after SIGTERM", PATIENCE, || Ok(running.0.try_wait()?))?;
        ensure!(status.success(), "netd-libvirtd ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// A client's connection, by a socket inside.
    pub fn connect(&self, socket: &Path) -> Result<UnixStream> {
        self.host()
            .inside(|| UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display())))
    }

    /// Stops both; the host must be as it was before.
    pub fn finish(&mut self) -> Result<()> {
        self.stop()?;
        self.netd.finish()?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        if !self.finished {
            eprintln!("--- what netd-libvirtd said on {} ---\n{}---", self.host().name(), self.log());
        }
    }
}
