//! `<netd:guests>` and `<netd:host-access>`: what guests may do with each other and with the host, in a name space of our
//! own. Reading and writing them.

use super::{
    element::Element,
    error::{Error, Problem},
    write::{Out, yes_no},
};
use crate::model::{ForwardError, HostService, Policy, Ports};

/// Reads `<netd:guests>`.
pub(super) fn guests(element: Element<'_>) -> Result<Option<bool>, Error> {
    element.only(&["talk"])?;
    element.need("talk", "the attribute 'talk'")?;
    element.yes_no("talk")
}

/// Reads `<netd:host-access>`; one without children allows nothing but what is always allowed.
pub(super) fn host_access(element: Element<'_>) -> Result<Vec<HostService>, Error> {
    element.attributes(&[])?;
    let mut services = Vec::new();
    for (_, child) in element.children(&["netd:allow"])? {
        let service = allow(child)?;
        if services.contains(&service) {
            return Err(child.error(Problem::Repeated { what: "the service", value: service.to_string() }));
        }
        services.push(service);
    }
    Ok(services)
}

fn allow(element: Element<'_>) -> Result<HostService, Error> {
    element.only(&["protocol", "port"])?;
    let ports = || -> Result<Ports, Error> {
        let port = element.need("port", "the attribute 'port'")?;
        port.parse().map_err(|cause: ForwardError| element.error(cause))
    };
    match element.need("protocol", "the attribute 'protocol'")? {
        "tcp" => Ok(HostService::Tcp(ports()?)),
        "udp" => Ok(HostService::Udp(ports()?)),
        "icmp" if element.get("port").is_some() => Err(element.error(Problem::Together("icmp has no ports"))),
        "icmp" => Ok(HostService::Icmp),
        other => Err(element.bad("protocol", other, "tcp, udp or icmp")),
    }
}

/// Writes them; nothing of what was not written.
pub(super) fn write(out: &mut Out, policy: &Policy) {
    if let Some(talk) = policy.guests_talk {
        out.empty("netd:guests", &[("talk", yes_no(Some(talk)))]);
    }
    let Some(services) = &policy.host_access else { return };
    if services.is_empty() {
        return out.empty("netd:host-access", &[]);
    }
    out.open("netd:host-access", &[]);
    for service in services {
        let (protocol, port) = match service {
            HostService::Tcp(ports) => ("tcp", Some(ports.to_string())),
            HostService::Udp(ports) => ("udp", Some(ports.to_string())),
            HostService::Icmp => ("icmp", None),
        };
        out.empty("netd:allow", &[("protocol", Some(protocol.to_owned())), ("port", port)]);
    }
    out.close("netd:host-access");
}
