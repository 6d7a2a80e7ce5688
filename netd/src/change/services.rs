//! What is other about one configuration of the servers than about another, in words. Pure.

use std::fmt::{Debug, Display};

use dhcp::config::{
    Boot4, Dhcp4Config, Dhcp6Config, DnsConfig, DnsForwarder, DnsService, Ipv6Config, LeaseTime, NetworkConfig,
    Option4, Prefix6, Range4, Range6, Reservation4, Reservation6, TftpConfig,
};

/// One phrase per difference.
pub(super) fn differences(from: &NetworkConfig, to: &NetworkConfig) -> Vec<String> {
    // Every field, so that a new one is not forgotten.
    let NetworkConfig { network: _, bridge: _, dhcp4, ipv6, dns, tftp } = to;
    let mut said = Vec::new();
    match (&from.dhcp4, dhcp4) {
        (None, Some(_)) => said.push("start DHCP".to_owned()),
        (Some(_), None) => said.push("stop DHCP".to_owned()),
        (Some(from), Some(to)) => dhcp4_differences(from, to, &mut said),
        (None, None) => {}
    }
    match (&from.ipv6, ipv6) {
        (None, Some(_)) => said.push("start router advertisements".to_owned()),
        (Some(_), None) => said.push("stop router advertisements".to_owned()),
        (Some(from), Some(to)) => ipv6_differences(from, to, &mut said),
        (None, None) => {}
    }
    match (&from.dns, dns) {
        (None, Some(_)) => said.push("start DNS".to_owned()),
        (Some(_), None) => said.push("stop DNS".to_owned()),
        (Some(from), Some(to)) => dns_differences(from, to, &mut said),
        (None, None) => {}
    }
    lists("TFTP servers", &from.tftp, tftp, &mut said, |verb, TftpConfig { address, root, mtu: _ }| {
        format!("{verb} TFTP at {address} of {}", root.display())
    });
    said
}

fn dhcp4_differences(from: &Dhcp4Config, to: &Dhcp4Config, said: &mut Vec<String>) {
    let Dhcp4Config { server, ranges, hosts, router, dns, domain, mtu, routes, boot, options } = to;
    if from.server != *server {
        said.push(format!("DHCP server and subnet {server}"));
    }
    lists("pools", &from.ranges, ranges, said, |verb, range| format!("{verb} the pool {}", pool(range)));
    lists("reservations", &from.hosts, hosts, said, |verb, host| {
        format!("{verb} the reservation {}", reservation(host))
    });
    value("gateway for guests", from.router.as_ref(), router.as_ref(), said);
    if from.dns != *dns {
        let all: Vec<String> = dns.iter().map(ToString::to_string).collect();
        said.push(format!("resolvers for guests {}", if all.is_empty() { "none".into() } else { all.join(", ") }));
    }
    value("domain for guests", from.domain.as_ref(), domain.as_ref(), said);
    value("MTU for guests", from.mtu.as_ref(), mtu.as_ref(), said);
    lists("routes", &from.routes, routes, said, |verb, (to, via)| format!("{verb} the guests' route {to} via {via}"));
    let boot_from = |Boot4 { file, server }: &Boot4| {
        format!("{file}{}", server.map(|server| format!(" of {server}")).unwrap_or_default())
    };
    value("file to boot", from.boot.as_ref().map(boot_from).as_ref(), boot.as_ref().map(boot_from).as_ref(), said);
    lists("options", &from.options, options, said, |verb, Option4 { code, value, force }| {
        let bytes: Vec<String> = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let asked = if *force { ", asked for or not" } else { "" };
        format!("{verb} the DHCP option {code} of '{}'{asked}", bytes.join(" "))
    });
}

fn ipv6_differences(from: &Ipv6Config, to: &Ipv6Config, said: &mut Vec<String>) {
    let Ipv6Config { prefixes, router, routes, dns, domain, mtu, dhcp } = to;
    lists("prefixes", &from.prefixes, prefixes, said, |verb, Prefix6 { server, autonomous }| {
        let how = if *autonomous { "" } else { ", of which guests make no addresses" };
        format!("{verb} advertising the prefix {}{how}", server.trunc())
    });
    if from.router != *router {
        let role = if *router { "a" } else { "no" };
        said.push(format!("advertise the host as {role} default router"));
    }
    lists("advertised routes", &from.routes, routes, said, |verb, to| format!("{verb} advertising the route {to}"));
    lists("IPv6 resolvers", &from.dns, dns, said, |verb, address| format!("{verb} the IPv6 resolver {address}"));
    value("IPv6 domain for guests", from.domain.as_ref(), domain.as_ref(), said);
    value("advertised MTU", from.mtu.as_ref(), mtu.as_ref(), said);
    match (&from.dhcp, dhcp) {
        (None, Some(_)) => said.push("start DHCPv6".to_owned()),
        (Some(_), None) => said.push("stop DHCPv6".to_owned()),
        (Some(from), Some(Dhcp6Config { server, ranges, hosts })) => {
            if from.server != *server {
                said.push(format!("DHCPv6 server and subnet {server}"));
            }
            lists("pools", &from.ranges, ranges, said, |verb, Range6 { start, end, lease }| {
                format!("{verb} the pool {start}-{end}, leases of {}", time(*lease))
            });
            lists("reservations", &from.hosts, hosts, said, |verb, host| {
                format!("{verb} the reservation {}", reservation6(host))
            });
        }
        (None, None) => {}
    }
}

