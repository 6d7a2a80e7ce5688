//! A healthy host and each of its troubles: which line of the report changes, and how.

use std::net::IpAddr;

use super::{facts::*, *};
use crate::sockets::rows;
use crate::{
    host::{HostState, Link, LinkAddress, LinkKind, Route},
    xml,
};

/// A host with one uplink, the shipped network started, and nothing wrong.
pub(super) fn healthy() -> Facts {
    let directory = |role, path: &str| Directory { role, path: path.into(), state: DirectoryState::Writable };
    Facts {
        root: false,
        kvm: Device::Open,
        vhost_net: Device::Open,
        tun: Device::Open,
        vcpu: Vcpu::Runs,
        modules: Modules { fixed: true, ..Modules::default() },
        capabilities: Ok("CapEff:\t000001ffffffffff\n".into()),
        nft: Nft::Works,
        ip_forward: Ok(true),
        rp_filter: Ok(vec![("all".into(), 0), ("eth0".into(), 1), ("wlan0".into(), 0)]),
        bridge_netfilter: Ok(vec![]),
        rules: Rules {
            nft: Ok(r#"{"nftables": []}"#.into()),
            iptables_nft: None,
            legacy: Ok(None),
            legacy_tables: vec![],
        },
        listeners: Ok(vec![listener("192.168.122.1", 53, "netd")]),
        host: Ok(host()),
        networks: Ok(vec![known("default", "virbr0", "192.168.122.1", Some(true))]),
        resolvers: Resolvers {
            path: "/etc/resolv.conf".into(),
            file: ResolvConf::Text("nameserver 192.0.2.53\n".into()),
            behind_stub: None,
        },
        daemon: Daemon::Answers("/run/netd/netd.sock".into()),
        directories: vec![directory("definitions", "/etc/netd"), directory("leases", "/var/lib/netd")],
        room: Ok(Room { path: "/var/lib/netd".into(), bytes: 1 << 30, files: Some(100_000) }),
    }
}

fn host() -> HostState {
    let link = |index, name: &str| Link {
        index,
        name: name.into(),
        mac: None,
        mtu: 1500,
        up: true,
        kind: LinkKind::Other,
        master: None,
        ipv6_disabled: false,
        accept_ra: 1,
        autoconf: true,
        route_localnet: false,
        lower: None,
        isolated: false,
        taught: false,
    };
    HostState {
        links: vec![link(2, "eth0"), link(3, "wlan0"), link(4, "virbr0")],
        addresses: vec![
            LinkAddress { link: 2, address: "192.0.2.2/24".parse().unwrap() },
            LinkAddress { link: 4, address: "192.168.122.1/24".parse().unwrap() },
        ],
        routes: vec![route("0.0.0.0/0", 2)],
        forwarding: true,
        ..HostState::default()
    }
}

fn route(destination: &str, link: u32) -> Route {
    Route { destination: destination.parse().unwrap(), gateway: None, link: Some(link), metric: 0, from_router: false }
}

fn known(name: &str, bridge: &str, address: &str, active: Option<bool>) -> Known {
    let text = format!(
        "<network><name>{name}</name><forward mode='nat'/><bridge name='{bridge}'/><ip address='{address}' prefix='24'/>\
         </network>"
    );
    Known { network: xml::parse(&text).unwrap(), active }
}

fn listener(address: &str, port: u16, name: &str) -> Listener {
    Listener { tcp: false, address: address.parse().unwrap(), port, program: Some((name.into(), 42)) }
}

/// What a healthy host with this one change is told about the check.
fn told(check: &str, change: impl FnOnce(&mut Facts)) -> (Verdict, String, String) {
    let mut facts = healthy();
    change(&mut facts);
    let findings = examine(&facts);
    for finding in &findings {
        assert_eq!(finding.verdict == Verdict::Pass, finding.mend.is_none(), "{finding:?}");
        assert!(finding.verdict == Verdict::Pass || finding.says.is_some(), "{finding:?}");
    }
    let worst = findings.into_iter().filter(|finding| finding.check == check).max_by_key(|finding| finding.verdict);
    let finding = worst.unwrap_or_else(|| panic!("no check is called {check}"));
    (finding.verdict, finding.says.unwrap_or_default(), finding.mend.unwrap_or_default())
}

fn assert_told(told: (Verdict, String, String), verdict: Verdict, says: &str, mend: &str) {
    assert!(told.0 == verdict && told.1.contains(says) && told.2.contains(mend), "{told:#?}");
}

#[test]
fn the_report_of_a_healthy_host_is_in_virt_host_validates_format() {
    let findings = examine(&healthy());
    assert!(!has_failure(&findings));
    assert_eq!(
        text(&findings, false),
        "   NET: Checking for device /dev/kvm                                         : PASS\n   \
         NET: Checking for a virtual CPU that runs stock code                      : PASS\n   \
         NET: Checking for device /dev/vhost-net                                   : PASS\n   \
         NET: Checking for device /dev/net/tun                                     : PASS\n   \
         NET: Checking for the kernel modules of networks                          : PASS (this kernel loads none: what it has is built in, see the other checks)\n   \
         NET: Checking for the daemon's capabilities                               : PASS (the running daemon has them)\n   \
         NET: Checking for nft and a kernel that takes our rules                   : PASS\n   \
         NET: Checking for IPv4 forwarding                                         : PASS\n   \
         NET: Checking for reverse path filters on the uplinks                     : PASS\n   \
         NET: Checking for bridges that ask iptables about every frame             : PASS\n   \
         NET: Checking for rules of others that drop guests' packets               : PASS\n   \
         NET: Checking for other holders of port 53 (DNS)                          : PASS\n   \
         NET: Checking for other holders of port 67 (DHCP)                         : PASS\n   \
         NET: Checking for subnets that something else uses                        : PASS\n   \
         NET: Checking for names that networks share                               : PASS\n   \
         NET: Checking for resolvers to ask on behalf of guests                    : PASS\n   \
         NET: Checking for a daemon that answers                                   : PASS\n   \
         NET: Checking for the directory of definitions                            : PASS\n   \
         NET: Checking for the directory of leases                                 : PASS\n   \
         NET: Checking for room on the disk of the leases                          : PASS\n"
    );
}

#[test]
fn a_line_tells_why_and_what_to_run_and_nothing_of_it_reaches_the_terminal_raw() {
    let finding = Finding::fail("x", "if \x1b[2Jit works", "it\ndoes not", "sudo mend it");
    assert_eq!(
        text(std::slice::from_ref(&finding), true),
        format!("   NET: Checking {:<60}: \x1b[31mFAIL\x1b[0m (it does not; run: sudo mend it)\n", "if  [2Jit works")
    );
    let expected = serde_json::json!({"ok": false, "checks": [{
        "check": "x", "title": "if \x1b[2Jit works", "verdict": "fail", "says": "it\ndoes not", "mend": "sudo mend it"
    }]});
    assert_eq!(json(&[finding]), expected);
    assert_eq!(json(&examine(&healthy()))["ok"], true);
}

#[test]
fn root_needs_no_sudo() {
    assert_told(told("tun", |f| f.tun = Device::Absent), Verdict::Fail, "no port", "sudo modprobe tun");
    let as_root = told("tun", |f| (f.tun, f.root) = (Device::Absent, true));
    assert_eq!(as_root.2, "modprobe tun");
}

#[test]
fn an_ordinary_user_is_told_what_only_root_may_see() {
    let forbidden = |f: &mut Facts| {
        f.nft = Nft::Forbidden;
        f.rules.nft = Err(Unseen::Forbidden);
        f.networks = Err(Unseen::Forbidden);
        f.daemon = Daemon::Forbidden("/run/netd/netd.sock".into());
        f.capabilities = Ok("CapEff:\t0000000000000000\n".into());
        f.directories[0].state = DirectoryState::Forbidden;
    };
    for check in ["nft", "foreign-rules", "subnets", "bridges", "daemon", "capabilities", "directory"] {
        let told = told(check, forbidden);
        assert_eq!((told.0, told.2.as_str()), (Verdict::Warn, "sudo netd doctor"), "{check}: {}", told.1);
    }
}

#[test]
fn kvm_devices_and_a_cpu() {
    assert_told(told("kvm-device", |f| f.kvm = Device::Absent), Verdict::Fail, "firmware", "modprobe");
    assert_told(told("kvm-device", |f| f.kvm = Device::Forbidden), Verdict::Fail, "may not", "usermod -aG kvm");
    assert_told(
        told("kvm-vcpu", |f| f.vcpu = Vcpu::DoesNot("too slow".into())),
        Verdict::Fail,
        "too slow",
        "vmm probe",
    );
    assert_told(told("kvm-vcpu", |f| f.vcpu = Vcpu::NoVmm), Verdict::Warn, "no vmm", "vmm probe");
    assert_told(told("vhost-net", |f| f.vhost_net = Device::Absent), Verdict::Warn, "slower", "modprobe vhost_net");
    assert_told(told("tun", |f| f.tun = Device::Broken("x".into())), Verdict::Fail, "x", "modprobe tun");
    assert_told(told("nft", |f| f.nft = Nft::Absent), Verdict::Fail, "no nft", "install nftables");
    assert_told(told("nft", |f| f.nft = Nft::Refused("no masq".into())), Verdict::Fail, "no masq", "nft_masq");
}

#[test]
fn missing_modules_are_named_and_loadable_ones_are_no_trouble() {
    let modules = |present: &[&str], on_disk: Option<&[&str]>| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let modules =
            Modules { fixed: false, release: "6.1".into(), present: owned(present), on_disk: on_disk.map(owned) };
        told("modules", |f| f.modules = modules)
    };
    let most = ["bridge", "tun", "nf_tables", "nf_nat", "nft_chain_nat", "nft_ct", "nft_nat"];
    assert_told(modules(&most, Some(&["nft_masq", "nft_reject_inet"])), Verdict::Pass, "nft_masq, nft_reject_inet", "");
    assert_told(
        modules(&most, Some(&["nft_reject_inet"])),
        Verdict::Fail,
        "6.1 has no nft_masq",
        "modprobe -a nft_masq",
    );
    assert_told(modules(&most, None), Verdict::Fail, "upgraded", "reboot");
}

