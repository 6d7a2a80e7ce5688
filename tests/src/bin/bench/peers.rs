//! EDGE: the peers, each on a host of its own: libvirt's network driver, and dnsmasq alone on a plain bridge.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use tests::{
    space::{Running, Space, told},
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
        let config = host.dir().join("libvirt");
        host.sh(&format!("cp -a /etc/libvirt {}", config.display()))?;
        host.inside(|| {
            let none: Option<&str> = None;
            for path in ["/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"] {
                fs::create_dir_all(path)?;
                mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none)
                    .with_context(|| format!("mounting {path}"))?;
            }
            mount(Some(&config), "/etc/libvirt", none, MsFlags::MS_BIND, none).context("mounting /etc/libvirt")?;
            fs::create_dir_all("/var/lib/libvirt/dnsmasq")?;
            Ok(())
        })?;
        let libvirt = Libvirt { daemon: Some(start_libvirtd(&host)?), host };
        libvirt.virsh(&["net-info", "default"]).context("libvirt has no network 'default'")?;
        Ok(libvirt)
    }

    /// Kills the daemon; how long the next one takes until it lists `active` networks.
    pub(crate) fn restart(&mut self, active: usize) -> Result<Duration> {
        self.daemon.take();
        let begun = Instant::now();
        self.daemon = Some(start_libvirtd(&self.host)?);
        wait::until_true("libvirtd lists its networks", PATIENCE, || {
            let list = self.host.run("virsh", &["-q", "-c", "qemu:///system", "net-list", "--name"])?;
            Ok(String::from_utf8_lossy(&list.stdout).split_whitespace().count() >= active)
        })?;
        Ok(begun.elapsed())
    }

    /// `virsh` with these arguments, which must succeed.
    pub(crate) fn virsh(&self, args: &[&str]) -> Result<()> {
        let mut words = vec!["-q", "-c", "qemu:///system"];
        words.extend(args);
        let output = self.host.run("virsh", &words)?;
        ensure!(output.status.success(), "virsh {}: {}", args.join(" "), told(&output));
        Ok(())
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.host.run("virsh", &["-c", "qemu:///system", "net-destroy", "default"]);
        self.daemon.take();
        end_all(&self.host);
    }
}

/// Starts libvirtd and waits until it answers.
fn start_libvirtd(host: &Space) -> Result<Running> {
    let daemon = host
        .command(tests::paths::tool("libvirtd")?)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start libvirtd: run `make setup-bench`")?;
    let daemon = Running(daemon);
    wait::until_true("libvirtd answers", Duration::from_secs(30), || {
        Ok(host.run("virsh", &["-c", "qemu:///system", "version"])?.status.success())
    })?;
    Ok(daemon)
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
        end_all(&self.host);
    }
}

/// Ends by id what the peer left running in its own namespace.
fn end_all(host: &Space) {
    for (pid, _) in host.processes().unwrap_or_default() {
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
    }
}
