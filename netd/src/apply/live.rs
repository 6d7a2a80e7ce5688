//! EDGE: changes a running network in place: bridge and tap settings, routes, and per-bridge sysctls that make it smooth.

use std::{fs, io};

use netlink_packet_route::link::InfoData;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::{Executor, Kernel, Outcome, StepError, links};
use crate::{
    change::{LinkLocal, LiveStep},
    plan::Undo,
};

pub(super) async fn run(kernel: &Kernel, step: &LiveStep) -> Result<Outcome, StepError> {
    let netlink = &kernel.netlink;
    match step {
        LiveStep::SetMac { bridge, mac, ipv6 } => {
            // The kernel then tells the guests of the new address by itself, with a gratuitous ARP (RFC 5227 §3), before
            // any of them sends to the old one again.
            set_where_it_exists(&format!("/proc/sys/net/ipv4/conf/{bridge}/arp_notify"))?;
            set_where_it_exists(&format!("/proc/sys/net/ipv6/conf/{bridge}/ndisc_notify"))?;
            links::set(netlink, LinkUnspec::new_with_name(bridge).address(mac.0.to_vec()).build()).await?;
            if let Some(LinkLocal { old, new }) = ipv6 {
                match links::add_address(netlink, bridge, *new).await {
                    Err(StepError::Kernel(cause)) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                    result => result?,
                }
                links::remove_address(netlink, bridge, *old).await?;
            }
        }
        LiveStep::SetMtu { bridge, mtu } => {
            links::set(netlink, LinkUnspec::new_with_name(bridge).mtu(*mtu).build()).await?;
        }
        LiveStep::SetPortMtu { index, mtu } => {
            let message = LinkUnspec::new_with_index(*index).mtu(*mtu).build();
            links::gone_is_fine(netlink.handle.link().set(message).execute().await)?;
        }
        LiveStep::SetSpanningTree { bridge, on, delay } => {
            let index = links::index_of(netlink, bridge).await?;
            let settings = links::spanning_tree(*on, *delay);
            let message = LinkMessageBuilder::<LinkBridge>::new(bridge)
                .index(index)
                .set_info_data(InfoData::Bridge(settings))
                .build();
            netlink
                .handle
                .link()
                .add(message)
                .set_flags(links::NEWLINK_CHANGES)
                .execute()
                .await
                .map_err(links::refused)?;
        }
        LiveStep::ReplaceRoute { bridge, route } => links::replace_route(netlink, bridge, route).await?,
        LiveStep::Reconfigure { config, .. } => {
            let started = kernel.services.reconfigure((**config).clone()).await?;
            return Ok(Outcome { dns_port: started.dns_port });
        }
        LiveStep::SetFirewall { network, before, after } => kernel.table.change(network, before, after).await?,
        LiveStep::UnpinPort { index, mac } => links::unpin(netlink, *index, *mac).await?,
        LiveStep::TakeBack(undo) => {
            if let Undo::RemoveAddress { bridge, .. } = undo {
                // Else the kernel takes every other address of the subnet along with its first.
                set_where_it_exists(&format!("/proc/sys/net/ipv4/conf/{bridge}/promote_secondaries"))?;
            }
            kernel.undo(undo).await?;
        }
    }
    Ok(Outcome::default())
}

/// Turns a sysctl on; one that this kernel does not have says nothing.
fn set_where_it_exists(path: &str) -> Result<(), StepError> {
    match fs::write(path, "1") {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(StepError::Sysctl { path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}
