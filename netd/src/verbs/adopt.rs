//! Verbs for who comes from another manager: its leases, and a network that it runs.

use std::net::Ipv4Addr;

use netd_api::{AdoptedPort, Imported, NetworkReply};

use super::{Host, VerbError, Verbs, parse_mac};
use crate::{apply, model::NetworkName, registry::Refusal, xml};

impl<H: Host> Verbs<H> {
    /// Gives a network leases that another DHCP server made.
    pub async fn import_leases(&self, key: &str, leases: &[netd_api::Lease]) -> Result<Imported, VerbError> {
        let _turn = self.turn.lock().await;
        let name = self.registry().find(key)?.0.clone();
        let leases = leases.iter().map(lease).collect::<Result<Vec<_>, _>>()?;
        let imported = self.take_leases(&name, leases).await?;
        Ok(Imported { imported: u32::try_from(imported).unwrap_or(u32::MAX) })
    }

    async fn take_leases(&self, name: &NetworkName, leases: Vec<dhcp::Lease>) -> Result<usize, VerbError> {
        let imported = self.host.import_leases(name.as_str(), leases).await.map_err(apply::StepError::from)?;
        tracing::info!("network {name}: {imported} leases imported");
        Ok(imported)
    }

    /// Takes over a network that another manager runs, with taps of its guests. On an error its bridge and what is on
    /// it are as they were.
    pub async fn adopt(
        &self,
        text: &str,
        ports: &[AdoptedPort],
        leases: &[netd_api::Lease],
    ) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let network = xml::parse(text)?;
        let name = network.name.clone();
        let leases = leases.iter().map(lease).collect::<Result<Vec<_>, _>>()?;
        let host = self.host.observe().await?;
        let (start, ports) = self.registry().adopt(network, ports, &host)?;
        // Before anybody is served: an address that has a lease is given to nobody else.
        self.take_leases(&name, leases).await?;
        let reply = match self.carry_out_start(start).await {
            Ok(reply) => reply,
            Err(error) => {
                if !self.registry().contains(&name) {
                    self.forget(&name).await?;
                }
                return Err(error);
            }
        };
        for port in ports {
            // The network runs: a port that cannot be kept is only unknown to the next daemon.
            if let Err(error) = self.store.save_port(&port) {
                tracing::error!("{error}");
            }
            tracing::info!("port {} of network {name} taken over", port.interface);
            self.registry_mut().port_added(port);
        }
        self.publish_ports(&name);
        if let Err(error) = self.sync_forwards().await {
            tracing::error!("port forwards do not follow the guests: {error}");
        }
        Ok(reply)
    }
}