#[test]
fn forwarding_that_is_off_matters_once_a_network_needs_it() {
    assert_told(told("ip-forward", |f| f.ip_forward = Ok(false)), Verdict::Fail, "'default'", "ip_forward=1");
    let idle = told("ip-forward", |f| {
        f.ip_forward = Ok(false);
        f.networks = Ok(vec![known("default", "virbr0", "192.168.122.1", Some(false))]);
    });
    assert_told(idle, Verdict::Pass, "netd turns it on", "");
}

#[test]
fn a_strict_filter_matters_with_two_uplinks() {
    let two = |f: &mut Facts| f.host.as_mut().unwrap().routes.push(route("0.0.0.0/0", 3));
    assert_told(told("rp-filter", two), Verdict::Warn, "dropped", "net/ipv4/conf/eth0/rp_filter=2");
    let loose = told("rp-filter", |f| {
        two(f);
        f.rp_filter = Ok(vec![("all".into(), 2), ("eth0".into(), 1)]);
    });
    assert_eq!(loose.0, Verdict::Pass);
}

#[test]
fn bridges_that_ask_iptables_are_told_with_the_sysctl() {
    let told = told("br-netfilter", |f| f.bridge_netfilter = Ok(vec!["bridge-nf-call-iptables".into()]));
    assert_told(told, Verdict::Warn, "frames between guests", "net.bridge.bridge-nf-call-iptables=0");
}

