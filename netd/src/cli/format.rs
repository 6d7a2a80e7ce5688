//! Results as virsh prints them. Pure: values in, text out.

use netd_api::{Address, Dropped, Forward, ForwardTarget, Lease, Network, Port, PortInfo, Protocol};

use super::{args::NetListArgs, table::table};

/// The networks that the flags of `net-list` choose, in virsh's order.
pub(super) fn choose(networks: Vec<Network>, args: NetListArgs) -> Vec<Network> {
    let either = |wanted: bool, unwanted: bool, is: bool| wanted == unwanted || is == wanted;
    let mut chosen: Vec<Network> = networks
        .into_iter()
        .filter(|n| args.all || n.active != args.inactive)
        .filter(|n| either(args.persistent, args.transient, n.persistent))
        .filter(|n| either(args.autostart, args.no_autostart, n.autostart))
        .collect();
    chosen.sort_by_cached_key(|n| n.name.to_lowercase());
    chosen
}

/// `net-list`.
pub(super) fn network_list(networks: &[Network], args: NetListArgs) -> String {
    if args.name {
        return networks.iter().map(|n| format!("{}\n", n.name)).collect();
    }
    if args.uuid {
        return networks.iter().map(|n| format!("{}\n", n.uuid)).collect();
    }
    let row = |n: &Network| {
        let state = if n.active { "active" } else { "inactive" };
        [n.name.clone(), state.to_owned(), yes_no(n.autostart), yes_no(n.persistent)]
    };
    if args.title {
        let with_title = |n: &Network| {
            let [name, state, autostart, persistent] = row(n);
            [name, state, autostart, persistent, n.title.clone().unwrap_or_default()]
        };
        let rows: Vec<_> = networks.iter().map(with_title).collect();
        return table(["Name", "State", "Autostart", "Persistent", "Title"], &rows);
    }
    let rows: Vec<_> = networks.iter().map(row).collect();
    table(["Name", "State", "Autostart", "Persistent"], &rows)
}

/// `net-info`.
pub(super) fn network_info(network: &Network) -> String {
    let mut lines = vec![
        ("Name:", network.name.clone()),
        ("UUID:", network.uuid.clone()),
        ("Active:", yes_no(network.active)),
        ("Persistent:", yes_no(network.persistent)),
        ("Autostart:", yes_no(network.autostart)),
    ];
    if let Some(bridge) = &network.bridge {
        lines.push(("Bridge:", bridge.clone()));
    }
    lines.into_iter().map(|(label, value)| format!("{label:<15} {value}\n")).collect()
}

/// `net-dhcp-leases`; `local_time` writes seconds since the epoch as the user's clock shows them.
pub(super) fn leases(leases: &[Lease], local_time: impl Fn(i64) -> String) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<_> = leases
        .iter()
        .map(|lease| {
            [
                if lease.expiry == 0 { "never".to_owned() } else { local_time(lease.expiry) },
                lease.mac.clone(),
                lease.protocol.clone(),
                format!("{}/{}", lease.address, lease.prefix),
                or_dash(&lease.hostname),
                or_dash(&lease.client_id),
            ]
        })
        .collect();
    table(["Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID"], &rows)
}

/// `domifaddr`: fixed columns, unlike virsh's other tables; with `origins` two more that virsh has not.
pub(super) fn addresses(addresses: &[Address], full: bool, origins: bool) -> String {
    let header = format!(" {:<10} {:<20} {:<8}     {}", "Name", "MAC address", "Protocol", "Address");
    let mut text = if origins {
        format!("{header:<80} {:<10} Seen\n{}\n", "Source", "-".repeat(104))
    } else {
        format!("{header}\n{}\n", "-".repeat(79))
    };
    let mut previous = None;
    for address in addresses {
        let repeated = previous == Some(&address.interface) && !full;
        let (name, mac) = if repeated { ("-", "-") } else { (address.interface.as_str(), address.mac.as_str()) };
        let place = format!("{}/{}", address.address, address.prefix);
        let line = format!(" {name:<10} {mac:<17}    {:<12} {place}", address.protocol);
        if origins {
            let seen = address.age_seconds.map_or("-".to_owned(), |age| format!("{age} s ago"));
            text.push_str(&format!("{line:<80} {:<10} {seen}\n", address.source.name()));
        } else {
            text.push_str(&format!("{line}\n"));
        }
        previous = Some(&address.interface);
    }
    text
}