fn dns_differences(from: &DnsConfig, to: &DnsConfig, said: &mut Vec<String>) {
    let DnsConfig {
        listen,
        subnets,
        reverse_upstream,
        domain,
        local_only,
        hosts,
        texts,
        services,
        whole_domains,
        aliases,
        log_queries,
        forward_plain_names,
        forward,
        forwarders,
        resolv_conf,
    } = to;
    lists("DNS addresses", &from.listen, listen, said, |verb, address| format!("{verb} DNS at {address}"));
    lists("DNS subnets", &from.subnets, subnets, said, |verb, subnet| {
        format!("{verb} DNS for the addresses of {subnet}")
    });
    lists("reverse names", &from.reverse_upstream, reverse_upstream, said, |verb, subnet| {
        format!("{verb} asking upstream resolvers for the addresses of {subnet}")
    });
    value("DNS domain", from.domain.as_ref(), domain.as_ref(), said);
    if from.local_only != *local_only {
        let how = if *local_only { "never" } else { "also" };
        said.push(format!("names in the domain are {how} asked of upstream resolvers"));
    }
    lists("names", &from.hosts, hosts, said, |verb, (address, names)| {
        format!("{verb} the names {} of {address}", names.join(", "))
    });
    lists("TXT records", &from.texts, texts, said, |verb, (name, _)| format!("{verb} the TXT record {name}"));
    lists("SRV records", &from.services, services, said, |verb, service| {
        let DnsService { name, target, port, priority, weight } = service;
        let target = target.as_deref().unwrap_or("nobody");
        format!("{verb} the SRV record {name} at {target} port {port}, priority {priority}, weight {weight}")
    });
    lists("whole domains", &from.whole_domains, whole_domains, said, |verb, (domain, address)| {
        let address = address.map_or_else(|| "nothing".to_owned(), |address| address.to_string());
        format!("{verb} every name of {domain} as {address}")
    });
    lists("CNAME records", &from.aliases, aliases, said, |verb, (alias, target)| {
        format!("{verb} the name {alias} of {target}")
    });
    if from.log_queries != *log_queries {
        said.push(format!("{} writing DNS questions to the log", if *log_queries { "start" } else { "stop" }));
    }
    if from.forward_plain_names != *forward_plain_names {
        let how = if *forward_plain_names { "also" } else { "never" };
        said.push(format!("names without a dot are {how} asked of upstream resolvers"));
    }
    lists("forwarders", &from.forwarders, forwarders, said, |verb, DnsForwarder { domain, address, port }| {
        let whom = address.map_or_else(|| "the host's resolvers".to_owned(), |address| address.to_string());
        let port = port.map(|port| format!(" port {port}")).unwrap_or_default();
        format!("{verb} asking {whom}{port} for {}", domain.as_deref().unwrap_or("every name"))
    });
    if from.forward != *forward {
        said.push(format!("{} asking upstream resolvers", if *forward { "start" } else { "stop" }));
    }
    if from.resolv_conf != *resolv_conf {
        said.push(format!("upstream resolvers from {}", resolv_conf.display()));
    }
}

fn lists<T: PartialEq>(what: &str, from: &[T], to: &[T], said: &mut Vec<String>, say: impl Fn(&str, &T) -> String) {
    let before = said.len();
    said.extend(from.iter().filter(|item| !to.contains(item)).map(|item| say("remove", item)));
    said.extend(to.iter().filter(|item| !from.contains(item)).map(|item| say("add", item)));
    if said.len() == before && from != to {
        said.push(format!("another order of {what}"));
    }
}

fn value<T: PartialEq + Display + Debug>(what: &str, from: Option<&T>, to: Option<&T>, said: &mut Vec<String>) {
    if from != to {
        said.push(to.map_or_else(|| format!("no {what}"), |to| format!("{what} {to}")));
    }
}

fn pool(range: &Range4) -> String {
    let Range4 { start, end, lease } = range;
    format!("{start}-{end}, leases of {}", time(*lease))
}

fn reservation(host: &Reservation4) -> String {
    let Reservation4 { mac, name, address, lease } = host;
    let whom: Vec<String> = mac.iter().map(ToString::to_string).chain(name.clone()).collect();
    let address = address.map_or_else(|| "a name".to_owned(), |address| address.to_string());
    let lease = lease.map(|lease| format!(", leases of {}", time(lease))).unwrap_or_default();
    format!("of {address} for {}{lease}", whom.join(" "))
}

fn reservation6(host: &Reservation6) -> String {
    let Reservation6 { duid, name, address, lease } = host;
    let duid = duid.iter().map(|duid| duid.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"));
    let whom: Vec<String> = duid.chain(name.clone()).collect();
    let address = address.map_or_else(|| "a name".to_owned(), |address| address.to_string());
    let lease = lease.map(|lease| format!(", leases of {}", time(lease))).unwrap_or_default();
    format!("of {address} for {}{lease}", whom.join(" "))
}

fn time(lease: LeaseTime) -> String {
    match lease {
        LeaseTime::Seconds(seconds) => format!("{seconds} s"),
        LeaseTime::Infinite => "no end".to_owned(),
    }
}
