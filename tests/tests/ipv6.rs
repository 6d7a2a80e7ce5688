//! IPv6 on networks: guests with addresses of their own making or set by hand, the host, and the Internet.

use std::{net::Ipv6Addr, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};
use netd_api::PortRequest;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket, sockopt,
};
use tests::{
    daemon::Daemon,
    internet::{GATEWAY6, HOST6, Internet, PAGE, WEB, WEB_NAME, WEB6},
    space::Space,
    station::Station,
    wait::{self, PATIENCE},
};

/// A network of both families with the IPv6 subnet fd00:N::/64.
fn both(name: &str, bridge: &str, forward: &str, n: u8, more: &str) -> String {
    format!(
        "<network><name>{name}</name>{forward}<bridge name='{bridge}'/>
  <ip address='192.168.{n}.1' prefix='24'><dhcp><range start='192.168.{n}.10' end='192.168.{n}.99'/></dhcp></ip>
  <ip family='ipv6' address='fd00:{n}::1' prefix='64'/>
{more}</network>\n"
    )
}

/// A guest with a static address, that believes no router advertisement: then it is seen by that address alone.
fn plug(netd: &Daemon, network: &str, name: &str, address: &str, gateway: Option<&str>) -> Result<Station> {
    let guest = Station::plug_deaf(netd, network, name)?;
    guest.space.ip(&format!("address add {address}/64 dev eth0 nodad"))?;
    if let Some(gateway) = gateway {
        guest.space.ip(&format!("-6 route add default via {gateway} dev eth0"))?;
        // A bridge with its first port takes a moment to have a carrier.
        wait::until_true("the gateway", PATIENCE, || guest.reaches(gateway))?;
    }
    Ok(guest)
}

fn host_with_internet(name: &str) -> Result<(Daemon, Internet)> {
    let host = Space::new(name)?;
    let internet = Internet::connect(&host)?;
    Ok((Daemon::on(host)?, internet))
}

fn sysctl(space: &Space, name: &str) -> Result<String> {
    Ok(space.check("sysctl", &["-n", name])?.trim().to_owned())
}

#[test]
fn a_guest_behind_nat66_is_seen_as_the_host_and_is_not_reached_from_outside() -> Result<()> {
    let (mut netd, internet) = host_with_internet("nat66")?;
    netd.create(&both("blue", "blue0", "<forward mode='nat'><nat ipv6='yes'/></forward>", 81, ""))?;
    netd.create(&both("green", "green0", "<forward mode='nat'/>", 82, ""))?;
    for name in ["blue0", "green0"] {
        let settings = ["accept_ra", "autoconf", "disable_ipv6"];
        for setting in settings {
            assert_eq!(sysctl(&netd.host, &format!("net.ipv6.conf.{name}.{setting}"))?, "0", "{name} {setting}");
        }
    }
    assert_eq!(sysctl(&netd.host, "net.ipv6.conf.all.forwarding")?, "1");
    let guest = plug(&netd, "blue", "vm1", "fd00:81::5", Some("fd00:81::1"))?;
    assert_eq!(guest.fetch(WEB6)?, PAGE);
    let visit = internet.visits().pop().context("a visit")?;
    assert_eq!(visit.source.ip(), HOST6);
    assert!(visit.source.port() >= 1024, "{visit:?}");
    assert!(guest.reaches(&GATEWAY6.to_string())?);

    // Ways to the guests exist. Into the translated network only answers come; the other is routed.
    let routed = plug(&netd, "green", "vm2", "fd00:82::5", Some("fd00:82::1"))?;
    for n in [81, 82] {
        internet.space.ip(&format!("-6 route add fd00:{n}::/64 via {HOST6}"))?;
    }
    let ping = |address: &str| {
        Ok::<_, anyhow::Error>(internet.space.run("ping", &["-n", "-c1", "-W2", address])?.status.success())
    };
    assert!(!ping("fd00:81::5")?);
    assert!(ping("fd00:82::5")?);
    assert_eq!(routed.fetch(WEB6)?, PAGE);
    assert_eq!(internet.visits().pop().context("a visit")?.source.ip().to_string(), "fd00:82::5");
    assert_eq!(
        {
            routed.lease()?;
            routed.fetch(WEB)?
        },
        PAGE,
        "IPv4 beside it"
    );
    drop((guest, routed));
    netd.finish()
}