#[test]
fn holders_of_dns_and_dhcp_are_named_and_no_failure() {
    let dns = |address| told("port-53", move |f| f.listeners = Ok(vec![listener(address, 53, "named")]));
    assert_told(dns("0.0.0.0"), Verdict::Pass, "named (pid 42) has UDP 0.0.0.0:53", "");
    assert_told(dns("::"), Verdict::Pass, "UDP [::]:53", "");
    assert_told(dns("192.168.122.1"), Verdict::Pass, "redirect guests", "");
    assert_eq!(dns("127.0.0.53").1, "");
    let dhcp = told("port-67", |f| f.listeners = Ok(vec![listener("0.0.0.0", 67, "dnsmasq")]));
    assert_told(dhcp, Verdict::Warn, "packet socket", "ss -lunp");
    assert_eq!(told("port-67", |f| f.listeners = Ok(vec![listener("0.0.0.0", 67, "netd")])).1, "");
}

#[test]
fn procfs_sockets_are_read() {
    let udp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n \
               100: 017AA8C0:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0 0\n";
    let udp = if cfg!(target_endian = "big") { udp.replace("017AA8C0", "C0A87A01") } else { udp.to_owned() };
    let found = rows(&udp, false);
    assert_eq!(
        (found.len(), found[0].address, found[0].port, found[0].inode),
        (1, IpAddr::from([192, 168, 122, 1]), 53, 1234)
    );
    let tcp6 = "   0: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 99 1\n   \
                1: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 01 0:0 0:0 0 0 0 98 1\n";
    let found = rows(tcp6, true);
    assert_eq!((found.len(), found[0].inode), (1, 99));
    assert!(rows("x\n: : :\n 0: é:0035 0:0 07 0 0 0 0 0 1\n", false).is_empty());
}

