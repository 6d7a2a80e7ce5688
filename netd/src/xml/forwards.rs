//! `<netd:forwards>`: port forwards, in a name space of our own. Reading and writing them.

use super::{
    element::Element,
    error::{Error, Problem},
    write::{Out, text},
};
use crate::model::{Forward, HostPort, PortForward, Ports, Subnet, Taken, Target, To, forward_address};

/// Reads `<netd:forwards>`; whether the forwards fit the network is checked when all of it is known.
pub(super) fn list<'a>(element: Element<'a>) -> Result<Vec<(Element<'a>, PortForward)>, Error> {
    element.attributes(&[])?;
    let mut forwards = Vec::new();
    for (_, child) in element.children(&["netd:forward"])? {
        forwards.push((child, forward(child)?));
    }
    Ok(forwards)
}

/// Each forward on a network of this mode with these subnets, and no port twice.
pub(super) fn check(
    forwards: Vec<(Element<'_>, PortForward)>,
    mode: &Forward,
    subnets: &[Subnet],
) -> Result<Vec<PortForward>, Error> {
    let mut taken = Taken::default();
    let mut checked = Vec::new();
    for (element, forward) in forwards {
        forward.fits(mode, subnets).map_err(|cause| element.error(cause))?;
        if let Some(port) = taken.insert(forward.at()) {
            return Err(element.error(Problem::Repeated { what: "the port", value: port.to_string() }));
        }
        checked.push(forward);
    }
    Ok(checked)
}

fn forward(element: Element<'_>) -> Result<PortForward, Error> {
    element.attributes(&["proto", "port", "address"])?;
    let at = HostPort {
        protocol: element
            .need("proto", "the attribute 'proto'")?
            .parse()
            .map_err(|cause: crate::model::ForwardError| element.error(cause))?,
        ports: ports(element, element.need("port", "the attribute 'port'")?)?,
        address: element
            .get("address")
            .map(|address| forward_address(address).map_err(|cause| element.error(cause)))
            .transpose()?,
    };
    let mut targets = Vec::new();
    for (_, child) in element.children(&["netd:to"])? {
        targets.push(target(child, at.ports)?);
    }
    PortForward::new(at, targets).map_err(|cause| element.error(cause))
}

fn target(element: Element<'_>, host: Ports) -> Result<Target, Error> {
    element.only(&["guest", "ip", "port"])?;
    let to = match (element.get("guest"), element.get("ip")) {
        (Some(guest), None) => To::Guest(guest.to_owned()),
        (None, Some(ip)) => To::Address(forward_address(ip).map_err(|cause| element.error(cause))?),
        (None, None) => return Err(element.error(Problem::Missing("a 'guest' or an 'ip'"))),
        (Some(_), Some(_)) => {
            return Err(element.error(Problem::Together("it can have a 'guest' or an 'ip', not both")));
        }
    };
    let ports = element.get("port").map_or(Ok(host), |port| ports(element, port))?;
    Ok(Target { to, port: ports.first_for(host).map_err(|cause| element.error(cause))? })
}

fn ports(element: Element<'_>, text: &str) -> Result<Ports, Error> {
    text.parse().map_err(|cause: crate::model::ForwardError| element.error(cause))
}

/// Writes them; nothing if there are none.
pub(super) fn write(out: &mut Out, forwards: &[PortForward]) {
    if forwards.is_empty() {
        return;
    }
    out.open("netd:forwards", &[]);
    for forward in forwards {
        let at = forward.at();
        let attributes =
            [("proto", text(Some(at.protocol))), ("port", text(Some(at.ports))), ("address", text(at.address))];
        out.open("netd:forward", &attributes);
        for target in forward.targets() {
            let (guest, ip) = match &target.to {
                To::Guest(name) => (Some(name.clone()), None),
                To::Address(address) => (None, Some(address.to_string())),
            };
            out.empty("netd:to", &[("guest", guest), ("ip", ip), ("port", Some(target.ports(at.ports)))]);
        }
        out.close("netd:forward");
    }
    out.close("netd:forwards");
}
