//! Names of guests on the host, by libvirt's NSS modules as Debian ships them.

use std::fs;

use anyhow::{Context, Result};
use tests::{
    daemon::Daemon,
    space::told,
    station::Station,
    wait::{self, PATIENCE},
};

/// What `getent hosts NAME` says on the daemon's host, where names are looked up by the modules alone.
///
/// The directory that is compiled into them, and nsswitch.conf, are this command's own.
fn getent(netd: &Daemon, name: &str) -> Result<Option<String>> {
    let dir = netd.host.dir();
    fs::write(dir.join("nsswitch.conf"), "hosts: files libvirt libvirt_guest\n")?;
    let script = "mount -t tmpfs tmpfs /var/lib && mkdir -p /var/lib/libvirt/dnsmasq && \
                  mount --bind \"$1/run/dnsmasq\" /var/lib/libvirt/dnsmasq && \
                  mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && exec getent hosts \"$2\"";
    // What the daemon writes may be below /var/lib in other set-ups; here it is in the space's own directory.
    let mut command = netd.host.command("unshare");
    let output = command.args(["--mount", "sh", "-euc", script, "sh"]).arg(dir).arg(name).output()?;
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
        // One or more keys were not found (getent(1)).
        Some(2) => Ok(None),
        _ => anyhow::bail!("getent: {}", told(&output)),
    }
}

fn address(line: Option<String>) -> Option<String> {
    line.and_then(|line| line.split_whitespace().next().map(str::to_owned))
}

#[test]
fn libvirts_modules_find_a_guest_by_its_name_and_by_the_one_it_gave_itself() -> Result<()> {
    let mut netd = Daemon::new("nss")?;
    netd.ok(&["net-start", "default"])?;
    wait::until_true("the files are there", PATIENCE, || {
        Ok(netd.host.dir().join("run/dnsmasq/virbr0.status").exists())
    })?;
    assert_eq!(getent(&netd, "vm1")?, None);
    let station = Station::plug(&netd, "default", "vm1")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/dhcp-script");
    station.space.sh(&format!("udhcpc -i eth0 -q -n -f -t 5 -T 1 -x hostname:web -s {script}"))?;
    let leased = station.address()?.context("an address")?;
    for name in ["vm1", "web"] {
        wait::until_true(&format!("{name} is found"), PATIENCE, || {
            Ok(address(getent(&netd, name)?).as_deref() == Some(&*leased))
        })?;
    }
    assert_eq!(getent(&netd, "vm2")?, None);

    // The next daemon keeps them as they are, and true from then on; what was left of others goes.
    netd.kill()?;
    let stray = netd.host.dir().join("run/dnsmasq/gone.status");
    fs::write(&stray, "[]")?;
    netd.start()?;
    anyhow::ensure!(!stray.exists(), "{} is still there", stray.display());
    assert_eq!(address(getent(&netd, "vm1")?).as_deref(), Some(&*leased));
    drop(station);
    wait::until_true("vm1 is nobody", PATIENCE, || Ok(getent(&netd, "vm1")?.is_none()))?;
    netd.ok(&["net-destroy", "default"])?;
    let files = || -> Result<usize> { Ok(fs::read_dir(netd.host.dir().join("run/dnsmasq"))?.count()) };
    wait::until_true("the files are gone", PATIENCE, || Ok(files()? == 0))?;
    netd.finish()
}
