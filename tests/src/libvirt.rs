//! EDGE: libvirt's network driver on a space: libvirtd with directories of its own, and virsh to talk to it.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    paths,
    space::{Running, Space, told},
    wait,
};

/// Gives a space directories for libvirt that are its own: a copy of the machine's configuration, and nothing else.
pub fn prepare(host: &Space) -> Result<()> {
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
    })
}

/// Starts libvirtd on a space that is prepared for it, and waits until it answers.
pub fn start(host: &Space) -> Result<Running> {
    let daemon = host
        .command(paths::tool("libvirtd")?)
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

/// `virsh` with these arguments, which must succeed; gives what it printed.
pub fn virsh(host: &Space, args: &[&str]) -> Result<String> {
    let mut words = vec!["-q", "-c", "qemu:///system"];
    words.extend(args);
    let output = host.run("virsh", &words)?;
    ensure!(output.status.success(), "virsh {}: {}", args.join(" "), told(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ends by id what was left running in the space's own namespace.
pub fn end_all(host: &Space) {
    for (pid, _) in host.processes().unwrap_or_default() {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}
