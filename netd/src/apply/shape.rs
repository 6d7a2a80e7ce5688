//! EDGE: limits how fast links are, by rtnetlink's traffic control.

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};

use super::StepError;
use crate::{
    observe::Netlink,
    shape::{
        Change, Shape, changes,
        message::{Verb, message},
    },
};

/// Gives the link with this index the shape it should have, changing only what differs; fine if the link is gone and
/// free it should be. If something of it cannot be had, the link is as it was before.
pub(super) async fn shape(netlink: &Netlink, index: u32, wanted: &Shape) -> Result<(), StepError> {
    let found = netlink.shapes().await?.remove(&index).unwrap_or_default();
    let result = carry_out(netlink, index, &changes(wanted, &found), wanted.is_free()).await;
    if result.is_err() {
        let now = netlink.shapes().await?.remove(&index).unwrap_or_default();
        if let Err(error) = carry_out(netlink, index, &changes(&found, &now), true).await {
            tracing::error!("the link with index {index} stays limited in part: {error}");
        }
    }
    result
}

async fn carry_out(netlink: &Netlink, index: u32, changes: &[Change], fine_if_gone: bool) -> Result<(), StepError> {
    for change in changes {
        match send(netlink, index, change).await {
            Ok(()) => {}
            // A kernel without fair queues: the plain one that is there does as well.
            Err(error) if matches!(change, Change::AddQueue { .. }) && is(&error, &[libc::ENOENT]) => {}
            Err(error) if fine_if_gone && is(&error, &GONE) => {}
            Err(error) => return Err(refused(error, change)),
        }
    }
    Ok(())
}

/// How the kernel calls links and disciplines that are not there: a discipline of none is `EINVAL` too.
const GONE: [i32; 3] = [libc::ENODEV, libc::ENOENT, libc::EINVAL];

async fn send(netlink: &Netlink, index: u32, change: &Change) -> Result<(), rtnetlink::Error> {
    use RouteNetlinkMessage::{
        DelQueueDiscipline, DelTrafficClass, DelTrafficFilter, NewQueueDiscipline, NewTrafficClass, NewTrafficFilter,
    };
    let (verb, message) = message(index, change);
    let (payload, flags) = match verb {
        Verb::PutDiscipline => (NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE),
        Verb::DeleteDiscipline => (DelQueueDiscipline(message), 0),
        Verb::PutClass => (NewTrafficClass(message), NLM_F_CREATE | NLM_F_REPLACE),
        Verb::DeleteClass => (DelTrafficClass(message), 0),
        Verb::AddFilter => (NewTrafficFilter(message), NLM_F_CREATE | NLM_F_EXCL),
        Verb::DeleteFilter => (DelTrafficFilter(message), 0),
    };
    let mut request = NetlinkMessage::from(payload);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answer = netlink.handle.clone().request(request)?;
    while let Some(message) = answer.next().await {
        if let NetlinkPayload::Error(error) = message.payload
            && error.code.is_some()
        {
            return Err(rtnetlink::Error::NetlinkError(error));
        }
    }
    Ok(())
}

fn is(error: &rtnetlink::Error, codes: &[i32]) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if codes.contains(&-message.raw_code()))
}

fn refused(error: rtnetlink::Error, change: &Change) -> StepError {
    // What the kernel has not got it calls `ENOENT`: the kind of a discipline, a filter or an action.
    let missing = match change {
        _ if !is(&error, &[libc::ENOENT]) => None,
        Change::AddRoot { .. } => Some("sch_htb (CONFIG_NET_SCH_HTB)"),
        Change::AddFilter { .. } => Some("cls_u32 (CONFIG_NET_CLS_U32)"),
        Change::AddIngress => Some("sch_ingress (CONFIG_NET_SCH_INGRESS)"),
        Change::AddPolice(_) => Some("cls_u32 and act_police (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_POLICE)"),
        _ => None,
    };
    match missing {
        Some(module) => StepError::NoModule { what: "limit bandwidth", module },
        None => super::links::refused(error),
    }
}
