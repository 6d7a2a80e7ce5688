//! EDGE: firewalld over D-Bus (firewalld.dbus(5)): bridges are put into zones, and taken out when their network stops.

use std::collections::BTreeMap;

use zbus::Connection;

use super::Wish;

/// Its name on the bus.
pub(super) const NAME: &str = "org.fedoraproject.FirewallD1";

#[zbus::proxy(
    interface = "org.fedoraproject.FirewallD1.zone",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
trait Zones {
    #[zbus(name = "getZones")]
    fn get_zones(&self) -> zbus::Result<Vec<String>>;
    #[zbus(name = "getZoneOfInterface")]
    fn get_zone_of_interface(&self, interface: &str) -> zbus::Result<String>;
    #[zbus(name = "changeZoneOfInterface")]
    fn change_zone_of_interface(&self, zone: &str, interface: &str) -> zbus::Result<String>;
    #[zbus(name = "removeInterface")]
    fn remove_interface(&self, zone: &str, interface: &str) -> zbus::Result<String>;
}

#[zbus::proxy(
    interface = "org.fedoraproject.FirewallD1",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
pub(super) trait Firewall {
    /// Its rules are all new, and what was only said at run time is gone.
    #[zbus(signal, name = "Reloaded")]
    fn reloaded(&self) -> zbus::Result<()>;
}

/// What it was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The zone of a bridge that we put there.
    zones: BTreeMap<String, String>,
    /// Bridges whose zones are missing, once said.
    missing: Vec<String>,
}

impl Told {
    /// It may know nothing any more.
    pub(super) fn forget(&mut self) {
        self.zones.clear();
        self.missing.clear();
    }

    /// Puts bridges where they belong, and takes out those that are gone.
    pub(super) async fn tell(&mut self, connection: &Connection, wishes: &[Wish]) -> zbus::Result<()> {
        let firewalld = ZonesProxy::new(connection).await?;
        let gone: Vec<(String, String)> = self
            .zones
            .iter()
            .filter(|(bridge, _)| !wishes.iter().any(|wish| wish.bridge == **bridge))
            .map(|(bridge, zone)| (bridge.clone(), zone.clone()))
            .collect();
        for (bridge, zone) in gone {
            self.zones.remove(&bridge);
            if let Err(error) = firewalld.remove_interface(&zone, &bridge).await {
                tracing::debug!("firewalld keeps {bridge} in zone {zone}: {error}");
            }
        }
        self.missing.retain(|bridge| wishes.iter().any(|wish| wish.bridge == *bridge));
        if wishes.iter().all(|wish| wish.zones.is_empty()) {
            return Ok(());
        }
        let present = firewalld.get_zones().await?;
        for wish in wishes.iter().filter(|wish| !wish.zones.is_empty()) {
            let Some(zone) = wish.zones.iter().find(|zone| present.contains(zone)) else {
                // A user who has put it into another zone has nothing to mend.
                if wish.zone_is_named || firewalld.get_zone_of_interface(&wish.bridge).await?.is_empty() {
                    self.say_missing(wish);
                }
                continue;
            };
            if self.zones.get(&wish.bridge) == Some(zone) {
                continue;
            }
            put(&firewalld, wish, zone).await?;
            self.zones.insert(wish.bridge.clone(), zone.clone());
        }
        Ok(())
    }

    fn say_missing(&mut self, wish: &Wish) {
        let Wish { network, bridge, zones, .. } = wish;
        if self.missing.contains(bridge) {
            return;
        }
        self.missing.push(bridge.clone());
        let zone = zones.last().map_or("", String::as_str);
        tracing::warn!(
            "network {network}: firewalld has no zone {zone}, so its default zone decides what guests on {bridge} reach; \
             run: firewall-cmd --permanent --new-zone={zone} && firewall-cmd --permanent --zone={zone} \
             --set-target=ACCEPT && firewall-cmd --reload"
        );
    }
}

/// Puts a bridge into a zone, unless a user has put it elsewhere and the network's XML names none: that is meant.
async fn put(firewalld: &ZonesProxy<'_>, wish: &Wish, zone: &str) -> zbus::Result<()> {
    let Wish { network, bridge, .. } = wish;
    let now = firewalld.get_zone_of_interface(bridge).await?;
    if now != zone && !now.is_empty() && !is_ours(&now) && !wish.zone_is_named {
        tracing::info!("network {network}: {bridge} stays in firewalld's zone {now}");
    } else if now != zone {
        match firewalld.change_zone_of_interface(zone, bridge).await {
            Ok(_) => tracing::info!("network {network}: {bridge} is in firewalld's zone {zone}"),
            Err(error) => tracing::warn!("network {network}: firewalld does not take {bridge}: {error}"),
        }
    }
    Ok(())
}

fn is_ours(zone: &str) -> bool {
    [super::ZONE, super::ROUTED_ZONE].contains(&zone)
}
