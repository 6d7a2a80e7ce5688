//! EDGE: reads what limits links, by rtnetlink's traffic control.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Netlink, ObserveError};
use crate::host::Link;
use crate::shape::{
    Shape,
    message::{of_our_kind, shape},
};

impl Netlink {
    /// What limits links, by their index; those without anything of our kind are left out.
    pub(crate) async fn shapes(&self) -> Result<BTreeMap<u32, Shape>, ObserveError> {
        let every_one = self.ask(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP).await?;
        self.shapes_from(every_one).await
    }

    /// What limits these links.
    pub(super) async fn shapes_of(&self, links: &[Link]) -> Result<BTreeMap<u32, Shape>, ObserveError> {
        let mut disciplines = Vec::new();
        for link in links {
            for parent in [TcHandle::ROOT, TcHandle::INGRESS] {
                let question = RouteNetlinkMessage::GetQueueDiscipline(on(link.index, parent));
                // The kernel says nothing of a discipline of its own, and of another only to who wants to hear what was
                // told to all: its word that it is done ends the answer.
                disciplines.extend(self.ask(question, NLM_F_ACK | NLM_F_ECHO).await?);
            }
        }
        self.shapes_from(disciplines).await
    }

    async fn shapes_from(&self, disciplines: Vec<TcMessage>) -> Result<BTreeMap<u32, Shape>, ObserveError> {
        let mut found: BTreeMap<u32, (Option<TcMessage>, bool)> = BTreeMap::new();
        for message in disciplines {
            match of_our_kind(&message) {
                Some((index, false)) => found.entry(index).or_default().0 = Some(message),
                Some((index, true)) => found.entry(index).or_default().1 = true,
                None => {}
            }
        }
        let mut shapes = BTreeMap::new();
        for (index, (root, receives)) in found {
            let (mut classes, mut filters, mut incoming) = (Vec::new(), Vec::new(), None);
            if root.is_some() {
                classes =
                    self.ask(RouteNetlinkMessage::GetTrafficClass(on(index, TcHandle::UNSPEC)), NLM_F_DUMP).await?;
                let of_root = on(index, TcHandle { major: 1, minor: 0 });
                filters = self.ask(RouteNetlinkMessage::GetTrafficFilter(of_root), NLM_F_DUMP).await?;
            }
            if receives {
                let of_ingress = on(index, TcHandle { major: 0xffff, minor: 0 });
                incoming = Some(self.ask(RouteNetlinkMessage::GetTrafficFilter(of_ingress), NLM_F_DUMP).await?);
            }
            shapes.insert(index, shape(root.as_ref(), &classes, &filters, incoming.as_deref()));
        }
        Ok(shapes)
    }

    /// For one thing with `NLM_F_ACK | NLM_F_ECHO`, for all there are with `NLM_F_DUMP`.
    async fn ask(&self, question: RouteNetlinkMessage, flags: u16) -> Result<Vec<TcMessage>, ObserveError> {
        use RouteNetlinkMessage::{NewQueueDiscipline, NewTrafficClass, NewTrafficFilter};
        let failed = |cause| ObserveError::Dump { what: "traffic control", cause };
        let mut request = NetlinkMessage::from(question);
        request.header.flags = NLM_F_REQUEST | flags;
        let _alone = self.dumping.lock().await;
        let answer = self.handle.clone().request(request).map_err(failed)?;
        let messages = answer.map(|message| match message.payload {
            NetlinkPayload::InnerMessage(
                NewQueueDiscipline(message) | NewTrafficClass(message) | NewTrafficFilter(message),
            ) => Ok(Some(message)),
            // A link that has gone in the meantime has nothing, and one that nothing limits has nothing to ask for.
            NetlinkPayload::Error(error)
                if [libc::ENODEV, libc::ENOENT].contains(&-error.raw_code()) || error.code.is_none() =>
            {
                Ok(None)
            }
            NetlinkPayload::Error(error) => Err(failed(rtnetlink::Error::NetlinkError(error))),
            _ => Ok(None),
        });
        messages.try_filter_map(|message| std::future::ready(Ok(message))).try_collect().await
    }
}

fn on(index: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent;
    message
}
