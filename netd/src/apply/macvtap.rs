//! EDGE: makes and removes macvtap devices, by rtnetlink.

use netlink_packet_route::link::MacVtapMode;
use rtnetlink::{LinkMacVtap, LinkUnspec};

use super::{
    StepError,
    links::{find, gone_is_fine, index_of, refused, up},
};
use crate::{
    host::{Link, LinkKind},
    model::{MacAddr, MacvtapMode},
    observe::Netlink,
};

/// Names are tried from this on; other programs make macvtaps too.
const STEM: &str = "macvtap";

/// Makes a macvtap, down, on an interface of the host; nothing is left on an error. The interface is set up, which it
/// has to be for anything to pass.
pub(super) async fn create(
    netlink: &Netlink,
    interface: &str,
    mode: MacvtapMode,
    mac: MacAddr,
    mtu: Option<u32>,
) -> Result<Link, StepError> {
    let Some(lower) = find(netlink, interface).await? else { return Err(StepError::NoLink(interface.to_owned())) };
    if !lower.up {
        up(netlink, interface).await?;
    }
    let name = add(netlink, lower.index, mode, mac).await?;
    let found = match finish(netlink, &name, mtu).await {
        Ok(Some(link)) => return Ok(link),
        Ok(None) => StepError::NoLink(name.clone()),
        Err(error) => error,
    };
    if let Ok(index) = index_of(netlink, &name).await {
        delete(netlink, index, &name).await?;
    }
    Err(found)
}

async fn finish(netlink: &Netlink, name: &str, mtu: Option<u32>) -> Result<Option<Link>, StepError> {
    if let Some(mtu) = mtu {
        super::links::set(netlink, LinkUnspec::new_with_name(name).mtu(mtu).build()).await?;
    }
    find(netlink, name).await
}

/// The name is ours to choose, and someone may be quicker.
async fn add(netlink: &Netlink, lower: u32, mode: MacvtapMode, mac: MacAddr) -> Result<String, StepError> {
    let mode = match mode {
        MacvtapMode::Bridge => MacVtapMode::Bridge,
        MacvtapMode::Private => MacVtapMode::Private,
        MacvtapMode::Vepa => MacVtapMode::Vepa,
        MacvtapMode::Passthrough => MacVtapMode::Passthrough,
    };
    let taken: Vec<String> = netlink.links().await?.into_iter().map(|link| link.name).collect();
    for name in (0..u32::MAX).map(|number| format!("{STEM}{number}")).filter(|name| !taken.contains(name)) {
        let message = LinkMacVtap::new(&name, lower, mode).address(mac.0.to_vec()).build();
        match netlink.handle.link().add(message).execute().await {
            Ok(()) => return Ok(name),
            Err(rtnetlink::Error::NetlinkError(message)) if -message.raw_code() == libc::EEXIST => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Err(StepError::NoLink(STEM.to_owned()))
}

/// Removes the macvtap with this index and name; fine if it is gone.
pub(super) async fn delete(netlink: &Netlink, index: u32, name: &str) -> Result<(), StepError> {
    match find(netlink, name).await? {
        Some(link) if link.index == index && link.kind == LinkKind::Macvtap => {
            gone_is_fine(netlink.handle.link().del(index).execute().await)
        }
        _ => Ok(()),
    }
}
