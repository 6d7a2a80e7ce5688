//! EDGE: the peers, each on a host of its own: libvirt's network driver, and dnsmasq alone on a plain bridge.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use tests::{
    libvirt,
    space::{Running, Space},
    wait::{self, PATIENCE},
};

/// A libvirtd with its `default` network defined and not started. Everything it starts ends with it.
pub(crate) struct Libvirt {
    /// Where it runs.
    pub host: Space,
    daemon: Option<Running>,
}

impl Libvirt {
    /// Starts libvirtd with directories of its own.
    pub(crate) fn new() -> Result<Self> {
        let host = Space::new("libvirt")?;
        libvirt::prepare(&host)?;
        let daemon = libvirt::start(&host)?;
        let libvirt = Libvirt { host, daemon: Some(daemon) };
        libvirt.virsh(&["net-info", "default"]).context("libvirt has no network 'default'")?;
        Ok(libvirt)
    }

    /// Kills the daemon; how long the next one takes until it lists `active` networks.
    pub(crate) fn restart(&mut self, active: usize) -> Result<Duration> {
        self.daemon.take();
        let begun = Instant::now();
        self.daemon = Some(libvirt::start(&self.host)?);
        wait::until_true("libvirtd lists its networks", PATIENCE, || {
            let list = self.host.run("virsh", &["-q", "-c", "qemu:///system", "net-list", "--name"])?;
            Ok(String::from_utf8_lossy(&list.stdout).split_whitespace().count() >= active)
        })?;
        Ok(begun.elapsed())
    }

    /// `virsh` with these arguments, which must succeed.
    pub(crate) fn virsh(&self, args: &[&str]) -> Result<()> {
        libvirt::virsh(&self.host, args).map(drop)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.host.run("virsh", &["-c", "qemu:///system", "net-destroy", "default"]);
        self.daemon.take();
        libvirt::end_all(&self.host);
    }
}

/// dnsmasq on a bridge made by hand, with the options libvirt writes.
pub(crate) struct Dnsmasq {
    /// Where it runs; the bridge is `virbr0`.
    pub host: Space,
    daemon: Option<Running>,
}

impl Dnsmasq {
    /// Makes the bridge (no spanning tree) and starts dnsmasq; `extra` options come after libvirt's.
    pub(crate) fn new(extra: &[&str]) -> Result<Self> {
        let host = Space::new("dnsmasq")?;
        for words in ["link add virbr0 type bridge", "address add 192.168.122.1/24 dev virbr0", "link set virbr0 up"] {
            host.ip(words)?;
        }
        let dir = host.dir().display().to_string();
        for name in ["hosts", "addnhosts"] {
            fs::write(host.dir().join(name), "")?;
        }
        let mut options: Vec<String> = [
            "--conf-file=/dev/null",
            "--keep-in-foreground",
            "--strict-order",
            "--except-interface=lo",
            "--bind-dynamic",
            "--interface=virbr0",
            "--dhcp-range=192.168.122.2,192.168.122.254,255.255.255.0",
            "--dhcp-no-override",
            "--dhcp-authoritative",
            "--dhcp-lease-max=253",
        ]
        .map(str::to_owned)
        .into();
        options.push(format!("--dhcp-hostsfile={dir}/hosts"));
        options.push(format!("--addn-hosts={dir}/addnhosts"));
        options.push(format!("--dhcp-leasefile={dir}/leases"));
        options.push(format!("--pid-file={dir}/pid"));
        options.extend(extra.iter().map(|word| (*word).to_owned()));
        let daemon = host
            .command(tests::paths::tool("dnsmasq")?)
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start dnsmasq")?;
        let dnsmasq = Dnsmasq { host, daemon: Some(Running(daemon)) };
        wait::until_true("dnsmasq listens", Duration::from_secs(10), || {
            Ok(dnsmasq.host.sh("ss -Hlun 'sport = :67'")?.contains(":67"))
        })?;
        Ok(dnsmasq)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.daemon.take();
        libvirt::end_all(&self.host);
    }
}
