//! `<bridge>`, `<vlan>`, `<bandwidth>` and `<portgroup>`: reading and writing them.

use std::{collections::HashSet, str::FromStr};

use super::{
    element::{Element, once},
    error::{Error, Problem},
    write::{Out, text, yes_no},
};
use crate::model::{
    Bandwidth, Bridge, BridgeName, BridgeTemplate, Forward, MacTableManager, NativeMode, PortGroup, Rate, Vlan,
    VlanTag, printable,
};

/// Reads `<bridge>`; what of it the forward mode allows is for `modes`.
pub(super) fn bridge(element: Element<'_>) -> Result<Bridge, Error> {
    element.only(&["name", "stp", "delay", "zone", "macTableManager"])?;
    let (mut name, mut template) = (None, None);
    match element.get("name") {
        // libvirt takes an empty name and its own pattern for "choose one"
        None | Some("" | "virbr%d") => {}
        Some(text) if BridgeTemplate::is_one(text) => {
            template = Some(BridgeTemplate::from_str(text).map_err(|e| element.error(e))?);
        }
        Some(text) => name = Some(BridgeName::from_str(text).map_err(|e| element.error(e))?),
    }
    let delay = element.get("delay").map(|delay| element.number("delay", delay, (0, 30), "0 to 30 seconds"));
    let mac_table = element.switch("macTableManager", ("libvirt", "kernel"), "kernel or libvirt")?;
    Ok(Bridge {
        name,
        template,
        stp: element.switch("stp", ("on", "off"), "on or off")?.unwrap_or(false),
        delay: delay.transpose()?.unwrap_or(0),
        zone: element.get("zone").map(|zone| self::zone(element, zone)).transpose()?,
        mac_table: mac_table.map(|ours| if ours { MacTableManager::Static } else { MacTableManager::Kernel }),
    })
}

fn zone(element: Element<'_>, zone: &str) -> Result<String, Error> {
    // firewalld's own bound is 17 characters; a zone that is not there is for it to refuse
    if zone.is_empty() || zone.len() > 255 || zone.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(element.bad("zone", zone, "the name of a firewalld zone"));
    }
    Ok(zone.to_owned())
}

/// Reads `<vlan>`.
pub(super) fn vlan(element: Element<'_>) -> Result<Vlan, Error> {
    element.attributes(&["trunk"])?;
    let trunk = element.yes_no("trunk")?;
    let (mut tags, mut seen) = (Vec::<VlanTag>::new(), HashSet::new());
    for (_, child) in element.children(&["tag"])? {
        let tag = vlan_tag(child)?;
        if !seen.insert(tag.id) {
            return Err(child.error(Problem::Repeated { what: "the VLAN", value: tag.id.to_string() }));
        }
        if tag.native.is_some() && tags.iter().any(|other| other.native.is_some()) {
            return Err(child.error(Problem::Together("only one VLAN can be the native one")));
        }
        tags.push(tag);
    }
    if tags.is_empty() {
        return Err(element.error(Problem::Missing("a <tag>")));
    }
    let needs_trunk = tags.len() > 1 || tags.iter().any(|tag| tag.native.is_some());
    if needs_trunk && trunk == Some(false) {
        return Err(element.error(Problem::Together("several tags, or a native one, need trunk='yes'")));
    }
    Ok(Vlan { trunk: needs_trunk || trunk == Some(true), tags })
}

fn vlan_tag(element: Element<'_>) -> Result<VlanTag, Error> {
    element.only(&["id", "nativeMode"])?;
    let id = element.need("id", "the attribute 'id'")?;
    // 0 and 4095 are no VLANs (IEEE 802.1Q-2018 table 9-2)
    let id = element.number("id", id, (1, 4094), "a VLAN ID between 1 and 4094")?;
    let native = element.switch("nativeMode", ("tagged", "untagged"), "tagged or untagged")?;
    Ok(VlanTag { id, native: native.map(|tagged| if tagged { NativeMode::Tagged } else { NativeMode::Untagged }) })
}

/// Reads `<bandwidth>`, of the network or of the ports of a group.
pub(super) fn bandwidth(element: Element<'_>, of_ports: bool) -> Result<Bandwidth, Error> {
    element.attributes(&[])?;
    let mut bandwidth = Bandwidth::default();
    for (name, child) in element.children(&["inbound", "outbound"])? {
        let rate = rate(child)?;
        if name == "outbound" {
            if rate.floor.is_some() {
                return Err(child.error(Problem::Together("only <inbound> can have a 'floor'")));
            }
            once(&mut bandwidth.outbound, child, rate)?;
        } else {
            if rate.floor.is_some() && !of_ports {
                let problem = Problem::Together("a 'floor' is for ports, so only a port group can have it");
                return Err(child.error(problem));
            }
            once(&mut bandwidth.inbound, child, rate)?;
        }
    }
    Ok(bandwidth)
}

fn rate(element: Element<'_>) -> Result<Rate, Error> {
    element.only(&["average", "peak", "burst", "floor"])?;
    let number = |attribute: &str, expected| {
        element.get(attribute).map(|value| element.number(attribute, value, (1, u32::MAX), expected)).transpose()
    };
    let rate = Rate {
        average: number("average", "a number of kB/s from 1 to 4294967295")?,
        peak: number("peak", "a number of kB/s from 1 to 4294967295")?,
        burst: number("burst", "a number of KiB from 1 to 4294967295")?,
        floor: number("floor", "a number of kB/s from 1 to 4294967295")?,
    };
    match rate.average {
        None if rate.floor.is_none() => Err(element.error(Problem::Missing("the attribute 'average'"))),
        None if rate.peak.is_some() || rate.burst.is_some() => {
            Err(element.error(Problem::Together("'peak' and 'burst' need an 'average'")))
        }
        _ => Ok(rate),
    }
}

