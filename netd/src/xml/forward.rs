//! `<forward>`: reading and writing it.

use std::str::FromStr;

use super::{
    element::{Element, once},
    error::{Error, Problem},
    write::{Out, text, yes_no},
};
use crate::model::{BridgeName, Forward, Macvtap, MacvtapMode, Nat, printable};

/// What there is to say to whoever asks for a PCI device.
const NO_HOSTDEV: &str = "netd does not hand PCI devices (SR-IOV virtual functions) to guests; forward mode \
     'passthrough' gives a guest a network interface of the host for itself";

/// Reads `<forward>`.
pub(super) fn forward(element: Element<'_>) -> Result<Forward, Error> {
    element.attributes(&["mode", "dev", "managed"])?;
    let mode = element.get("mode").unwrap_or("nat");
    if mode == "hostdev" || element.get("managed").is_some() {
        return Err(element.error(Problem::Unsupported(NO_HOSTDEV.to_owned())));
    }
    let dev = element.get("dev").map(|dev| interface_name(element, dev)).transpose()?;
    let mut nat = None;
    let mut interfaces: Vec<(Element<'_>, String)> = Vec::new();
    for (name, child) in element.children(&["nat", "interface", "address", "pf", "driver"])? {
        match name {
            "nat" => once(&mut nat, child, (child, self::nat(child)?))?,
            "interface" => interfaces.push((child, interface(child)?)),
            _ => return Err(child.error(Problem::Unsupported(NO_HOSTDEV.to_owned()))),
        }
    }
    if mode != "nat"
        && let Some((child, _)) = nat
    {
        return Err(child.error(Problem::Together("only <forward mode='nat'> can have it")));
    }
    // `dev` is the first interface once more
    if let (Some(dev), Some((child, first))) = (&dev, interfaces.first())
        && dev != first
    {
        return Err(child.error(Problem::Together("the interface differs from the 'dev' of <forward>")));
    }
    let macvtap = |mode| macvtap(element, mode, &dev, &interfaces);
    let only_dev = || match interfaces.get(1) {
        Some((child, _)) => Err(child.error(Problem::Together("only networks of macvtap ports can have several"))),
        None => Ok(dev.clone().or_else(|| interfaces.first().map(|(_, name)| name.clone()))),
    };
    match mode {
        "nat" => Ok(Forward::Nat(Nat { dev: only_dev()?, ..nat.map(|(_, nat)| nat).unwrap_or_default() })),
        "route" => Ok(Forward::Route { dev: only_dev()? }),
        "open" | "none" if only_dev()?.is_some() => {
            Err(element.error(Problem::Together("the modes open and none cannot have a 'dev'")))
        }
        "open" => Ok(Forward::Open),
        "none" => Ok(Forward::Isolated),
        "bridge" if dev.is_none() && interfaces.is_empty() => Ok(Forward::Bridged),
        "bridge" => macvtap(MacvtapMode::Bridge),
        "private" => macvtap(MacvtapMode::Private),
        "vepa" => macvtap(MacvtapMode::Vepa),
        "passthrough" => macvtap(MacvtapMode::Passthrough),
        _ => Err(element.error(Problem::ForwardMode(printable(mode)))),
    }
}

fn macvtap(
    element: Element<'_>,
    mode: MacvtapMode,
    dev: &Option<String>,
    interfaces: &[(Element<'_>, String)],
) -> Result<Forward, Error> {
    let mut names: Vec<String> = Vec::new();
    for (child, name) in interfaces {
        if names.contains(name) {
            return Err(child.error(Problem::Repeated { what: "the interface", value: name.clone() }));
        }
        names.push(name.clone());
    }
    if names.is_empty() {
        names.extend(dev.clone());
    }
    if names.is_empty() {
        return Err(element.error(Problem::Missing("an <interface dev=…> of the host to put guests on")));
    }
    Ok(Forward::Macvtap(Macvtap { mode, interfaces: names }))
}

fn interface(element: Element<'_>) -> Result<String, Error> {
    // `connections` is how many guests are on it: live XML has it, and it means nothing in a definition.
    element.only(&["dev", "connections"])?;
    interface_name(element, element.need("dev", "the attribute 'dev'")?)
}

fn nat(element: Element<'_>) -> Result<Nat, Error> {
    element.attributes(&["ipv6"])?;
    let (mut addresses, mut ports) = (None, None);
    for (name, child) in element.children(&["address", "port"])? {
        child.only(&["start", "end"])?;
        let start = child.need("start", "the attribute 'start'")?;
        let end = child.need("end", "the attribute 'end'")?;
        if name == "address" {
            let (start, end) = (child.ipv4("start", start)?, child.ipv4("end", end)?);
            if start > end {
                return Err(child.error(Problem::ReversedRange(start.into(), end.into())));
            }
            once(&mut addresses, child, (start, end))?;
        } else {
            let port = |attribute, value| child.number(attribute, value, (1, u16::MAX), "a port between 1 and 65535");
            let (start, end) = (port("start", start)?, port("end", end)?);
            if start > end {
                return Err(child.error(Problem::Together("the first port is greater than the last")));
            }
            once(&mut ports, child, (start, end))?;
        }
    }
    Ok(Nat { dev: None, ipv6: element.yes_no("ipv6")?, addresses, ports })
}

/// What can be a network interface of the host, and can stand in a firewall rule.
fn interface_name(element: Element<'_>, name: &str) -> Result<String, Error> {
    Ok(BridgeName::from_str(name).map_err(|e| element.error(e))?.to_string())
}

/// Writes `<forward>`; nothing for an isolated network.
pub(super) fn write(out: &mut Out, forward: &Forward) {
    if *forward == Forward::Isolated {
        return;
    }
    let interfaces: Vec<&str> = match forward {
        Forward::Macvtap(macvtap) => macvtap.interfaces.iter().map(String::as_str).collect(),
        other => other.dev().into_iter().collect(),
    };
    let attributes = [("dev", text(interfaces.first())), ("mode", text(Some(forward.mode())))];
    let nat = match forward {
        Forward::Nat(nat) => {
            Some(nat).filter(|nat| nat.addresses.is_some() || nat.ports.is_some() || nat.ipv6.is_some())
        }
        _ => None,
    };
    if interfaces.is_empty() && nat.is_none() {
        return out.empty("forward", &attributes);
    }
    out.open("forward", &attributes);
    if let Some(nat) = nat {
        write_nat(out, nat);
    }
    for dev in interfaces {
        out.empty("interface", &[("dev", text(Some(dev)))]);
    }
    out.close("forward");
}

fn write_nat(out: &mut Out, nat: &Nat) {
    let attributes = [("ipv6", yes_no(nat.ipv6))];
    if nat.addresses.is_none() && nat.ports.is_none() {
        return out.empty("nat", &attributes);
    }
    out.open("nat", &attributes);
    if let Some((start, end)) = nat.addresses {
        out.empty("address", &[("start", text(Some(start))), ("end", text(Some(end)))]);
    }
    if let Some((start, end)) = nat.ports {
        out.empty("port", &[("start", text(Some(start))), ("end", text(Some(end)))]);
    }
    out.close("nat");
}
