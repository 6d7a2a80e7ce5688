//! The harness itself: each guard is seen to bite once.

use anyhow::Result;
use tests::{
    crowd::{self, Errand, Plug},
    internet::{GATEWAY, HOST, Internet, PAGE, WEB, WEB_NAME},
    paths,
    snapshot::Snapshot,
    space::{Running, Space},
    tap,
    wait::{self, PATIENCE},
};

#[test]
fn what_is_left_on_a_host_is_named() -> Result<()> {
    let host = Space::new("left")?;
    let before = Snapshot::take(&host)?;
    Snapshot::take(&host)?.same_as(&before)?;

    let expect = |part: &str| {
        let error = Snapshot::take(&host)?.same_as(&before).expect_err(part).to_string();
        assert!(error.contains(part), "{part} is not in: {error}");
        anyhow::Ok(())
    };
    host.ip("link add left0 type bridge")?;
    expect("left0")?;
    host.ip("link del left0")?;
    host.sh("nft add table ip left1")?;
    expect("left1")?;
    host.sh("nft delete table ip left1")?;
    host.ip("route add blackhole 192.0.2.0/24")?;
    expect("192.0.2.0/24")?;
    host.ip("route del blackhole 192.0.2.0/24")?;
    host.sh("sysctl -qw net.ipv4.ip_forward=1")?;
    expect("ip_forward = 1")?;
    host.sh("sysctl -qw net.ipv4.ip_forward=0")?;
    let sleeper = Running(host.command("/bin/sleep").arg("1000").spawn()?);
    wait::until_true("sleep runs in the space", PATIENCE, || {
        Ok(host.processes()?.iter().any(|(_, line)| line.contains("sleep 1000")))
    })?;
    expect("sleep 1000")?;
    drop(sleeper);
    Snapshot::take(&host)?.same_as(&before)
}

#[test]
fn spaces_do_not_see_each_other_or_the_machine() -> Result<()> {
    let (one, two) = (Space::new("one")?, Space::new("two")?);
    one.ip("link add only0 type bridge")?;
    one.sh("echo here >/run/only")?;
    assert!(!two.ip("link show")?.contains("only0"));
    assert!(!two.run("cat", &["/run/only"])?.status.success());
    assert!(!std::path::Path::new("/run/only").exists());
    one.set_resolv_conf("nameserver 192.0.2.1\n")?;
    assert_eq!(one.sh("cat /etc/resolv.conf")?, "nameserver 192.0.2.1\n");
    assert_eq!(two.sh("cat /etc/resolv.conf")?, "");
    Ok(())
}

#[test]
fn the_internet_answers_the_host_and_what_is_translated_but_nothing_private() -> Result<()> {
    let host = Space::new("host")?;
    let internet = Internet::connect(&host)?;
    let guest = Space::new("guest")?;
    host.connect("port", &guest, "eth0")?;
    host.ip("address add 192.168.50.1/24 dev port")?;
    guest.ip("address add 192.168.50.2/24 dev eth0")?;
    guest.ip("route add default via 192.168.50.1")?;
    host.sh("sysctl -qw net.ipv4.ip_forward=1")?;

    assert_eq!(host.sh(&format!("busybox wget -q -O - http://{WEB}/"))?, PAGE);
    assert_eq!(internet.visits()[0].source.ip(), HOST);
    assert!(!guest.run("ping", &["-c1", "-W1", &GATEWAY.to_string()])?.status.success());

    host.sh("nft add table ip t; nft add chain ip t post '{ type nat hook postrouting priority 100; }';
         nft add rule ip t post oifname uplink masquerade")?;
    assert_eq!(guest.sh(&format!("busybox wget -q -O - http://{WEB}/page"))?, PAGE);
    let visit = internet.visits().pop().expect("a visit");
    assert_eq!((visit.source.ip(), visit.path.as_str()), (HOST.into(), "/page"));
    Ok(())
}

#[test]
fn the_name_server_of_the_internet_knows_the_web_server_and_cuts_off_long_answers() -> Result<()> {
    let host = Space::new("host")?;
    let internet = Internet::connect(&host)?;
    assert_eq!(host.sh(&format!("dig +short {WEB_NAME}"))?.trim(), WEB.to_string());
    assert!(host.sh("dig nothing.example.net")?.contains("NXDOMAIN"));
    assert!(host.sh("dig +ignore +noedns big.example.net")?.contains("flags: qr tc"));
    assert_eq!(host.sh("dig +short +tcp big.example.net")?.lines().count(), 60);
    assert_eq!(internet.queries()[0], format!("{WEB_NAME} 1"));
    Ok(())
}

#[test]
fn a_crowd_of_guests_leases_resolves_and_fetches_behind_dnsmasq() -> Result<()> {
    let host = Space::new("host")?;
    let _internet = Internet::connect(&host)?;
    host.sh("ip link add br0 type bridge; ip address add 192.168.60.1/24 dev br0; ip link set br0 up
             sysctl -qw net.ipv4.ip_forward=1
             nft add table ip t; nft add chain ip t post '{ type nat hook postrouting priority 100; }'
             nft add rule ip t post oifname uplink masquerade")?;
    let plugs = (1..=3)
        .map(|n| {
            let fd = host.inside(|| tap::open(&format!("tap{n}")))?;
            host.ip(&format!("link set tap{n} master br0 up"))?;
            Plug::new(&format!("guest{n}"), &format!("52:54:00:00:00:{n:02x}"), fd)
        })
        .collect::<Result<Vec<_>>>()?;
    let arguments = [
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--interface=br0",
        "--bind-interfaces",
        "--dhcp-range=192.168.60.10,192.168.60.99",
        "--no-ping",
        "--leasefile-ro",
    ];
    let _dnsmasq = Running(host.command(paths::tool("dnsmasq")?).args(arguments).spawn()?);
    let errand = Errand { resolve: Some(WEB_NAME.into()), fetch: true };
    let reports = crowd::run(&plugs, &errand, PATIENCE)?;
    assert_eq!(reports.len(), 3);
    for (report, name) in reports.iter().zip(["guest1", "guest2", "guest3"]) {
        assert_eq!(report.name, name);
        assert_eq!(report.resolved, Some(WEB), "{report:?}");
        assert_eq!(report.page.as_deref(), Some(PAGE), "{report:?}");
        assert!(report.lease_after.is_some(), "{report:?}");
    }
    assert_ne!(reports[0].address, reports[1].address);
    Ok(())
}