#[test]
fn a_subnet_in_use_is_told_with_a_free_one() {
    let late = |f: &mut Facts| f.host.as_mut().unwrap().routes.push(route("192.168.0.0/16", 3));
    assert_told(
        told("subnets", late),
        Verdict::Fail,
        "collides with 192.168.0.0/16 on interface wlan0",
        "net-edit default",
    );
    let idle = told("subnets", |f| f.networks = Ok(vec![known("lan", "br-lan", "192.0.2.1", Some(false))]));
    assert_told(idle, Verdict::Warn, "eth0: the network will not start", "net-edit lan  # 192.168.123.0/24 is free");
    let two = told("subnets", |f| {
        f.networks.as_mut().unwrap().push(known("twin", "virbr1", "192.168.122.1", Some(false)));
        f.host.as_mut().unwrap().addresses.pop();
    });
    assert_told(two, Verdict::Warn, "of network 'twin': only one", "net-edit twin");
    let shipped = crate::registry::shipped::network().unwrap();
    let shipped = told("subnets", |f| {
        f.networks = Ok(vec![Known { network: shipped, active: Some(false) }]);
    });
    assert_told(shipped, Verdict::Pass, "makes way", "");
}

#[test]
fn names_that_are_taken_are_told() {
    let two = told("bridges", |f| f.networks.as_mut().unwrap().push(known("b", "virbr0", "10.0.0.1", Some(false))));
    assert_told(two, Verdict::Fail, "bridge name 'virbr0' already in use", "net-edit b");
    let taken = told("bridges", |f| f.networks = Ok(vec![known("b", "wlan0", "10.0.0.1", Some(false))]));
    assert_told(taken, Verdict::Warn, "interface wlan0 exists", "ip link delete wlan0");
}

#[test]
fn resolvers_that_are_none() {
    let file = |file| told("resolvers", move |f| f.resolvers.file = file);
    assert_told(file(ResolvConf::Missing), Verdict::Fail, "there is no /etc/resolv.conf", "tee /etc/resolv.conf");
    let dangling = ResolvConf::Dangling("/run/systemd/resolve/stub-resolv.conf".into());
    assert_told(file(dangling), Verdict::Fail, "does not exist", "systemd-resolved");
    assert_told(file(ResolvConf::Text("search x\n".into())), Verdict::Fail, "names no server", "tee");
    assert_told(file(ResolvConf::Text("nameserver 127.0.0.1\n".into())), Verdict::Fail, "nobody listens", "tee");
    assert_told(file(ResolvConf::Text("nameserver 127.0.0.53\n".into())), Verdict::Fail, "nobody", "systemd-resolved");
    let local = told("resolvers", |f| {
        f.resolvers.file = ResolvConf::Text("nameserver 127.0.0.1\n".into());
        f.listeners.as_mut().unwrap().push(listener("127.0.0.1", 53, "unbound"));
    });
    assert_told(local, Verdict::Pass, "on this host", "");
    let resolved = told("resolvers", |f| {
        f.resolvers.file = ResolvConf::Text("nameserver 127.0.0.53\n".into());
        f.resolvers.behind_stub = Some("nameserver fe80::1%eth0\n".into());
    });
    assert_told(resolved, Verdict::Pass, "directly", "");
}

#[test]
fn the_daemon_its_directories_and_its_room() {
    let path = || "/run/netd/netd.sock".into();
    assert_told(told("daemon", |f| f.daemon = Daemon::Absent(path())), Verdict::Warn, "nobody", "systemctl start netd");
    assert_told(told("daemon", |f| f.daemon = Daemon::Broken(path(), "x".into())), Verdict::Fail, "x", "restart");
    let broken = DirectoryState::Broken("read-only".into());
    assert_told(told("directory", |f| f.directories[1].state = broken), Verdict::Fail, "read-only", "findmnt");
    let room = |bytes, files| told("room", move |f| f.room = Ok(Room { path: "/v".into(), bytes, files }));
    assert_eq!(room(1 << 30, None).0, Verdict::Pass);
    assert_told(room(10 << 20, None), Verdict::Warn, "10240 KiB", "df");
    assert_told(room(1000, None), Verdict::Fail, "no lease", "df");
    assert_told(room(1 << 30, Some(3)), Verdict::Fail, "3 more files", "df -i");
}