fn lease(lease: &netd_api::Lease) -> Result<dhcp::Lease, VerbError> {
    let bad = |what, value: &str, expected: &str| {
        VerbError::from(Refusal::Argument { what, value: value.to_owned(), expected: expected.into() })
    };
    let address: Ipv4Addr = lease
        .address
        .parse()
        .map_err(|_| bad("address", &lease.address, "an IPv4 address: leases of IPv6 cannot be imported"))?;
    if lease.prefix > 32 {
        return Err(bad("prefix", &lease.prefix.to_string(), "a prefix length of 0 to 32"));
    }
    let client_id = lease
        .client_id
        .as_deref()
        .map(|text| bytes(text).ok_or_else(|| bad("client_id", text, "hexadecimal bytes with colons between")))
        .transpose()?;
    Ok(dhcp::Lease {
        mac: dhcp::config::Mac(parse_mac(&lease.mac)?.0),
        address,
        prefix: lease.prefix,
        hostname: lease.hostname.clone(),
        client_id,
        expiry: u64::try_from(lease.expiry).ok().filter(|expiry| *expiry != 0),
    })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        apply::fake::{Fake, Trouble},
        verbs::tests::{daemon, directory, now},
    };

    const LEASE: &str = "192.168.122.50";

    fn lease() -> netd_api::Lease {
        netd_api::Lease {
            expiry: 0,
            mac: "52:54:00:11:22:33".into(),
            protocol: "ipv4".into(),
            address: LEASE.into(),
            prefix: 24,
            hostname: None,
            client_id: Some("01:02".into()),
            iaid: None,
        }
    }

    /// A host on which somebody else runs the network whose XML this is.
    fn elsewhere() -> (Fake, String) {
        let (fake, theirs) = (Fake::new(), directory());
        let other = daemon(&fake, &theirs).unwrap();
        now(other.start("default")).unwrap();
        let xml = other.dump_xml("default", false).unwrap();
        drop(other);
        fake.kill_daemon();
        (fake, xml)
    }

    #[test]
    fn a_network_that_runs_is_ours_from_then_on_and_stops_like_any_other() {
        let (fake, xml) = elsewhere();
        let before = fake.world().host.clone();
        let ours = directory();
        let verbs = daemon(&fake, &ours).unwrap();
        now(verbs.undefine("default")).unwrap();
        now(verbs.adopt(&xml, &[], &[lease()])).unwrap();
        assert_eq!(fake.world().host.links, before.links, "nothing on the host was touched");
        assert_eq!(verbs.leases("default", None).unwrap().leases[0].address, LEASE);
        assert!(now(verbs.adopt(&xml, &[], &[])).is_err(), "twice");
        drop(verbs);
        fake.kill_daemon();
        let verbs = daemon(&fake, &ours).unwrap();
        assert_eq!(fake.world().host.links, before.links, "the next daemon adopts it as its own");
        now(verbs.destroy("default")).unwrap();
        assert!(fake.world().host.link("virbr0").is_none());
    }

    #[test]
    fn whatever_fails_the_bridge_is_as_it_was() {
        let (fake, xml) = elsewhere();
        let ours = directory();
        let verbs = daemon(&fake, &ours).unwrap();
        now(verbs.undefine("default")).unwrap();
        let before = fake.world().host.clone();
        let first = fake.world().calls;
        now(verbs.adopt(&xml, &[], &[])).unwrap();
        let calls = fake.world().calls - first;
        drop(verbs);
        for at in 1..=calls {
            let (fake, xml) = elsewhere();
            let ours = directory();
            let verbs = daemon(&fake, &ours).unwrap();
            now(verbs.undefine("default")).unwrap();
            let next = fake.world().calls + at;
            fake.world().trouble = Some(Trouble::Fail(next));
            now(verbs.adopt(&xml, &[], &[])).unwrap_err();
            let host = fake.world().host.clone();
            assert_eq!(
                (host.links.len(), host.addresses.len()),
                (before.links.len(), before.addresses.len()),
                "call {at}"
            );
            assert!(host.link("virbr0").is_some(), "call {at}");
            assert!(verbs.list().networks.is_empty(), "call {at}");
        }
    }

    #[test]
    fn what_is_not_there_as_the_xml_says_is_refused() {
        let (fake, xml) = elsewhere();
        let ours = directory();
        let verbs = daemon(&fake, &ours).unwrap();
        now(verbs.undefine("default")).unwrap();
        let refused = |xml: &str, ports: &[AdoptedPort]| now(verbs.adopt(xml, ports, &[])).unwrap_err().to_string();
        assert!(refused(&xml.replace("virbr0", "virbr9"), &[]).contains("there is no bridge virbr9"));
        let from = xml.find("<mac address='").unwrap() + 14;
        let other_mac = format!("{}52:54:00:00:00:77{}", &xml[..from], &xml[from + 17..]);
        assert!(refused(&other_mac, &[]).contains("not 52:54:00:00:00:77"));
        let port =
            |interface: &str, mac: &str| AdoptedPort { interface: interface.into(), mac: mac.into(), guest: None };
        assert!(refused(&xml, &[port("vnet9", "52:54:00:00:00:01")]).contains("there is no interface vnet9"));
        assert!(refused(&xml, &[port("virbr0", "52:54:00:00:00:01")]).contains("virbr0 is not a tap on bridge virbr0"));
        assert!(refused(&xml, &[port("virbr0", "nonsense")]).contains("nonsense"));
        let bad = netd_api::Lease { address: "fd00::1".into(), ..lease() };
        assert!(now(verbs.adopt(&xml, &[], &[bad])).unwrap_err().to_string().contains("IPv6"));
        assert!(verbs.list().networks.is_empty());
    }
}
