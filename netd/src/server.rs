//! EDGE: the varlink sockets. It decodes calls, hands them to the verbs and encodes what comes back; it decides nothing
//! but who may call what.
//!
//! Every connection is a task of its own, so a client that is slow, silent or never reads what it asked for keeps only
//! itself waiting. How many there may be is bounded, in all and per user.

mod calls;
pub(crate) mod limits;
mod monitor;

use std::{future::Future, io, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use zlink::{Call, Connection, Reply, varlink_service};

use calls::Answer;
use limits::{Bounded, Budget, Seats};

use crate::verbs::{Host, Verbs};

/// What a socket lets its clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Nothing that changes anything.
    ReadOnly,
}

/// A client has this long to take a reply.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// After `accept` failed (no descriptors left, say) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A call before its parameters are looked at.
#[derive(Debug, Deserialize)]
struct RawCall {
    method: String,
    #[serde(default)]
    parameters: Option<serde_json::Value>,
}

/// Serves `listener` until the future is dropped. Calls that are running then run to their end.
pub fn serve<H: Host + 'static>(
    listener: UnixListener,
    access: Access,
    verbs: Arc<Verbs<H>>,
) -> impl Future<Output = ()> + Send {
    let seats = Seats::new();
    async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(seat) = stream.peer_cred().ok().and_then(|peer| seats.take(peer.uid())) else {
                tracing::debug!("too many connections: one refused");
                continue;
            };
            let verbs = Arc::clone(&verbs);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, access, verbs).await {
                    tracing::debug!("connection ended: {error}");
                }
                drop(seat);
            });
        }
    }
}

async fn converse<H: Host>(stream: UnixStream, access: Access, verbs: Arc<Verbs<H>>) -> zlink::Result<()> {
    let budget = Budget::default();
    let mut connection = Connection::new(Bounded::new(stream, budget.clone())?);
    loop {
        budget.renew();
        let (call, _) = match connection.receive_call::<RawCall>().await {
            Ok(received) => received,
            Err(zlink::Error::UnexpectedEof) => return Ok(()),
            Err(error) => return Err(error),
        };
        if call.more() && calls::is_monitor(call.method()) {
            // Before the network is looked for: what becomes of it from then on is told.
            let listener = verbs.listen();
            match calls::monitored(&verbs, call.method()) {
                Ok(network) => {
                    drop(call);
                    return monitor::tell(connection, listener, network).await;
                }
                Err(refused) => {
                    timed(send(&mut connection, &call, refused)).await?;
                    continue;
                }
            }
        }
        let answer = calls::answer(&verbs, access, call.method()).await;
        timed(send(&mut connection, &call, answer)).await?;
    }
}

/// The client must take it in time.
async fn timed(sent: impl Future<Output = zlink::Result<()>>) -> zlink::Result<()> {
    match tokio::time::timeout(WRITE_DEADLINE, sent).await {
        Ok(result) => result,
        Err(late) => Err(io::Error::from(late).into()),
    }
}

async fn send(connection: &mut Connection<Bounded>, call: &Call<RawCall>, answer: Answer) -> zlink::Result<()> {
    if call.oneway() {
        return Ok(());
    }
    match answer {
        Answer::Reply(parameters, fds) => connection.send_reply(&Reply::new(Some(parameters)), fds).await,
        Answer::Refused(error) => connection.send_error(&error, Vec::new()).await,
        Answer::Wrong(error) => connection.send_error::<varlink_service::Error<'_>>(&error, Vec::new()).await,
    }
}

#[cfg(test)]
mod tests;