#[test]
fn guests_reach_each_other_and_nobody_takes_anothers_address() -> Result<()> {
    let (mut netd, _internet) = host_with_internet("six")?;
    netd.create(&both("blue", "blue0", "<forward mode='route'/>", 83, ""))?;
    netd.create(&both("red", "red0", "", 84, ""))?;
    let one = plug(&netd, "blue", "one", "fd00:83::a", Some("fd00:83::1"))?;
    let two = plug(&netd, "blue", "two", "fd00:83::b", Some("fd00:83::1"))?;
    let red = plug(&netd, "red", "red", "fd00:84::a", Some("fd00:84::1"))?;
    assert!(one.reaches("fd00:83::b")? && two.reaches("fd00:83::a")? && one.reaches("fd00:83::1")?);
    assert!(red.reaches("fd00:84::1")? && !red.reaches("fd00:83::a")? && !one.reaches("fd00:84::a")?);
    // What the kernel makes of the MAC, and the bridge's own on the link.
    let made = one.space.sh("ip -6 -o address show dev eth0 scope link | grep -o 'fe80:[^/]*'")?;
    wait::until_true("the guest's own address", PATIENCE, || two.reaches(&format!("{}%eth0", made.trim())))?;
    let bridge = netd.host.sh("ip -6 -o address show dev blue0 scope link | grep -o 'fe80:[^/]*'")?;
    assert!(one.reaches(&format!("{}%eth0", bridge.trim()))?);

    // Another's address, the host's, and one from nowhere.
    for stolen in ["fd00:83::a", "fd00:83::1", "fd00:99::7"] {
        two.space.ip(&format!("address add {stolen}/64 dev eth0 nodad"))?;
        let victim = if stolen == "fd00:83::a" { "fd00:83::1" } else { "fd00:83::a" };
        assert!(!two.space.run("ping", &["-n", "-c1", "-W1", "-I", stolen, victim])?.status.success(), "{stolen}");
        two.space.ip(&format!("address del {stolen}/64 dev eth0"))?;
    }
    let told = netd.ok(&["port-info", "two"])?;
    ensure!(!told.contains("IP 0,"), "{told}");
    assert!(one.reaches("fd00:83::1")? && two.reaches("fd00:83::a")?);

    // The guest goes, its address is free.
    drop(one);
    two.space.ip("address add fd00:83::a/64 dev eth0 nodad")?;
    wait::until_true("the address to be free", PATIENCE, || {
        // The host still knows where it was.
        netd.host.ip("-6 neigh flush dev blue0")?;
        Ok(two.space.run("ping", &["-n", "-c1", "-W1", "-I", "fd00:83::a", "fd00:83::1"])?.status.success())
    })?;
    drop((two, red));
    netd.finish()
}

#[test]
fn a_network_without_an_ipv6_address_of_the_host_has_it_among_guests_if_asked() -> Result<()> {
    let mut netd = Daemon::new("among")?;
    let network = |name: &str, bridge: &str, ipv6: &str| {
        format!("<network {ipv6}><name>{name}</name><bridge name='{bridge}'/></network>")
    };
    netd.create(&network("with", "with0", "ipv6='yes'"))?;
    netd.create(&network("without", "without0", ""))?;
    for (name, expected) in [("with", true), ("without", false)] {
        let one = plug(&netd, name, "one", "2001:db8:5::1", None)?;
        let two = plug(&netd, name, "two", "2001:db8:5::2", None)?;
        if expected {
            wait::until_true("the other guest", PATIENCE, || one.reaches("2001:db8:5::2"))?;
        }
        assert_eq!(one.reaches("2001:db8:5::2")?, expected, "{name}");
        assert_eq!(sysctl(&netd.host, &format!("net.ipv6.conf.{name}0.disable_ipv6"))?, "1");
        drop((one, two));
    }
    assert_eq!(sysctl(&netd.host, "net.ipv6.conf.all.forwarding")?, "0");
    netd.finish()
}

