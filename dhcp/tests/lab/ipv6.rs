//! IPv6 on the test's bridge, and clients that have none of it themselves.

use std::{fs, net::Ipv6Addr};

use dhcp::config::{Dhcp6Config, Ipv6Config, LeaseTime, NetworkConfig, Prefix6, Range6};

use super::{BRIDGE, Guest, config, run};

/// The host's address on the bridge.
pub(crate) const SERVER_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xca2, 2, 0, 0, 0, 1);

/// Gives the bridge an address and lets it route, as the daemon does.
pub(crate) fn bridge_has(address: &str) {
    for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "1"), ("disable_ipv6", "0")] {
        run(&format!("sysctl -q -w net.ipv6.conf.{BRIDGE}.{key}={value}"));
    }
    run("sysctl -q -w net.ipv6.conf.all.forwarding=1");
    run(&format!("ip addr add {address}/64 dev {BRIDGE}"));
}

/// IPv6 alone, with addresses that guests make themselves.
pub(crate) fn ipv6() -> NetworkConfig {
    let server = format!("{SERVER_6}/64").parse().unwrap();
    let ipv6 = Ipv6Config {
        prefixes: vec![Prefix6 { server, autonomous: true }],
        router: true,
        routes: Vec::new(),
        dns: vec![SERVER_6],
        domain: Some("lab.test".into()),
        mtu: Some(1400),
        dhcp: None,
    };
    NetworkConfig { dhcp4: None, ipv6: Some(ipv6), ..config() }
}

/// IPv6 alone, with addresses that DHCPv6 gives.
pub(crate) fn stateful() -> NetworkConfig {
    let mut config = ipv6();
    let ipv6 = config.ipv6.as_mut().unwrap();
    ipv6.prefixes[0].autonomous = false;
    let address = |place: u16| Ipv6Addr::new(0x2001, 0xdb8, 0xca2, 2, 1, 0, 0, place);
    ipv6.dhcp = Some(Dhcp6Config {
        server: ipv6.prefixes[0].server,
        ranges: vec![Range6 { start: address(0x10), end: address(0xff), lease: LeaseTime::Seconds(3600) }],
        hosts: Vec::new(),
    });
    config
}

impl Guest {
    /// What a command inside the guest prints.
    pub(crate) fn prints(&self, line: &str) -> String {
        self.enter(|| run(line))
    }

    /// Its link-local address; it has one before this returns.
    pub(crate) fn link_local(&self) -> Ipv6Addr {
        for _ in 0..2000 {
            let shown = self.prints("ip -6 -o addr show dev eth0 scope link -tentative");
            if let Some(address) = shown.split_whitespace().nth(3) {
                return address.split('/').next().unwrap().parse().unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{} has no link-local address", self.mac);
    }

    /// The guest's kernel as it is for a host: it solicits routers and does as they say.
    pub(crate) fn solicits(&self) {
        self.link_local();
        fs::write(self.path("none"), "").unwrap();
        self.prints("ip link set eth0 down");
        for (key, value) in [("accept_ra", "2"), ("accept_ra_rt_info_max_plen", "64"), ("dad_transmits", "1")] {
            self.prints(&format!("sysctl -q -w net.ipv6.conf.eth0.{key}={value}"));
        }
        self.prints("ip link set eth0 up");
    }
}
