//! The verbs on port forwards: words to values, ask the daemon, say it in virsh's way.

use std::{path::Path, str::FromStr};

use netd_api::{Forward, ForwardReply, ForwardTarget, calls::DeleteForward};
use serde_json::json;

use super::{
    Output,
    args::{ForwardAddArgs, ForwardDeleteArgs, ForwardListArgs},
    connect::{connect, connect_to_read},
    failure::{About, Failure},
    format,
};
use crate::model::{ForwardError, Ports, Protocol, forward_address};

/// `tcp/2222`, `udp/5000-5010`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPorts {
    protocol: Protocol,
    ports: Ports,
}

impl FromStr for HostPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, ports) = text.split_once('/').ok_or("write it as tcp/2222 or udp/5000-5010")?;
        let wrong = |cause: ForwardError| cause.to_string();
        Ok(HostPorts { protocol: protocol.parse().map_err(wrong)?, ports: ports.parse().map_err(wrong)? })
    }
}

impl std::fmt::Display for HostPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.protocol, self.ports)
    }
}

impl HostPorts {
    fn protocol(self) -> netd_api::Protocol {
        match self.protocol {
            Protocol::Tcp => netd_api::Protocol::Tcp,
            Protocol::Udp => netd_api::Protocol::Udp,
        }
    }
}

/// `vm1`, `vm1:22`, `192.168.122.10:8000-8010`, `[fd00::10]:22`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    guest: Option<String>,
    address: Option<String>,
    ports: Option<Ports>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whom, ports) = match text.rsplit_once(':') {
            _ if ipv6(text).is_some() => (text, None),
            Some((whom, ports)) => (whom, Some(ports.parse().map_err(|cause: ForwardError| cause.to_string())?)),
            None => (text, None),
        };
        if whom.is_empty() {
            return Err("the guest's name is missing before the ':'".to_owned());
        }
        match forward_address(ipv6(whom).unwrap_or(whom)) {
            Ok(address) => Ok(Target { guest: None, address: Some(address.to_string()), ports }),
            Err(_) => Ok(Target { guest: Some(whom.to_owned()), address: None, ports }),
        }
    }
}

/// The IPv6 address that all of it is, in brackets or without.
fn ipv6(text: &str) -> Option<&str> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<std::net::Ipv6Addr>().is_ok().then_some(bare)
}

impl Target {
    fn for_host(&self, host: Ports) -> Result<ForwardTarget, ForwardError> {
        let port = self.ports.unwrap_or(host).first_for(host)?;
        Ok(ForwardTarget { guest: self.guest.clone(), address: self.address.clone(), port: port.into() })
    }
}

pub(super) async fn add(socket: &Path, args: &ForwardAddArgs) -> Result<Output, Failure> {
    let (name, host) = (args.network.as_str(), args.ports);
    let message = format!("Failed to forward {host} to network {name}");
    let targets: Result<Vec<_>, _> = args.targets.iter().map(|target| target.for_host(host.ports)).collect();
    let request = Forward {
        network: name.to_owned(),
        protocol: host.protocol(),
        first_port: host.ports.first().into(),
        last_port: host.ports.last().into(),
        address: args.address.clone(),
        targets: targets.map_err(|cause| Failure::new(message.clone()).because(cause.to_string()))?,
    };
    let failed = |e| Failure::client(message.clone(), About::Network(name), &e);
    let reply = connect(socket).await.map_err(failed)?.add_forward(request).await.map_err(failed)?;
    let ForwardReply { forward, notices } = reply;
    let whom: Vec<String> = forward.targets.iter().map(|target| format::target(&forward, target)).collect();
    let text = format!("Port {host} forwarded to {}\n", whom.join(", "));
    Ok(Output::done(text, json!(forward)).with_notices(notices))
}

pub(super) async fn delete(socket: &Path, args: &ForwardDeleteArgs) -> Result<Output, Failure> {
    let (name, host) = (args.network.as_str(), args.ports);
    let failed =
        |e| Failure::client(format!("Failed to end the forward of {host} to network {name}"), About::Network(name), &e);
    let request = DeleteForward {
        network: name.to_owned(),
        protocol: host.protocol(),
        first_port: host.ports.first().into(),
        last_port: host.ports.last().into(),
        address: args.address.clone(),
    };
    let reply = connect(socket).await.map_err(failed)?.delete_forward(request).await.map_err(failed)?;
    let text = format!("Port {host} not forwarded any more\n");
    Ok(Output::done(text, json!(reply.forward)).with_notices(reply.notices))
}

pub(super) async fn list(socket: &Path, args: &ForwardListArgs) -> Result<Output, Failure> {
    let about = args.network.as_deref().map_or(About::Nothing, About::Network);
    let failed = |e| Failure::client("Failed to list forwards", about, &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let forwards = client.list_forwards(args.network.clone()).await.map_err(failed)?.forwards;
    Ok(Output::table(format::forwards(&forwards), json!(forwards)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_ports_and_targets() {
        let ports: HostPorts = "udp/5000-5010".parse().unwrap();
        assert_eq!(ports.to_string(), "udp/5000-5010");
        for text in ["tcp", "tcp/", "22/tcp", "icmp/1", "tcp/0", "tcp/9-8"] {
            assert!(text.parse::<HostPorts>().is_err(), "{text}");
        }
        let read = |text: &str| {
            let target: Target = text.parse()?;
            Ok((target.guest, target.address, target.ports.map(|ports| ports.to_string())))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(read("vm1"), Ok((text("vm1"), None, None)));
        assert_eq!(read("vm1:22"), Ok((text("vm1"), None, text("22"))));
        assert_eq!(read("a:b:8000-8010"), Ok((text("a:b"), None, text("8000-8010"))));
        assert_eq!(read("10.0.0.2:22"), Ok((None, text("10.0.0.2"), text("22"))));
        assert_eq!(read("fd00::1"), Ok((None, text("fd00::1"), None)));
        assert_eq!(read("[fd00::1]"), Ok((None, text("fd00::1"), None)));
        assert_eq!(read("[fd00::1]:22-23"), Ok((None, text("fd00::1"), text("22-23"))));
        for wrong in [":22", "vm1:", "vm1:ssh", "[fd00::1]:ssh"] {
            let error: String = read(wrong).unwrap_err();
            assert!(!error.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn a_target_without_a_port_has_the_hosts() {
        let host: HostPorts = "tcp/8000-8003".parse().unwrap();
        let port = |text: &str| text.parse::<Target>().unwrap().for_host(host.ports).map(|target| target.port);
        assert_eq!(port("vm1"), Ok(8000));
        assert_eq!(port("vm1:9000-9003"), Ok(9000));
        assert_eq!(port("vm1:9000").unwrap_err().to_string(), "the ranges 8000-8003 and 9000 differ in length");
    }
}
