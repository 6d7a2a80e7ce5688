//! EDGE: systemd-resolved over D-Bus (org.freedesktop.resolve1(5)): a link's servers, and the domains to ask them for.

use std::{collections::BTreeMap, net::IpAddr};

use zbus::Connection;

use super::{Names, Wish};

/// Its name on the bus.
pub(super) const NAME: &str = "org.freedesktop.resolve1";

#[zbus::proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1"
)]
trait Manager {
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, link: i32, servers: &[(i32, Vec<u8>)]) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSEx")]
    fn set_link_dns_ex(&self, link: i32, servers: &[(i32, Vec<u8>, u16, &str)]) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDomains")]
    fn set_link_domains(&self, link: i32, domains: &[(&str, bool)]) -> zbus::Result<()>;
    #[zbus(name = "RevertLink")]
    fn revert_link(&self, link: i32) -> zbus::Result<()>;
}

/// What it was told, by the link's index.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<u32, Names>);

impl Told {
    /// It knows nothing any more.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Tells it what it does not know, and takes back what is no more so. `index` finds links by name.
    pub(super) async fn tell(
        &mut self,
        connection: &Connection,
        wishes: &[Wish],
        index: impl Fn(&str) -> Option<u32>,
        exists: impl Fn(u32) -> bool,
    ) -> zbus::Result<()> {
        let manager = ManagerProxy::new(connection).await?;
        let wanted: BTreeMap<u32, (&str, &Names)> = wishes
            .iter()
            .filter_map(|wish| Some((index(&wish.bridge)?, (wish.network.as_str(), wish.names.as_ref()?))))
            .collect();
        let gone: Vec<u32> = self.0.keys().copied().filter(|link| !wanted.contains_key(link)).collect();
        for link in gone {
            self.0.remove(&link);
            // With a link goes what was said of it.
            if exists(link) {
                manager.revert_link(link.cast_signed()).await?;
            }
        }
        for (link, (network, names)) in wanted {
            if self.0.get(&link) == Some(names) {
                continue;
            }
            match set(&manager, link.cast_signed(), names).await {
                Ok(()) => tracing::info!("network {network}: the host asks it for {}", names.domains.join(", ")),
                Err(error) => tracing::warn!("network {network}: systemd-resolved does not take its domain: {error}"),
            }
            // What it refused is not said again before something changes.
            self.0.insert(link, names.clone());
        }
        Ok(())
    }
}

async fn set(manager: &ManagerProxy<'_>, link: i32, names: &Names) -> zbus::Result<()> {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let plain: Vec<(i32, Vec<u8>)> = names.servers.iter().map(|(server, _)| address(*server)).collect();
    if names.servers.iter().all(|(_, port)| *port == 53) {
        manager.set_link_dns(link, &plain).await?;
    } else {
        let with_ports: Vec<(i32, Vec<u8>, u16, &str)> = plain
            .into_iter()
            .zip(&names.servers)
            .map(|((family, bytes), (_, port))| (family, bytes, *port, ""))
            .collect();
        manager.set_link_dns_ex(link, &with_ports).await?;
    }
    // True: only for routing; nothing is searched in them.
    let domains: Vec<(&str, bool)> = names.domains.iter().map(|domain| (domain.as_str(), true)).collect();
    manager.set_link_domains(link, &domains).await
}
