//! EDGE: reads what of the host one network is about, and of the rest no more than who uses its subnets.

use std::{collections::BTreeMap, pin::pin};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage},
};

use super::{Netlink, ObserveError, address, forwarding, link_and_vlan, route, users};
use crate::host::{Focus, HostState, Link, LinkKind};

impl Netlink {
    /// What [`HostState::around`] leaves of the whole host.
    pub async fn observe_around(&self, focus: &Focus) -> Result<HostState, ObserveError> {
        let (forwarding, forwarding6) = forwarding()?;
        let (mut addresses, mut routes) = (Vec::new(), Vec::new());
        let mut indices = focus.indices.clone();
        if !focus.subnets.is_empty() {
            let users = users::of(&focus.subnets).map_err(ObserveError::Socket)?;
            indices.extend(users.links);
            routes = users.nowhere;
        }
        let mut host = HostState { forwarding, forwarding6, ..HostState::default() };
        for name in &focus.names {
            self.look_at(&mut host, Some(name), 0).await?;
        }
        for index in indices {
            if !host.links.iter().any(|link| link.index == index) {
                self.look_at(&mut host, None, index).await?;
            }
        }
        for link in &host.links {
            let get = self.strict.address().get().set_link_index_filter(link.index);
            addresses.extend(self.collect("addresses", || get.execute(), address).await?);
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                // Nothing else may be said, or the kernel looks for that too.
                let mut of_link = RouteMessage::default();
                of_link.header.address_family = family;
                of_link.attributes.push(RouteAttribute::Oif(link.index));
                let get = self.strict.route().get(of_link);
                routes.extend(self.collect("routes", || get.execute(), route).await?);
            }
        }
        host.shapes = self.shapes_of(&host.links).await?;
        let filters = |link: &Link| matches!(link.kind, LinkKind::Bridge { vlan_filtering: true, .. });
        host.vlans = if host.links.iter().any(filters) { self.vlans().await? } else { BTreeMap::new() };
        Ok(HostState { addresses, routes, ..host }.around(focus))
    }

    /// Adds the link of this name or index, if there is one.
    async fn look_at(&self, host: &mut HostState, name: Option<&str>, index: u32) -> Result<(), ObserveError> {
        let get = self.handle.link().get();
        let get = match name {
            Some(name) => get.match_name(name),
            None => get.match_index(index),
        };
        let mut answer = pin!(get.execute());
        match answer.try_next().await {
            Ok(found) => {
                if let Some((link, vlan)) = found.and_then(link_and_vlan) {
                    host.default_vlans.extend(vlan.map(|vlan| (link.index, vlan)));
                    host.links.push(link);
                }
                Ok(())
            }
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(()),
            Err(cause) => Err(ObserveError::Dump { what: "link", cause }),
        }
    }
}

#[cfg(test)]
mod tests;
