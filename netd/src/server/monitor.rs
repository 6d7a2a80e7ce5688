//! EDGE: the replies of `Monitor` on their socket: one call, many replies. It passes on what a listener hears.
//!
//! A client that takes its replies slowly fills its socket, then its queue in the bus, and then loses events; a client
//! that takes nothing at all is hung up on. Nobody else notices either.

use netd_api::{Event, Told};
use zlink::{Connection, Reply};

use super::{RawCall, limits::Bounded, timed};
use crate::events::{Heard, Listener};

/// Tells a client of the network's events, or of all, until it hangs up or says anything else.
pub(super) async fn tell(
    connection: Connection<Bounded>,
    mut listener: Listener,
    network: Option<String>,
) -> zlink::Result<()> {
    let (mut read, mut write) = connection.split();
    let mut told = Told { event: None, missed: 0 };
    loop {
        let reply = Reply::new(Some(&told)).set_continues(Some(true));
        timed(write.send_reply(&reply, Vec::new())).await?;
        told = tokio::select! {
            told = next(&mut listener, network.as_deref()) => match told {
                Some(told) => told,
                None => return Ok(()),
            },
            // This connection is for events until its end: who has more to ask makes another one.
            _ = read.receive_call::<RawCall>() => return Ok(()),
        };
    }
}

/// The next thing to tell; `None` when there is never anything again.
async fn next(listener: &mut Listener, network: Option<&str>) -> Option<Told> {
    loop {
        match listener.next().await? {
            Heard::Event(event) if is_about(&event, network) => {
                return Some(Told { event: Some((*event).clone()), missed: 0 });
            }
            Heard::Event(_) => {}
            Heard::Missed(missed) => return Some(Told { event: None, missed }),
        }
    }
}

/// Whether it happened on the network, or to all of them.
fn is_about(event: &Event, network: Option<&str>) -> bool {
    match (&event.network, network) {
        (Some(where_), Some(wanted)) => where_ == wanted,
        _ => true,
    }
}
