//! Booting from the network, as far as a ROM's first file: what to load, from where, and the file itself.

use std::fs;

use anyhow::Result;
use tests::{daemon::Daemon, space::Space, station::Station};

#[test]
fn a_guest_gets_the_file_to_boot_by_tftp_though_it_may_reach_nothing_else_of_the_host() -> Result<()> {
    let (host, outside) = (Space::new("boot")?, Space::new("outside")?);
    host.connect("up0", &outside, "eth0")?;
    host.ip("address add 198.51.100.1/24 dev up0")?;
    outside.ip("address add 198.51.100.2/24 dev eth0")?;
    outside.ip("route add 10.9.0.0/24 via 198.51.100.1")?;
    let mut netd = Daemon::on(host)?;
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
    // Nobody on another link, who does reach the address.
    outside.check("ping", &["-c", "1", "-W", "5", "10.9.0.1"])?;
    let stranger = outside.run("curl", &["-sS", "--connect-timeout", "2", "--max-time", "2", url])?;
    assert!(!stranger.status.success() && stranger.stdout.is_empty(), "{stranger:?}");
    drop(station);
    netd.finish()
}