#[test]
fn dns_is_served_by_ipv6_and_has_ipv6_records() -> Result<()> {
    let (mut netd, internet) = host_with_internet("dns6")?;
    let more = "<dns><host ip='fd00:85::77'><hostname>printer</hostname></host></dns>\n";
    netd.create(&both("blue", "blue0", "<forward mode='nat'/>", 85, more))?;
    let guest = plug(&netd, "blue", "vm1", "fd00:85::5", Some("fd00:85::1"))?;
    let dig = |question: &str| {
        let answer = guest.space.sh(&format!("dig +short +tries=2 +time=2 @fd00:85::1 {question} || true"))?;
        Ok::<_, anyhow::Error>(answer.trim().to_owned())
    };
    assert_eq!(dig("printer AAAA")?, "fd00:85::77");
    assert_eq!(dig("-x fd00:85::77")?, "printer.");
    assert_eq!(dig(WEB_NAME)?, WEB.to_string());
    assert_eq!(dig(&format!("+tcp {WEB_NAME}"))?, WEB.to_string());
    drop(guest);
    netd.finish()?;
    drop(internet);
    Ok(())
}

#[test]
fn static_routes_and_addresses_come_back_and_survive_a_restart() -> Result<()> {
    let (mut netd, _internet) = host_with_internet("heal6")?;
    let more = "<route family='ipv6' address='fd00:8600::' prefix='48' gateway='fd00:86::5'/>\n";
    netd.create(&both("blue", "blue0", "<forward mode='route'/>", 86, more))?;
    // A router has what is behind it to speak for.
    let request = PortRequest {
        network: "blue".into(),
        guest: Some("vm1".into()),
        mac: None,
        queues: 1,
        guards: Some(false),
        ..PortRequest::default()
    };
    let guest = Station::plug_with(&netd, "vm1", request)?;
    guest.space.ip("address add fd00:86::5/64 dev eth0 nodad")?;
    guest.space.ip("address add fd00:8600::1/48 dev lo nodad")?;
    let ping = |netd: &Daemon| {
        Ok::<_, anyhow::Error>(netd.host.run("ping", &["-n", "-c1", "-W1", "fd00:8600::1"])?.status.success())
    };
    wait::until_true("the way to the guest", PATIENCE, || ping(&netd))?;
    for disturbance in
        ["address del fd00:86::1/64 dev blue0", "-6 route del fd00:8600::/48", "link set blue0 down", "link del blue0"]
    {
        netd.host.ip(disturbance)?;
        wait::until_true(disturbance, PATIENCE, || ping(&netd))?;
    }
    netd.host.sh("sysctl -q -w net.ipv6.conf.blue0.disable_ipv6=1")?;
    wait::until_true("IPv6 to be back", PATIENCE, || ping(&netd))?;
    netd.kill()?;
    netd.start()?;
    wait::until_true("the way to the guest", PATIENCE, || ping(&netd))?;
    assert!(guest.reaches("fd00:86::1")?);
    drop(guest);
    netd.finish()
}

/// A router advertisement, sent to one host: there is a router, and nothing else (RFC 4861 §4.2).
fn advertise(router: &Space, interface: &str, to: Ipv6Addr) -> Result<()> {
    router.inside(|| {
        let kind = SockProtocol::IcmpV6;
        let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind)?;
        setsockopt(&raw, sockopt::Ipv6Ttl, &255)?;
        let index = nix::net::if_::if_nametoindex(interface)?;
        let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, index));
        let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        sendto(raw.as_raw_fd(), &message, &to, MsgFlags::empty())?;
        Ok(())
    })
}

