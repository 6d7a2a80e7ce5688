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
