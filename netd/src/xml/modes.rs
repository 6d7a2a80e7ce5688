//! Which elements go with which forward mode.

use super::{
    element::Element,
    error::{Error, Problem},
};
use crate::model::{Bridge, Forward, MacvtapMode, PortGroup};

const NOT_OURS: &str = "its guests are on a network of somebody else, where netd has no address and serves nothing";

/// What a bridge of the host keeps as it is.
const ITS_OWN: &str = "the bridge is the host's and stays as it is";

/// Checks the elements of a network, by name, against its mode.
pub(super) fn check(
    root: Element<'_>,
    children: &[(&'static str, Element<'_>)],
    forward: &Forward,
    bridge: &Bridge,
    groups: &[(Element<'_>, PortGroup)],
) -> Result<(), Error> {
    let first = |name: &str| children.iter().find(|(known, _)| *known == name).map(|(_, element)| *element);
    let refuse = |names: &[&str], why| match children.iter().find(|(name, _)| names.contains(name)) {
        Some((_, element)) => Err(element.error(Problem::Mode { mode: forward.mode(), why })),
        None => Ok(()),
    };
    if !forward.has_own_bridge() {
        refuse(
            &["ip", "route", "dns", "domain", "dnsmasq:options", "netd:forwards", "netd:guests", "netd:host-access"],
            NOT_OURS,
        )?;
        refuse(&["mac", "mtu"], "the bridge or interface is the host's and keeps its own")?;
        if root.get("ipv6").is_some() {
            return Err(root.error(Problem::Together("only networks with a bridge of their own can have 'ipv6'")));
        }
    }
    let passthrough = matches!(forward, Forward::Macvtap(macvtap) if macvtap.mode == MacvtapMode::Passthrough);
    if *forward != Forward::Bridged && !passthrough {
        let why = "VLANs are for the modes bridge, with a bridge of the host, and passthrough";
        refuse(&["vlan"], why)?;
        if let Some((element, _)) = groups.iter().find(|(_, group)| group.vlan.is_some()) {
            return Err(element.error(Problem::Together(why)));
        }
    }
    match forward {
        Forward::Isolated | Forward::Nat(_) | Forward::Route { .. } | Forward::Open => Ok(()),
        Forward::Bridged => {
            let missing = "a <bridge name=…>, a bridge that the host has, or an <interface dev=…>";
            let Some(element) = first("bridge").filter(|_| bridge.name.is_some()) else {
                return Err(first("forward").unwrap_or(root).error(Problem::Missing(missing)));
            };
            match ["stp", "delay", "zone"].into_iter().find(|attribute| element.get(attribute).is_some()) {
                Some(_) => Err(element.error(Problem::Mode { mode: "bridge", why: ITS_OWN })),
                None => Ok(()),
            }
        }
        Forward::Macvtap(_) => {
            refuse(&["bridge"], "guests are on interfaces of the host, not on a bridge")?;
            refuse(&["bandwidth"], "guests share no device whose bandwidth could be set; port groups can have it")?;
            refuse(&["port"], "guests share no bridge on which they could be isolated; mode 'private' does that")
        }
    }
}
