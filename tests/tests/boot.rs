//! Booting from the network, as far as a ROM's first file: what to load, from where, and the file itself.

use std::fs;

use anyhow::Result;
use tests::{daemon::Daemon, station::Station};

#[test]
fn a_guest_gets_the_file_to_boot_by_tftp_though_it_may_reach_nothing_else_of_the_host() -> Result<()> {
    let mut netd = Daemon::new("boot")?;
    let root = netd.host.dir().join("tftp");
    fs::create_dir(&root)?;
    fs::write(root.join("pxelinux.0"), "boot me")?;
    netd.create(&format!(
        "<network xmlns:netd='urn:netd:network:1'><name>rom</name><bridge name='br-rom'/>\
         <ip address='10.9.0.1' prefix='24'><tftp root='{}'/><dhcp><range start='10.9.0.10' end='10.9.0.20'/>\
         <bootp file='pxelinux.0'/></dhcp></ip><netd:host-access/></network>",
        root.display()
    ))?;
    let station = Station::plug(&netd, "rom", "vm1")?;
    station.lease()?;
    let url = "tftp://10.9.0.1/pxelinux.0";
    assert_eq!(station.space.check("curl", &["-sS", url])?, "boot me");
    // Nobody but the network's guests: not even who asks the same address from the host itself.
    let host = netd.host.run("curl", &["-sS", "--connect-timeout", "2", "--max-time", "2", url])?;
    assert!(!host.status.success() && host.stdout.is_empty(), "{host:?}");
    drop(station);
    netd.finish()
}