#[test]
fn a_host_whose_routes_come_from_router_advertisements_keeps_them_when_it_becomes_a_router() -> Result<()> {
    let host = Space::new("ra")?;
    let router = Space::new("router")?;
    host.sh("sysctl -q -w net.ipv6.conf.default.accept_ra=1")?;
    host.connect("uplink", &router, "eth0")?;
    let local = |space: &Space, interface: &str| {
        wait::until("a link-local address", PATIENCE, || {
            let text = space.ip(&format!("-6 -o address show dev {interface} scope link -tentative"))?;
            Ok(text.split_whitespace().nth(3).and_then(|net| net.split('/').next()?.parse::<Ipv6Addr>().ok()))
        })
    };
    let (own, _) = (local(&host, "uplink")?, local(&router, "eth0")?);
    let has_route = |host: &Space| Ok::<_, anyhow::Error>(host.ip("-6 route show default")?.contains("proto ra"));
    wait::until_true("the route from the advertisement", PATIENCE, || {
        advertise(&router, "eth0", own)?;
        has_route(&host)
    })?;
    let mut netd = Daemon::on(host)?;
    let text = netd.ok(&["net-create", &netd.file("a.xml", &both("a", "a0", "<forward mode='route'/>", 87, ""))?])?;
    ensure!(netd.log().matches("net.ipv6.conf.uplink.accept_ra is 2").count() == 1, "{text}{}", netd.log());
    assert_eq!(sysctl(&netd.host, "net.ipv6.conf.uplink.accept_ra")?, "2");
    assert!(has_route(&netd.host)?);
    // New ones count, too.
    netd.host.ip("-6 route del default")?;
    wait::until_true("the route from the advertisement", PATIENCE, || {
        advertise(&router, "eth0", own)?;
        has_route(&netd.host)
    })?;
    // The second network changes nothing and says nothing; with the last of them all is as it was.
    netd.create(&both("b", "b0", "<forward mode='route'/>", 88, ""))?;
    assert_eq!(netd.log().matches("accept_ra is 2").count(), 1, "{}", netd.log());
    netd.ok(&["net-destroy", "a"])?;
    assert_eq!(sysctl(&netd.host, "net.ipv6.conf.uplink.accept_ra")?, "2");
    netd.ok(&["net-destroy", "b"])?;
    assert_eq!(sysctl(&netd.host, "net.ipv6.conf.uplink.accept_ra")?, "1");
    assert_eq!(sysctl(&netd.host, "net.ipv6.conf.all.forwarding")?, "0");
    netd.stop()
}

/// What a server at port 80 of the station says to whoever asks from a space.
fn serve_and_ask(guest: &Station, asked: &[(&Space, &str)]) -> Result<Vec<String>> {
    let listener = guest.space.inside(|| Ok(std::net::TcpListener::bind("[::]:80")?))?;
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, client.ip().to_canonical().to_string().as_bytes());
        }
    });
    let ask = |(space, at): &(&Space, &str)| {
        let answer = space.sh(&format!("socat -u -T5 TCP:{at},connect-timeout=5 - 2>&1 || true"))?;
        anyhow::Ok(answer.trim().rsplit(' ').next().unwrap_or_default().to_owned())
    };
    asked.iter().map(ask).collect()
}

#[test]
fn a_port_of_ipv6_leads_to_a_guest_from_outside_from_the_host_and_from_its_neighbours() -> Result<()> {
    let (mut netd, internet) = host_with_internet("forward6")?;
    let forward = "<forward mode='nat'><nat ipv6='yes'/></forward>";
    netd.create(&both("blue", "blue0", forward, 89, ""))?;
    let (one, two) = (
        plug(&netd, "blue", "one", "fd00:89::a", Some("fd00:89::1"))?,
        plug(&netd, "blue", "two", "fd00:89::b", Some("fd00:89::1"))?,
    );
    let text = netd.netd(&["forward-add", "blue", "tcp/8080", "[fd00:89::a]:80"])?;
    let said = String::from_utf8_lossy(&text.stderr).into_owned();
    ensure!(text.status.success() && said.contains("::1 does not lead there"), "{said}");
    let own = format!("[{HOST6}]:8080");
    let asked = [(&internet.space, own.as_str()), (&netd.host, &own), (&two.space, &own), (&netd.host, "[::1]:8080")];
    let answers = serve_and_ask(&one, &asked)?;
    assert_eq!(answers[..3], [GATEWAY6.to_string(), "fd00:89::1".into(), "fd00:89::1".into()]);
    ensure!(answers[3].contains("refused"), "{answers:?}");
    let refused = netd.refused(&["forward-add", "blue", "tcp/8081", "one", "--address", "::1"])?;
    ensure!(refused.contains("connections to ::1 cannot be forwarded"), "{refused}");
    // In the XML, and after a restart.
    let xml = netd.ok(&["net-dumpxml", "blue"])?;
    ensure!(xml.contains("address='::'") && xml.contains("<netd:to ip='fd00:89::a' port='80'/>"), "{xml}");
    netd.kill()?;
    netd.start()?;
    let answer = internet.space.sh(&format!("socat -u -T5 TCP:{own},connect-timeout=5 -"))?;
    assert_eq!(answer.trim(), GATEWAY6.to_string());
    netd.ok(&["forward-delete", "blue", "tcp/8080"])?;
    let answer = internet.space.sh(&format!("socat -u -T5 TCP:{own},connect-timeout=5 - 2>&1 || true"))?;
    ensure!(answer.contains("refused"), "{answer}");
    drop((one, two));
    netd.finish()?;
    drop(internet);
    Ok(())
}

