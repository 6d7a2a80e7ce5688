//! `<dhcp>` with its ranges, reservations and `<bootp>`: reading and writing them.

use std::{collections::HashSet, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{
    dns::domain_name,
    element::{Element, once},
    error::{Error, Problem},
    ip::Disjoint,
    write::{Attribute, Out, text},
};
use crate::model::{Bootp, Dhcp, DhcpHost, DhcpRange, LeaseTime, LeaseUnit, MacAddr};

/// Reads `<dhcp>` of a subnet.
pub(super) fn dhcp(element: Element<'_>, subnet: IpNet) -> Result<Dhcp, Error> {
    element.attributes(&[])?;
    let (mut dhcp, mut taken, mut seen) = (Dhcp::default(), Disjoint::default(), HashSet::new());
    for (name, child) in element.children(&["range", "host", "bootp"])? {
        match name {
            "range" => {
                let range = self::range(child, subnet)?;
                if let Err((start, end)) = taken.insert(range.start, range.end) {
                    return Err(child.error(Problem::RangesOverlap(range.start, range.end, start, end)));
                }
                dhcp.ranges.push(range);
            }
            "host" => {
                let host = self::host(child, subnet)?;
                check_repeated(child, &host, &mut seen)?;
                dhcp.hosts.push(host);
            }
            _ => once(&mut dhcp.bootp, child, bootp(child, subnet)?)?,
        }
    }
    Ok(dhcp)
}

fn range(element: Element<'_>, subnet: IpNet) -> Result<DhcpRange, Error> {
    element.attributes(&["start", "end"])?;
    let address = |attribute, missing| element.ip_like(attribute, element.need(attribute, missing)?, subnet.addr());
    let start = address("start", "the attribute 'start'")?;
    let end = address("end", "the attribute 'end'")?;
    if start > end {
        return Err(element.error(Problem::ReversedRange(start, end)));
    }
    if !subnet.contains(&start) || !subnet.contains(&end) {
        return Err(element.error(Problem::RangeOutside(start, end, subnet.trunc())));
    }
    // The host's own address may be inside, as in many of libvirt's files: the server never gives it out.
    let higher = "start the range one higher";
    let not_for_guests = match subnet {
        IpNet::V4(_) => [
            Some((subnet.network(), "the network address", higher)),
            Some((subnet.broadcast(), "the broadcast address", "end the range one lower")),
        ],
        IpNet::V6(_) => {
            let anycast = "the subnet-router anycast address (RFC 4291 §2.6.1)";
            [(subnet.prefix_len() < 127).then(|| (subnet.network(), anycast, higher)), None]
        }
    };
    for (address, role, hint) in not_for_guests.into_iter().flatten() {
        if (start..=end).contains(&address) {
            let hint = hint.to_owned();
            return Err(element.error(Problem::RangeContains { start, end, address, role, hint }));
        }
    }
    Ok(DhcpRange { start, end, lease: lease_child(element)? })
}

fn host(element: Element<'_>, subnet: IpNet) -> Result<DhcpHost, Error> {
    let is_v4 = subnet.addr().is_ipv4();
    element.attributes(&["mac", "id", "name", "ip"])?;
    match (element.get("mac"), element.get("id")) {
        (Some(_), _) if !is_v4 => {
            return Err(element.error(Problem::Together("a guest has no 'mac' for DHCPv6: know it by 'id' or 'name'")));
        }
        (_, Some(_)) if is_v4 => {
            return Err(element.error(Problem::Together("an 'id' is for IPv6: know the guest by 'mac' or 'name'")));
        }
        _ => {}
    }
    let mac = element.get("mac").map(|mac| MacAddr::from_str(mac).map_err(|e| element.error(e))).transpose()?;
    let id = element.get("id").map(|id| duid(element, id)).transpose()?;
    let name = element.get("name").map(|name| domain_name(element, "name", name)).transpose()?;
    let ip = element.get("ip").map(|ip| element.ip_like("ip", ip, subnet.addr())).transpose()?;
    match (mac.is_some() || id.is_some(), &name, ip) {
        (false, None, _) if is_v4 => {
            return Err(element.error(Problem::Missing("a 'mac' or a 'name' to know the guest by")));
        }
        (false, None, _) => return Err(element.error(Problem::Missing("an 'id' or a 'name' to know the guest by"))),
        (true, None, None) | (false, Some(_), None) => return Err(element.error(Problem::Missing("an 'ip'"))),
        _ => {}
    }
    if let Some(address) = ip {
        check_reservation(element, subnet, address)?;
    }
    Ok(DhcpHost { mac, id, name, ip, lease: lease_child(element)? })
}

fn check_reservation(element: Element<'_>, subnet: IpNet, address: IpAddr) -> Result<(), Error> {
    let why = if !subnet.contains(&address) {
        "is not in"
    } else if address == subnet.addr() {
        "is the host's own in"
    } else if address == subnet.network() && address.is_ipv4() {
        "is the network address of"
    } else if address == subnet.network() && subnet.prefix_len() < 127 {
        "is the subnet-router anycast address of"
    } else if address == subnet.broadcast() && address.is_ipv4() {
        "is the broadcast address of"
    } else {
        return Ok(());
    };
    Err(element.error(Problem::Reservation { address, why, subnet: subnet.trunc() }))
}

/// A DUID as bytes in hex with colons between: 2 of type and up to 128 more (RFC 8415 §11.1).
fn duid(element: Element<'_>, id: &str) -> Result<String, Error> {
    let bytes: Vec<&str> = id.split(':').collect();
    let is_byte = |byte: &&str| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit());
    if !(3..=130).contains(&bytes.len()) || !bytes.iter().all(is_byte) {
        return Err(element.bad("id", id, "a DUID like 00:03:00:01:52:54:00:12:34:56"));
    }
    Ok(id.to_owned())
}

