//! EDGE: guests on our own `vmm`, run by somebody without privileges.
//!
//! The user is `nobody`, in the groups of `/dev/kvm` and of netd's socket and in no other: what works here needs no
//! capability. The program and the guest image are copied to where everybody may read them, once.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::{
    daemon::Daemon,
    guest::Guest,
    initramfs::{self, GuestImage},
    paths,
    space::{NETD_GROUP, NOBODY, Space, User},
};

/// Where everybody may read the program and the guest image.
#[derive(Debug)]
struct Public {
    vmm: PathBuf,
    image: GuestImage,
    _dir: TempDir,
}

/// What a guest is made of, besides kernel and initramfs.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name: the guest's host name, and what its ports and DNS know it by.
    pub name: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Networks as `--network` takes them.
    pub networks: Vec<String>,
    /// More words for `vmm run`.
    pub more: Vec<String>,
    /// More words for the kernel.
    pub cmdline: String,
}

impl Machine {
    /// One CPU on the network `default`.
    pub fn new(name: &str) -> Self {
        Machine {
            name: name.into(),
            cpus: 1,
            networks: vec!["default".into()],
            more: Vec::new(),
            cmdline: String::new(),
        }
    }

    /// With this many CPUs.
    #[must_use]
    pub fn cpus(self, cpus: u32) -> Self {
        Machine { cpus, ..self }
    }

    /// With more words for `vmm run`.
    #[must_use]
    pub fn with(mut self, words: &[&str]) -> Self {
        self.more.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// The command line, to be run on a host by an ordinary user.
    pub fn command(&self, host: &Space, socket: &Path) -> Result<Command> {
        let Public { image, .. } = public()?;
        let mut command = vmm(host)?;
        command.env("NETD_SOCKET", socket).args(["run", "--name", &self.name, "--memory", "256M"]);
        command.args(["--cpus", &self.cpus.to_string()]);
        command.arg("--kernel").arg(&image.kernel).arg("--initrd").arg(&image.initrd);
        command.args(["--cmdline", &format!("console=ttyS0 guest.name={} {}", self.name, self.cmdline)]);
        for network in &self.networks {
            command.args(["--network", network]);
        }
        command.args(&self.more);
        Ok(command)
    }

    /// Boots it.
    pub fn boot(&self, netd: &Daemon) -> Result<Guest> {
        Guest::start(&self.name, &mut self.command(&netd.host, &netd.socket())?)
    }
}

/// `vmm` on a host, run by an ordinary user.
pub fn vmm(host: &Space) -> Result<Command> {
    let kvm = fs::metadata("/dev/kvm").map_or(NOBODY.gid, |device| device.gid());
    let user = User { groups: [kvm, NETD_GROUP], ..NOBODY };
    Ok(host.command_as(Some(user), &public()?.vmm))
}

fn public() -> Result<&'static Public> {
    static PUBLIC: OnceLock<Result<Public>> = OnceLock::new();
    match PUBLIC.get_or_init(publish) {
        Ok(public) => Ok(public),
        Err(error) => bail!("{error:#}"),
    }
}

fn publish() -> Result<Public> {
    let dir = tempfile::Builder::new().prefix("netd-public-").tempdir()?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    let copy = |from: &Path, name: &str, mode: u32| {
        let to = dir.path().join(name);
        paths::copy_program(from, &to)?;
        fs::set_permissions(&to, Permissions::from_mode(mode))?;
        anyhow::Ok(to)
    };
    let image = initramfs::guest_image()?;
    let vmm = copy(&paths::program("vmm")?, "vmm", 0o755)?;
    let image = GuestImage {
        kernel: copy(&image.kernel, "vmlinuz", 0o644)?,
        initrd: copy(&image.initrd, "initrd.img", 0o644)?,
    };
    Ok(Public { vmm, image, _dir: dir })
}