#[test]
fn a_port_of_ipv6_leads_to_a_guest_by_name_wherever_it_is_seen() -> Result<()> {
    let (mut netd, internet) = host_with_internet("named6")?;
    netd.create(&both("blue", "blue0", "<forward mode='nat'><nat ipv6='yes'/></forward>", 90, ""))?;
    let said = netd.netd(&["forward-add", "blue", "tcp/8080", "one:80", "--address", "::"])?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.contains("guest 'one' was not seen to have an IPv6 address on network 'blue' yet"), "{said}");
    let ask = || {
        let own = format!("[{HOST6}]:8080");
        let answer = internet.space.sh(&format!("socat -u -T5 TCP:{own},connect-timeout=5 - 2>&1 || true"))?;
        anyhow::Ok(answer.trim().rsplit(' ').next().unwrap_or_default().to_owned())
    };
    assert_eq!(ask()?, "refused", "nobody is there yet");
    let leads = |netd: &Daemon| {
        let listed = netd.json(&["forward-list", "blue"])?;
        anyhow::Ok(listed[0]["targets"][0]["address"].as_str().unwrap_or_default().to_owned())
    };
    let follows = |netd: &Daemon, address: &str| {
        wait::until_true(&format!("the forward leads to {address}"), PATIENCE, || Ok(leads(netd)? == address))?;
        wait::until_true(&format!("{address} answers"), PATIENCE, || Ok(ask()? == GATEWAY6.to_string()))
    };

    // It has an address once it has looked whether anybody else has.
    let guest = Station::plug_deaf(&netd, "blue", "one")?;
    serve_and_ask(&guest, &[])?;
    guest.space.ip("address add fd00:90::a/64 dev eth0")?;
    guest.space.ip("-6 route add default via fd00:90::1 dev eth0")?;
    follows(&netd, "fd00:90::a")?;
    // Another address, another daemon, which knows it from the guards' claims; then one that is made of the MAC, which
    // nobody claims and the host's neighbours remember. It is preferred to one that is younger.
    guest.space.ip("address del fd00:90::a/64 dev eth0")?;
    guest.space.ip("address add fd00:90::b/64 dev eth0")?;
    follows(&netd, "fd00:90::b")?;
    netd.kill()?;
    assert_eq!(ask()?, GATEWAY6.to_string(), "without a daemon");
    netd.host.ip("-6 neighbour flush dev blue0")?;
    netd.start()?;
    assert_eq!(leads(&netd)?, "fd00:90::b", "of the claims");
    assert_eq!(ask()?, GATEWAY6.to_string(), "with the next daemon");
    let mac = guest.mac()?;
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let [a, b, c, d, e, f] = bytes[..] else { anyhow::bail!("{mac} is no MAC") };
    let lasting = Ipv6Addr::from([0xfd, 0, 0, 0x90, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]).to_string();
    guest.space.ip(&format!("address add {lasting}/64 dev eth0"))?;
    follows(&netd, &lasting)?;
    guest.space.ip("address add fd00:90::c/64 dev eth0")?;
    wait::until_true("the third address is seen", PATIENCE, || {
        Ok(netd.ok(&["domifaddr", "one", "--source", "any"])?.contains("fd00:90::c"))
    })?;
    follows(&netd, &lasting)?;
    netd.kill()?;
    netd.start()?;
    assert_eq!(leads(&netd)?, lasting, "of the neighbours");
    assert_eq!(ask()?, GATEWAY6.to_string());

    // The guest goes.
    drop(guest);
    wait::until_true("the forward rejects", PATIENCE, || Ok(ask()? == "refused"))?;
    netd.finish()?;
    drop(internet);
    Ok(())
}