/// `port-list`.
pub(super) fn port_list(ports: &[Port]) -> String {
    let rows: Vec<_> = ports
        .iter()
        .map(|port| {
            [
                port.interface.clone(),
                port.network.clone(),
                port.guest.clone().unwrap_or_else(|| "-".to_owned()),
                port.mac.clone(),
                port.mtu.to_string(),
                port.queues.to_string(),
            ]
        })
        .collect();
    table(["Interface", "Network", "Guest", "MAC address", "MTU", "Queues"], &rows)
}

/// `port-info`: an empty line between two ports.
pub(super) fn port_infos(ports: &[PortInfo]) -> String {
    ports.iter().map(port_info).collect::<Vec<_>>().join("\n")
}

fn port_info(info: &PortInfo) -> String {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let port = &info.port;
    let mut lines = vec![
        ("Interface:", port.interface.clone()),
        ("Network:", port.network.clone()),
        ("Guest:", or_dash(port.guest.clone().unwrap_or_default())),
        ("MAC address:", port.mac.clone()),
        ("Leased:", or_dash(info.addresses.join(", "))),
        ("Isolated:", yes_no(info.isolated)),
        ("Guards:", guards(info).to_owned()),
    ];
    if let Some(group) = &info.portgroup {
        lines.push(("Port group:", group.clone()));
    }
    if let Some(interface) = &info.macvtap {
        lines.push(("Macvtap on:", interface.clone()));
    }
    if let Some(Dropped { mac, vlan, arp, ip, nd, dhcp, ra }) = info.dropped {
        lines.push(("Dropped:", format!("MAC {mac}, VLAN {vlan}, ARP {arp}, IP {ip}, ND {nd}, DHCP {dhcp}, RA {ra}")));
    }
    lines.into_iter().map(|(label, value)| format!("{label:<15} {value}\n")).collect()
}

fn guards(info: &PortInfo) -> &'static str {
    match (info.guards, &info.macvtap) {
        (true, _) => "on",
        (false, None) => "off",
        // A macvtap passes no bridge, and so none of our rules.
        (false, Some(_)) => "none; the kernel sends the port only what is for its MAC, and checks nothing it says",
    }
}

/// `forward-list`: a line per target.
pub(super) fn forwards(forwards: &[Forward]) -> String {
    let mut rows = Vec::new();
    for forward in forwards {
        let protocol = match forward.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        for target in &forward.targets {
            let leads_to = target.address.clone().unwrap_or_else(|| "-".to_owned());
            rows.push([
                forward.network.clone(),
                format!("{protocol}/{}", ports(forward.first_port, forward.last_port)),
                forward.address.clone().unwrap_or_else(|| "any".to_owned()),
                self::target(forward, target),
                leads_to,
            ]);
        }
    }
    table(["Network", "Host port", "Host address", "Target", "Leads to"], &rows)
}

/// A target and its ports: `vm1:22`.
pub(super) fn target(forward: &Forward, target: &ForwardTarget) -> String {
    let whom = match (&target.guest, &target.address) {
        (Some(guest), _) => guest.clone(),
        (None, Some(address)) if address.contains(':') => format!("[{address}]"),
        (None, address) => address.clone().unwrap_or_else(|| "-".to_owned()),
    };
    let last = target.port.saturating_add(forward.last_port.saturating_sub(forward.first_port));
    format!("{whom}:{}", ports(target.port, last))
}

fn ports(first: u32, last: u32) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