/// One guest, one reservation; one address, one guest.
fn check_repeated(
    element: Element<'_>,
    host: &DhcpHost,
    seen: &mut HashSet<(&'static str, String)>,
) -> Result<(), Error> {
    let keys = [
        host.mac.map(|mac| ("the MAC address", mac.to_string())),
        host.id.as_ref().map(|id| ("the DUID", id.to_ascii_lowercase())),
        host.ip.map(|ip| ("the address", ip.to_string())),
        host.name.as_ref().map(|name| ("the host name", name.to_ascii_lowercase())),
    ];
    for (what, value) in keys.into_iter().flatten() {
        if !seen.insert((what, value.clone())) {
            return Err(element.error(Problem::Repeated { what, value }));
        }
    }
    Ok(())
}

fn bootp(element: Element<'_>, subnet: IpNet) -> Result<Bootp, Error> {
    element.only(&["file", "server"])?;
    if subnet.addr().is_ipv6() {
        return Err(element.error(Problem::Together("BOOTP is for IPv4 only")));
    }
    let file = element.need("file", "the attribute 'file'")?;
    if file.is_empty() {
        return Err(element.bad("file", file, "the name of a file"));
    }
    let server = element.get("server").map(|server| element.ipv4("server", server)).transpose()?.map(IpAddr::V4);
    Ok(Bootp { file: file.to_owned(), server })
}

fn lease_child(element: Element<'_>) -> Result<Option<LeaseTime>, Error> {
    let mut lease = None;
    for (_, child) in element.children(&["lease"])? {
        once(&mut lease, child, self::lease(child)?)?;
    }
    Ok(lease)
}

fn lease(element: Element<'_>) -> Result<LeaseTime, Error> {
    element.only(&["expiry", "unit"])?;
    let expiry = element.need("expiry", "the attribute 'expiry'")?;
    let expiry = element.number("expiry", expiry, (0, u32::MAX), "a number")?;
    let (unit, seconds) = match element.get("unit") {
        None | Some("minutes") => (LeaseUnit::Minutes, 60),
        Some("seconds") => (LeaseUnit::Seconds, 1),
        Some("hours") => (LeaseUnit::Hours, 3600),
        Some(other) => return Err(element.bad("unit", other, "seconds, minutes or hours")),
    };
    match u64::from(expiry) * seconds {
        0 => {}
        short @ 1..120 => return Err(element.error(Problem::ShortLease(short))),
        long if long >= u64::from(u32::MAX) => return Err(element.error(Problem::LongLease(long))),
        _ => {}
    }
    // 0 has no unit
    Ok(LeaseTime { expiry, unit: if expiry == 0 { LeaseUnit::default() } else { unit } })
}

/// Writes `<dhcp>`.
pub(super) fn write(out: &mut Out, dhcp: &Dhcp) {
    if *dhcp == Dhcp::default() {
        return out.empty("dhcp", &[]);
    }
    out.open("dhcp", &[]);
    for range in &dhcp.ranges {
        let attributes = [("start", text(Some(range.start))), ("end", text(Some(range.end)))];
        with_lease(out, "range", &attributes, range.lease);
    }
    for host in &dhcp.hosts {
        let attributes =
            [("id", host.id.clone()), ("mac", text(host.mac)), ("name", host.name.clone()), ("ip", text(host.ip))];
        with_lease(out, "host", &attributes, host.lease);
    }
    if let Some(bootp) = &dhcp.bootp {
        out.empty("bootp", &[("file", Some(bootp.file.clone())), ("server", text(bootp.server))]);
    }
    out.close("dhcp");
}

fn with_lease(out: &mut Out, name: &str, attributes: &[Attribute<'_>], lease: Option<LeaseTime>) {
    let Some(lease) = lease else { return out.empty(name, attributes) };
    let unit = match lease.unit {
        LeaseUnit::Seconds => "seconds",
        LeaseUnit::Minutes => "minutes",
        LeaseUnit::Hours => "hours",
    };
    // 0 has no unit
    let unit = (lease.expiry != 0).then(|| unit.to_owned());
    out.open(name, attributes);
    out.empty("lease", &[("expiry", text(Some(lease.expiry))), ("unit", unit)]);
    out.close(name);
}
