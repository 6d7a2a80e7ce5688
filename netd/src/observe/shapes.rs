//! EDGE: reads what limits links, by rtnetlink's traffic control.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Netlink, ObserveError};
use crate::shape::{
    Shape,
    message::{of_our_kind, shape},
};

impl Netlink {
    /// What limits links, by their index; those without anything of our kind are left out.
    pub(crate) async fn shapes(&self) -> Result<BTreeMap<u32, Shape>, ObserveError> {
        let mut found: BTreeMap<u32, (Option<TcMessage>, bool)> = BTreeMap::new();
        for message in self.dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default())).await? {
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
                classes = self.dump(RouteNetlinkMessage::GetTrafficClass(on(index, TcHandle::UNSPEC))).await?;
                let of_root = on(index, TcHandle { major: 1, minor: 0 });
                filters = self.dump(RouteNetlinkMessage::GetTrafficFilter(of_root)).await?;
            }
            if receives {
                let of_ingress = on(index, TcHandle { major: 0xffff, minor: 0 });
                incoming = Some(self.dump(RouteNetlinkMessage::GetTrafficFilter(of_ingress)).await?);
            }
            shapes.insert(index, shape(root.as_ref(), &classes, &filters, incoming.as_deref()));
        }
        Ok(shapes)
    }

    async fn dump(&self, question: RouteNetlinkMessage) -> Result<Vec<TcMessage>, ObserveError> {
        use RouteNetlinkMessage::{NewQueueDiscipline, NewTrafficClass, NewTrafficFilter};
        let failed = |cause| ObserveError::Dump { what: "traffic control", cause };
        let mut request = NetlinkMessage::from(question);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let _alone = self.dumping.lock().await;
        let answer = self.handle.clone().request(request).map_err(failed)?;
        let messages = answer.map(|message| match message.payload {
            NetlinkPayload::InnerMessage(
                NewQueueDiscipline(message) | NewTrafficClass(message) | NewTrafficFilter(message),
            ) => Ok(Some(message)),
            // A link that has gone in the meantime has nothing.
            NetlinkPayload::Error(error) if -error.raw_code() == libc::ENODEV || error.code.is_none() => Ok(None),
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
