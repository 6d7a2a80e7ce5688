//! EDGE: the client side of `Monitor`: a connection on which one event comes after the other.

use serde::Serialize;
use zlink::{Call, tokio::unix};

use crate::{ClientError, Error, Told};

/// The only call such a connection carries.
#[derive(Debug, Serialize)]
#[serde(tag = "method", content = "parameters")]
enum Ask {
    #[serde(rename = "io.netd.Networks.Monitor")]
    Monitor { network: Option<String> },
}

/// Hears what happens on networks, from when it was made: what the daemon is asked after that on another connection is
/// true still, or an event will tell that it is not.
#[derive(Debug)]
pub struct Monitor {
    connection: unix::Connection,
}

impl Monitor {
    pub(crate) async fn ask(mut connection: unix::Connection, network: Option<String>) -> Result<Self, ClientError> {
        let call = Call::new(Ask::Monitor { network }).set_more(true);
        connection.send_call(&call, Vec::new()).await.map_err(ClientError::Transport)?;
        let mut monitor = Monitor { connection };
        // The first reply says that listening has begun.
        monitor.next().await?;
        Ok(monitor)
    }

    /// What happened next, or how much was missed because this was called too late. Nothing is lost if the future is
    /// dropped.
    pub async fn next(&mut self) -> Result<Told, ClientError> {
        let (reply, _) = self.connection.receive_reply::<Told, Error>().await.map_err(ClientError::Transport)?;
        match reply?.into_parameters() {
            Some(told) => Ok(told),
            None => Err(ClientError::Transport(zlink::Error::UnexpectedEof)),
        }
    }
}