/// Reads `<portgroup>`.
pub(super) fn port_group(element: Element<'_>) -> Result<PortGroup, Error> {
    element.attributes(&["name", "default", "trustGuestRxFilters"])?;
    let name = element.need("name", "the attribute 'name'")?;
    if name.is_empty() || name.len() > 250 || name.chars().any(char::is_control) {
        return Err(element.bad("name", name, "1 to 250 printable characters"));
    }
    let (mut vlan, mut bandwidth) = (None, None);
    for (kind, child) in element.children(&["vlan", "bandwidth", "virtualport"])? {
        match kind {
            "vlan" => once(&mut vlan, child, self::vlan(child)?)?,
            "bandwidth" => once(&mut bandwidth, child, self::bandwidth(child, true)?)?,
            _ => return Err(no_virtualport(child)),
        }
    }
    Ok(PortGroup {
        name: name.to_owned(),
        default: element.yes_no("default")?,
        trust_guest_rx_filters: element.yes_no("trustGuestRxFilters")?,
        vlan,
        bandwidth,
    })
}

/// Port groups that get along with each other.
pub(super) fn check_port_groups(groups: &[(Element<'_>, PortGroup)]) -> Result<(), Error> {
    let (mut names, mut default) = (HashSet::new(), false);
    for (element, group) in groups {
        if !names.insert(&group.name) {
            let value = printable(&group.name);
            return Err(element.error(Problem::Repeated { what: "the port group", value }));
        }
        if group.default == Some(true) && std::mem::replace(&mut default, true) {
            return Err(element.error(Problem::Together("another port group is the default already")));
        }
    }
    Ok(())
}

/// What there is to say to whoever asks for a virtual switch's port profile.
pub(super) fn no_virtualport(element: Element<'_>) -> Error {
    let what = match element.get("type") {
        Some("openvswitch") => "type 'openvswitch' needs Open vSwitch, which netd does not use".to_owned(),
        Some("midonet") => "type 'midonet' needs MidoNet, which netd does not use".to_owned(),
        Some(kind @ ("802.1Qbg" | "802.1Qbh")) => {
            format!("type '{kind}' needs a switch that netd would have to negotiate with, which it does not")
        }
        Some(other) => {
            let expected = "openvswitch, midonet, 802.1Qbg or 802.1Qbh; and netd has none of them";
            return element.bad("type", other, expected);
        }
        None => "netd has no port profiles of virtual switches".to_owned(),
    };
    element.error(Problem::Unsupported(what))
}

/// Writes `<bridge>`: of a bridge that is the host's only the name, and none where there is no bridge.
pub(super) fn write_bridge(out: &mut Out, bridge: &Bridge, forward: &Forward) {
    let name = text(bridge.name.as_ref()).or_else(|| text(bridge.template.as_ref()));
    let mac_table = bridge.mac_table.map(|manager| match manager {
        MacTableManager::Kernel => "kernel".to_owned(),
        MacTableManager::Static => "libvirt".to_owned(),
    });
    match forward {
        Forward::Macvtap(_) => {}
        Forward::Bridged => out.empty("bridge", &[("name", name), ("macTableManager", mac_table)]),
        _ => out.empty(
            "bridge",
            &[
                ("name", name),
                ("zone", bridge.zone.clone()),
                ("stp", Some(if bridge.stp { "on" } else { "off" }.to_owned())),
                ("delay", text(Some(bridge.delay))),
                ("macTableManager", mac_table),
            ],
        ),
    }
}

/// Writes `<vlan>`.
pub(super) fn write_vlan(out: &mut Out, vlan: &Vlan) {
    out.open("vlan", &[("trunk", yes_no(vlan.trunk.then_some(true)))]);
    for tag in &vlan.tags {
        let native = tag.native.map(|native| match native {
            NativeMode::Tagged => "tagged".to_owned(),
            NativeMode::Untagged => "untagged".to_owned(),
        });
        out.empty("tag", &[("id", text(Some(tag.id))), ("nativeMode", native)]);
    }
    out.close("vlan");
}

/// Writes `<bandwidth>`.
pub(super) fn write_bandwidth(out: &mut Out, bandwidth: &Bandwidth) {
    let rates = [("inbound", bandwidth.inbound), ("outbound", bandwidth.outbound)];
    if rates.iter().all(|(_, rate)| rate.is_none()) {
        return out.empty("bandwidth", &[]);
    }
    out.open("bandwidth", &[]);
    for (name, rate) in rates {
        if let Some(rate) = rate {
            out.empty(
                name,
                &[
                    ("average", text(rate.average)),
                    ("peak", text(rate.peak)),
                    ("burst", text(rate.burst)),
                    ("floor", text(rate.floor)),
                ],
            );
        }
    }
    out.close("bandwidth");
}

/// Writes `<portgroup>`.
pub(super) fn write_port_group(out: &mut Out, group: &PortGroup) {
    let attributes = [
        ("name", Some(group.name.clone())),
        ("default", yes_no(group.default)),
        ("trustGuestRxFilters", yes_no(group.trust_guest_rx_filters)),
    ];
    // Of an element with nothing in it libvirt writes both tags too.
    out.open("portgroup", &attributes);
    if let Some(vlan) = &group.vlan {
        write_vlan(out, vlan);
    }
    if let Some(bandwidth) = &group.bandwidth {
        write_bandwidth(out, bandwidth);
    }
    out.close("portgroup");
}
