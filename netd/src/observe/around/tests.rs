//! EDGE: what is read around a network is what reading the whole host finds there, on the real kernel in a namespace.

use std::{collections::BTreeSet, process::Command, thread};

use nix::sched::{CloneFlags, unshare};

use ipnet::IpNet;

use super::*;

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect("iproute2 is needed");
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn inside(body: impl AsyncFnOnce() + Send) {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body());
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn sorted(mut host: HostState) -> HostState {
    host.links.sort_by_key(|link| link.index);
    host.addresses.sort_by_key(|address| (address.link, address.address));
    host.routes.sort_by_key(|route| (route.link, route.destination, route.gateway, route.metric));
    host
}

#[test]
fn around_a_network_is_what_the_whole_host_has_there() {
    inside(async || {
        run("ip", "link set lo up");
        for number in 1..=4 {
            run("ip", &format!("link add br{number} type bridge"));
            run("ip", &format!("addr add 10.0.{number}.1/24 dev br{number}"));
            run("ip", &format!("addr add fd00:{number}::1/64 dev br{number} nodad"));
            run("ip", &format!("tuntap add dev port{number} mode tap"));
            run("ip", &format!("link set port{number} master br{number} up"));
            run("ip", &format!("link set br{number} up"));
            run("ip", &format!("route add 172.16.{number}.0/24 via 10.0.{number}.9 metric 7"));
            run("ip", &format!("-6 route add 2001:db8:{number}::/48 via fd00:{number}::9"));
            run("tc", &format!("qdisc add dev br{number} root handle 1: htb default 1"));
            run("tc", &format!("class add dev br{number} parent 1: classid 1:1 htb rate 8mbit"));
        }
        run("ip", "link set port2 type bridge_slave isolated on");
        run("ip", "route add blackhole 10.0.200.0/24");
        let netlink = Netlink::open().unwrap();
        let whole = netlink.observe().await.unwrap();
        let index = whole.link("port2").unwrap().index;
        let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&name| name.to_owned()).collect() };
        let subnets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let focuses = [
            Focus::default(),
            Focus { names: names(&["br1", "nobody"]), ..Focus::default() },
            Focus { names: names(&["br2"]), indices: [index, 9999].into(), ..Focus::default() },
            Focus { names: names(&["nobody"]), subnets: subnets(&["10.0.3.7/28"]), ..Focus::default() },
            Focus { names: names(&["br1"]), subnets: subnets(&["10.0.0.0/16", "fd00:4::/32"]), ..Focus::default() },
            Focus {
                names: names(&["br1"]),
                subnets: subnets(&["2001:db8:2:7::/64", "192.0.2.0/24"]),
                ..Focus::default()
            },
        ];
        for focus in focuses {
            let near = sorted(netlink.observe_around(&focus).await.unwrap());
            assert_eq!(near, sorted(whole.clone().around(&focus)), "{focus:?}");
            assert!(near.links.len() < whole.links.len(), "{focus:?}");
        }
        let near =
            netlink.observe_around(&Focus { subnets: subnets(&["10.0.3.0/24"]), ..Focus::default() }).await.unwrap();
        assert_eq!(near.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["br3"]);
        let around_one = Focus { names: names(&["br1"]), ..Focus::default() };
        assert!(!netlink.observe_around(&around_one).await.unwrap().shapes.is_empty(), "its limit is seen");
    });
}
